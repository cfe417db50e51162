"""`python -m headrace_autoscaler.jobs.keeper COMMAND...`: runs a command that never outlives the autoscaler.

It leads a process group of its own. Standard input is a pipe whose other end the autoscaler holds: when that is
closed, because the autoscaler says so or is gone, however it went, the group is killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence

NICENESS = 15
"""Serving comes first."""
SIGNALLED = 128
"""An exit status above it says by which signal the command was ended, as shells have it."""


def main(command: Sequence[str]) -> int:
    """Returns the command's exit status."""
    os.nice(NICENESS)
    threading.Thread(target=_end_with_whoever_started_us, daemon=True).start()
    done = subprocess.run(command, stdin=subprocess.DEVNULL, check=False)  # noqa: S603 - the autoscaler's own command
    return done.returncode if done.returncode >= 0 else SIGNALLED - done.returncode


def _end_with_whoever_started_us() -> None:
    while os.read(0, 1):
        pass
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
