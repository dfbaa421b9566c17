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
                (("moe.top_k=1",), ("top_k", "pre_softmax"))):
            output = self.train("moe.toml", "bad", *override, code=65)
            for word in words:
                self.assertIn(word, output, override)

    def test_what_is_not_there_yet_is_refused_with_a_sentence(self):
        for override in ("parallel.tp=2", "moe.capacity_factor=1.0", "precision.fp8=delayed",
                         "recompute.granularity=full", "moe.balancing=sinkhorn"):
            output = self.train("moe.toml", "bad", override, code=65)
            self.assertIn("not available in this version", output, override)

    def test_missing_deck_and_usage(self):
        self.run_program("train", "nowhere.toml", code=66)
        self.run_program("train", code=64)
        self.run_program("fly", code=64)


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
