"""upcycle: a dense model becomes a mixture of experts that does the same, or nearly."""

import json
import shutil
import struct
import unittest

import harness

from test_commands import tokens_file

# num_experts, top_k, ffn_hidden_size of a model whose dense MLP has 64, other keys. The logits are those of the
# dense model wherever the weights of the chosen experts add up to what the factor makes up for.
POST_SOFTMAX = ((4, 1, 64), (4, 2, 64), (6, 3, 64), (4, 2, 32), (8, 4, 32), (8, 4, 16), (12, 8, 16))
ALL_CHOSEN = ((2, 2, 64), (4, 4, 32), (8, 8, 16))
SIGMOID = ((4, 2, 64), (4, 2, 32), (8, 4, 16))
PRE_SOFTMAX = ((4, 1, 64), (4, 2, 64), (6, 4, 32), (8, 4, 16))
OTHERS = (
    (4, 2, 32, "moe.scaling_factor=2.5"),
    (4, 2, 32, "moe.layer_frequency=[0,1]", "model.ffn_hidden_size=64"),
    (8, 4, 32, "moe.num_groups=2", "moe.group_top_k=2"),
    (8, 4, 32, "moe.num_groups=2", "moe.group_top_k=1", "moe.score_function=sigmoid", "moe.expert_bias=true"),
    (4, 2, 32, "moe.capacity_factor=1", "moe.router_dtype=fp64"),
)


def keys(num_experts, top_k, ffn, *others):
    return (f"moe.num_experts={num_experts}", f"moe.top_k={top_k}", f"moe.ffn_hidden_size={ffn}", *others)


