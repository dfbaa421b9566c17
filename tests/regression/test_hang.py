"""A rank that hangs, skips an exchange, passes another count or is stopped: the job says who and
where, and ends with exit code 70. A NaN of one rank: the run says in which tensor it began."""

import json
import os
import signal
import time
import unittest

import harness

LIMIT = 2
# Behind the limit: evidence of a rank that is stopped is waited for, and a launcher ends the others.
PROMPTLY = LIMIT + 15
COMMON = ("batch.global_size=12", "batch.micro_size=1", "optimizer.schedule=constant",
          "run.steps=6")


class Case(harness.Case):
    def train_hanging(self, *overrides, code=70, **how):
        begin = time.monotonic()
        output = self.train("moe.toml", "run", *COMMON, f"fault.step_timeout={LIMIT}", "eval.interval=0",
                            *overrides, code=code, **how)
        self.assertLess(time.monotonic() - begin, PROMPTLY, output)
        self.wait_for_the_end_of_all(seconds=5)
        return output

    def report(self, folder="hang"):
        return (self.run_folder("run") / folder / "report.txt").read_text(encoding="utf-8")

    def assert_reported(self, output, *words):
        report = self.report()
        for text in words:
            self.assertIn(text, report)
            self.assertEqual(output.count(text), 1, output)


@unittest.skipUnless(harness.FAULTY, "needs the program with faults")
class Hangs(Case):
    """The last rank does something else behind step 3."""

    def test_a_rank_sleeps(self):
        output = self.train_hanging("parallel.ep=2", ranks=4, fault="agree.last_rank_sleeps")
        self.assert_reported(output, "step 3 has taken longer than the 2.0 s",
                             "rank 3 is in no exchange of a group\n", "ranks 0 to 2 wait in gather number",
                             "rank 3 is missing: of these it has begun number")

    def test_a_rank_skips_an_exchange(self):
        """It goes on to the next step, where it waits for others."""
        output = self.train_hanging("parallel.ep=2", ranks=4, fault="agree.last_rank_skips")
        self.assert_reported(
            output, "ranks wait for each other; where most of them wait, missing: rank 3; "
            "ranks 0 to 2 in step 3, rank 3 in step 4\n",
            "ranks 0 to 2 wait in gather number 3 of group world",
            "rank 3 is missing: of these it has begun number 2",
            "it waits in gather number 10 of group dp")

    def test_a_rank_passes_another_count(self):
        """MPI may cut it short, hang, or fail on one rank or another: all end with 70 in any case."""
        self.train_hanging("parallel.ep=2", ranks=4, fault="agree.last_rank_passes_fewer")

    def test_a_rank_passes_another_count_where_collectives_are_compared(self):
        output = self.train_hanging("parallel.ep=2", ranks=4,
                                    fault="agree.last_rank_passes_fewer,collectives.checked")
        words = ("group 'world': collective number 3 is not the same on all members: "
                 "gather of 24 bytes on 3; gather of 32 bytes on 0, 1, 2")
        self.assertEqual(output.count(words), 1, output)

    def test_comparing_changes_nothing(self):
        common = ("parallel.ep=2", "parallel.tp=2", "parallel.sp=true", "parallel.pp=2")
        for name, fault in (("plain", ""), ("compared", "collectives.checked")):
            self.train("moe.toml", name, *COMMON, "eval.interval=0", *common, ranks=4, fault=fault)
        self.assertEqual(self.lasting_metrics("plain"), self.lasting_metrics("compared"))

    def test_a_run_that_goes_well_leaves_nothing(self):
        self.train("moe.toml", "run", *COMMON, "fault.step_timeout=60", "eval.interval=2", ranks=2)
        self.assertFalse((self.run_folder("run") / "hang").exists())


class Stopped(Case):
    def test_a_rank_is_stopped(self):
        """It has no thread that could say a word. What an earlier hang has left stays."""
        (self.run_folder("run") / "hang").mkdir(parents=True)
        process = self.start_training("moe.toml", "run", *COMMON[:-1], "run.steps=1000000",
                                      f"fault.step_timeout={LIMIT}", ranks=3)
        self.wait_for_step("run", 3, process)
        begin = time.monotonic()
        provenance = json.loads((self.run_folder("run") / "provenance.json").read_text())
        os.kill(provenance["ranks"][1]["pid"], signal.SIGSTOP)
        output = process.communicate(timeout=harness.SECONDS)[0]
        self.assertEqual(process.returncode, 70, output)
        self.assertLess(time.monotonic() - begin, PROMPTLY, output)
        self.wait_for_the_end_of_all(seconds=5)
        for words in ("rank 1 has left no evidence: stopped, dead,",
                      "  rank 1 is missing: it has left no evidence"):
            self.assertIn(words, self.report("hang-2"))
            self.assertIn(words, output)
        self.assertEqual(os.listdir(self.run_folder("run") / "hang"), [])

    def test_a_job_that_was_suspended_goes_on(self):
        process = self.start_training("moe.toml", "run", *COMMON[:-1], "run.steps=1000000",
                                      f"fault.step_timeout={LIMIT}", ranks=2)
        self.wait_for_step("run", 3, process)
        provenance = json.loads((self.run_folder("run") / "provenance.json").read_text())
        ranks = [rank["pid"] for rank in provenance["ranks"]]
        for pid in ranks:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(LIMIT + 1)
        before = len(self.metrics("run"))
        for pid in ranks:
            os.kill(pid, signal.SIGCONT)
        self.wait_for_step("run", before + 20, process)
        self.assertIsNone(process.poll(), "the run has ended")
        self.assertFalse((self.run_folder("run") / "hang").exists())


@unittest.skipUnless(harness.FAULTY, "needs the program with faults")
class NotNumbers(Case):
    """A tensor of the last rank of dp gets a NaN in step 3."""

    def assert_named(self, words, *overrides, **how):
        output = self.train("moe.toml", "run", *COMMON, "eval.interval=0", *overrides, code=76, **how)
        self.assertEqual(output.count("the first without a number"), 1, output)
        self.assertIn(words, output)

    def test_a_weight(self):
        self.assert_named("rank 1: the first without a number: the values of "
                          "model.layers.1.self_attn.k_proj.weight\n", "parallel.ep=2", ranks=2,
                          fault="weight.nan")

    def test_the_input_of_a_layer(self):
        """The stage before gets it back with the gradient, and is not the first."""
        self.assert_named("rank 3: the first without a number: the output of layer 1\n",
                          "parallel.pp=2", ranks=4, fault="pipeline.nan_input")

    def test_a_gradient(self):
        for options in ((), ("parallel.distributed_optimizer=true",
                             "parallel.overlap_grad_reduce=true")):
            with self.subTest(options=options):
                self.assert_named("rank 1: the first without a number: the gradient of "
                                  "model.norm.weight\n", "run.resume=never", *options, ranks=2,
                                  fault="pipeline.nan_gradient")

    def test_a_loss(self):
        self.assert_named("rank 1: the first without a number: the loss of micro-batch 5 of this "
                          "rank\n", ranks=2, fault="loss.nan")


if __name__ == "__main__":
    unittest.main()
