"""`python -m headrace_autoscaler.jobs.keeper COMMAND...`: runs a command that never outlives the autoscaler.

It leads a process group of its own. Standard input is a pipe whose other end the autoscaler holds: when that is
closed, because the autoscaler says so or is gone, however it went, the group is killed. Where this process itself is
killed, the kernel kills the command (prctl(2)).
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

NICENESS = 15
"""Serving comes first."""
_PR_SET_PDEATHSIG = 1
SIGNALLED = 128
"""An exit status above it says by which signal the command was ended, as shells have it."""


def main(command: Sequence[str]) -> int:
    """Returns the command's exit status."""
    os.nice(NICENESS)
    _go_first_where_memory_ends()
    dies_with_us = partial(ctypes.CDLL(None).prctl, _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    child = subprocess.Popen(  # noqa: S603 - the autoscaler's own command
        command,
        stdin=subprocess.DEVNULL,
        preexec_fn=dies_with_us,  # noqa: PLW1509 - there is no other thread yet
    )
    threading.Thread(target=_end_with_whoever_started_us, daemon=True).start()
    code = child.wait()
    return code if code >= 0 else SIGNALLED - code


def _go_first_where_memory_ends() -> None:
    """What a job takes is not bounded: where the machine has no more, no runner is to die in its place (proc(5))."""
    with suppress(OSError):  # No /proc: then as it is.
        Path("/proc/self/oom_score_adj").write_text("1000")


def _end_with_whoever_started_us() -> None:
    while os.read(0, 1):
        pass
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
