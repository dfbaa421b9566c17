"""Runs whose ranks share layers, heads, positions and experts: they repeat and go on with the same bits, what
they leave is the whole model, --self-check names what differs, and trace.json shows what was done."""

import json
import math
import pathlib
import random
import struct
import unittest

import harness

DECK = pathlib.Path(__file__).resolve().parent / "decks" / "matrix.toml"
LENGTH, VOCABULARY, BATCH = 48, 61, 12  # of that deck
# Everything at once on 8 ranks, and twice a part of it on 4.
MIXED = ("parallel.tp=2", "parallel.sp=true", "parallel.cp=2", "parallel.pp=2", "parallel.vpp=2",
         "parallel.etp=2", "parallel.ep=2", "batch.micro_size=3")
STAGES = ("parallel.pp=4", "parallel.layout=Et|tt|tt|tttL", "batch.micro_size=2")
FOLDED = ("parallel.tp=2", "parallel.sp=true", "parallel.cp=2", "parallel.ep=4",
          "moe.dispatcher=allgather", "batch.micro_size=4")


class Case(harness.Case):
    def setUp(self):
        super().setUp()
        draw = random.Random(3)
        tokens = [draw.randrange(VOCABULARY) for _ in range(6 * BATCH * LENGTH)]
        harness.write_safetensors(self.folder / "tokens.safetensors", {
            "input_ids": ("I32", [6 * BATCH, LENGTH], struct.pack(f"<{len(tokens)}i", *tokens))})

    def train_as(self, name, mapping, *overrides, ranks, **how):
        return self.run_program("train", DECK, f"run.name={name}", "run.out=runs",
                                "optimizer.schedule=constant", "optimizer.warmup_steps=1", *mapping, *overrides, ranks=ranks,
                                **how)

    def self_check(self, mapping, steps, ranks, **how):
        return self.run_program("train", DECK, "--self-check", steps, *mapping, ranks=ranks, **how)


class Runs(Case):
    def test_stopped_and_resumed_with_the_same_bits(self):
        for name, mapping, ranks in (("mixed", MIXED, 8), ("stages", STAGES, 4)):
            with self.subTest(mapping=name):
                self.train_as(name, mapping, "run.steps=4", ranks=ranks)
                self.train_as(name + "-cut", mapping, "run.steps=2", ranks=ranks)
                output = self.train_as(name + "-cut", mapping, "run.steps=4", ranks=ranks)
                self.assertIn("at step 2", output)
                self.assertEqual(self.lasting_metrics(name), self.lasting_metrics(name + "-cut"))
                self.assert_same_tensors(self.checkpoint(name, 4),
                                         self.checkpoint(name + "-cut", 4))

    def test_another_mapping_is_refused_when_resuming(self):
        self.train_as("run", FOLDED, "run.steps=1", ranks=4)
        output = self.train_as("run", STAGES, "run.steps=2", ranks=4, code=69)
        for words in ("parallel.tp = 2", "parallel.cp = 2", "parallel.pp = 4", "checkpoint.load"):
            self.assertIn(words, output)

    def test_weights_serve_other_mappings(self):
        """Evaluated on one rank and under mappings of its own, and taken into a run of another."""
        self.train_as("run", MIXED, "run.steps=2", ranks=8)
        results, logits = [], []
        for mapping, ranks in (((), 1), (FOLDED[:3], 4), (("parallel.pp=2", "parallel.vpp=4"), 2),
                               (("parallel.cp=4", "parallel.cp_comm=all_gather"), 4)):
            run = self.run_program("eval", "runs/run", "--tokens", "tokens.safetensors", "--logits",
                                   "logits.safetensors", *mapping, ranks=ranks)
            results.append(json.loads(next(x for x in run.splitlines() if x.startswith("{"))))
            logits.append(harness.floats(
                harness.read_safetensors(self.folder / "logits.safetensors")["logits"][2]))
        for result, one in zip(results[1:], logits[1:]):
            self.assertEqual(result["tokens"], results[0]["tokens"])
            self.assertTrue(math.isclose(result["loss"], results[0]["loss"], rel_tol=1e-9))
            self.assertLess(max(abs(a - b) for a, b in zip(one, logits[0])), 1e-5)
        load = f"checkpoint.load={self.checkpoint('run', 2)}"
        self.train_as("alone", (load,), "run.steps=2", ranks=1)
        self.train_as("folded", FOLDED, load, "run.steps=2", ranks=4)
        self.assert_losses_near("folded", "alone", 1e-9)

    def test_128_small_experts_and_a_shared_one_learn_the_same(self):
        """The tiny deck of them, with 8 of 128."""
        tp = ("parallel.tp=2", "parallel.sp=true")
        mappings = (("alone", (), 1), ("tp", (*tp, "parallel.ep=4"), 4),
                    ("pieces", (*tp, "parallel.overlap_tp=true"), 2), ("etp", ("parallel.etp=2", "parallel.ep=2"), 4),
                    ("cp", ("parallel.cp=2", "parallel.ep=2", "moe.dispatcher=allgather"), 2),
                    ("all", (*tp, "parallel.cp=2", "parallel.pp=2", "parallel.ep=4"), 8))
        for name, mapping, ranks in mappings:
            self.train("fine_grained.toml", name, "run.steps=8", "eval.interval=0", "moe.num_experts=128",
                       "precision.compute=fp64", "batch.micro_size=1", *mapping, ranks=ranks)
            self.assert_losses_near(name, "alone", 1e-9)
        losses = self.losses("alone")
        self.assertLess(losses[-1], losses[0] - 1)

    def test_generation_is_that_of_one_rank(self):
        """Prompts of a length that ranks cannot share evenly."""
        self.train("moe.toml", "run", "run.steps=2", "eval.interval=0")
        arguments = ("generate", "runs/run", "--prompt", "abcde", "--max-tokens", 4)
        alone = self.run_program(*arguments)
        for mapping, ranks in ((("parallel.cp=2", "parallel.pp=2"), 4), (("parallel.tp=2",), 2)):
            output = self.run_program(*arguments, *mapping, ranks=ranks)
            self.assertIn(alone[len("abcde"):-1], output)  # a line of the log comes in between


