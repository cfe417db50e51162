"""The public API, `headrace.v1`: thin servicers over the catalogue, the deploy service and the fleet."""

from __future__ import annotations

from pathlib import Path

import grpc.aio

from headrace.v1 import mesh_pb2_grpc, models_pb2_grpc, tenants_pb2_grpc, usage_pb2_grpc
from headrace_autoscaler.api.mesh import MeshServicer
from headrace_autoscaler.api.models import ModelServicer
from headrace_autoscaler.api.tenants import TenantServicer
from headrace_autoscaler.api.usage import UsageServicer
from headrace_autoscaler.artifacts import ArtifactStore
from headrace_autoscaler.catalogue import StoredCatalogue
from headrace_autoscaler.deploy import DeployService
from headrace_autoscaler.jobs.service import JobService
from headrace_autoscaler.ports import Fleet
from headrace_common.clock import Clock

__all__ = ["register"]


def register(
    server: grpc.aio.Server,
    *,
    catalogue: StoredCatalogue,
    deploys: DeployService,
    jobs: JobService,
    artifacts: ArtifactStore,
    fleet: Fleet,
    clock: Clock,
    logs_dir: Path,
    currency: str = "USD",
) -> None:
    """Adds ModelService, TenantService, UsageService and MeshService to a server that has not started.

    Args:
        logs_dir: where the mesh's processes write `*.log`.
        currency: of every price in the books (configuration key autoscaler.currency).
    """
    models_pb2_grpc.add_ModelServiceServicer_to_server(
        ModelServicer(catalogue, deploys, jobs, artifacts, fleet), server
    )
    tenants_pb2_grpc.add_TenantServiceServicer_to_server(TenantServicer(catalogue, fleet, clock), server)
    usage_pb2_grpc.add_UsageServiceServicer_to_server(UsageServicer(catalogue, currency), server)
    mesh_pb2_grpc.add_MeshServiceServicer_to_server(MeshServicer(catalogue, fleet, clock, logs_dir), server)
