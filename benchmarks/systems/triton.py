"""Triton: the `tritonserver` of the nvidia-pytriton wheel, with a model repository of ours.

Its Python backend calls ONNX Runtime, since the wheel has no ONNX Runtime backend: a C++ front, and
the model in a Python process behind shared memory.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import prometheus
from benchmarks.paths import CACHE, SERVERS, site_packages_of
from benchmarks.peers import installed_version
from benchmarks.processes import free_port, library_path, server
from benchmarks.servers.onnx_session import MAX_BATCH
from benchmarks.systems.base import Counts, Running, job_environment
from benchmarks.systems.open_inference import GRPC_HEADERS, PATH, framed, grpc_client
from benchmarks.workloads import Workload

QUEUE_DELAY_US = 100


class Triton:
    """See the module."""

    name = "triton"
    peer = "triton"
    title = "Triton"
    protocol = "gRPC, Open Inference"

    def version(self) -> str:
        return f"2.51 (nvidia-pytriton {installed_version('triton', 'nvidia-pytriton')})"

    @contextmanager
    def running(self, workload: Workload) -> Iterator[Running]:
        grpc, http, metrics = free_port(), free_port(), free_port()
        root = site_packages_of(self.name) / "pytriton" / "tritonserver"
        repository = _repository(workload)
        command = [
            str(root / "bin" / "tritonserver"),
            f"--model-repository={repository}",
            f"--backend-directory={_backends(root)}",
            *(f"--{kind}-address=127.0.0.1" for kind in ("grpc", "http", "metrics")),
            f"--grpc-port={grpc}",
            f"--http-port={http}",
            f"--metrics-port={metrics}",
            "--log-info=false",
        ]
        with server(self.name, command, _environment(workload, grpc), CACHE) as started:
            started.until_ready(f"http://127.0.0.1:{http}/v2/models/{workload.name}/ready")
            yield Running(
                f"http://127.0.0.1:{grpc}{PATH}",
                True,
                GRPC_HEADERS,
                framed(workload),
                grpc_client(f"127.0.0.1:{grpc}", workload),
                lambda: _counts(f"http://127.0.0.1:{metrics}/metrics", workload.name),
            )


def _counts(url: str, model: str) -> Counts:
    text = prometheus.read(url)
    return Counts(
        prometheus.total(text, "nv_inference_request_success_total", model=model)
        or prometheus.total(text, "nv_inference_request_success", model=model),
        prometheus.total(text, "nv_inference_request_failure", model=model),
    )


def _environment(workload: Workload, port: int) -> dict[str, str]:
    packages = site_packages_of("triton")
    libraries = f"{packages / 'nvidia_pytriton.libs'}:{library_path()}"
    job = job_environment(workload, port)
    binaries = f"{packages.parents[2] / 'bin'}:{os.environ['PATH']}"
    return job | {"PYTHONPATH": f"{SERVERS}:{packages}", "LD_LIBRARY_PATH": libraries, "PATH": binaries}


def _backends(root: Path) -> Path:
    """Triton looks for the stub of its Python backend beside the backend; the wheel has one per version of Python."""
    version = root.parents[2].name.removeprefix("python")
    stub = root / "backends" / "python" / "triton_python_backend_stub"
    if not stub.exists():
        shutil.copy(root / "python_backend_stubs" / version / stub.name, stub)
    return root / "backends"


def _repository(workload: Workload) -> Path:
    folder = CACHE / "triton-models" / workload.name
    (folder / workload.name / "1").mkdir(parents=True, exist_ok=True)
    # The backend's process looks for modules beside the model, and nowhere else of ours.
    shutil.copy(SERVERS / "triton_model.py", folder / workload.name / "1" / "model.py")
    shutil.copy(SERVERS / "onnx_session.py", folder / workload.name / "1" / "onnx_session.py")
    (folder / workload.name / "config.pbtxt").write_text(_configuration(workload))
    return folder


def _configuration(workload: Workload) -> str:
    return f"""name: "{workload.name}"
backend: "python"
max_batch_size: {MAX_BATCH}
input [{{ name: "{workload.input}" data_type: TYPE_{workload.datatype} dims: {list(workload.input_shape)} }}]
output [{{ name: "{workload.output}" data_type: TYPE_FP32 dims: {list(workload.output_shape)} }}]
instance_group [{{ count: 1 kind: KIND_CPU }}]
dynamic_batching {{ max_queue_delay_microseconds: {QUEUE_DELAY_US} }}
"""
