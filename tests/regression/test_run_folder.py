"""The run's folder: one writer, and what a full disk does to its checkpoints."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import unittest

import harness

FAST = ("run.steps=100000", "checkpoint.interval=0")


class Lock(harness.Case):
    def test_second_writer_leaves_with_69(self):
        first = self.start_training("moe.toml", "one", *FAST)
        self.wait_for_step("one", 1, first)
        output = self.train("moe.toml", "one", *FAST, code=69)
        self.assertIn(str(first.pid), output)
        first.send_signal(signal.SIGKILL)
        first.communicate()
        self.train("moe.toml", "one", "run.steps=2", "optimizer.warmup_steps=1")

    def test_a_folder_of_checkpoints_has_one_writer_too(self):
        shared = (*FAST, "checkpoint.folder=saved")
        first = self.start_training("moe.toml", "one", *shared)
        self.wait_for_step("one", 1, first)
        output = self.train("moe.toml", "two", *shared, code=69)
        self.assertIn(f"saved is in use by process {first.pid}", output)

    def test_a_fresh_heartbeat_of_another_host_counts(self):
        self.run_folder("one").mkdir(parents=True)
        lock = self.run_folder("one") / "lock"
        lock.write_text(json.dumps({"host": "elsewhere", "pid": 1, "job": "77"}))
        self.assertIn("elsewhere", self.train("moe.toml", "one", code=69))
        old = time.time() - 1000
        os.utime(lock, (old, old))
        self.train("moe.toml", "one", "run.steps=2", "optimizer.warmup_steps=1")

    def test_what_is_in_it(self):
        self.train("moe.toml", "one", "run.steps=4", "optimizer.warmup_steps=1", "eval.interval=2")
        folder = self.run_folder("one")
        provenance = json.loads((folder / "provenance.json").read_text())
        self.assertEqual(provenance["ranks"][0]["rank"], 0)
        self.assertIn("# command line", (folder / "deck.toml").read_text())
        self.assertEqual([line["step"] for line in self.metrics("one")], [1, 2, 3, 4])
        self.assertIn("val_loss", self.metrics("one")[1])
        self.assertNotIn("val_loss", self.metrics("one")[0])
        # The stored deck trains the same run again.
        self.run_program("train", folder / "deck.toml", "run.name=two", "log.progress=none")
        self.assertEqual(self.lasting_metrics("one"), self.lasting_metrics("two"))


class Ranks(harness.Case):
    """Of several ranks, one writes and speaks."""

    def test_training_on_two_ranks(self):
        output = self.train("moe.toml", "two", "run.steps=4", "optimizer.warmup_steps=1",
                            "parallel.ep=2", ranks=2)
        folder = self.run_folder("two")
        provenance = json.loads((folder / "provenance.json").read_text())
        self.assertEqual([rank["rank"] for rank in provenance["ranks"]], [0, 1])
        self.assertEqual(len({rank["pid"] for rank in provenance["ranks"]}), 2)
        self.assertEqual([line["step"] for line in self.metrics("two")], [1, 2, 3, 4])
        self.assertEqual(sorted(os.listdir(folder / "checkpoints")), ["latest", "step-00000004"])
        self.assertEqual(output.count("run folder: "), 1)

    def test_a_second_writer_of_one_rank_leaves_with_69(self):
        first = self.start_training("moe.toml", "one", *FAST, "batch.micro_size=1", ranks=2)
        self.wait_for_step("one", 1, first)
        self.assertIn("in use by process", self.train("moe.toml", "one", *FAST, code=69))
        first.kill()
        self.wait_for_the_end_of_all(seconds=10)
        self.train("moe.toml", "one", "run.steps=2", "optimizer.warmup_steps=1",
                   "batch.micro_size=1", ranks=2)

    def test_check_prints_once(self):
        output = self.run_program("check", harness.TINY / "moe.toml", ranks=2)
        self.assertEqual(output.count("[model]"), 1)


class FullDisk(harness.Case):
    """Needs root for a small file system of its own (see main below)."""

    def setUp(self):
        super().setUp()
        self.disk = harness.pathlib.Path(os.environ["KONCLAVE_SMALL_DISK"])
        self.checkpoints = self.disk / self.id().split(".")[-1]
        self.filler = self.disk / "filler"
        self.addCleanup(self.filler.unlink, missing_ok=True)
        self.addCleanup(shutil.rmtree, self.checkpoints, ignore_errors=True)

    def fill(self, left=64 * 1024):
        free = os.statvfs(self.disk)
        self.filler.write_bytes(b"x" * (free.f_bavail * free.f_frsize - left))

    def overrides(self, *more):
        return (f"checkpoint.folder={self.checkpoints}", "optimizer.warmup_steps=1", *more)

    def saved(self):
        return sorted(set(os.listdir(self.checkpoints)) - {"latest", "lock"})

    def test_interval_goes_on_and_last_save_exits_74(self):
        self.train("moe.toml", "full", *self.overrides("run.steps=4"))
        self.assertEqual(self.saved(), ["step-00000004"])
        self.fill()
        output = self.train("moe.toml", "full",
                            *self.overrides("run.steps=12", "checkpoint.interval=3"), code=74)
        self.assertIn("no checkpoint at step 6", output)
        self.assertIn("no checkpoint at step 9", output)
        self.assertIn("No space left", output)
        self.assertEqual(self.saved(), ["step-00000004"])
        self.run_program("inspect", self.checkpoints / "step-00000004", "--verify")

    def test_on_two_ranks(self):
        """The disk fills up in front of one of them, and all know."""
        ranks = ("parallel.ep=2",)
        self.train("moe.toml", "full", *self.overrides("run.steps=4", *ranks), ranks=2)
        self.fill()
        process = self.start_training(
            "moe.toml", "full", *self.overrides("run.steps=9", "checkpoint.interval=3", *ranks),
            ranks=2, stderr=subprocess.PIPE)
        output, errors = process.communicate(timeout=harness.SECONDS)
        self.assertEqual(process.returncode, 74, output + errors)
        self.assertEqual(output.count("no checkpoint at step 6"), 1, output)
        self.assertEqual(errors.count("No space left"), 1, errors)
        self.wait_for_the_end_of_all(seconds=5)
        self.assertEqual(self.saved(), ["step-00000004"])
        self.filler.unlink()
        self.train("moe.toml", "full", *self.overrides("run.steps=9", *ranks), ranks=2)
        self.train("moe.toml", "whole", "run.steps=4", "optimizer.warmup_steps=1", *ranks, ranks=2)
        self.train("moe.toml", "whole", "run.steps=9", "optimizer.warmup_steps=1", *ranks, ranks=2)
        self.assertEqual(self.lasting_metrics("full"), self.lasting_metrics("whole"))
        self.assert_same_tensors(self.checkpoints / "step-00000009", self.checkpoint("whole", 9))

    def test_statistics_of_the_routing_are_left_out(self):
        """Where they find no room, that is said once, and the run goes on."""
        def train(steps):
            return self.run_program("train", harness.TINY / "moe.toml", "run.name=run", f"run.out={self.checkpoints}",
                                    "log.progress=none", "checkpoint.folder=saved", "checkpoint.interval=2",
                                    "optimizer.warmup_steps=1", f"run.steps={steps}")
        train(4)
        self.fill(left=512 * 1024)
        output = train(10)
        self.assertEqual(output.count("no statistics of the routing: cannot"), 1, output)
        self.assertIn("No space left", output)
        folder = self.checkpoints / "run"
        self.assertEqual((folder / "metrics.jsonl").read_text().count("\n"), 10)
        self.assertEqual([name for name in os.listdir(folder) if name.endswith((".new", ".probe"))], [])
        self.filler.unlink()
        self.assertNotIn("statistics of the routing:", train(12))

    def test_space_that_comes_back_is_used(self):
        self.train("moe.toml", "full", *self.overrides("run.steps=4"))
        self.fill()
        self.train("moe.toml", "full", *self.overrides("run.steps=6"), code=74)
        self.filler.unlink()
        self.train("moe.toml", "full", *self.overrides("run.steps=6"))
        self.assertIn("step-00000006", self.saved())


def main():
    """Starts itself again in a mount namespace with a file system of 4 MB."""
    if "KONCLAVE_SMALL_DISK" in os.environ:
        unittest.main()
    mount = ('set -e; d=$(mktemp -d); trap "umount $d; rmdir $d" EXIT; '
             'mount -t tmpfs -o size=4m,mode=700 tmpfs "$d"; KONCLAVE_SMALL_DISK=$d "$@"')
    command = ["unshare", "--mount", "--propagation", "private", "bash", "-c", mount, "_",
               sys.executable, *sys.argv]
    probe = subprocess.run(command[:6] + [mount, "_", "true"], capture_output=True, text=True)
    if probe.returncode == 0:
        sys.exit(subprocess.run(command).returncode)
    print(f"SKIPPED: the full-disk tests need root for a small file system ({probe.stderr.strip()})")
    ran = unittest.main(defaultTest=["Lock", "Ranks"], exit=False)
    if not ran.result.wasSuccessful():
        sys.exit(1)
    sys.exit(harness.SKIPPED)


if __name__ == "__main__":
    main()
