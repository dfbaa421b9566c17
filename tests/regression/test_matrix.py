"""The mapping matrix: 20 steps come out the same however the ranks share the work, and seeded
mistakes in that sharing do not go unnoticed."""

import json
import os
import pathlib
import random
import shutil
import struct
import subprocess
import time
import unittest

import harness
import mappings
from mappings import Mapping

DECK = pathlib.Path(__file__).resolve().parent / "decks" / "matrix.toml"
STEPS, TOP_K, VOCABULARY, CLIP = 20, 3, 61, 1.5  # of that deck
BATCH, EXPERTS, LENGTH = mappings.MIXED.batch, mappings.MIXED.experts, mappings.MIXED.length

# The mistakes of a mapping, and which one shows it: the first of the simple ones that has what the
# mistake spoils.
FAULT_STEPS = 4
FAULTS = {
    "data.same_share": mappings.DP,
    "data.labels_shifted": mappings.DP,
    "loss.local_scale": mappings.DP,
    "balance.local_scale": mappings.DP,
    "grad_reduce.dense_missing": mappings.DP,
    "grad_reduce.experts_missing": mappings.DP,
    "grad_reduce.experts_divided": mappings.DP,
    "grad_reduce.last_rank_lost": mappings.DP,
    "metrics.one_rank": mappings.DP,
    "loss.local_vocabulary": mappings.TP,
    "loss.d_hidden_partial": mappings.TP,
    "embedding.double_rows": mappings.TP,
    "init.local_index": mappings.TP,
    "grad_norm.replicas": mappings.TP,
    "grad_reduce.tp_missing": mappings.TP,
    "balance.local_windows": mappings.TP,
    "grad_reduce.too_early": mappings.DP._replace(state="overlap"),
    "values.not_taken": mappings.DP._replace(state="both"),
    "grad_norm.owned_alone": mappings.DP._replace(state="shared"),
    "overlap_tp.order_of_arrival": mappings.TP._replace(overlap_tp=True),
    "overlap_ep.not_awaited": mappings.EP._replace(overlap_ep=True),
    "capacity.local_windows": mappings.CP._replace(routing="padded"),
    "sinkhorn.local_sums": mappings.CP._replace(routing="sinkhorn"),
    "context.wrong_zigzag": mappings.CP,
    "context.merge_without_lse": mappings.CP,
    "context.keys_one_step_late": mappings.CP,
    "context.gradients_not_home": mappings.CP,
    "pipeline.stale_boundary": mappings.PP,
    "grad_norm.tied_twice": mappings.PP,
    "grad_reduce.tied_missing": mappings.PP,
    "grad_norm.local_experts": mappings.EP,
    "experts.wrong_part": mappings.EP,
    "dispatch.weights_unsorted": mappings.EP,
    "allgather.lost_source": mappings.EP_GATHER,
    "etp.wrong_slice": mappings.ETP,
    "etp.weight_gradients": mappings.ETP,
    "etp.partial_outputs": mappings.ETP,
    "grad_norm.etp_twice": mappings.ETP,
}


def write_tokens(path, rows):
    """Sequences that can be learnt, most of them, scored up to a place that varies with the row: so
    every rank scores another number of tokens."""
    draw = random.Random(7)
    tokens, labels = [], []
    for row in range(rows):
        sequence = [draw.randrange(VOCABULARY)]
        while len(sequence) <= LENGTH:
            learnable = draw.random() < 0.8
            sequence.append((3 * sequence[-1] + 7) % VOCABULARY if learnable
                            else draw.randrange(VOCABULARY))
        scored = 1 + row * 7 % LENGTH
        tokens += sequence[:-1]
        labels += sequence[1:scored + 1] + [-1] * (LENGTH - scored)
    shape = [rows, LENGTH]
    harness.write_safetensors(path, {
        "input_ids": ("I32", shape, struct.pack(f"<{len(tokens)}i", *tokens)),
        "labels": ("I32", shape, struct.pack(f"<{len(labels)}i", *labels))})


