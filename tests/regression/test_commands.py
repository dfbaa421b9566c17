"""eval, generate, convert, inspect, load: what a user does with a model besides training it."""

import json
import unittest

import harness


def tokens_file(folder, model, step=0):
    """The oracle's inputs of one step as a token file."""
    _, shape, blob = harness.read_safetensors(harness.ORACLE / model / "inputs.safetensors")["input_ids"]
    size = len(blob) // shape[0]
    path = folder / "tokens.safetensors"
    harness.write_safetensors(path, {"input_ids": ("I64", shape[1:], blob[step * size:(step + 1) * size])})
    return path


class Conversion(harness.Case):
    MODELS = ("mixtral", "qwen2_moe", "llama", "mistral", "llama_tied")

    def test_logits_of_a_hugging_face_folder_and_of_its_checkpoint(self):
        for model in ("mixtral", "qwen2_moe", "llama", "mistral"):
            hf = harness.ORACLE / model / "hf"
            tokens = tokens_file(self.folder, model)
            self.run_program("convert", "from-hf", hf, f"{model}.ckpt")
            expected = harness.floats(
                harness.read_safetensors(harness.ORACLE / model / "forward_f32.safetensors")["logits"][2])
            facts = json.loads((harness.ORACLE / model / "oracle.json").read_text())
            for source in (hf, f"{model}.ckpt"):
                output = self.run_program("eval", source, "--tokens", tokens, "--logits",
                                          "logits.safetensors")
                result = json.loads(output.splitlines()[-1])
                self.assertAlmostEqual(result["loss"], facts["runs"]["f32"]["loss"][0], delta=1e-5)
                logits = harness.floats(
                    harness.read_safetensors(self.folder / "logits.safetensors")["logits"][2])
                self.assertEqual(len(logits), len(expected))
                worst = max(abs(a - b) for a, b in zip(logits, expected))
                self.assertLess(worst, 2e-5, f"{model} from {source}")

    def test_round_trip_is_exact(self):
        for model in self.MODELS:
            hf = harness.ORACLE / model / "hf"
            self.run_program("convert", "from-hf", hf, f"{model}.ckpt")
            self.run_program("inspect", f"{model}.ckpt", "--verify")
            self.run_program("convert", "to-hf", f"{model}.ckpt", f"{model}.hf")
            before = harness.read_safetensors(hf / "model.safetensors")
            after = harness.read_safetensors(self.folder / f"{model}.hf" / "model.safetensors")
            self.assertEqual(before, after, model)

    def test_sharded_bf16(self):
        self.run_program("convert", "from-hf", harness.ORACLE / "mixtral" / "hf_sharded", "half.ckpt")
        self.assertIn("bfloat16", self.run_program("inspect", "half.ckpt", "--verify"))
        tokens = tokens_file(self.folder, "mixtral")
        output = self.run_program("eval", "half.ckpt", "--tokens", tokens, "precision.compute=fp32")
        whole = self.run_program("eval", harness.ORACLE / "mixtral" / "hf", "--tokens", tokens)
        near, exact = (json.loads(text.splitlines()[-1])["loss"] for text in (output, whole))
        self.assertAlmostEqual(near, exact, delta=2e-2)

    def test_training_starts_from_loaded_weights(self):
        model = harness.ORACLE / "mixtral" / "hf"
        self.run_program("convert", "from-hf", model, "start.ckpt")
        facts = json.loads((harness.ORACLE / "mixtral" / "oracle.json").read_text())
        config = facts["config"]
        sizes = [f"model.{key}={config[key]}" for key in
                 ("vocab_size", "sequence_length", "hidden_size", "num_layers", "num_heads",
                  "num_kv_heads", "head_dim", "norm_eps", "rope_theta")]
        sizes += [f"moe.{key}={config['moe'][key]}" for key in ("num_experts", "top_k", "ffn_hidden_size")]
        tokens = tokens_file(self.folder, "mixtral")
        for name, source in (("hf", model), ("ckpt", "start.ckpt")):
            self.train("moe.toml", name, *sizes, f"checkpoint.load={source}", "data.kind=tokens",
                       f"data.files=[\"{tokens}\"]", "batch.global_size=2", "batch.micro_size=2",
                       "run.steps=1", "optimizer.warmup_steps=0", "precision.compute=fp32",
                       "eval.interval=0")
            self.assertAlmostEqual(self.losses(name)[0], facts["runs"]["f32"]["loss"][0], delta=1e-5)

    def test_what_hugging_face_has_no_word_for_is_refused(self):
        self.train("fine_grained.toml", "one", "run.steps=1", "optimizer.warmup_steps=0", "eval.interval=0",
                   "moe.shared_gate=false")
        output = self.run_program("convert", "to-hf", self.run_folder("one"), "exported", code=66)
        self.assertIn("moe.shared_gate", output)
        self.assertFalse((self.folder / "exported").exists())

    def test_a_model_of_another_shape_is_named(self):
        output = self.train("moe.toml", "bad", f"checkpoint.load={harness.ORACLE / 'mixtral' / 'hf'}",
                            code=66)
        self.assertIn("model.", output)


