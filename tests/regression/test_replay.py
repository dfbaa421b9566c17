"""moe.replay: experts recorded by one run are those of another, whatever its mapping."""

import shutil
import signal
import sys
import unittest

import harness

try:
    import h5py
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(harness.SKIPPED)

STEPS, BATCH, LENGTH, LAYERS, EXPERTS, TOP_K = 5, 4, 32, 2, 4, 2
SHORT = {"run.steps": STEPS, "optimizer.warmup_steps": 1, "eval.interval": 2, "checkpoint.interval": 2}


def short(*overrides):
    """With those of a short training, unless these say something else."""
    given = {override.split("=")[0] for override in overrides}
    return (*(f"{key}={value}" for key, value in SHORT.items() if key not in given), *overrides)


class Case(harness.Case):
    def file(self, name):
        return self.run_folder(name) / "routing_choices.h5"

    def choices(self, name):
        with h5py.File(self.file(name), "r") as file:
            return file["experts"][:]

    def record(self, name, *overrides, **how):
        return self.train("moe.toml", name, *short("moe.replay=record", *overrides), **how)

    def replay(self, name, of, *overrides, **how):
        return self.train("moe.toml", name, *short(f"moe.replay={self.file(of)}", *overrides), **how)

    def assert_same_routing(self, name, other):
        """How many tokens each expert of each layer got in each step."""
        with h5py.File(self.run_folder(name) / "routing.h5", "r") as one, \
                h5py.File(self.run_folder(other) / "routing.h5", "r") as two:
            self.assertTrue((one["chosen"][:] == two["chosen"][:]).all(), f"{name} and {other}")


class File(Case):
    def test_is_what_its_attributes_say(self):
        output = self.record("one")
        self.assertIn("the experts of every token are recorded in", output)
        with h5py.File(self.file("one"), "r") as file:
            experts = file["experts"]
            self.assertEqual(experts.shape, (STEPS * BATCH, LENGTH, LAYERS, TOP_K))
            self.assertEqual(experts.dtype, "uint16")
            self.assertEqual(experts.chunks, (1, LENGTH, LAYERS, TOP_K))
            self.assertEqual(dict(experts.attrs), {"num_experts": EXPERTS, "top_k": TOP_K,
                                                   "sequence_length": LENGTH, "format_version": 1})
        # They are the experts that the steps counted.
        with h5py.File(self.run_folder("one") / "routing.h5", "r") as file:
            chosen = file["chosen"][:]
        found = self.choices("one").reshape(STEPS, BATCH * LENGTH, LAYERS, TOP_K)
        for expert in range(EXPERTS):
            self.assertTrue(((found == expert).sum(axis=(1, 3)) == chosen[:, :, expert]).all())

    def test_recording_changes_nothing(self):
        self.record("one")
        self.train("moe.toml", "plain", *short())
        self.assertEqual(self.lasting_metrics("one"), self.lasting_metrics("plain"))
        self.assertFalse(self.file("plain").exists())

    def test_is_the_same_of_every_mapping(self):
        fp64 = ("precision.compute=fp64", "moe.input_jitter=0.1", "moe.capacity_factor=1.0",
                "recompute.granularity=full")
        self.record("one", *fp64)
        for name, ranks, *mapping in (
                ("dp", 2, "batch.micro_size=1"), ("cp", 2, "parallel.cp=2", "parallel.ep=2"),
                ("pp", 2, "parallel.pp=2", "batch.micro_size=1"),
                ("tp", 4, "parallel.tp=2", "parallel.sp=true", "parallel.pp=2")):
            with self.subTest(mapping=name):
                self.record(name, *fp64, *mapping, ranks=ranks)
                self.assertTrue((self.choices(name) == self.choices("one")).all())

    def test_a_resumed_run_goes_on_with_it(self):
        constant = ("optimizer.schedule=constant", "eval.interval=0")
        process = self.start_training("moe.toml", "stopped",
                                      *short("moe.replay=record", "run.steps=20000", *constant))
        self.wait_for_step("stopped", 5, process)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=harness.SECONDS)
        self.assertEqual(process.returncode, 75)
        steps = len(self.metrics("stopped"))
        self.assertEqual(len(self.choices("stopped")), steps * BATCH)
        # The last checkpoint is lost, and the recording has more than the run that goes on.
        shutil.rmtree(self.checkpoint("stopped", steps))
        for name in ("stopped", "whole"):
            self.record(name, f"run.steps={steps + 3}", *constant)
            self.assertEqual(len(self.choices(name)), (steps + 3) * BATCH)
        self.assertEqual(self.losses("stopped"), self.losses("whole"))
        self.assertTrue((self.choices("stopped") == self.choices("whole")).all())

    def test_a_killed_run_goes_on_with_it(self):
        constant = ("optimizer.schedule=constant", "eval.interval=0")
        process = self.start_training("moe.toml", "killed",
                                      *short("moe.replay=record", "run.steps=20000", *constant))
        self.wait_for_step("killed", 7, process)
        process.kill()
        process.communicate(timeout=harness.SECONDS)
        steps = len(self.metrics("killed")) + 3
        for name in ("killed", "whole"):
            self.record(name, f"run.steps={steps}", *constant)
        self.assertEqual(self.losses("killed"), self.losses("whole"))
        self.assertTrue((self.choices("killed") == self.choices("whole")).all())