class Case(harness.Case):
    """Runs of the matrix' deck, and what two of them say to each other."""

    def setUp(self):
        super().setUp()
        write_tokens(self.folder / "tokens.safetensors", STEPS * BATCH)
        self.table = []
        self.addCleanup(self.print_table)

    def print_table(self):
        if self.table:
            print("\n" + "\n".join(self.table), flush=True)

    def train_as(self, mapping, name, *overrides, fault=""):
        """Trains as run `name`; gives back what was printed."""
        return self.run_program("train", DECK, f"run.name={name}", *mapping.overrides(),
                                *overrides, ranks=mapping.ranks, fault=fault)

    def remove_run(self, name):
        shutil.rmtree(self.run_folder(name), ignore_errors=True)

    def compare(self, name, other):
        """The verdict of `konclave compare`, with the largest differences."""
        run = subprocess.run([harness.PROGRAM, "compare", "--json", self.run_folder(name),
                              self.run_folder(other)], text=True, capture_output=True)
        self.assertIn(run.returncode, (0, 1), run.stdout + run.stderr)
        result = json.loads(run.stdout)
        self.assertEqual(result["within"], run.returncode == 0)
        return result

    def fails_of(self, result):
        """What is beyond the figures, in words."""
        fields = [field["name"] for field in result["metrics"]["fields"] if not field["within"]]
        tensor = result["weights"]["first_exceeded"]
        return ", ".join(fields + ([tensor["name"]] if tensor else []))

    def assert_same_routing(self, name, other):
        one, two = ([line["load_imbalance"] for line in self.metrics(run)] for run in (name, other))
        self.assertEqual(one, two, f"{name} and {other} are routed differently")

    def check_mappings(self, chosen, *overrides, fault=""):
        """Each mapping against one rank that trains the same model."""
        self.table.append(f"{mappings.HEAD}      loss      norm   weights seconds  "
                          f"{' '.join(overrides)}")
        references = {}
        for mapping in chosen:
            with self.subTest(mapping=str(mapping), more=mapping.more):
                alone = mapping.alone()
                reference = references.get(alone)
                if reference is None:
                    reference = references[alone] = f"reference-{len(references)}"
                    self.train_as(alone, reference, *overrides, fault=fault)
                start = time.monotonic()
                output = self.train_as(mapping, "other", *overrides, fault=fault)
                seconds = time.monotonic() - start
                result = self.compare("other", reference)
                self.add_to_table(mapping, result, seconds)
                self.assertTrue(result["within"], self.fails_of(result))
                self.assert_same_routing("other", reference)
                if mapping.ranks > 1 and not fault:
                    self.assert_traffic(output, DECK, *mapping.overrides(), *overrides,
                                        ranks=mapping.ranks)
            self.remove_run("other")

    def add_to_table(self, mapping, result, seconds):
        largest = {f["name"]: f["largest_relative"] for f in result["metrics"]["fields"]}
        weights = next(g for g in result["weights"]["groups"] if g["name"] == "model")
        error = weights["largest"]["error"] if weights["largest"] else 0
        notes = [*mapping.more, *mapping.model.overrides()]
        self.table.append(f"{mapping} {largest['loss']:9.1e} {largest['grad_norm']:9.1e} "
                          f"{error:9.1e} {seconds:7.1f}  {' '.join(notes)}")


def on(fewest, most):
    """Those of the matrix on so many ranks."""
    return [mapping for mapping in mappings.matrix() if fewest <= mapping.ranks <= most]