class Upcycling(harness.Case):
    def setUp(self):
        super().setUp()
        self.train("dense.toml", "dense", "eval.interval=0")
        self.dense = self.run_folder("dense")
        numbers = [(37 * i * i + 11 * i) % 256 for i in range(3 * 32)]
        self.tokens = self.folder / "tokens.safetensors"
        harness.write_safetensors(self.tokens, {"input_ids": ("I64", [3, 32], struct.pack("<96q", *numbers))})

    def upcycle(self, *overrides, dense=None, code=0, target="made"):
        return self.run_program("upcycle", dense or self.dense, target, harness.TINY / "moe.toml", *overrides,
                                code=code)

    def logits(self, model, *overrides, **how):
        self.run_program("eval", model, "--tokens", self.tokens, "--logits", "logits.safetensors", *overrides, **how)
        return harness.floats(harness.read_safetensors(self.folder / "logits.safetensors")["logits"][2])

    def differences(self, cases, *overrides, more=(), spread=(), **how):
        """The largest difference from the dense model's logits, for each case; `how` and `spread` for the new model."""
        expected, found = self.logits(self.dense, *overrides), []
        for number, case in enumerate(cases):
            target = f"made-{number}"
            self.upcycle(*keys(*case), *more, target=target)
            got = self.logits(target, *overrides, *spread, **how)
            self.assertEqual(len(got), len(expected))
            found.append(max(abs(a - b) for a, b in zip(got, expected)))
            shutil.rmtree(self.folder / target)
        return found

    def assert_equal_logits(self, cases, *more, tolerance=4e-6, compute="fp64", **how):
        """fp64 is evaluated, and logits are written in fp32."""
        for case, worst in zip(cases, self.differences(cases, f"precision.compute={compute}", more=more, **how)):
            self.assertLess(worst, tolerance, (case, more))

    def test_equal_with_softmax_behind_the_choice(self):
        self.assert_equal_logits(POST_SOFTMAX)

    def test_equal_with_sigmoids(self):
        self.assert_equal_logits(SIGMOID, "moe.score_function=sigmoid")

    def test_equal_with_other_settings(self):
        self.assert_equal_logits(OTHERS)

    def test_equal_with_softmax_before_the_choice_of_all(self):
        self.assert_equal_logits(ALL_CHOSEN, "moe.pre_softmax=true")

    def test_equal_with_softmax_before_the_choice_by_an_even_router(self):
        self.assert_equal_logits(PRE_SOFTMAX, "moe.pre_softmax=true", "model.init_std=1e-9")

    def test_equal_where_all_logits_are(self):
        """A deviation that is 0 in fp32: the lowest experts are a copy."""
        cases = (4, 2, 32), (12, 4, 16)
        for more in ((), ("moe.pre_softmax=true",), ("moe.score_function=sigmoid",)):
            self.assert_equal_logits(cases, "model.init_std=1e-60", *more)

    def test_near_with_softmax_before_the_choice(self):
        """The chosen ones weigh more than the average, by about as much as the router's logits differ."""
        cases = (4, 1, 64), (8, 4, 16)
        far, near = (self.differences(cases, "precision.compute=fp64",
                                      more=("moe.pre_softmax=true", f"model.init_std={std}"))
                     for std in (0.02, 0.002))
        for case, worst, less in zip(cases, far, near):
            self.assertLess(worst, 2, case)  # the largest logit is 3
            self.assertTrue(6 < worst / less < 12, (case, worst, less))

    def test_equal_in_fp32_and_over_ranks(self):
        self.assert_equal_logits(((4, 2, 32), (8, 4, 16)), tolerance=2e-5, compute="fp32", ranks=2,
                                 spread=("parallel.ep=2",))

    def test_scaling_as_megatron_has_it(self):
        """Nothing to scale, or scaled inside of silu as well."""
        self.assert_equal_logits(((4, 2, 64),), "--scaling=megatron")
        worst, = self.differences(((4, 2, 32),), "precision.compute=fp64", more=("--scaling=megatron",))
        self.assertGreater(worst, 1e-3)
        self.assertLess(worst, 0.5)

    def test_it_says_whether_logits_are_equal(self):
        self.assertIn("logits are the dense model's to rounding", self.upcycle(*keys(4, 2, 32), target="a"))
        for number, more in enumerate((("moe.pre_softmax=true",), ("--scaling=megatron",))):
            self.assertIn("near the dense model's", self.upcycle(*keys(4, 2, 32), *more, target=str(number)))

    def test_bf16_stays_bf16(self):
        self.train("dense.toml", "half", "eval.interval=0", "precision.compute=bf16")
        self.dense = self.run_folder("half")
        self.assert_equal_logits(((4, 2, 32), (8, 4, 16)), "precision.compute=bf16")
        self.upcycle(*keys(4, 2, 32), "precision.compute=bf16")
        output = self.run_program("inspect", "made", "--verify")
        self.assertRegex(output, r"experts\.up_proj\.weight +.*bfloat16")
        self.assertRegex(output, r"router\.weight +.*float32")

    def test_training_goes_on_where_the_dense_model_was(self):
        same = ("eval.interval=0", "run.steps=1", "optimizer.warmup_steps=0", "moe.z_loss_coefficient=0")
        self.train("dense.toml", "more", *same, f"checkpoint.load={self.dense}")
        for name, case in (("plain", (4, 2, 64)), ("granular", (8, 4, 16))):
            self.upcycle(*keys(*case), target=f"{name}.ckpt")
            self.train("moe.toml", name, *same, *keys(*case), f"checkpoint.load={name}.ckpt")
            self.assertAlmostEqual(self.losses(name)[0], self.losses("more")[0], delta=1e-5)

    def test_its_tokens_are_known_by_a_deck_with_data(self):
        self.upcycle(*keys(4, 2, 32))
        output = self.run_program("generate", "made", "--prompt", "The ", "--max-tokens", "3")
        self.assertTrue(output.startswith("The "))
        text = (harness.TINY / "moe.toml").read_text()
        deck = self.folder / "model.toml"
        deck.write_text(text[text.index("[model]"):text.index("[batch]")] + "[precision]\ncompute = \"fp32\"\n")
        self.run_program("upcycle", self.dense, "model-alone", deck, *keys(4, 2, 32))
        output = self.run_program("generate", "model-alone", "--prompt", "The ", code=66)
        self.assertIn("data.tokenizer=bytes", output)

    def test_a_checkpoint_and_a_hugging_face_folder(self):
        self.dense = self.checkpoint("dense", 10)
        self.assert_equal_logits(((4, 2, 32),))
        self.dense = harness.ORACLE / "mistral" / "hf"
        self.tokens = tokens_file(self.folder, "mistral")
        config = json.loads((harness.ORACLE / "mistral" / "oracle.json").read_text())["config"]
        model = [f"model.{key}={config[key]}" for key in
                 ("vocab_size", "sequence_length", "hidden_size", "num_layers", "num_heads", "num_kv_heads", "head_dim",
                  "norm_eps", "rope_theta")]
        ffn = config["ffn_hidden_size"]
        self.assert_equal_logits(((4, 2, ffn), (4, 2, ffn // 2)), *model)

    def assert_refused(self, code, overrides, *words, **how):
        output = self.upcycle(*overrides, code=code, **how)
        for word in words:
            self.assertIn(word, output, overrides)
        self.assertFalse((self.folder / "made").exists())

    def test_what_cannot_be_made_is_refused(self):
        self.assert_refused(65, keys(4, 2, 48), "moe.ffn_hidden_size = 48", "model.ffn_hidden_size = 64",
                            "32 or 64 would do")
        self.assert_refused(65, keys(6, 4, 16), "moe.num_experts = 6", "multiple of 4", "4 or 8 would do")
        self.assert_refused(65, keys(4, 3, 32), "moe.top_k = 3", "2 or 4 would do")
        self.assert_refused(65, keys(4, 2, 32, "model.hidden_size=64"), "model.hidden_size = 64",
                            "model.hidden_size = 32 would do")
        self.assert_refused(65, keys(4, 2, 32, "moe.shared_ffn_hidden_size=8"), "shared_ffn_hidden_size = 0 would do")
        self.assert_refused(65, keys(4, 2, 32, "moe.topk=2"), "moe.top_k")
        self.assert_refused(64, ("--scaling=best",), "exact", "megatron")

    def test_bad_sources_and_targets(self):
        self.assert_refused(66, keys(4, 2, 32), "nowhere", dense="nowhere")
        self.run_program("upcycle", self.dense, "made", "nowhere.toml", code=66)
        self.upcycle(*keys(4, 2, 32), target="experts")
        self.assert_refused(66, keys(4, 2, 32), "has experts already", dense="experts")
        output = self.upcycle(*keys(4, 2, 32), target="experts", code=74)
        self.assertIn("exists already", output)


if __name__ == "__main__":
    unittest.main()
