"""Bad input: the exit code, and words that lead to the place and the remedy."""

import json
import math
import os
import shutil
import struct
import unittest

import harness


class Decks(harness.Case):
    def deck(self, text):
        path = self.folder / "bad.toml"
        path.write_text(text)
        return path

    def test_all_errors_at_once_with_places(self):
        text = (harness.TINY / "moe.toml").read_text()
        path = self.deck(text.replace("top_k", "topk").replace("num_layers = 2", "num_layers = \"two\"")
                         + "\n[optimiser]\nlr = 1\n")
        output = self.run_program("train", path, code=65)
        self.assertIn("top_k", output)
        self.assertIn("num_layers", output)
        self.assertIn("optimizer", output)
        for line in output.splitlines():
            if "error:" in line and "bad.toml" in line:
                self.assertRegex(line, r"bad\.toml:\d+:\d+: error: ")
        self.assertGreaterEqual(output.count("error:"), 3)

    def test_rules_name_their_numbers(self):
        for override, words in (
                (("model.num_kv_heads=3",), ("num_heads", "num_kv_heads", "3")),
                (("batch.micro_size=3",), ("micro_size", "global_size", "3")),
                (("moe.window=3",), ("window", "micro_size", "3")),
                (("moe.top_k=9",), ("top_k", "num_experts", "9")),
                (("moe.num_groups=2",), ("group_top_k", "num_groups", "1 to 2 would do")),
                (("moe.top_k=1",), ("top_k", "pre_softmax", "sigmoid")),
                (("fault.step_timeout=soon",), ("step_timeout", "'soon'", "2 h 30 min"))):
            output = self.train("moe.toml", "bad", *override, code=65)
            for word in words:
                self.assertIn(word, output, override)

    def test_what_is_not_there_yet_is_refused_with_a_sentence(self):
        for override in ("parallel.tp=auto", "precision.fp8=delayed", "checkpoint.async=true"):
            output = self.train("moe.toml", "bad", override, code=65)
            self.assertIn("not available in this version", output, override)

    def test_missing_deck_and_usage(self):
        self.run_program("train", "nowhere.toml", code=66)
        self.run_program("train", code=64)
        self.run_program("fly", code=64)


