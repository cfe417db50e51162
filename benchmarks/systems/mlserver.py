"""MLServer over gRPC and over REST, with its adaptive batching on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import prometheus
from benchmarks.paths import CACHE, SERVERS, environment_of
from benchmarks.peers import installed_version
from benchmarks.processes import free_port, server
from benchmarks.servers.onnx_session import MAX_BATCH
from benchmarks.systems.base import Counts, Running, job_environment
from benchmarks.systems.open_inference import (
    GRPC_HEADERS,
    JSON_HEADERS,
    PATH,
    framed,
    grpc_client,
    json_body,
    json_client,
)
from benchmarks.workloads import Workload

WAIT_S = 0.001


class MlServer:
    """Over gRPC."""

    name = "mlserver"
    peer = "mlserver"
    title = "MLServer"
    protocol = "gRPC, Open Inference"

    def version(self) -> str:
        return installed_version("mlserver", "mlserver")

    @contextmanager
    def running(self, workload: Workload) -> Iterator[Running]:
        with _started(workload) as (http, grpc, metrics):
            yield self._running(workload, http, grpc, metrics)

    def _running(self, workload: Workload, http: int, grpc: int, metrics: str) -> Running:
        return Running(
            f"http://127.0.0.1:{grpc}{PATH}",
            True,
            GRPC_HEADERS,
            framed(workload),
            grpc_client(f"127.0.0.1:{grpc}", workload),
            lambda: _counts(metrics, workload.name),
        )


class MlServerRest(MlServer):
    """Over REST with JSON."""

    name = "mlserver-rest"
    peer = "mlserver"
    title = "MLServer REST"
    protocol = "HTTP/1.1, Open Inference JSON"

    def _running(self, workload: Workload, http: int, grpc: int, metrics: str) -> Running:
        url = f"http://127.0.0.1:{http}/v2/models/{workload.name}/infer"
        body = json_body(workload, workload.row(0))
        return Running(url, False, JSON_HEADERS, body, json_client(url, workload))


@contextmanager
def _started(workload: Workload) -> Iterator[tuple[int, int, str]]:
    http, grpc, metrics = free_port(), free_port(), free_port()
    folder = _repository(workload, http, grpc, metrics)
    command = [str(environment_of("mlserver") / "bin" / "mlserver"), "start", str(folder)]
    with server("mlserver", command, job_environment(workload, http), folder) as started:
        started.until_ready(f"http://127.0.0.1:{http}/v2/models/{workload.name}/ready")
        yield http, grpc, f"http://127.0.0.1:{metrics}/metrics"


def _counts(url: str, model: str) -> Counts:
    text = prometheus.read(url)
    return Counts(
        prometheus.total(text, "model_infer_request_success_total", model=model),
        prometheus.total(text, "model_infer_request_failure_total", model=model),
    )


def _repository(workload: Workload, http: int, grpc: int, metrics: int) -> Path:
    folder = CACHE / "mlserver-models" / workload.name
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(SERVERS / "mlserver_model.py", folder / "mlserver_model.py")
    settings = {
        "host": "127.0.0.1",
        "http_port": http,
        "grpc_port": grpc,
        "metrics_port": metrics,
        "parallel_workers": 0,  # its model runs in the server's process, which is the faster way for a small model
        "debug": False,
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    model = {
        "name": workload.name,
        "implementation": "mlserver_model.Model",
        "max_batch_size": MAX_BATCH,
        "max_batch_time": WAIT_S,
    }
    (folder / "model-settings.json").write_text(json.dumps(model))
    return folder
