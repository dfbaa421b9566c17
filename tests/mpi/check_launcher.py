#!/usr/bin/env python3
"""Checks who ends when a launcher is killed: its ranks do, a program that a shell started does not.

check_launcher.py PROGRAM LAUNCHER... : LAUNCHER is an mpirun command line for three ranks. The program hangs for ever and is
deaf to all signals but the last one.
"""

import os
import re
import signal
import subprocess
import sys

from processes import printed_pids, running_after

SECONDS = 5
START_SECONDS = 30
HANG = ["none", "deaf", "no-fifo"]
RANK_VARIABLE = re.compile("(OMPI_COMM_WORLD|PMIX|PMI|FLUX_TASK|PALS)_")
# A launcher unknown to every MPI library; it passes stdout and stderr on.
PARENT = "import subprocess, sys; subprocess.run(sys.argv[1:])"


def kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def orphans(command, ranks, environment):
    """Starts `command`, kills it alone when its ranks are there; the ranks left after SECONDS, and stderr."""
    parent = subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    pids = []
    signal.alarm(START_SECONDS)  # for a job that never starts
    while len(pids) < ranks:
        line = parent.stdout.readline()
        if not line:
            raise RuntimeError(f"{command} ended at once: {parent.stderr.read()}")
        pids += printed_pids(line)
    signal.alarm(0)
    parent.kill()
    parent.wait()
    left = running_after(pids, SECONDS)
    for pid in left:
        kill(pid)
    return left, parent.pid, parent.stderr.read()


def failures(program, launcher):
    shell = {name: value for name, value in os.environ.items() if not RANK_VARIABLE.match(name)}
    alone = [sys.executable, "-c", PARENT, program, *HANG]

    left, _, _ = orphans([*launcher, program, *HANG], 3, shell)
    if left:
        yield f"mpirun: {SECONDS} s after its end processes {left} are still there"

    left, pid, errors = orphans(alone, 1, {**shell, "PMI_RANK": "0"})
    if left:
        yield f"another launcher: {SECONDS} s after its end process {left} is still there"
    if f"[rank 0] fatal: the launcher (process {pid}) is gone\n" not in errors:
        yield f"another launcher: message: {errors}"

    left, _, errors = orphans(alone, 1, shell)
    if not left:
        yield f"a shell: the program ended with it: {errors}"


def main():
    complaints = list(failures(sys.argv[1], sys.argv[2:]))
    for text in complaints:
        print(text)
    sys.exit(1 if complaints else 0)


if __name__ == "__main__":
    main()