class Mappings(harness.Case):
    """For each rule of a mapping a deck that breaks it: the keys, the numbers and what would do."""

    def check(self, code, deck, *arguments):
        return self.run_program("check", harness.TINY / deck, *arguments, code=code)

    # Of inputs/tiny/moe.toml, with 4 heads, 2 of keys and values, 4 experts and sequences of 32.
    BROKEN = (
        (("parallel.tp=8", "parallel.sp=true"),
         ("parallel.tp = 8, model.num_heads = 4; parallel.tp = 1, 2 or 4 would do",)),
        (("model.hidden_size=96", "model.num_heads=12", "model.num_kv_heads=6", "parallel.tp=4",
          "parallel.sp=true"),
         ("parallel.tp = 4, model.num_kv_heads = 6; parallel.tp = 1 or 2 would do",)),
        (("moe.layer_frequency=2", "model.ffn_hidden_size=30", "parallel.tp=4", "parallel.sp=true"),
         ("parallel.tp = 4, model.ffn_hidden_size = 30; parallel.tp = 1 or 2 would do",)),
        (("data.kind=tokens", "eval.interval=0", "model.vocab_size=3", "parallel.tp=4",
          "parallel.sp=true"),
         ("parallel.tp = 4, model.vocab_size = 3; parallel.tp = 1 or 2 would do",)),
        (("parallel.etp=3",),
         ("parallel.etp = 3, moe.ffn_hidden_size = 32; parallel.etp = 1, 2, 4, 8, 16 or 32 would do",)),
        (("parallel.ep=3",), ("parallel.ep = 3, moe.num_experts = 4; parallel.ep = 1, 2 or 4 would do",)),
        (("parallel.tp=2",),
         ("parallel.sp = false (default), parallel.tp = 2, moe.num_experts = 4; parallel.sp = true, "
          "or parallel.tp = 1 would do",)),
        (("parallel.cp=3",),
         ("parallel.cp = 3, model.sequence_length = 32; parallel.cp = 1, 2, 4, 8 or 16, or "
          "model.sequence_length = 30 or 36 would do",)),
        (("model.num_heads=8", "model.sequence_length=36", "parallel.cp=3", "parallel.tp=8",
          "parallel.sp=true"),
         ("parallel.tp = 8, parallel.cp = 3, model.sequence_length = 36; parallel.tp = 1, 2 or 4, or "
          "model.sequence_length = 24 or 48 would do",)),
        (("parallel.cp=4", "parallel.cp_comm=a2a"),
         ("parallel.cp_comm = \"a2a\", parallel.cp = 4", "a rank of tp has 4 of queries and 2 of keys",
          "parallel.cp_comm = \"ring\" or \"all_gather\", or parallel.cp = 1 or 2 would do")),
        (("parallel.tp=4", "parallel.sp=true", "parallel.cp=2", "parallel.cp_comm=a2a"),
         ("a rank of tp has 1 of queries and 1 of keys", "\"ring\"", "parallel.cp = 1 would do")),
        (("parallel.vpp=2",), ("parallel.vpp = 2", "parallel.pp = 1", "parallel.vpp = 1 or ")),
        (("model.num_layers=24", "parallel.pp=4", "parallel.vpp=4"),
         ("parallel.vpp = 4", "parallel.pp = 4", "model.num_layers = 24", "1, 2, 3 or 6 would do")),
        (("parallel.pp=3",),
         ("model.num_layers = 2", "parallel.pp = 3", "parallel.pp = 1 or 2 would do")),
        (("parallel.pp=2", "model.num_layers=5", "parallel.first_stage_layers=5"),
         ("parallel.first_stage_layers = 5", "model.num_layers = 5", "would do")),
        (("parallel.pp=2", "parallel.layout=Et|t|L"),
         ("parallel.layout = \"Et|t|L\"", "3 parts", "parallel.pp = 2", "2 or 4 parts would do")),
        (("parallel.pp=2", "parallel.layout=Et|ttL"),
         ("parallel.layout = \"Et|ttL\"", "3 t", "model.num_layers = 2", "2 would do")),
        (("parallel.pp=2", "parallel.layout=Et|tmL"),
         ("parallel.layout = \"Et|tmL\"", "multi-token prediction", "leave it out")),
        (("parallel.pp=2", "parallel.vpp=2", "parallel.layout=Et|tL"),
         ("parallel.layout", "parallel.vpp = 2", "parallel.pp = 2", "parallel.vpp = 1 would do")),
        (("model.num_layers=8", "parallel.pp=4", "parallel.vpp=2", "parallel.vpp_group_size=3"),
         ("parallel.vpp_group_size = 3, parallel.pp = 4", "parallel.vpp_group_size = 4 would do")),
        (("parallel.ep=2", "parallel.order=tp-cp-dp-pp"),
         ("parallel.order = \"tp-cp-dp-pp\" leaves out ep", "\"tp-cp-ep-dp-pp\" would do")),
        (("parallel.ep=2", "parallel.pp=2", "parallel.order=pp-tp-cp-ep-dp"),
         ("parallel.order = \"pp-tp-cp-ep-dp\"", "dp = 2 and edp = 1", "\"tp-cp-ep-dp-pp\" would do")),
        (("moe.dispatcher=allgather", "moe.receive_budget=64"),
         ("moe.dispatcher = \"allgather\", moe.receive_budget = 64", "moe.receive_budget = 0, or ")),
        (("moe.global_aux_counts=running",),
         ("moe.global_aux_counts = \"running\"", "moe.global_aux_counts = \"previous\" would do")),
        (("moe.replay=some.h5", "moe.force_load_balancing=true"),
         ("moe.force_load_balancing = true", "moe.replay = \"\" or \"record\" would do")),
        (("moe.top_k=9",), ("moe.top_k = 9, moe.num_experts = 4; moe.top_k = 4 or less would do",)),
        (("moe.top_k=1",), ("moe.top_k = 1", "moe.pre_softmax = true, or moe.top_k = 2 would do")),
        (("batch.micro_size=3",),
         ("batch.global_size = 4, batch.micro_size = 3; batch.micro_size = 1, 2 or 4 would do",)),
    )

    def test_that_do_not_suit_the_model(self):
        for overrides, words in self.BROKEN:
            with self.subTest(overrides=overrides):
                output = self.check(65, "moe.toml", *overrides)
                self.assertEqual(output.count(": error: "), 1, output)
                for word in words:
                    self.assertIn(word, output)

    def test_of_experts_that_are_not_there(self):
        for override in ("parallel.ep=2", "parallel.etp=2"):
            output = self.check(65, "dense.toml", override)
            self.assertIn("moe.num_experts = 0; parallel.ep = 1 and parallel.etp = 1 would do", output)

    def test_that_do_not_suit_the_ranks(self):
        chunks = ("model.num_layers=4", "parallel.pp=2", "parallel.vpp=2")
        for ranks, overrides, words in (
                (6, ("parallel.tp=2", "parallel.sp=true", "parallel.pp=2"),
                 ("parallel.tp = 2, parallel.pp = 2 need", "multiple of 4", "6, and 4 or 8 would do")),
                (6, ("parallel.ep=2", "parallel.etp=2"),
                 ("parallel.ep = 2, parallel.etp = 2 need", "multiple of 4", "6, and 4 or 8 would do")),
                (3, (), ("batch.global_size = 4", "batch.micro_size x dp = 2 x 3 on 3 ranks",
                         "6 would do, and so would 2 ranks")),
                (2, (*chunks, "batch.global_size=6"),
                 ("parallel.vpp = 2", "parallel.pp = 2", "on 2 ranks, batch.global_size = 6",
                  "batch.micro_size x dp = 2 x 1 makes 3", "batch.global_size = 8 would do")),
                (4, chunks, ("parallel.vpp = 2 needs at least parallel.pp = 2 micro-batches",
                             "this run has 1", "on 4 ranks, batch.global_size = 4",
                             "batch.global_size = 8 would do")),
                (2, (*chunks, "parallel.vpp_group_size=4"),
                 ("parallel.vpp_group_size = 4", "this run has 2",
                  "batch.global_size = 8 would do"))):
            with self.subTest(ranks=ranks, overrides=overrides):
                output = self.check(69, "moe.toml", *overrides, "--ranks", ranks)
                for word in words:
                    self.assertIn(word, output)

    def test_on_many_ranks(self):
        output = self.train("moe.toml", "bad", "parallel.tp=2", "parallel.sp=true", ranks=3, code=69)
        self.assertIn("parallel.tp = 2 needs a number of ranks that is a multiple of 2; this run has 3, "
                      "and 2 or 4 would do", output)
        output = self.train("moe.toml", "bad", "parallel.tp=2", ranks=2, code=65)
        self.assertIn("parallel.sp = true", output)

    def test_under_which_a_model_is_used(self):
        tokens = self.folder / "tokens.safetensors"
        harness.write_safetensors(tokens, {"input_ids": ("I32", [1, 12], struct.pack("<12i", *range(12)))})
        for overrides, words in (
                (("parallel.tp=8", "parallel.sp=false"),
                 ("parallel.tp = 8, model.num_heads = 4; parallel.tp = 1, 2 or 4 would do",
                  "parallel.sp = true")),
                (("parallel.cp=4",), ("model.sequence_length = 12; parallel.cp = 1, 2, 3 or 6, or ",)),
                (("parallel.pp=3",), ("model.num_layers = 2", "parallel.pp = 1 or 2 would do"))):
            output = self.run_program("eval", harness.ORACLE / "mixtral" / "hf", "--tokens", tokens,
                                      *overrides, code=65)
            for word in words:
                self.assertIn(word, output, overrides)

    def test_a_pipeline_prints_its_schedule(self):
        output = self.check(0, "moe.toml", "parallel.pp=2", "--schedule")
        self.assertIn("F0 is forward of micro-batch 0, B backward", output)
        self.assertIn("#        1  .  F0 B0 F1 B1", output)
        self.assertNotIn("F0", self.check(0, "moe.toml", "parallel.pp=2"))