def share_of(rows, dp, share):
    """What one of dp ranks has of one number or list for each sequence."""
    return rows[share * BATCH // dp:(share + 1) * BATCH // dp]


def reached(rows):
    """The experts that get tokens, by counts for each sequence."""
    return [expert for expert, column in enumerate(zip(*rows)) if any(column)]


class Fp64(Case):
    # At these sizes plain loops take a third less time than products through netlib's BLAS.
    OVERRIDES = ("precision.compute=fp64", "backends.gemm=reference",
                 "backends.attention=reference")

    def test_on_up_to_4_ranks(self):
        self.check_mappings(on(1, 4), *self.OVERRIDES)

    def test_on_6_and_8_ranks(self):
        self.check_mappings(on(6, 8), *self.OVERRIDES)

    def test_on_12_and_16_ranks(self):
        self.check_mappings(on(12, 16), *self.OVERRIDES)


class Fp32(Case):
    def test_a_third(self):
        """With the simple ones of the short test."""
        self.check_mappings(mappings.third(mappings.matrix()), "precision.compute=fp32")


class DataAndExperts(Case):
    """All of them, where the matrix has pairs."""

    def test_in_fp64(self):
        self.check_mappings(mappings.data_and_experts(), *Fp64.OVERRIDES)

    def test_in_fp32(self):
        self.check_mappings(mappings.data_and_experts(), "precision.compute=fp32")


class Every(Case):
    """A part of the long matrix: KONCLAVE_PART = PART/PARTS says which."""

    def test_part(self):
        part, parts = map(int, os.environ["KONCLAVE_PART"].split("/"))
        self.check_mappings(mappings.long_matrix()[part - 1::parts], "precision.compute=fp64")


class Short(Case):
    """What a machine with little time can do: each axis by itself, and what the deck is for."""

    def test_each_axis_fp32(self):
        self.check_mappings(mappings.SIMPLE, "precision.compute=fp32")

    def test_rounds_are_needed(self):
        for mapping in mappings.SPECIAL:
            for word in mapping.more:
                if "receive_budget" in word:
                    rows = mapping.micro * LENGTH // mapping.cp * TOP_K
                    self.assertLess(int(word.split("=")[1]), rows)

    def test_every_rank_sends_widely_and_no_expert_is_idle(self):
        """Otherwise a mapping could be wrong without anybody noticing."""
        run = subprocess.run([os.environ["KONCLAVE_ROUTING"], str(DECK)], cwd=self.folder,
                             text=True, capture_output=True, check=True)
        steps = [json.loads(line) for line in run.stdout.splitlines()]
        self.train_as(Mapping(), "reference")
        self.assertEqual([step["loss"] for step in steps], self.losses("reference"))

        layers = [[sequence[layer] for sequence in step["assignments"]] for step in steps
                  for layer in range(len(step["assignments"][0]))]
        idlest = min(min(map(sum, zip(*rows))) for rows in layers)
        fewest = {}
        for dp in sorted({mapping.dp for mapping in mappings.matrix()}):
            fewest[dp] = min(len(reached(share_of(rows, dp, share)))
                             for rows in layers for share in range(dp))
        self.table.append(f"fewest experts that the tokens of a rank go to, by dp: {fewest}; "
                          f"fewest tokens of an expert: {idlest}")
        self.assertGreater(idlest, 0)
        self.assertGreater(min(fewest.values()), EXPERTS // 3)
        self.check_that_ranks_have_work_for_two_experts(layers)

    def check_that_ranks_have_work_for_two_experts(self, layers):
        """In every layer and step. With ep = 1 they have, by what one token goes to; and nothing is
        known here of those that have parts of sequences only."""
        self.assertGreater(TOP_K, 1)
        known = 0
        for mapping in mappings.matrix():
            if mapping.ep == 1 or mapping.model != mappings.MIXED:
                continue
            groups = list(filter(None, mappings.shares_of_expert_groups(mapping)))
            known += bool(groups)
            size = EXPERTS // mapping.ep
            for rows in layers:
                for shares in groups:
                    rows_here = [row for share in shares
                                 for row in share_of(rows, mapping.dp, share)]
                    owners = [expert // size for expert in reached(rows_here)]
                    self.assertGreaterEqual(min(map(owners.count, range(mapping.ep))), 2, mapping)
        self.table.append(f"mappings with work for two experts on every rank: {known}")
        self.assertGreater(known, 20)

    def test_the_deck_is_a_hard_one(self):
        """The weights move, gradients are clipped at times, balance and z-loss are there."""
        self.train_as(Mapping(), "reference")
        lines = self.metrics("reference")
        clipped = [line["grad_norm"] > CLIP for line in lines]
        self.assertIn(True, clipped)
        self.assertIn(False, clipped)
        self.assertLess(lines[-1]["loss"], 0.9 * lines[0]["loss"])
        for line in lines:
            self.assertGreater(min(line["aux_loss"], line["z_loss"]), 0.1)

    def test_no_token_is_between_two_experts(self):
        """Rounding in fp32 alone would send it to the other one, and the mappings would differ."""
        for compute in ("fp64", "fp32"):
            self.train_as(Mapping(), compute, f"precision.compute={compute}")
        self.assert_same_routing("fp32", "fp64")

    def test_faults_are_no_part_of_the_program(self):
        switch = b"KONCLAVE_FAULT"
        self.assertNotIn(switch, pathlib.Path(harness.PROGRAM).read_bytes())
        self.assertIn(switch, pathlib.Path(harness.FAULTY).read_bytes())


class Faults(Case):
    STEPS = f"run.steps={FAULT_STEPS}"

    def test_without_a_fault_all_is_well(self):
        self.check_mappings(dict.fromkeys(FAULTS.values()), self.STEPS, fault="none.of.these")

    def test_every_fault_is_caught(self):
        self.assertGreaterEqual(len(FAULTS), 25)
        self.table.append(f"{'fault, and who catches it':28} {mappings.HEAD}  by what")
        for routing in {mapping.routing for mapping in FAULTS.values()}:
            self.train_as(Mapping(routing=routing), routing, self.STEPS)
        for fault, mapping in FAULTS.items():
            with self.subTest(fault=fault):
                self.train_as(mapping, "other", self.STEPS, fault=fault)
                result = self.compare("other", mapping.routing)
                self.table.append(f"{fault:28} {mapping}  {self.fails_of(result)}")
                self.assertFalse(result["within"])
            self.remove_run("other")

    def test_no_fault_does_anything_to_one_rank(self):
        """So it is the mapping that a fault spoils, and what is caught is that."""
        for routing in {mapping.routing for mapping in FAULTS.values()}:
            alone = Mapping(routing=routing)
            self.train_as(alone, "sound-" + routing, self.STEPS)
            self.train_as(alone, "faulty-" + routing, self.STEPS, fault=",".join(FAULTS))
            self.assertEqual(self.lasting_metrics("faulty-" + routing),
                             self.lasting_metrics("sound-" + routing))


if __name__ == "__main__":
    unittest.main()
