"""Runs of several ranks: they repeat, stop and go on with the same bits; what they leave serves any
number of ranks; when one of them fails, all end at once with its code and one message."""

import json
import math
import os
import random
import signal
import struct
import subprocess
import time
import unittest

import harness

EP_FIRST, DP_FIRST = "tp-cp-ep-dp-pp", "tp-cp-dp-ep-pp"
# 12 sequences: 1, 2, 3 and 4 ranks can share them. Without decay a run may be made longer later.
SHARED = ("batch.global_size=12", "batch.micro_size=1", "optimizer.schedule=constant",
          "eval.interval=0")
PROMPTLY = 10  # seconds in which a job ends when one of its ranks fails


def steps(count, interval=0):
    return (f"run.steps={count}", f"checkpoint.interval={interval}", "checkpoint.keep=99")


def shared(*overrides):
    """With those of SHARED that are not overridden."""
    keys = {text.split("=")[0] for text in overrides}
    return (*(text for text in SHARED if text.split("=")[0] not in keys), *overrides)


class Case(harness.Case):
    def train_shared(self, name, *overrides, ep=1, deck="moe.toml", **how):
        return self.train(deck, name, *shared(f"parallel.ep={ep}", *overrides), **how)

    def start_shared(self, name, *overrides, ep=1, **how):
        return self.start_training("moe.toml", name, *shared(f"parallel.ep={ep}", *overrides),
                                   **how)

    def finish(self, process):
        """Waits for a run; gives back all that it printed."""
        return process.communicate(timeout=harness.SECONDS)[0]

    def assert_same_run(self, name, other, step):
        self.assertEqual(self.lasting_metrics(name), self.lasting_metrics(other))
        self.assert_same_tensors(self.checkpoint(name, step), self.checkpoint(other, step))

    def saved_steps(self, name):
        folder = self.run_folder(name) / "checkpoints"
        names = os.listdir(folder) if folder.is_dir() else []
        return sorted(int(entry.split("-")[1]) for entry in names if entry.startswith("step-"))

    def ranks_of(self, name):
        """The process of each rank."""
        provenance = json.loads((self.run_folder(name) / "provenance.json").read_text())
        return [rank["pid"] for rank in provenance["ranks"]]

    def training_fails(self, words, code, name, *overrides, **how):
        """As `fails`, for a training."""
        return self.fails(words, code, *self.training("moe.toml", name, *shared(*overrides)), **how)

    def fails(self, words, code, *arguments, ranks=2, **how):
        """Expects that a command ends promptly with this code, with `words` once and no rank left.
        Gives back its standard error."""
        begin = time.monotonic()
        process = self.start(*arguments, ranks=ranks, stderr=subprocess.PIPE, **how)
        output, errors = process.communicate(timeout=harness.SECONDS)
        self.assertEqual(process.returncode, code, output + errors)
        self.assertEqual(errors.count(words), 1, errors)
        self.assertNotIn(words, output)
        self.assertLess(time.monotonic() - begin, PROMPTLY, errors)
        self.wait_for_the_end_of_all(seconds=2)
        return errors


class Repetition(Case):
    def test_twice_the_same_on_4_ranks(self):
        for deck, ep in (("moe.toml", 2), ("dense.toml", 1)):
            with self.subTest(deck=deck):
                for name in ("one", "two"):
                    self.train_shared(deck + name, *steps(12), "eval.interval=4", ranks=4, ep=ep,
                                      deck=deck)
                self.assert_same_run(deck + "one", deck + "two", 12)

    def test_progress_is_lines_behind_a_launcher(self):
        """Open MPI gives rank 0 a terminal, whatever the output of mpirun goes to."""
        output = self.run_program("train", harness.TINY / "moe.toml", "run.name=one",
                                  "run.out=runs", *shared(*steps(3), "parallel.ep=2"), ranks=2)
        self.assertEqual(output.count("step 2/3  loss"), 1, output)
        self.assertNotIn("] step", output)


    def test_two_ranks_on_one_core_are_warned_of(self):
        cores = os.sched_getaffinity(0)
        if len(cores) == 1:
            self.skipTest("needs two cores")
        output = self.train_shared("one", *steps(3), ranks=2, ep=2,
                                   preexec_fn=lambda: os.sched_setaffinity(0, {min(cores)}))
        self.assertEqual(output.count("hardware: 2 ranks on 1 host"), 1, output)
        self.assertEqual(output.count("warning: ranks 0 and 1 on "), 1, output)
        self.assertIn("bound to the same core", output)