class Data(harness.Case):
    def test_missing_text(self):
        output = self.train("moe.toml", "bad", "data.kind=text", "data.files=[\"/nowhere/text\"]",
                            "model.vocab_size=256", code=66)
        self.assertIn("/nowhere/text", output)

    def test_truncated_tokens(self):
        path = self.folder / "cut.safetensors"
        ids = struct.pack("<64q", *range(64))
        harness.write_safetensors(path, {"input_ids": ("I64", [2, 32], ids)})
        path.write_bytes(path.read_bytes()[:-8])
        output = self.train("moe.toml", "bad", "data.kind=tokens", f"data.files=[\"{path}\"]",
                            "eval.interval=0", code=66)
        self.assertIn("cut.safetensors", output)
        self.assertIn("input_ids", output)


class Models(harness.Case):
    """Hugging Face folders with one thing wrong."""

    def setUp(self):
        super().setUp()
        self.model = self.folder / "hf"
        shutil.copytree(harness.ORACLE / "mixtral" / "hf", self.model)
        self.weights = self.model / "model.safetensors"
        self.tensors = harness.read_safetensors(self.weights)
        self.name = "model.layers.1.self_attn.k_proj.weight"

    def convert(self, *words):
        output = self.run_program("convert", "from-hf", self.model, "out", code=66)
        for word in words:
            self.assertIn(word, output)
        self.assertFalse((self.folder / "out").exists())

    def rewrite(self):
        harness.write_safetensors(self.weights, self.tensors)

    def test_missing_tensor(self):
        del self.tensors[self.name]
        self.rewrite()
        self.convert(self.name)

    def test_wrong_shape(self):
        dtype, shape, blob = self.tensors[self.name]
        self.tensors[self.name] = (dtype, shape[::-1], blob)
        self.rewrite()
        self.convert(self.name, "model.safetensors")

    def test_unknown_tensor(self):
        self.tensors["model.layers.1.extra.weight"] = self.tensors[self.name]
        self.rewrite()
        self.convert("model.layers.1.extra.weight")

    def test_nan(self):
        dtype, shape, blob = self.tensors[self.name]
        self.tensors[self.name] = (dtype, shape, blob[:40] + struct.pack("<f", math.nan) + blob[44:])
        self.rewrite()
        self.convert(self.name)

    def test_truncated(self):
        self.weights.write_bytes(self.weights.read_bytes()[:-100])
        self.convert("model.safetensors")

    def test_sliding_window_shorter_than_the_sequence(self):
        config = json.loads((self.model / "config.json").read_text())
        config["sliding_window"] = 8
        (self.model / "config.json").write_text(json.dumps(config))
        self.convert("sliding_window", "8")
        self.run_program("convert", "from-hf", self.model, "short", "--sequence-length", "8")

    def test_no_model_at_all(self):
        output = self.run_program("eval", "nowhere", "--tokens", "x.safetensors", code=66)
        self.assertIn("x.safetensors", output)
        output = self.run_program("inspect", "nowhere", code=66)
        self.assertIn("nowhere", output)


class Numerics(harness.Case):
    def test_divergence_exits_76_and_leaves_no_bad_checkpoint(self):
        output = self.train("moe.toml", "wild", "optimizer.lr=1e18", "optimizer.warmup_steps=0",
                            "optimizer.schedule=constant", "optimizer.clip_norm=0",
                            "checkpoint.interval=1", "run.steps=20", code=76)
        self.assertIn("not both numbers", output)
        checkpoints = self.run_folder("wild") / "checkpoints"
        for folder in sorted(os.listdir(checkpoints)):
            if folder.startswith("step-"):
                self.run_program("inspect", checkpoints / folder, "--verify")


if __name__ == "__main__":
    unittest.main()
