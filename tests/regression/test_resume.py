"""Runs that are killed, stopped or repeated end with the same bits as one that was left alone."""

import json
import os
import signal
import struct
import unittest

import harness

STEPS = 20


class Resume(harness.Case):
    DECK = "moe.toml"

    def overrides(self, compute, steps=STEPS):
        return (f"precision.compute={compute}", f"run.steps={steps}", "checkpoint.interval=3",
                "checkpoint.keep=2")

    def assert_same_run(self, name, other):
        self.assertEqual(self.lasting_metrics(name), self.lasting_metrics(other))
        self.assert_same_tensors(self.checkpoint(name, STEPS), self.checkpoint(other, STEPS))

    def train_and_signal(self, name, step, number, overrides):
        process = self.start_training(self.DECK, name, *overrides)
        self.wait_for_step(name, step, process)
        process.send_signal(number)
        output = process.communicate()[0]
        return process.returncode, output

    def check_kills(self, compute):
        overrides = self.overrides(compute)
        self.train(self.DECK, "whole", *overrides)
        killed = 0
        for step in (1, 4, 8, 13, 17):
            code, _ = self.train_and_signal("killed", step, signal.SIGKILL, overrides)
            killed += code == -signal.SIGKILL
        self.assertGreater(killed, 2, "the run ended before it could be killed")
        self.train(self.DECK, "killed", *overrides)
        self.assert_same_run("killed", "whole")

    def test_killed_fp32(self):
        self.check_kills("fp32")

    def test_killed_bf16(self):
        self.check_kills("bf16")

    def test_what_routers_remember(self):
        """A bias and the load of the last step, which the next one chooses and weighs by."""
        routing = ("moe.expert_bias=true", "moe.expert_bias_update_rate=0.03", "moe.balancing=global_aux_loss",
                   "moe.aux_loss_coefficients=0.5")
        overrides = (*self.overrides("fp32"), *routing)
        self.train(self.DECK, "whole", *overrides)
        code, output = self.train_and_signal("killed", 8, signal.SIGTERM, overrides)
        self.assertEqual(code, 75, output)
        tensors = self.run_program("inspect", self.run_folder("killed"))
        for name in ("routing/expert_bias", "routing/previous_load"):
            self.assertIn(name, tensors)
        self.train(self.DECK, "killed", *overrides)
        self.assert_same_run("killed", "whole")

    def test_evaluation_chooses_with_the_bias(self):
        """That of a step so large that it alone decides."""
        overrides = (*self.overrides("fp32", steps=1), "optimizer.warmup_steps=1", "moe.expert_bias=true",
                     "moe.expert_bias_update_rate=100")
        self.train(self.DECK, "biased", *overrides)
        tokens = self.folder / "tokens.safetensors"
        harness.write_safetensors(tokens, {"input_ids": ("I32", [2, 32], struct.pack("<64i", *range(30, 94)))})
        found = [self.run_program("eval", self.run_folder("biased"), "--tokens", tokens, f"moe.expert_bias={use}")
                 for use in ("true", "false")]
        losses = [json.loads(output[output.index("{"):])["loss"] for output in found]
        self.assertNotEqual(*losses)

    def test_signals_save_and_exit_75(self):
        overrides = self.overrides("fp32")
        self.train(self.DECK, "whole", *overrides)
        for number in (signal.SIGTERM, signal.SIGUSR1):
            name = signal.Signals(number).name
            code, output = self.train_and_signal(name, 2, number, overrides)
            self.assertEqual(code, 75, output)
            saved = sorted(os.listdir(self.run_folder(name) / "checkpoints"))
            step = self.metrics(name)[-1]["step"]
            self.assertIn(f"step-{step:08d}", saved)
            output = self.train(self.DECK, name, *overrides)
            self.assertIn(f"at step {step}", output)
            self.assert_same_run(name, "whole")

    def test_twice_the_same(self):
        for name in ("one", "two"):
            self.train(self.DECK, name, *self.overrides("bf16"))
        self.assert_same_run("one", "two")

    def test_another_seed_is_another_run(self):
        self.train(self.DECK, "one", *self.overrides("fp32"))
        self.train(self.DECK, "two", *self.overrides("fp32"), "run.seed=99")
        self.assertNotEqual(self.losses("one"), self.losses("two"))

    def test_complete_run_has_nothing_to_do(self):
        self.train(self.DECK, "one", *self.overrides("fp32"))
        before = self.metrics("one")
        output = self.train(self.DECK, "one", *self.overrides("fp32"))
        self.assertIn("complete", output)
        self.assertEqual(before, self.metrics("one"))

    def test_damaged_newest_checkpoint_is_passed_over(self):
        overrides = self.overrides("fp32")
        self.train(self.DECK, "whole", *overrides)
        self.train(self.DECK, "hurt", *overrides)
        tensors = self.checkpoint("hurt", STEPS) / "tensors.h5"
        data = bytearray(tensors.read_bytes())
        data[len(data) // 2] ^= 1
        tensors.write_bytes(data)
        output = self.train(self.DECK, "hurt", *overrides)
        self.assertIn("tensors.h5", output)
        self.assertIn("resumed from", output)
        self.assert_same_run("hurt", "whole")

    def test_changed_model_is_refused_and_other_changes_are_listed(self):
        self.train(self.DECK, "one", *self.overrides("fp32"))
        output = self.train(self.DECK, "one", *self.overrides("fp32"), "moe.top_k=1",
                            "moe.pre_softmax=true", code=65)
        self.assertIn("moe.top_k: 2 -> 1", output)
        output = self.train(self.DECK, "one", *self.overrides("fp32"), "optimizer.eps=1e-7")
        self.assertIn("optimizer.eps", output)

    def test_a_chosen_checkpoint(self):
        overrides = (*self.overrides("fp32"), "checkpoint.keep_every=3")
        self.train(self.DECK, "whole", *overrides)
        older = self.checkpoint("whole", 9)
        output = self.train(self.DECK, "whole", *overrides, f"run.resume={older}", code=69)
        self.assertIn(f"step-{STEPS:08d}", output)
        self.train(self.DECK, "branch", *overrides, f"run.resume={older}")
        self.assertEqual(self.lasting_metrics("branch"), self.lasting_metrics("whole")[9:])
        self.assert_same_tensors(self.checkpoint("branch", STEPS), self.checkpoint("whole", STEPS))

    def test_time_limit_saves_and_exits_75(self):
        self.train(self.DECK, "slow", *self.overrides("fp32", steps=100000), "run.time_limit=3 s",
                   code=75)
        step = self.metrics("slow")[-1]["step"]
        self.assertTrue(self.checkpoint("slow", step).is_dir())


if __name__ == "__main__":
    unittest.main()
