"""The JSON API before an autoscaler that writes down what it is asked."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from headrace.v1 import (
    mesh_pb2,
    mesh_pb2_grpc,
    models_pb2,
    models_pb2_grpc,
    tenants_pb2,
    tenants_pb2_grpc,
    usage_pb2,
    usage_pb2_grpc,
)
from headrace_common.errors import NotFound, QuotaExceeded, Unimplemented
from headrace_common.grpc_server import new_server
from headrace_router.api import ApiApp

SERVICES = [
    service
    for file in (mesh_pb2, models_pb2, tenants_pb2, usage_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
]


class Autoscaler(
    models_pb2_grpc.ModelServiceServicer,
    tenants_pb2_grpc.TenantServiceServicer,
    mesh_pb2_grpc.MeshServiceServicer,
    usage_pb2_grpc.UsageServiceServicer,
):
    """See the module.

    Attributes:
        asked: the last request.
        metadata: what came with it.
        begun: a call has begun that does not end by itself.
        cancelled: its caller has given it up.
    """

    def __init__(self) -> None:
        self.asked: Any = None
        self.metadata: list[tuple[str, str]] = []
        self.time_left_s: float | None = None
        self.begun = asyncio.Event()
        self.cancelled = asyncio.Event()

    def _note(self, request: Any, context: Any) -> None:
        self.asked, self.time_left_s = request, context.time_remaining()
        self.metadata = [(key, value) for key, value in context.invocation_metadata() if key != "user-agent"]

    async def _forever(self) -> None:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()

    async def GetModel(self, request: Any, context: Any) -> models_pb2.GetModelResponse:
        self._note(request, context)
        if request.name == "missing":
            raise NotFound("there is no model 'missing'")
        if request.name == "over":
            raise QuotaExceeded("too fast", subject="tenant:a", dimension="rate", retry_after_s=1.2)
        return models_pb2.GetModelResponse(model=models_pb2.Model(name=request.name))

    async def ListModels(self, request: Any, context: Any) -> models_pb2.ListModelsResponse:
        self._note(request, context)
        models = [models_pb2.Model(name="m" * 100)] * 2000 if request.tenant == "large" else []
        return models_pb2.ListModelsResponse(models=models)

    async def DeployModel(self, request: Any, context: Any) -> models_pb2.DeployModelResponse:
        self._note(request, context)
        if request.wait:
            await self._forever()
        return models_pb2.DeployModelResponse()

    async def SetTenant(self, request: Any, context: Any) -> tenants_pb2.SetTenantResponse:
        self._note(request, context)
        return tenants_pb2.SetTenantResponse(tenant=tenants_pb2.Tenant(name=request.tenant.name, spec=request.tenant))

    async def DeleteTenant(self, request: Any, context: Any) -> tenants_pb2.DeleteTenantResponse:
        self._note(request, context)
        return tenants_pb2.DeleteTenantResponse()

    async def ReadLogs(self, request: Any, context: Any) -> AsyncIterator[mesh_pb2.ReadLogsResponse]:
        self._note(request, context)
        for number in range(request.tail):
            yield mesh_pb2.ReadLogsResponse(line=str(number))
        if request.model == "missing":
            raise NotFound("there is no model 'missing'")
        if request.follow:
            await self._forever()

    async def GetStatus(self, request: Any, context: Any) -> mesh_pb2.GetStatusResponse:
        raise Unimplemented("no status here")

    async def GetUsage(self, request: Any, context: Any) -> usage_pb2.GetUsageResponse:
        self._note(request, context)
        return usage_pb2.GetUsageResponse(
            rows=[usage_pb2.UsageRow(tenant="a", requests=2**60, capacity_class="CAPACITY_CLASS_SPOT")]
        )


@pytest.fixture
async def target() -> AsyncIterator[str]:
    folder = Path(tempfile.mkdtemp(prefix="hr-"))
    yield f"unix:{folder}/s"
    shutil.rmtree(folder)


@pytest.fixture
async def api(target: str) -> AsyncIterator[ApiApp]:
    app = ApiApp(SERVICES, target, look_every_s=0.01, bridge_s=0.3)
    yield app
    await app.close()


async def started(servicer: Autoscaler, target: str) -> grpc.aio.Server:
    server = new_server()
    models_pb2_grpc.add_ModelServiceServicer_to_server(servicer, server)
    tenants_pb2_grpc.add_TenantServiceServicer_to_server(servicer, server)
    mesh_pb2_grpc.add_MeshServiceServicer_to_server(servicer, server)
    usage_pb2_grpc.add_UsageServiceServicer_to_server(servicer, server)
    server.add_insecure_port(target)
    await server.start()
    return server


@pytest.fixture
async def autoscaler(target: str) -> AsyncIterator[Autoscaler]:
    servicer = Autoscaler()
    server = await started(servicer, target)
    yield servicer
    await server.stop(0)


@pytest.fixture
async def client(api: ApiApp) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://mesh") as client:
        yield client


@pytest.fixture
def start_autoscaler() -> Any:
    return started


@pytest.fixture
def servicer_type() -> type[Autoscaler]:
    return Autoscaler
