"""What the regression tests share: run the program, read what it wrote. Standard library only."""

import json
import os
import pathlib
import shutil
import struct
import subprocess
import tempfile
import unittest

PROGRAM = os.environ["KONCLAVE_PROGRAM"]
SOURCE = pathlib.Path(__file__).resolve().parents[2]
TINY = SOURCE / "inputs" / "tiny"
ORACLE = SOURCE / "tests" / "oracle" / "data"
SKIPPED = 77  # ctest shows it as skipped

# Of metrics.jsonl, what may differ between two equal runs.
VARYING = ("seconds", "tokens_per_second", "tflops", "mfu", "memory_bytes")


class Case(unittest.TestCase):
    """A test with a folder of its own."""

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="konclave-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def start(self, *arguments):
        """Starts the program in the test's folder."""
        command = [PROGRAM, *map(str, arguments)]
        return subprocess.Popen(command, cwd=self.folder, text=True, errors="replace",
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT)

    def run_program(self, *arguments, code=0):
        """Runs the program, expects an exit code, gives back all that it printed."""
        process = self.start(*arguments)
        output = process.communicate()[0]
        self.assertEqual(process.returncode, code, f"{arguments}\n{output}")
        return output

    def train(self, deck, name, *overrides, code=0):
        """Trains a deck of inputs/tiny as run `name`, quietly."""
        return self.run_program("train", TINY / deck, f"run.name={name}", "run.out=runs",
                                "log.progress=none", *overrides, code=code)

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

    def checkpoint(self, name, step):
        return self.run_folder(name) / "checkpoints" / f"step-{step:08d}"

    def assert_same_tensors(self, one, other):
        """Two checkpoints hold the same tensors, to the bit."""
        self.assertEqual((one / "tensors.h5").read_bytes(), (other / "tensors.h5").read_bytes())

    def assert_losses_near(self, name, other, tolerance):
        """Losses of two runs differ by at most `tolerance`, relative."""
        one, two = self.losses(name), self.losses(other)
        self.assertEqual(len(one), len(two))
        for step, (a, b) in enumerate(zip(one, two), start=1):
            self.assertLessEqual(abs(a - b) / abs(b), tolerance, f"{name} and {other}, step {step}")


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
