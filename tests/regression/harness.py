"""What the regression tests share: run the program, read what it wrote. Standard library only."""

import json
import os
import pathlib
import re
import shlex
import shutil
import struct
import subprocess
import tempfile
import time
import unittest

PROGRAM = os.environ["KONCLAVE_PROGRAM"]
FAULTY = os.environ.get("KONCLAVE_FAULTY", "")  # the same, with faults that can be switched on
LAUNCHER = shlex.split(os.environ.get("KONCLAVE_LAUNCHER", "mpirun -n RANKS"))
SOURCE = pathlib.Path(__file__).resolve().parents[2]
TINY = SOURCE / "inputs" / "tiny"
ORACLE = SOURCE / "tests" / "oracle" / "data"
SKIPPED = 77  # ctest shows it as skipped
SECONDS = 120  # for one run, however busy the machine

# Of metrics.jsonl, what may differ between two equal runs.
VARYING = ("seconds", "tokens_per_second", "tflops", "mfu", "memory_bytes")


def end(process):
    """Whatever it is doing. One that has ended is left alone."""
    process.kill()
    process.wait()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()


class Case(unittest.TestCase):
    """A test with a folder of its own."""

    environment = {}  # beside that of the test, for the programs that it starts

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="konclave-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        # What Open MPI's processes leave when they are killed goes with the folder.
        mpi = self.folder / "mpi"
        mpi.mkdir()
        self.environment = {**self.environment, "OMPI_MCA_orte_tmpdir_base": str(mpi),
                            "OMPI_MCA_btl_vader_backing_directory": str(mpi)}

    def start(self, *arguments, ranks=1, fault="", **how):
        """Starts the program in the test's folder, by the launcher if it has several ranks; with a
        fault, the program that has them."""
        launcher = [str(ranks) if word == "RANKS" else word for word in LAUNCHER if ranks > 1]
        command = [*launcher, FAULTY if fault else PROGRAM, *map(str, arguments)]
        environment = {**os.environ, "KONCLAVE_FAULT": fault, **self.environment}
        how = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, **how}
        process = subprocess.Popen(command, cwd=self.folder, env=environment, text=True,
                                   errors="replace", stdin=subprocess.DEVNULL, **how)
        self.addCleanup(end, process)
        return process

    def run_program(self, *arguments, code=0, **how):
        """Runs the program, expects an exit code, gives back all that it printed."""
        process = self.start(*arguments, **how)
        output = process.communicate(timeout=SECONDS)[0]
        self.assertEqual(process.returncode, code, f"{arguments}\n{output}")
        return output

    def start_training(self, deck, name, *overrides, **how):
        """Begins to train a deck of inputs/tiny as run `name`, quietly."""
        return self.start(*self.training(deck, name, *overrides), **how)

    def train(self, deck, name, *overrides, code=0, **how):
        """Trains a deck of inputs/tiny as run `name`, quietly."""
        return self.run_program(*self.training(deck, name, *overrides), code=code, **how)

    @staticmethod
    def training(deck, name, *overrides):
        return ("train", TINY / deck, f"run.name={name}", "run.out=runs", "log.progress=none",
                *overrides)

    def wait_for_step(self, name, step, process):
        """Until the run has logged a step. A run that ended has."""
        file = self.run_folder(name) / "metrics.jsonl"
        deadline = time.monotonic() + SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            if file.exists() and file.read_text().count("\n") >= step:
                return
            time.sleep(0.002)

    def processes(self):
        """Those that live and work in the test's folder: launchers and ranks."""
        found = []
        for entry in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                if (entry / "cwd").readlink() == self.folder:
                    found.append(int(entry.name))
            except OSError:
                pass  # it has ended, or it is not ours
        return found

    def wait_for_the_end_of_all(self, seconds):
        """Until no process is left that works in the test's folder."""
        deadline = time.monotonic() + seconds
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.01)
        self.assertEqual(left, [], f"processes live on after {seconds} s")

    def run_folder(self, name):
        return self.folder / "runs" / name

    def metrics(self, name):
        lines = (self.run_folder(name) / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def losses(self, name):
        return [line["loss"] for line in self.metrics(name)]

    def lasting_metrics(self, name):
        """Metrics without what depends on the clock."""
        return [{k: v for k, v in line.items() if k not in VARYING} for line in self.metrics(name)]

    def report(self, name):
        """The numbers that are in the page of a run."""
        page = (self.run_folder(name) / "report.html").read_text(encoding="utf-8")
        return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])

    def checkpoint(self, name, step):
        return self.run_folder(name) / "checkpoints" / f"step-{step:08d}"

    def assert_same_tensors(self, one, other):
        """Two checkpoints hold the same tensors, to the bit."""
        self.assertEqual((one / "tensors.h5").read_bytes(), (other / "tensors.h5").read_bytes())

    def assert_traffic(self, output, *arguments, ranks):
        """What a training has printed is what `konclave check` says of the same deck and overrides, which
        is given back."""
        expected = traffic_of(self.run_program("check", *arguments, "--ranks", ranks))
        measured = traffic_of(output)
        self.assertEqual(set(measured), set(expected))
        for group, (least, most) in expected.items():
            self.assertTrue(least <= measured[group][0] <= most,
                            f"{group}: {measured[group][0]} bytes, expected {least} to {most}")
        return expected

    def assert_losses_near(self, name, other, tolerance):
        """Losses of two runs differ by at most `tolerance`, relative."""
        one, two = self.losses(name), self.losses(other)
        self.assertEqual(len(one), len(two))
        for step, (a, b) in enumerate(zip(one, two), start=1):
            self.assertLessEqual(abs(a - b) / abs(b), tolerance, f"{name} and {other}, step {step}")


def traffic_of(output):
    """What a training or `konclave check` prints of the communication of a step: group -> (least, most)
    bytes of all ranks together. The two differ only where a formula leaves it to the router."""
    found = {}
    lines = iter(output.splitlines())
    for line in lines:
        if "communication per step" in line.lower():
            break
    for line in lines:
        match = re.match(r"[# ]+(\w+) .*\(\d+ bytes\)(, \d+% under compute)?$", line)
        if not match:
            break
        figures = [int(figure) for figure in re.findall(r"\((\d+) bytes\)", line)]
        found[match[1]] = figures[0], figures[-1]
    return found


def read_safetensors(path):
    """Name -> (dtype, shape, bytes)."""
    data = pathlib.Path(path).read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + size])
    header.pop("__metadata__", None)
    start = 8 + size
    return {name: (entry["dtype"], entry["shape"],
                   data[start + entry["data_offsets"][0]:start + entry["data_offsets"][1]])
            for name, entry in header.items()}


def write_safetensors(path, tensors):
    """The reverse of read_safetensors."""
    header, blobs, offset = {}, [], 0
    for name, (dtype, shape, blob) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + len(blob)]}
        blobs.append(blob)
        offset += len(blob)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    pathlib.Path(path).write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def floats(blob, letter="f"):
    """Numbers of a blob; letter as in `struct`: f or d."""
    return struct.unpack(f"<{len(blob) // struct.calcsize(letter)}{letter}", blob)
