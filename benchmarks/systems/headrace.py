"""headrace: `headrace up` on loopback with default telemetry; a tenant whose quotas and leases are at work."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import headrace
from benchmarks import prometheus
from benchmarks.mesh import Mesh, running_mesh
from benchmarks.systems.base import Counts, Running
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
from headrace.v1 import resources_pb2, tenants_pb2

TENANT = "bench"
TENANT_HEADER = {"x-headrace-tenant": TENANT}
CONCURRENCY = 100_000
REQUESTS_PER_SECOND = 1_000_000.0
MAX_BATCH = 64
_OUTCOMES = "headrace_requests_total"


def limited(name: str, weight: float = 1.0) -> tenants_pb2.TenantSpec:
    """A tenant with limits that no load here reaches, so that both limiters count every request."""
    nominal = resources_pb2.Quantities(concurrency=CONCURRENCY, requests_per_second=REQUESTS_PER_SECOND)
    return tenants_pb2.TenantSpec(name=name, nominal=nominal, weight=weight)


def deploy(client: headrace.Client, name: str, path: Path, tenant: str = TENANT) -> None:
    """One instance of one CPU, kept."""
    client.set_tenant(limited(tenant))
    client.deploy(
        path,
        name=name,
        tenant=tenant,
        min_instances=1,
        max_instances=1,
        max_batch_size=MAX_BATCH,
        engine_options={"intra_op_threads": "1"},
    )


class Headrace:
    """Over gRPC."""

    name = "headrace"
    peer = ""
    title = "headrace"
    protocol = "gRPC, Open Inference"

    def version(self) -> str:
        return importlib.metadata.version("headrace")

    @contextmanager
    def running(self, workload: Workload) -> Iterator[Running]:
        with running_mesh() as mesh, headrace.Client(mesh.url) as client:
            deploy(client, workload.name, workload.model_path)
            yield Running(
                mesh.url + PATH,
                True,
                GRPC_HEADERS | TENANT_HEADER,
                framed(workload),
                grpc_client(mesh.target, workload, TENANT_HEADER),
                lambda: counts(mesh, workload.name),
                mesh.pids,
            )


class HeadraceRest(Headrace):
    """Over REST with JSON."""

    name = "headrace-rest"
    peer = ""
    title = "headrace REST"
    protocol = "HTTP/1.1, Open Inference JSON"

    @contextmanager
    def running(self, workload: Workload) -> Iterator[Running]:
        with running_mesh() as mesh, headrace.Client(mesh.url) as client:
            deploy(client, workload.name, workload.model_path)
            url = f"{mesh.url}/v2/models/{workload.name}/infer"
            yield Running(
                url,
                False,
                JSON_HEADERS | TENANT_HEADER,
                json_body(workload, workload.row(0)),
                json_client(url, workload, TENANT_HEADER),
                lambda: counts(mesh, workload.name),
                mesh.pids,
            )


def counts(mesh: Mesh, model: str) -> Counts:
    """What the routers say of one model."""
    return outcomes(mesh.metrics_text(), model)


def outcomes(metrics: str, model: str, tenant: str = ".*") -> Counts:
    """Of a mesh's metrics."""
    return Counts(
        prometheus.total(metrics, _OUTCOMES, model=model, tenant=tenant, outcome="ok"),
        prometheus.total(metrics, _OUTCOMES, model=model, tenant=tenant, outcome="(?!ok$).*"),
    )
