#!/usr/bin/env python3
"""Checks that an exception on one rank ends the whole job: at once, with its exit code, its message once, nothing unwound.

check_abort.py PROGRAM CASE LAUNCHER... : LAUNCHER is an mpirun command line for three ranks. Cases that are about the
fault and not about the other ranks are also run alone.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from processes import printed_pids, running_after

NO_FILE = (66, r"no such file: 'gone\.txt'")
# case -> fault of the last rank, where the others sit, exit code of the job, and what is printed behind "[rank r] fatal: "
CASES = {
    "input": ("input", "barrier", *NO_FILE),
    "internal": ("internal", "barrier", 70, r"sizes differ \(\S*abort_program\.cpp:\d+\)"),
    "standard": ("standard", "barrier", 70, r"index 7 of 5"),
    "int": ("int", "barrier", 70, r"unknown exception"),
    "io_thread": ("io_thread", "barrier", 66, r"cannot find HDF5 metadata in gone\.h5: .*No such file or directory.*"),
    "request": ("request", "barrier", 74, r"no space on the disk"),
    "message": ("message", "barrier", 70, r"MPI_Wait of .*receive of group 'transport'.* failed: .*"),  # too long for its receiver
    "part": ("input", "part", *NO_FILE),  # of the ranks: a communicator of its own
    "receive": ("input", "receive", *NO_FILE),
    "file": ("input", "file", *NO_FILE),  # in HDF5, on the I/O thread
    "deaf": ("input", "deaf", *NO_FILE),  # to the signals that can be ignored
}
SECONDS = 10


def judge(run, rank, code, message):
    if run.returncode != code:
        yield f"exit code {run.returncode}, not {code}"
    lines = [line for line in run.stderr.splitlines() if "fatal:" in line]
    if len(lines) != 1 or not re.fullmatch(rf"\[rank {rank}\] fatal: {message}", lines[0]):
        yield f"message: {lines}"
    if "unwound" in run.stdout:
        yield "a destructor ran, or a rank did not wait"


def check(command, ranks, case, fifo):
    fault, place, code, message = CASES[case]
    start = time.monotonic()
    try:
        run = subprocess.run([*command, fault, place, fifo], capture_output=True, text=True, timeout=4 * SECONDS)
    except subprocess.TimeoutExpired:
        yield "the job did not end"
        return
    yield from judge(run, ranks - 1, code, message)
    pids = printed_pids(run.stdout)
    if len(pids) != ranks:
        yield f"{len(pids)} ranks came to the start: {run.stdout}{run.stderr}"
    if left := running_after(pids, start + SECONDS - time.monotonic()):
        yield f"after {SECONDS} s processes {left} are still there"
    seconds = time.monotonic() - start
    if seconds > SECONDS:
        yield f"took {seconds:.1f} s"
    print(f"{ranks} ranks: {seconds:.1f} s")


def main():
    program, case, launcher = sys.argv[1], sys.argv[2], sys.argv[3:]
    with tempfile.TemporaryDirectory() as folder:
        fifo = str(Path(folder) / "nobody-writes")
        os.mkfifo(fifo)
        failures = [f"3 ranks: {text}" for text in check([*launcher, program], 3, case, fifo)]
        if CASES[case][1] == "barrier":
            failures += [f"alone: {text}" for text in check([program], 1, case, fifo)]
    for text in failures:
        print(text)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