class Traffic(Case):
    """Bytes of a step, counted and by formula."""

    def check(self, *overrides, ranks):
        """Gives back what the formula says."""
        mapping = shared(*steps(2), *overrides)
        output = self.train("moe.toml", "run", *mapping, ranks=ranks)
        return self.assert_traffic(output, harness.TINY / "moe.toml", *mapping, ranks=ranks)

    def test_the_summary_has_what_check_expects(self):
        groups = self.check("parallel.tp=2", "parallel.sp=true", "parallel.pp=2", "parallel.ep=2",
                            "model.tie_embeddings=true", ranks=4)
        self.assertEqual(list(groups), ["tp", "pp", "tp_cp", "tp_dp_cp", "ep", "etp_ep"])

    def test_evaluation_is_no_part_of_it(self):
        self.check("parallel.cp=2", "eval.interval=1", ranks=2)

    def test_a_budget_leaves_some_to_the_router(self):
        groups = self.check("parallel.ep=2", "moe.receive_budget=70", ranks=2)
        least, most = groups["ep"]
        self.assertLess(least, most)

    def test_one_rank_has_none(self):
        self.assertEqual(self.check(ranks=1), {})


class Stops(Case):
    # Open MPI gives ranks this time to obey the SIGTERM that it got, and 1 s if nobody asks.
    environment = {"OMPI_MCA_odls_base_sigkill_timeout": "3"}

    def stop(self, name, number, whom):
        """Starts a run on 2 ranks and sends a signal to its launcher, or to one of its ranks."""
        process = self.start_shared(name, *steps(100000), ranks=2, ep=2)
        self.wait_for_step(name, 2, process)
        target = process.pid if whom == "launcher" else self.ranks_of(name)[whom]
        os.kill(target, number)
        return self.finish(process), process.returncode

    def check_resume(self, name, output, ranks=2, ep=2):
        """The run was saved where it stopped, and goes on as if it never had."""
        last = self.metrics(name)[-1]["step"]
        self.assertIn(f"stopping at step {last} ", output)
        self.assertEqual(self.saved_steps(name), [last])
        output = self.train_shared(name, *steps(last + 3), ranks=ranks, ep=ep)
        self.assertIn(f"at step {last}", output)
        self.train_shared(name + "-whole", *steps(last + 3), ranks=ranks, ep=ep)
        self.assert_same_run(name, name + "-whole", last + 3)

    def test_usr1(self):
        for whom in ("launcher", 0, 1):
            with self.subTest(whom=whom):
                output, code = self.stop(f"to-{whom}", signal.SIGUSR1, whom)
                self.assertEqual(code, 75, output)
                self.assertEqual(output.count("after signal 10"), 1)
                self.check_resume(f"to-{whom}", output)

    def test_term_to_one_rank(self):
        output, code = self.stop("one", signal.SIGTERM, 1)
        self.assertEqual(code, 75, output)
        self.check_resume("one", output)

    def launcher_hands_term_on(self):
        """PRRTE 5, the launcher of Open MPI 6, kills its ranks at once instead."""
        script = "trap 'echo caught; exit' TERM; echo ready; while :; do sleep 0.1; done"
        launcher = ["1" if word == "RANKS" else word for word in harness.LAUNCHER]
        process = subprocess.Popen([*launcher, "bash", "-c", script], stdout=subprocess.PIPE,
                                   stdin=subprocess.DEVNULL, text=True)
        self.addCleanup(harness.end, process)
        process.stdout.readline()
        process.terminate()
        return "caught" in process.communicate(timeout=harness.SECONDS)[0]

    def test_term_to_the_launcher(self):
        """It hands the signal on. The exit code is its own, as it knows that it was stopped."""
        if not self.launcher_hands_term_on():
            self.skipTest("the launcher does not hand SIGTERM on")
        output, _ = self.stop("all", signal.SIGTERM, "launcher")
        self.wait_for_the_end_of_all(seconds=10)
        self.assertEqual(output.count("after signal 15"), 1, output)
        self.check_resume("all", output)

    def test_time_limit(self):
        output = self.train_shared("short", *steps(100000), "run.time_limit=2 s", ranks=4, ep=2,
                                   code=75)
        self.assertIn("for run.time_limit", output)
        self.check_resume("short", output, ranks=4, ep=2)


