"""The mapping matrix: 20 steps come out the same however the ranks share the work, and twelve and
more seeded mistakes in that sharing do not go unnoticed."""

import json
import os
import pathlib
import random
import shutil
import struct
import subprocess
import time
import typing
import unittest

import harness

DECK = pathlib.Path(__file__).resolve().parent / "decks" / "matrix.toml"
STEPS, BATCH, EXPERTS, TOP_K, LENGTH, VOCABULARY = 20, 24, 24, 3, 24, 61  # of that deck
RANKS = (1, 2, 3, 4, 6, 8)
ORDERS = EP_FIRST, DP_FIRST = "tp-cp-ep-dp-pp", "tp-cp-dp-ep-pp"


class Mapping(typing.NamedTuple):
    ranks: int = 1
    ep: int = 1
    micro: int = BATCH
    order: str = EP_FIRST
    more: tuple = ()

    def overrides(self):
        return (f"parallel.ep={self.ep}", f"parallel.order={self.order}",
                f"batch.micro_size={self.micro}", *self.more)

    def __str__(self):
        return (f"{self.ranks:5} {self.ranks:3} {self.ep:3} {self.ranks // self.ep:3}  {self.order}"
                f" {self.micro:5}")


HEAD = f"ranks  dp  ep edp  {'order':{len(EP_FIRST)}} micro"  # of a mapping as text


def divisors(number):
    return [d for d in range(1, number + 1) if number % d == 0]