class SelfCheck(Case):
    def test_agrees(self):
        for mapping, ranks in ((MIXED, 8), (STAGES, 4), ((), 1)):
            with self.subTest(mapping=mapping):
                self.assertIn("both mappings agree", self.self_check(mapping, 2, ranks))
        self.assertFalse((self.folder / "runs").exists())

    def test_names_what_differs(self):
        for fault, words in (
                ("embedding.double_rows", "step 1: the output of layer 0 "),
                ("etp.wrong_slice", "step 1: the output of layer 1 (model.layers.1)"),
                ("loss.local_vocabulary", "step 1: the loss is the first that differs"),
                ("etp.weight_gradients", "the gradient of model.layers.7.moe.router.weight"),
                ("grad_reduce.tied_missing", "the gradient of model.embed_tokens.weight")):
            with self.subTest(fault=fault):
                output = self.self_check(MIXED, 2, 8, fault=fault, code=1)
                self.assertIn(words, output)

    def test_owned_gradients_and_values_that_travel_are_compared_too(self):
        for more in (("parallel.distributed_optimizer=true",),
                     ("parallel.distributed_optimizer=true", "parallel.overlap_grad_reduce=true",
                      "parallel.overlap_param_gather=true", "parallel.overlap_tp=true", "parallel.bucket_size=100")):
            with self.subTest(more=more):
                self.assertIn("both mappings agree", self.self_check((*MIXED, *more), 3, 8))
                output = self.self_check((*MIXED, *more), 3, 8, fault="etp.weight_gradients",
                                         code=1)
                self.assertIn("the gradient of model.layers.7.moe.router.weight", output)

    RECOMPUTE = ("recompute.granularity=selective", "recompute.modules=[\"layernorm\", \"core_attn\"]")

    def test_what_is_recomputed_is_held_against_what_is_kept(self):
        for recompute in (self.RECOMPUTE, ("recompute.granularity=full",),
                          ("recompute.granularity=full", "recompute.layers=2")):
            with self.subTest(recompute=recompute):
                self.assertIn("both mappings agree", self.self_check((*MIXED, *recompute), 2, 8))
        self.assertIn("both mappings agree", self.self_check(self.RECOMPUTE, 2, 1))
        for mapping, ranks in ((MIXED, 8), ((), 1)):
            with self.subTest(ranks=ranks):
                output = self.self_check((*mapping, *self.RECOMPUTE), 2, ranks, code=1,
                                         fault="recompute.norm_forgotten")
                self.assertIn("step 1: the gradient of model.layers.7.", output)

    def test_of_the_running_load(self):
        """Which depends on dp, and on nothing else of a mapping."""
        running = ("moe.balancing=[\"global_aux_loss\"]", "moe.aux_loss_coefficients=[0.2]",
                   "moe.global_aux_counts=running")
        self.assertIn("both mappings agree", self.self_check(("parallel.pp=2", *running), 2, ranks=2))
        output = self.self_check(running, 2, ranks=2, code=65)
        self.assertIn("so 2 of them can't be compared with one rank", output)

    def test_neither_records_nor_replays(self):
        for replay in ("record", "nowhere.h5"):
            with self.subTest(replay=replay):
                self.assertIn("both mappings agree",
                              self.self_check((*FOLDED, f"moe.replay={replay}"), 1, 4))
        self.assertEqual(list(self.folder.rglob("routing_choices.h5")), [])
        self.assertFalse((self.folder / "runs").exists())