class Mappings(Case):
    def test_going_on_under_another_mapping_is_refused(self):
        self.train_shared("run", *steps(3), ranks=4, ep=2)
        saved = f"4 ranks with parallel.ep = 2, parallel.order = \"{EP_FIRST}\""
        for ranks, ep, order, wanted in (
                (1, 1, EP_FIRST, "this one is on 1 rank:"),
                (2, 2, EP_FIRST, "this one is on 2 ranks with parallel.ep = 2"),
                (4, 1, EP_FIRST, "this one is on 4 ranks:"),
                (4, 4, EP_FIRST, "this one is on 4 ranks with parallel.ep = 4"),
                (4, 2, DP_FIRST, f"with parallel.ep = 2, parallel.order = \"{DP_FIRST}\"")):
            with self.subTest(ranks=ranks, ep=ep, order=order):
                errors = self.training_fails(saved, 69, "run", *steps(5), f"parallel.ep={ep}",
                                             f"parallel.order={order}", ranks=ranks)
                self.assertIn(wanted, errors)
                self.assertIn("checkpoint.load", errors)
        self.assertEqual(self.saved_steps("run"), [3])

    def test_an_order_that_changes_nothing_goes_on(self):
        self.train_shared("run", *steps(3), ranks=4, ep=4)
        output = self.train_shared("run", *steps(5), f"parallel.order={DP_FIRST}", ranks=4, ep=4)
        self.assertIn("at step 3", output)

    def test_another_micro_size_goes_on(self):
        self.train_shared("run", *steps(3), ranks=2, ep=2)
        output = self.train_shared("run", *steps(5), "batch.micro_size=3", ranks=2, ep=2)
        self.assertIn("batch.micro_size: 1 -> 3", output)
        self.train_shared("whole", *steps(5), ranks=2, ep=2)
        self.assert_losses_near("run", "whole", 1e-5)

    def test_weights_of_4_ranks_start_a_run_of_any(self):
        self.train_shared("first", *steps(3), ranks=4, ep=2)
        load = f"checkpoint.load={self.checkpoint('first', 3)}"
        for ranks, ep in ((1, 1), (2, 1), (2, 2), (3, 1)):
            self.train_shared(f"{ranks}-{ep}", *steps(2), load, ranks=ranks, ep=ep)
            self.assert_losses_near(f"{ranks}-{ep}", "1-1", 1e-5)
        self.assertLess(self.losses("1-1")[0], self.losses("first")[0])


