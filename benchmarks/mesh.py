"""A mesh to measure: `headrace up` on a free port with a state directory of its own."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks import prometheus
from benchmarks.processes import DidNotStart, descendants, free_port

HEADRACE = str(Path(sys.executable).parent / "headrace")
# The routers answer all instruments of one scrape from a reading this old at most.
_READING_AGE_S = 0.25


@dataclass(frozen=True, slots=True)
class Mesh:
    """A mesh that is up.

    Attributes:
        target: host:port, as gRPC clients want it.
        metrics: URL of its metrics.
        supervisor: its pid.
    """

    url: str
    metrics: str
    supervisor: int

    @property
    def target(self) -> str:
        return self.url.removeprefix("http://")

    def metrics_text(self) -> str:
        """What its metrics say, not older than this call."""
        time.sleep(_READING_AGE_S)
        return prometheus.read(self.metrics)

    def pids(self) -> Mapping[str, int]:
        """The process that is Envoy with the router in it, and the runner."""
        marks = {"router": "router-0", "runner": "headrace_runner"}
        commands = descendants(self.supervisor).items()
        return {name: pid for name, mark in marks.items() for pid, command in commands if mark in command}


@contextmanager
def running_mesh(standby: int = 0, config: Mapping[str, Any] | None = None) -> Iterator[Mesh]:
    """Yields the mesh; everything is gone afterwards. Raises DidNotStart."""
    folder = Path(tempfile.mkdtemp(prefix="headrace-bench-"))
    metrics = f"127.0.0.1:{free_port()}"
    path = folder / "mesh.yaml"
    settings = {"telemetry": {"metrics_listen": metrics}, "autoscaler": {"standby_max": standby}, **(config or {})}
    path.write_text(yaml.safe_dump(settings))
    arguments = ["--listen", "127.0.0.1:0", "--state", str(folder / "state"), "--standby", str(standby)]
    with open(folder / "up.log", "w") as log:
        process = subprocess.Popen(
            [HEADRACE, "up", *arguments, "--config", str(path)], stdout=subprocess.PIPE, stderr=log, text=True
        )
    try:
        assert process.stdout
        line = process.stdout.readline()
        if not line.startswith("ready "):
            raise DidNotStart(f"the mesh did not start; its log:\n{(folder / 'up.log').read_text()}")
        yield Mesh(line.split()[1], f"http://{metrics}/metrics", process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        shutil.rmtree(folder, ignore_errors=True)
