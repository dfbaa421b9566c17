#!/usr/bin/env python3
"""Checks that an exception on one rank ends the whole job: at once, with its exit code, its message once, nothing unwound.

check_abort.py PROGRAM LAUNCHER... : LAUNCHER is an mpirun command line for three ranks; the program is also run alone.
"""

import re
import subprocess
import sys
import time

# kind of exception -> exit code of the job, and what is printed behind "[rank r] fatal: "
CASES = {
    "input": (66, r"no such file: 'gone\.txt'"),
    "internal": (70, r"sizes differ \(\S*abort_program\.cpp:\d+\)"),
    "standard": (70, r"index 7 of 5"),
    "int": (70, r"unknown exception"),
}
SECONDS = 10


def check(command, rank, kind):
    code, message = CASES[kind]
    start = time.monotonic()
    try:
        run = subprocess.run([*command, kind], capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        yield "the job did not end"
        return
    seconds = time.monotonic() - start
    if run.returncode != code:
        yield f"exit code {run.returncode}, not {code}"
    lines = [line for line in run.stderr.splitlines() if "fatal:" in line]
    if len(lines) != 1 or not re.fullmatch(rf"\[rank {rank}\] fatal: {message}", lines[0]):
        yield f"message: {lines}"
    if "unwound" in run.stdout:
        yield "a destructor ran"
    if seconds > SECONDS:
        yield f"took {seconds:.1f} s"


def main():
    program, launcher = sys.argv[1], sys.argv[2:]
    failures = []
    for kind in CASES:
        failures += [f"3 ranks, {kind}: {text}" for text in check([*launcher, program], 2, kind)]
        failures += [f"alone, {kind}: {text}" for text in check([program], 0, kind)]
    for text in failures:
        print(text)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