class Models(Case):
    """One checkpoint of 4 ranks, used by any number of them."""

    MAPPINGS = ((1, None), (2, None), (2, 1), (2, 2), (3, None), (3, 1), (4, None), (4, 1), (4, 2))

    def setUp(self):
        super().setUp()
        self.output = self.train_shared("run", *steps(6), ranks=4, ep=2)
        self.model = self.run_folder("run")

    def write_tokens(self, sequences):
        """Nine sequences make three micro-batches: a rank of four has none, one has a single."""
        draw = random.Random(3)
        values = [draw.randrange(256) for _ in range(sequences * 32)]
        harness.write_safetensors(self.folder / "tokens.safetensors", {
            "input_ids": ("I32", [sequences, 32], struct.pack(f"<{len(values)}i", *values))})

    def results(self, *arguments, **how):
        """Standard output of a command."""
        process = self.start(*arguments, stderr=subprocess.PIPE, **how)
        output, errors = process.communicate(timeout=harness.SECONDS)
        self.assertEqual(process.returncode, 0, output + errors)
        return output

    def evaluate(self, model, *arguments, ranks=1, ep=None):
        mapping = [] if ep is None else [f"parallel.ep={ep}"]
        tokens = self.folder / "tokens.safetensors"
        return json.loads(self.results("eval", model, "--tokens", tokens, *arguments, *mapping,
                                       ranks=ranks))

    def test_the_same_loss_on_any_ranks(self):
        self.write_tokens(9)
        alone = self.evaluate(self.model, "precision.compute=fp64")
        self.assertEqual((alone["sequences"], alone["tokens"]), (9, 9 * 31))
        for ranks, ep in self.MAPPINGS:
            with self.subTest(ranks=ranks, ep=ep):
                result = self.evaluate(self.model, "precision.compute=fp64", ranks=ranks, ep=ep)
                self.assertEqual(result["tokens"], alone["tokens"])
                if ep == 1:
                    self.assertEqual(result, alone)
                self.assertAlmostEqual(result["loss"] / alone["loss"], 1, delta=1e-12)
        self.fails("multiple of 2", 69, "eval", self.model, "--tokens",
                   self.folder / "tokens.safetensors", "parallel.ep=2", ranks=3)

    def test_the_same_logits_on_any_ranks(self):
        self.write_tokens(9)

        def logits(name, **how):
            self.evaluate(self.model, "--logits", name, **how)
            dtype, shape, blob = harness.read_safetensors(self.folder / name)["logits"]
            self.assertEqual((dtype, shape), ("F32", [9, 32, 256]))
            return harness.floats(blob)

        alone = logits("alone")
        self.assertGreater(max(alone) - min(alone), 1)
        for ranks, ep in ((2, 2), (3, None), (4, 2)):
            worst = max(abs(a - b) for a, b in zip(logits("other", ranks=ranks, ep=ep), alone))
            self.assertLess(worst, 1e-5, f"{ranks} ranks, ep = {ep}")

    def test_the_same_text_on_any_ranks(self):
        for temperature in (0, 0.8):
            command = ("generate", self.model, "--prompt", "The ", "--max-tokens", "20",
                       "--temperature", temperature, "--seed", "5")
            alone = self.results(*command)
            self.assertEqual(alone.count("The "), 1)
            for ranks in (2, 3):
                self.assertEqual(self.results(*command, ranks=ranks), alone)

    def test_inspect_convert_and_compare(self):
        checkpoint = self.checkpoint("run", 6)
        output = self.results("inspect", checkpoint, "--verify", ranks=2)
        self.assertEqual(output, self.results("inspect", checkpoint, "--verify"))
        self.assertEqual(output.count("every checksum is right"), 1)

        output = self.results("convert", "to-hf", checkpoint, "hf", ranks=2)
        self.assertEqual(output.count("\n"), 1, output)
        self.results("convert", "to-hf", checkpoint, "hf-alone")
        one, two = (self.folder / name / "model.safetensors" for name in ("hf", "hf-alone"))
        self.assertEqual(one.read_bytes(), two.read_bytes())
        output = self.results("convert", "from-hf", "hf", "back", ranks=2)
        self.assertEqual(output.count("\n"), 1, output)
        self.results("inspect", "back", "--verify")

        self.write_tokens(5)
        results = [self.evaluate(model, "precision.compute=fp32", ranks=2, ep=2)
                   for model in (self.model, "hf", "back")]
        self.assertEqual(results[1:], results[:1] * 2)

        self.train_shared("alone", *steps(6), ranks=1)
        output = self.results("compare", self.model, self.run_folder("alone"), ranks=2)
        self.assertEqual(output.count("within the figures"), 1, output)

    def test_a_run_says_what_it_does_once(self):
        for words in ("mapping: 4 ranks, tp = 1, cp = 1, dp = 4, pp = 1; experts etp = 1, ep = 2",
                      "backend of gemm", "hardware: 4 ranks", "run folder: "):
            self.assertEqual(self.output.count(words), 1, self.output)


