"""LitServe, BentoML and Ray Serve: Python servers over HTTP/1.1, each with the body that its own manual shows."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from benchmarks.paths import CACHE, SERVERS, environment_of
from benchmarks.peers import installed_version
from benchmarks.processes import free_port, server
from benchmarks.systems.base import Row, Running, job_environment, python_of
from benchmarks.systems.open_inference import JSON_HEADERS, post
from benchmarks.systems.raw_http import HEADERS, raw_client
from benchmarks.workloads import Workload


class LitServe:
    """See the module."""

    name = "litserve"
    peer = "litserve"
    title = "LitServe"
    protocol = "HTTP/1.1, JSON"

    def version(self) -> str:
        return installed_version(self.name, "litserve")

    @contextmanager
    def running(self, workload: Workload) -> Iterator[Running]:
        port = free_port()
        command = [python_of(environment_of(self.name)), str(SERVERS / "litserve_server.py")]
        with server(self.name, command, job_environment(workload, port), CACHE) as started:
            started.until_ready(f"http://127.0.0.1:{port}/health")
            url = f"http://127.0.0.1:{port}/predict"
            client = _json_client(url, lambda answer: answer["data"])
            yield Running(url, False, JSON_HEADERS, _json_row(workload.row(0)), client)


class BentoMl:
    """See the module."""

    name = "bentoml"
    peer = "bentoml"
    title = "BentoML"
    protocol = "HTTP/1.1, JSON"

    def version(self) -> str:
        return installed_version(self.name, "bentoml")

    @contextmanager
    def running(self, workload: Workload) -> Iterator[Running]:
        port = free_port()
        arguments = ["serve", "bentoml_server:Model", "--host", "127.0.0.1", "--port", str(port)]
        command = [python_of(environment_of(self.name)), "-m", "bentoml", *arguments, "--working-dir", str(SERVERS)]
        settings = {"BENTOML_DO_NOT_TRACK": "true", "BENTOML_HOME": str(CACHE / "bentoml-home")}
        with server(self.name, command, job_environment(workload, port) | settings, CACHE) as started:
            started.until_ready(f"http://127.0.0.1:{port}/readyz")
            url = f"http://127.0.0.1:{port}/infer"
            client = _json_client(url, lambda answer: answer)
            yield Running(url, False, JSON_HEADERS, _json_row(workload.row(0)), client)


class RayServe:
    """See the module."""

    name = "ray"
    peer = "ray"
    title = "Ray Serve"
    protocol = "HTTP/1.1, raw bytes"

    def version(self) -> str:
        return installed_version(self.name, "ray")

    @contextmanager
    def running(self, workload: Workload) -> Iterator[Running]:
        port = free_port()
        command = [python_of(environment_of(self.name)), str(SERVERS / "ray_server.py")]
        settings = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0", "PATH": os.environ["PATH"]}
        with server(self.name, command, job_environment(workload, port) | settings, CACHE) as started:
            # What is up and wants a body answers an empty one with 500.
            started.until_ready(f"http://127.0.0.1:{port}/infer", lambda status: status in (200, 500))
            url = f"http://127.0.0.1:{port}/infer"
            yield Running(url, False, HEADERS, workload.row(0).tobytes(), raw_client(url, workload))


def _json_row(row: Row) -> bytes:
    return json.dumps({"data": row.tolist()}).encode()


def _json_client(url: str, pick: Callable[[object], object]) -> Callable[[Row], NDArray[np.float32]]:
    def infer(row: Row) -> NDArray[np.float32]:
        return np.array(pick(json.loads(post(url, _json_row(row), JSON_HEADERS))), np.float32)

    return infer
