"""A process that leaves has written what it wrote, and waits for nothing."""

from __future__ import annotations

import subprocess
import sys

LEAVES = """
import atexit, threading
from headrace_common.ending import leave
atexit.register(threading.Event().wait)
threading.Thread(target=threading.Event().wait).start()
print("last words", end="")
leave(7)
"""


def test_nothing_at_the_end_of_the_interpreter_is_waited_for() -> None:
    done = subprocess.run([sys.executable, "-c", LEAVES], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (7, "last words", "")