class Generation(harness.Case):
    def test_same_seed_same_text(self):
        self.train("moe.toml", "one", "run.steps=5", "optimizer.warmup_steps=1")
        command = ("generate", self.run_folder("one"), "--prompt", "The ", "--max-tokens", "40")
        one = self.run_program(*command, "--seed", "3")
        self.assertEqual(one, self.run_program(*command, "--seed", "3"))
        self.assertNotEqual(one, self.run_program(*command, "--seed", "4"))
        self.assertTrue(one.startswith("The "))


    def test_a_model_of_unknown_or_other_tokens_is_refused(self):
        model = harness.ORACLE / "mixtral" / "hf"
        self.run_program("convert", "from-hf", model, "other.ckpt")
        for source in (model, "other.ckpt"):
            command = ("generate", source, "--prompt", "The ")
            self.assertIn("data.tokenizer=bytes", self.run_program(*command, code=66))
            output = self.run_program(*command, "data.tokenizer=bytes", code=66)
            self.assertIn("vocabulary of 96", output)

    def test_an_exported_model_of_bytes_generates(self):
        self.train("moe.toml", "one", "run.steps=2", "optimizer.warmup_steps=1")
        self.run_program("convert", "to-hf", self.run_folder("one"), "exported")
        output = self.run_program("generate", "exported", "--prompt", "The ", "--max-tokens", "3",
                                  "data.tokenizer=bytes")
        self.assertTrue(output.startswith("The "))


class Language(harness.Case):
    """The tiny MoE deck on English text (a licence that is on every Debian machine, or this
    project's own): its loss falls into a known band."""

    def test_loss_band(self):
        text = harness.SOURCE / "LICENSE"
        self.train("moe.toml", "text", "run.steps=150", f"data.files=[\"{text}\"]", "batch.global_size=16",
                   "batch.micro_size=8")
        last = self.losses("text")[-20:]
        self.assertLess(sum(last) / len(last), 2.6)  # letters by their frequency alone: about 3.1
        self.assertGreater(sum(last) / len(last), 1.0)  # too good: it sees what it should predict


class Help(harness.Case):
    def test_it_comes_alone_and_from_one_rank(self):
        self.environment["OMPI_MCA_pml"] = "nothing"  # with Open MPI: it cannot start
        for ranks in (1, 2):
            for words in (("--help",), ("train", "--help"), ("bench", "--help"), ("convert", "from-hf", "--help"),
                          ("bench", "--kokkos-disable-warnings", "--help")):
                output = self.run_program(*words, ranks=ranks)
                # Not its "Usage:", which newer versions of CLI11 don't say.
                self.assertEqual(output.count("Print this help message"), 1, output)
                self.assertNotIn("Kokkos::", output)
                self.assertNotIn("--kokkos", output)
            # Open MPI 5 begins with what it thinks of the names of variables.
            self.assertRegex(self.run_program("--version", ranks=ranks), r"(?m)^[0-9.]+ \(.*\)\n\Z")

    def test_words_of_kokkos_are_left_to_it(self):
        self.assertIn("moe.top_k", self.run_program("explain", "--kokkos-disable-warnings", "moe.*"))
        output = self.run_program("explain", "--kokkos-wings", "moe.*", code=64)
        self.assertIn("not expected: --kokkos-wings", output)


class Explanations(harness.Case):
    def test_explain_and_check(self):
        self.assertIn("moe.top_k", self.run_program("explain", "moe.*"))
        output = self.run_program("check", harness.TINY / "moe.toml", "optimizer.lr=5e-3")
        self.assertIn("lr = 0.005", output)
        self.assertIn("command line", output)
        self.run_program("explain", "moe.topk", code=64)

    def test_check_for_any_number_of_ranks(self):
        deck = (harness.TINY / "moe.toml", "batch.global_size=256", "batch.micro_size=1")
        output = self.run_program("check", *deck, "parallel.ep=4", "--ranks", "64")
        self.assertIn("# On each of 64 ranks", output)
        self.assertRegex(output, r"#   tp, cp, dp, pp +1, 1, 64, 1\n#   etp, ep, edp, pp +1, 4, 16, 1\n")
        self.assertRegex(output, r"micro-batches per step +4\n")
        self.assertRegex(output, r"#  +rank +dp +ep +edp\n#  +0 +0 +0 +0\n#  +1 +1 +1 +0\n")
        self.assertIn("32 more", output)

        self.assertIn("# On each of 4 ranks", self.run_program("check", *deck, "parallel.ep=4"))
        output = self.run_program("check", *deck, "parallel.ep=4", "--ranks", "6", code=69)
        self.assertIn("parallel.ep = 4 needs a number of ranks that is a multiple of 4", output)
        output = self.run_program("check", *deck, "--ranks", "3", code=69)
        self.assertIn("batch.global_size = 256 must be a multiple of", output)
        output = self.run_program("check", *deck, "parallel.order=tp-tp", "--ranks", "2", code=65)
        self.assertIn("tp is named twice", output)


if __name__ == "__main__":
    unittest.main()
