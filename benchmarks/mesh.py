"""A mesh to measure: `headrace up` on a free port with a state directory of its own."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

HEADRACE = str(Path(sys.executable).parent / "headrace")


@contextmanager
def running_mesh(standby: int = 1) -> Iterator[str]:
    """Yields the mesh's URL; everything is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="headrace-bench-"))
    config = folder / "mesh.yaml"
    config.write_text(yaml.safe_dump({"telemetry": {"metrics_listen": "127.0.0.1:0"}}))
    arguments = ["--listen", "127.0.0.1:0", "--state", str(folder / "state"), "--standby", str(standby)]
    with open(folder / "up.log", "w") as log:
        process = subprocess.Popen(
            [HEADRACE, "up", *arguments, "--config", str(config)], stdout=subprocess.PIPE, stderr=log, text=True
        )
        try:
            assert process.stdout
            line = process.stdout.readline()
            if not line.startswith("ready "):
                sys.exit(f"the mesh did not start; its log:\n{(folder / 'up.log').read_text()}")
            yield line.split()[1]
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
            shutil.rmtree(folder, ignore_errors=True)
