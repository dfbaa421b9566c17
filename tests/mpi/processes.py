"""What the tests of jobs that end badly know about processes."""

import re
import time


def printed_pids(text):
    """The processes that said "pid N"."""
    return [int(number) for number in re.findall(r"^pid (\d+)$", text, re.MULTILINE)]


def is_running(pid):
    """Whether there is such a process and it is more than a zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def running_after(pids, seconds):
    """Those that are still running after that time; returns as soon as none is."""
    end = time.monotonic() + seconds
    while any(is_running(pid) for pid in pids) and time.monotonic() < end:
        time.sleep(0.05)
    return [pid for pid in pids if is_running(pid)]