class Trace(Case):
    def test_shows_what_was_measured(self):
        self.train_as("run", MIXED, "run.steps=4", "log.trace_steps=[2, 4]", ranks=8)
        trace = json.loads((self.run_folder("run") / "trace.json").read_text())
        spans = [event for event in trace["traceEvents"] if event["ph"] == "X"]
        self.assertEqual({event["pid"] for event in spans}, set(range(8)))
        micro_batches, chunks = 4, 2
        for rank in range(8):
            mine = [event for event in spans if event["pid"] == rank]
            self.assertEqual(sorted(event["name"] for event in mine if event["cat"] == "step"),
                             ["step 2", "step 4"])
            for name in ("forward", "backward"):
                work = [event["args"] for event in mine
                        if event["cat"] == "pipeline" and event["name"] == name]
                expected = [(m, c) for m in range(micro_batches) for c in range(chunks)] * 2
                self.assertEqual(sorted((w["micro_batch"], w["chunk"]) for w in work),
                                 sorted(expected))
            layers = {event["name"] for event in mine if event["cat"] == "layer"}
            self.assertEqual(len(layers), 8)  # attention and MLP or MoE of 4 layers
            self.assertTrue(all(event["dur"] >= 0 for event in mine))
            steps = [(event["ts"], event["ts"] + event["dur"]) for event in mine
                     if event["cat"] == "step"]
            for event in mine:
                if event["cat"] == "pipeline":
                    end = event["ts"] + event["dur"]
                    self.assertTrue(any(a <= event["ts"] and end <= b for a, b in steps))

    def test_a_run_goes_on_without_a_trace_that_cannot_be_written(self):
        (self.run_folder("run") / "trace.json").mkdir(parents=True)
        output = self.train_as("run", ("parallel.pp=2",), "run.steps=2", "log.trace_steps=1",
                               ranks=2)
        self.assertEqual(output.count("no trace of step 1: "), 1, output)
        self.assertEqual(len(self.metrics("run")), 2)

    def test_overlap_puts_bytes_under_compute(self):
        """By the shares that the trace has for each communication, and in the summary. What is waited for
        at once has nearly none."""
        layers = ("model.hidden_size=256", "model.head_dim=32", "model.ffn_hidden_size=512", "moe.num_experts=8",
                  "moe.ffn_hidden_size=64", "precision.compute=fp32", "batch.micro_size=6",
                  "parallel.distributed_optimizer=true", "parallel.bucket_size=65536")
        shares = {}
        for overlap in ("false", "true"):
            name = f"overlap-{overlap}"
            output = self.train_as(name, layers, f"parallel.overlap_grad_reduce={overlap}",
                                   f"parallel.overlap_param_gather={overlap}", "run.steps=4",
                                   "log.trace_steps=[2, 3]", ranks=2)
            self.assertIn("% under compute", output)
            trace = json.loads((self.run_folder(name) / "trace.json").read_text())
            drawn = [event["args"] for event in trace["traceEvents"] if event.get("cat") == "communication"]
            summary = json.loads((self.run_folder(name) / "summary.json").read_text())
            self.assertTrue(0 < summary["share_waiting"] < 1)
            shares[overlap] = (sum(event["bytes"] * event["under_compute"] for event in drawn) /
                               sum(event["bytes"] for event in drawn), summary["share_under_compute"]["dp_cp"])
        self.assertTrue(min(shares["true"]) >= 0.5 and max(shares["false"]) < 0.2, shares)

    def test_without_traced_steps_there_is_none(self):
        self.train_as("run", (), "run.steps=1", ranks=1)
        self.assertFalse((self.run_folder("run") / "trace.json").exists())


if __name__ == "__main__":
    unittest.main()