class Errors(Case):
    """One message, the right code, no rank left: see `fails`."""

    def refuse(self, words, code, *overrides, **how):
        return self.training_fails(words, code, "bad", *steps(4), *overrides, **how)

    def test_decks(self):
        self.refuse("unknown key optimizer.learning_rate", 65, "optimizer.learning_rate=1")
        self.refuse("moe.num_experts must be a multiple of parallel.ep", 65, "parallel.ep=3",
                    "moe.num_experts=4", ranks=3)
        self.refuse("tp is named twice", 65, "parallel.order=tp-tp")
        self.fails("nowhere.toml", 66, "train", "nowhere.toml")

    def test_ranks_that_do_not_fit(self):
        self.refuse("parallel.ep = 2 needs a number of ranks that is a multiple of 2", 69,
                    "parallel.ep=2", ranks=3)
        self.refuse("batch.global_size = 12 must be a multiple of batch.micro_size x dp", 69,
                    "batch.micro_size=4", ranks=2)
        self.assertEqual(self.saved_steps("bad"), [])

    def test_data_and_models(self):
        self.refuse("/nowhere/text", 66, "data.files=[\"/nowhere/text\"]")
        self.refuse("nowhere/model", 66, "checkpoint.load=nowhere/model")
        self.fails("nowhere/model", 66, "generate", "nowhere/model", "--prompt", "x", ranks=3)

    def test_a_run_folder_in_use_or_not_to_be_made(self):
        first = self.start_shared("bad", *steps(100000), ranks=2)
        self.wait_for_step("bad", 1, first)
        holder = self.ranks_of("bad")[0]
        os.kill(holder, signal.SIGSTOP)  # the cores are ours meanwhile, and no step goes by
        output = self.train_shared("bad", *steps(4), ranks=2, code=69)
        os.kill(holder, signal.SIGCONT)
        self.assertEqual(output.count(f"in use by process {holder} "), 1, output)
        first.kill()
        self.wait_for_the_end_of_all(seconds=10)

        (self.folder / "file").touch()
        self.fails("cannot create the folder file/", 74, "train", harness.TINY / "moe.toml",
                   "run.out=file", *shared())


@unittest.skipUnless(harness.FAULTY, "needs the program with faults")
class Faults(Case):
    """What a rank does when it fails alone, with the others in an exchange or at the disk."""

    def check_failure(self, fault, ranks, ep):
        """Fails in a run that saves at every other step, and goes on without the fault."""
        options = (*steps(6, interval=2), f"parallel.ep={ep}")
        errors = self.training_fails("a seeded failure", 66, "run", *options, ranks=ranks,
                                     fault=fault)
        self.assertIn(f"[rank {ranks - 1}] fatal: a seeded failure", errors)
        saved = self.saved_steps("run")
        output = self.train_shared("run", *options[:-1], ranks=ranks, ep=ep)
        if saved:
            self.assertIn(f"at step {saved[-1]}", output)
        self.train_shared("whole", *options[:-1], ranks=ranks, ep=ep)
        self.assert_same_run("run", "whole", 6)
        left = os.listdir(self.run_folder("run") / "checkpoints")
        self.assertEqual([name for name in left if name.startswith(".")], [])
        return saved

    def test_in_a_step(self):
        self.assertEqual(self.check_failure("step.last_rank_fails", ranks=3, ep=1), [2])

    def test_in_a_step_with_experts_elsewhere(self):
        self.assertEqual(self.check_failure("step.last_rank_fails", ranks=4, ep=2), [2])

    def test_while_others_write_a_checkpoint(self):
        """Rank 0 needs nothing from the one that fails, and may be the faster one."""
        self.assertLessEqual(self.check_failure("save.last_rank_fails", ranks=3, ep=1), [2])

    def test_while_others_wait_for_its_experts(self):
        self.assertEqual(self.check_failure("save.last_rank_fails", ranks=2, ep=2), [])


