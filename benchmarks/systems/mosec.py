"""mosec: a Rust HTTP front before Python workers. It has no protocol of its own: bytes in, bytes out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.paths import CACHE, SERVERS, environment_of
from benchmarks.peers import installed_version
from benchmarks.processes import free_port, server
from benchmarks.systems.base import Running, job_environment, python_of
from benchmarks.systems.raw_http import HEADERS, raw_client
from benchmarks.workloads import Workload


class Mosec:
    """See the module."""

    name = "mosec"
    peer = "mosec"
    title = "mosec"
    protocol = "HTTP/1.1, raw bytes"

    def version(self) -> str:
        return installed_version("mosec", "mosec")

    @contextmanager
    def running(self, workload: Workload) -> Iterator[Running]:
        port = free_port()
        script = str(SERVERS / "mosec_server.py")
        options = ["--address", "127.0.0.1", "--port", str(port), "--timeout", "30000"]
        command = [python_of(environment_of(self.name)), script, *options]
        with server(self.name, command, job_environment(workload, port), CACHE) as started:
            started.until_ready(f"http://127.0.0.1:{port}/metrics")
            url = f"http://127.0.0.1:{port}/inference"
            yield Running(url, False, HEADERS, workload.row(0).tobytes(), raw_client(url, workload))