class Replays(Case):
    def test_to_the_bit(self):
        for name, *more in (
                ("softmax",), ("bf16", "precision.compute=bf16"), ("sigmoid", "moe.score_function=sigmoid"),
                ("dropping", "moe.capacity_factor=1.0", "moe.expert_bias=true", "moe.input_jitter=0.1"),
                ("groups", "moe.pre_softmax=true", "moe.num_groups=2", "moe.group_top_k=1")):
            with self.subTest(name):
                self.record(name, *more)
                output = self.replay(f"{name}-again", name, *more)
                self.assertIn("the experts of every token are those of", output)
                self.assertEqual(self.lasting_metrics(f"{name}-again"), self.lasting_metrics(name))

    def test_under_another_mapping(self):
        fp64 = ("precision.compute=fp64",)
        self.record("one", *fp64)
        for name, ranks, *mapping in (
                ("ep", 2, "parallel.ep=2", "batch.micro_size=1"), ("pp", 2, "parallel.pp=2"),
                ("tp", 4, "parallel.tp=2", "parallel.sp=true", "parallel.cp=2", "parallel.ep=4")):
            with self.subTest(mapping=name):
                self.replay(name, "one", *fp64, *mapping, ranks=ranks)
                self.assert_losses_near(name, "one", 1e-12)
                self.assert_same_routing(name, "one")
        # The other way round.
        self.record("two", *fp64, "parallel.ep=2", "batch.micro_size=1", ranks=2)
        self.replay("onetwo", "two", *fp64)
        self.assert_losses_near("onetwo", "two", 1e-12)

    def test_other_weights_follow(self):
        """Of another seed, but with the same data."""
        self.record("one", "data.shuffle=false")
        self.train("moe.toml", "free", *short("data.shuffle=false", "run.seed=77"))
        self.replay("led", "one", "data.shuffle=false", "run.seed=77")
        self.assert_same_routing("led", "one")
        self.assertNotEqual(self.losses("led"), self.losses("one"))
        self.assertNotEqual(self.losses("led"), self.losses("free"))
        with self.assertRaises(AssertionError):
            self.assert_same_routing("free", "one")

    def test_after_a_resume(self):
        constant = "optimizer.schedule=constant"
        self.record("one", constant)
        self.replay("again", "one", constant, "run.steps=3")
        self.replay("again", "one", constant)
        self.assertEqual(self.losses("again"), self.losses("one"))


class Errors(Case):
    def expect(self, code, words, *overrides, name="bad", ranks=1):
        more = ("parallel.ep=2", "batch.micro_size=1") if ranks == 2 else ()
        output = self.train("moe.toml", name, *short(*overrides, *more), code=code, ranks=ranks)
        for word in words:
            self.assertIn(word, output)
        self.assertEqual(output.count("konclave train:"), 1, output)

    def test_files_that_do_not_do(self):
        self.record("one", "run.steps=3")
        one = f"moe.replay={self.file('one')}"
        broken = self.folder / "broken.h5"
        broken.write_text("no HDF5")
        for ranks in (1, 2):
            with self.subTest(ranks=ranks):
                self.expect(66, ("nowhere.h5", "No such file"), "moe.replay=nowhere.h5", ranks=ranks)
                self.expect(66, ("broken.h5",), f"moe.replay={broken}", ranks=ranks)
                self.expect(65, ("12 sequences", "run.steps = 5", "run.steps = 3 would do"), one, ranks=ranks)
                self.expect(65, ("recorded with num_experts = 4, and this run has 8",), one, "moe.num_experts=8",
                            ranks=ranks)
        self.expect(65, ("recorded with 2 MoE layers, and this run has 1",), one, "moe.layer_frequency=2",
                    "model.ffn_hidden_size=32")

    def test_experts_that_are_none(self):
        self.record("one")
        with h5py.File(self.file("one"), "r+") as file:
            file["experts"][9, 3, 1, 0] = EXPERTS
        for ranks in (1, 2):
            self.expect(66, ("sequence 9 has a token whose experts are not 2 different ones of 4",),
                        f"moe.replay={self.file('one')}", name=f"bad{ranks}", ranks=ranks)

    def test_a_recording_that_was_not_begun(self):
        self.train("moe.toml", "one", *short("run.steps=2"))
        output = self.record("one", code=66)
        self.assertIn("routing_choices.h5", output)

    def test_what_excludes_each_other(self):
        for override in ("moe.force_load_balancing=true", "moe.balancing=sinkhorn"):
            self.expect(65, ("moe.replay", override.split("=")[0]), "moe.replay=some.h5", override,
                        *(("moe.aux_loss_coefficients=[]",) if "sinkhorn" in override else ()))


if __name__ == "__main__":
    unittest.main()
