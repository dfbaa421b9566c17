"""compare: which metrics and tensors of two runs differ, from which step, by how much."""

import json
import unittest

import harness


class Compare(harness.Case):
    def train_tiny(self, name, *overrides):
        self.train("moe.toml", name, *overrides)

    def compare(self, one, other, *options, code=0):
        return self.run_program("compare", one, other, *options, code=code)

    def compare_runs(self, one, other, *options, code=0):
        return self.compare(self.run_folder(one), self.run_folder(other), *options, code=code)

    def test_equal_runs_are_equal_to_the_bit(self):
        self.train_tiny("one")
        self.train_tiny("two")
        self.assertIn("within the figures", self.compare_runs("one", "two"))
        output = self.compare_runs("one", "two", "--tolerance", "0")
        self.assertIn("metrics of steps 1 to 20, all equal", output)
        self.assertIn("weights of step 20, all equal", output)

    def test_another_seed_differs_from_the_first_step(self):
        self.train_tiny("one")
        self.train_tiny("two", "run.seed=7")
        output = self.compare_runs("one", "two", code=1)
        self.assertIn("the first that differs is 1\n", output)
        self.assertIn("deck: run.seed is 1234 and 7", output)
        self.assertIn("the runs differ", output)
        result = json.loads(self.compare_runs("one", "two", "--json", code=1))
        self.assertFalse(result["within"])
        self.assertEqual(result["metrics"]["fields"][0]["first_exceeded"], 1)
        self.assertEqual(result["weights"]["first_exceeded"]["name"], "model/model.embed_tokens.weight")

    def test_micro_sizes_agree_within_the_figures(self):
        for compute in ("fp32", "fp64"):
            for micro in (1, 4):
                self.train_tiny(f"{compute}-{micro}", f"batch.micro_size={micro}",
                                f"precision.compute={compute}")
            one, other = f"{compute}-1", f"{compute}-4"
            result = json.loads(self.compare_runs(one, other, "--json"))
            self.assertTrue(result["within"])
            self.assertIsNotNone(result["weights"]["first_unequal"])
            self.compare_runs(one, other, "--tolerance", "0", code=1)

    def test_a_changed_step_is_named(self):
        """The learning rate is another one from step 11 on: step 12 is the first to show it."""
        self.train_tiny("one")
        self.train_tiny("two", "run.steps=10", "optimizer.decay_steps=18")
        self.compare_runs("one", "two")
        self.train_tiny("two", "optimizer.lr=2e-2")
        result = json.loads(self.compare_runs("one", "two", "--json", code=1))
        by_name = {field["name"]: field for field in result["metrics"]["fields"]}
        self.assertEqual(by_name["loss"]["first_unequal"], 12)
        self.assertEqual(by_name["lr"]["first_exceeded"], 11)
        self.assertTrue(by_name["tokens"]["within"])
        self.assertTrue(result["weights"]["first_exceeded"]["name"].startswith("model/"))
        # The checkpoints of step 10 alone are still equal.
        output = self.compare(self.checkpoint("one", 10), self.checkpoint("two", 10),
                              "--tolerance", "0")
        self.assertIn("metrics are not compared", output)

    def test_what_is_missing_is_named(self):
        self.train_tiny("one", "run.steps=2", "optimizer.warmup_steps=1")
        output = self.compare(self.run_folder("one"), "nowhere/at-all", code=66)
        self.assertIn("nowhere/at-all", output)
        self.compare(self.run_folder("one"), self.folder, code=66)
        self.run_program("compare", self.run_folder("one"), code=64)


if __name__ == "__main__":
    unittest.main()
