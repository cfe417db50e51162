"""A mesh of the demo's own: `headrace up` on a free port, with a state directory that is thrown away."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

STOP_WITHIN_S = 60


@contextmanager
def running_mesh() -> Iterator[str]:
    """Yields the URL. Whatever happens, the mesh is stopped and its state removed."""
    with tempfile.TemporaryDirectory(prefix="headrace-demo-") as folder:
        log = Path(folder, "up.log")
        command = [sys.executable, "-m", "headrace.cli.main", "up", "--listen", "127.0.0.1:0"]
        with log.open("w") as errors:
            process = subprocess.Popen(  # noqa: S603 - our own command
                [*command, "--state", str(Path(folder, "state"))], stdout=subprocess.PIPE, stderr=errors, text=True
            )
        try:
            yield _url(process, log)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(STOP_WITHIN_S)


def _url(process: subprocess.Popen[str], log: Path) -> str:
    assert process.stdout
    line = process.stdout.readline()
    if not line.startswith("ready "):
        raise RuntimeError("the mesh did not start; it said:\n" + log.read_text())
    return line.split()[1]
