"""Ends everything once the supervisor is gone, however it went.

The guard leads the process group that all services, and the runners they start, are in. It holds
the read end of a pipe of which only the supervisor has the write end, so end-of-file means that the
supervisor has ended, SIGKILL included. It has also inherited the lock on the state directory: the
state stays locked until nothing is left that might write there.

Imports the standard library only, so that it starts fast and nothing can break it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
from pathlib import Path

from headrace.mesh.process_group import end_group

_IGNORED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m headrace.mesh.guard", description=__doc__)
    parser.add_argument("--pipe", type=int, required=True, help="descriptor that reads end-of-file at the end")
    parser.add_argument("--runtime", type=Path, required=True, help="directory to remove at the end")
    parser.add_argument("--grace", type=float, required=True, help="seconds between SIGTERM and SIGKILL")
    options = parser.parse_args()
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    _wait_for_end_of_file(options.pipe)
    end_group(os.getpgrp(), options.grace)
    shutil.rmtree(options.runtime, ignore_errors=True)


def _wait_for_end_of_file(descriptor: int) -> None:
    while os.read(descriptor, 1024):
        continue


if __name__ == "__main__":
    main()