def micro_sizes(ranks):
    """The smallest, one in between, and the largest that these ranks can have."""
    sizes = divisors(BATCH // ranks)
    return sorted({sizes[0], sizes[len(sizes) // 2], sizes[-1]})


def whole_matrix():
    """All (dp, ep, order) with some micro sizes; two orders differ when neither ep nor edp is 1."""
    for ranks in RANKS:
        for ep in divisors(ranks):
            for order in ORDERS if 1 < ep < ranks else (EP_FIRST,):
                for micro in micro_sizes(ranks):
                    yield Mapping(ranks, ep, micro, order)


def budget(rows):
    return f"moe.receive_budget={rows}"


LIBRARY = "parallel.grad_reduce=library"
# Not in the matrix above: rounds, which are many when a rank gets more rows on the average than its
# budget, and sums by the MPI library.
SPECIAL = (
    Mapping(1, 1, 4, EP_FIRST, (budget(100),)),
    Mapping(2, 2, 3, EP_FIRST, (budget(64),)),
    Mapping(3, 1, 2, EP_FIRST, (LIBRARY,)),
    Mapping(4, 2, 3, DP_FIRST, (LIBRARY, budget(17))),
    Mapping(4, 4, 2, EP_FIRST, (budget(40),)),
)

# The matrix under a fault, and which of these shows it: the first that has what the fault spoils.
OF_DP, OF_EP, OF_BOTH = Mapping(2, 1, 3), Mapping(2, 2, 3), Mapping(4, 2, 3, DP_FIRST)
FAULT_STEPS = 6
FAULTS = {
    "data.same_share": OF_DP,
    "data.labels_shifted": OF_DP,
    "loss.local_scale": OF_DP,
    "balance.local_scale": OF_DP,
    "grad_reduce.dense_missing": OF_DP,
    "grad_reduce.experts_missing": OF_DP,
    "grad_reduce.experts_divided": OF_DP,
    "grad_reduce.last_rank_lost": OF_DP,
    "metrics.one_rank": OF_DP,
    "grad_norm.local_experts": OF_EP,
    "experts.wrong_part": OF_EP,
    "init.local_index": OF_EP,
    "dispatch.weights_unsorted": OF_EP,
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
        """Trains as run `name`; gives back the seconds."""
        start = time.monotonic()
        self.run_program("train", DECK, f"run.name={name}", *mapping.overrides(), *overrides,
                         ranks=mapping.ranks, fault=fault)
        return time.monotonic() - start

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

    def check_mappings(self, mappings, *overrides, fault=""):
        """Each mapping against one rank with the whole batch as a single micro-batch."""
        self.table.append(f"{HEAD}      loss      norm   weights seconds  {' '.join(overrides)}")
        self.train_as(Mapping(), "reference", *overrides, fault=fault)
        count = 0
        for mapping in mappings:
            if mapping == Mapping():
                continue
            count += 1
            with self.subTest(mapping=mapping):
                seconds = self.train_as(mapping, "other", *overrides, fault=fault)
                result = self.compare("other", "reference")
                largest = {f["name"]: f["largest_relative"] for f in result["metrics"]["fields"]}
                weights = next(g for g in result["weights"]["groups"] if g["name"] == "model")
                error = weights["largest"]["error"] if weights["largest"] else 0
                self.table.append(f"{mapping} {largest['loss']:9.1e} "
                                  f"{largest['grad_norm']:9.1e} {error:9.1e} {seconds:7.1f}"
                                  f"  {' '.join(mapping.more)}")
                self.assertTrue(result["within"], self.fails_of(result))
                self.assert_same_routing("other", "reference")
            self.remove_run("other")
        return count


class Fp64(Case):
    def test_every_mapping(self):
        self.assertEqual(self.check_mappings(whole_matrix(), "precision.compute=fp64"), 56)


class Fp32(Case):
    def test_every_mapping(self):
        self.assertEqual(self.check_mappings(whole_matrix(), "precision.compute=fp32"), 56)


class Short(Case):
    """What a machine with little time can do: rounds and library sums, and what the deck is for."""

    def test_rounds_and_library_sums_fp64(self):
        for mapping in SPECIAL:
            for word in mapping.more:
                if "receive_budget" in word:
                    self.assertLess(int(word.split("=")[1]), mapping.micro * LENGTH * TOP_K)
        self.check_mappings(SPECIAL, "precision.compute=fp64")

    def test_rounds_and_library_sums_fp32(self):
        self.check_mappings(SPECIAL[3:], "precision.compute=fp32")

    def test_every_rank_sends_widely_and_no_expert_is_idle(self):
        """Otherwise a mapping could be wrong without anybody noticing."""
        run = subprocess.run([os.environ["KONCLAVE_ROUTING"], str(DECK)], cwd=self.folder,
                             text=True, capture_output=True, check=True)
        steps = [json.loads(line) for line in run.stdout.splitlines()]
        self.train_as(Mapping(), "reference")
        self.assertEqual([step["loss"] for step in steps], self.losses("reference"))

        fewest = {ranks: EXPERTS for ranks in RANKS}
        idlest = BATCH * LENGTH * TOP_K
        for step in steps:
            for layer in range(len(step["assignments"][0])):
                rows = [sequence[layer] for sequence in step["assignments"]]
                idlest = min(idlest, *map(sum, zip(*rows)))
                for ranks in RANKS:
                    for share in (rows[at:at + BATCH // ranks]
                                  for at in range(0, BATCH, BATCH // ranks)):
                        reached = sum(any(column) for column in zip(*share))
                        fewest[ranks] = min(fewest[ranks], reached)
        self.table.append(f"fewest experts that the tokens of a rank go to, by ranks: {fewest}; "
                          f"fewest tokens of an expert: {idlest}")
        self.assertGreater(idlest, 0)
        self.assertGreater(min(fewest.values()), EXPERTS // 2)

    def test_the_deck_is_a_hard_one(self):
        """The weights move, gradients are clipped at times, balance and z-loss are there."""
        self.train_as(Mapping(), "reference")
        lines = self.metrics("reference")
        clipped = [line["grad_norm"] > 1 for line in lines]
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
        self.check_mappings((OF_DP, OF_EP, OF_BOTH), self.STEPS, fault="none.of.these")
        self.train_as(Mapping(), "sound", self.STEPS)
        self.assertEqual(self.lasting_metrics("sound"), self.lasting_metrics("reference"))

    def test_every_fault_is_caught(self):
        self.assertGreaterEqual(len(FAULTS), 12)
        self.table.append(f"{'fault, and who catches it':28} {HEAD}  by what")
        self.train_as(Mapping(), "sound", self.STEPS)
        for fault, expected in FAULTS.items():
            with self.subTest(fault=fault):
                caught, fails = self.first_that_differs(fault)
                self.table.append(f"{fault:28} {caught}  {fails}")
                self.assertEqual(caught, expected)

    def first_that_differs(self, fault):
        """The first mapping that a fault sets apart from one rank, which it does nothing to."""
        self.train_as(Mapping(), fault, self.STEPS, fault=fault)
        self.assertEqual(self.lasting_metrics(fault), self.lasting_metrics("sound"))
        for mapping in (OF_DP, OF_EP, OF_BOTH):
            self.train_as(mapping, "other", self.STEPS, fault=fault)
            result = self.compare("other", fault)
            self.remove_run("other")
            if not result["within"]:
                return mapping, self.fails_of(result)
        return None, ""


if __name__ == "__main__":
    unittest.main()