@unittest.skipUnless(harness.FAULTY, "needs the program with faults")
class NotNumbers(Case):
    """The fault makes the loss of steps 4, 8, 12, ... a NaN on the last rank."""

    def train_bad(self, name, budget, *overrides, **how):
        return self.train_shared(name, *overrides, f"fault.nan_budget={budget}", ranks=2, ep=2,
                                 fault="loss.nan", **how)

    def test_no_checkpoint_of_a_nan(self):
        output = self.train_bad("run", 0, *steps(20, interval=2), code=76)
        self.assertEqual(output.count("step 4: loss nan"), 1, output)
        self.assertIn("1 of fault.nan_budget = 0", output)
        self.assertEqual(self.saved_steps("run"), [2])
        self.wait_for_the_end_of_all(seconds=5)
        # Whoever takes the cause away goes on.
        self.train_shared("run", *steps(6), ranks=2, ep=2)
        self.train_shared("whole", *steps(6), ranks=2, ep=2)
        self.assert_same_run("run", "whole", 6)

    def test_a_budget_is_used_up(self):
        output = self.train_bad("run", 2, *steps(20, interval=1), code=76)
        self.assertIn("3 of fault.nan_budget = 2", output)
        self.assertEqual(self.saved_steps("run"), list(range(1, 12)))

    def test_within_the_budget_the_run_goes_on(self):
        self.train_bad("whole", 5, *steps(20))
        bad = [line["step"] for line in self.metrics("whole") if line["loss"] is None]
        self.assertEqual(bad, [4, 8, 12, 16, 20])
        self.assert_finite(self.checkpoint("whole", 20))

        # The count goes on with the run, which ends like one that nobody stopped.
        self.train_bad("run", 5, *steps(10))
        output = self.train_bad("run", 2, *steps(20), code=76)
        self.assertIn("step 12: loss nan", output)
        self.assertNotIn("step 16: loss nan", output)
        self.assertEqual(self.saved_steps("run"), [10])
        self.train_bad("run", 5, *steps(20))
        self.assert_same_run("run", "whole", 20)

    def assert_finite(self, checkpoint):
        self.run_program("convert", "to-hf", checkpoint, "exported")
        tensors = harness.read_safetensors(self.folder / "exported" / "model.safetensors")
        for name, (dtype, _, blob) in tensors.items():
            self.assertEqual(dtype, "F32")
            self.assertTrue(all(map(math.isfinite, harness.floats(blob))), name)


class Launcher(Case):
    def test_ranks_end_when_their_launcher_is_killed(self):
        process = self.start_shared("run", *steps(100000, interval=3), ranks=2, ep=2)
        self.wait_for_step("run", 8, process)
        process.kill()
        self.wait_for_the_end_of_all(seconds=5)
        process.communicate()
        saved = self.saved_steps("run")[-1]
        last = saved + 3
        output = self.train_shared("run", *steps(last, interval=3), ranks=2, ep=2)
        self.assertIn(f"at step {saved}", output)
        self.train_shared("whole", *steps(last, interval=3), ranks=2, ep=2)
        self.assert_same_run("run", "whole", last)


if __name__ == "__main__":
    unittest.main()
