"""Runs that are killed as a whole, again and again, at moments drawn from a seed: what they leave
is whole, and the run that goes on from it ends as if nobody had touched it. KONCLAVE_KILL_SEED
repeats the moments of an earlier test."""

import os
import random
import signal
import time
import unittest

import harness

SEED = int(os.environ.get("KONCLAVE_KILL_SEED", time.time_ns() // 1000 % 1000000))
STEPS = 60
DECK = ("moe.toml", f"run.steps={STEPS}", "checkpoint.interval=2", "checkpoint.keep=3",
        "batch.micro_size=1")
MOST_OF_A_RUN = 5  # kills that one run goes through
ENOUGH = 0.6  # of the kills must have hit a run that was under way
MOMENTS = ("any", "save", "any", "any", "save", "start")


class Kill(harness.Case):
    def setUp(self):
        super().setUp()
        self.table = [f"seed {SEED}", "ranks run moment after (s)  newest checkpoint"]
        self.addCleanup(lambda: print("\n" + "\n".join(self.table), flush=True))

    def test_2_ranks(self):
        self.check_kills(12, ranks=2, ep=2)

    def test_4_ranks(self):
        self.check_kills(7, ranks=4, ep=2)

    def test_1_rank(self):
        self.check_kills(6, ranks=1, ep=1)

    def check_kills(self, kills, ranks, ep):
        self.draw = random.Random(f"{SEED} {ranks}")
        self.ranks, self.options = ranks, (*DECK[1:], f"parallel.ep={ep}")
        self.time_whole_run()
        hits = runs = of_this_run = 0
        for kill in range(kills):
            if of_this_run == 0:
                runs += 1
            name = f"run-{runs}"
            of_this_run += 1
            hit = self.kill_once(name, MOMENTS[kill % len(MOMENTS)])
            hits += hit
            if not hit:
                self.seconds *= 0.8  # the machine is less busy than it was
            if not hit or of_this_run == MOST_OF_A_RUN or kill == kills - 1:
                self.check_end(name)
                of_this_run = 0
        self.table.append(f"{hits} of {kills} kills hit a run under way")
        self.assertGreaterEqual(hits, ENOUGH * kills)

    def begin(self, name):
        return self.start_training(DECK[0], name, *self.options, ranks=self.ranks)

    def time_whole_run(self):
        """The run to compare with: how long it takes to start, and in all."""
        begin = time.monotonic()
        process = self.begin("whole")
        self.wait_for_step("whole", 1, process)
        self.start_seconds = time.monotonic() - begin
        output = process.communicate(timeout=harness.SECONDS)[0]
        self.assertEqual(process.returncode, 0, output)
        self.seconds = time.monotonic() - begin
        self.table.append(f"a whole run: {self.seconds:.1f} s, the first step after "
                          f"{self.start_seconds:.1f} s")

    def kill_once(self, name, moment):
        """Starts the run and kills it; tells whether it was under way."""
        before = self.newest(name)
        begin = time.monotonic()
        process = self.begin(name)
        if moment == "save":
            self.wait_for_attempt(name, process, self.uniform(0, self.seconds_left(before) / 2))
            time.sleep(self.uniform(0, 0.02))
        elif moment == "start":
            time.sleep(self.uniform(0, self.start_seconds))
        else:
            time.sleep(self.uniform(0, self.seconds_left(before)))
        after = time.monotonic() - begin
        self.kill_all(process)
        output = process.communicate()[0]
        newest = self.newest(name)
        self.table.append(f"{self.ranks:5} {name[4:]:>3} {moment:6} {after:9.2f}  {newest}")
        if before and "resumed from" in output:
            self.assertIn(f"at step {before}\n", output)
        self.assertGreaterEqual(newest, before)
        if newest:
            self.run_program("inspect", self.checkpoint(name, newest), "--verify")
        return process.returncode == -signal.SIGKILL and newest < STEPS

    def check_end(self, name):
        """The run that is left alone at last goes on from the newest checkpoint to the same end."""
        before = self.newest(name)
        output = self.train(DECK[0], name, *self.options, ranks=self.ranks)
        self.assertEqual("resumed from" in output, before > 0, output)
        if before:
            self.assertIn(f"at step {before}\n", output)
        self.assertEqual(self.lasting_metrics(name), self.lasting_metrics("whole"))
        self.assert_same_tensors(self.checkpoint(name, STEPS), self.checkpoint("whole", STEPS))
        self.assertEqual(self.report(name)["routing"], self.report("whole")["routing"])
        left, expected = (sorted(os.listdir(self.run_folder(run) / "checkpoints"))
                          for run in (name, "whole"))
        self.assertEqual(left, expected)

    def uniform(self, low, high):
        return self.draw.uniform(low, high)

    def seconds_left(self, step):
        """What a run takes that goes on from this step."""
        return self.start_seconds + (self.seconds - self.start_seconds) * (1 - step / STEPS)

    def entries(self, name):
        folder = self.run_folder(name) / "checkpoints"
        return os.listdir(folder) if folder.is_dir() else []

    def newest(self, name):
        """The step of the newest checkpoint, 0 if there is none yet."""
        steps = [entry for entry in self.entries(name) if entry.startswith("step-")]
        return int(max(steps, default="step-0").removeprefix("step-"))

    def wait_for_attempt(self, name, process, at_least):
        """Until a checkpoint is being written, this long after the start or later."""
        time.sleep(at_least)
        while process.poll() is None:
            if any(entry.startswith(".step-") for entry in self.entries(name)):
                return
            time.sleep(0.001)

    def kill_all(self, launcher):
        """Ranks in any order, and the launcher: stopped first, it neither starts nor ends any."""
        launcher.send_signal(signal.SIGSTOP)
        while others := [pid for pid in self.processes() if pid != launcher.pid]:
            self.draw.shuffle(others)
            for pid in others:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        launcher.kill()


if __name__ == "__main__":
    unittest.main()
