"""grpc.health.v1 of a router: the server's own health and each model's, under the model's name."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from grpc_health.v1 import health_pb2, health_pb2_grpc

from headrace_common.errors import NotFound, PermissionDenied, Unavailable
from headrace_common.grpc_server import ServicerHost
from headrace_common.identity import TENANT_KEY, tenant_of
from headrace_router.ports import Catalogue

SERVING: int = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING: int = health_pb2.HealthCheckResponse.NOT_SERVING
_UNKNOWN: int = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class RouterHealth(health_pb2_grpc.HealthServicer):
    """ "" and the names of services: SERVING once the catalogue has arrived, until the drain begins.

    Another name is a model's: SERVING while an inference would be accepted, at zero instances too. A
    model that the caller may not call is unknown.
    """

    def __init__(self, catalogue: Catalogue, services: Iterable[str], watch_period_s: float = 0.25) -> None:
        """
        Args:
            watch_period_s: how often a watch looks at the catalogue; a drain is told at once.
        """
        self._catalogue = catalogue
        self._services = frozenset(services) | {""}
        self._watch_period_s = watch_period_s
        self._draining = asyncio.Event()

    def drain(self) -> None:
        """From now on everything is NOT_SERVING."""
        self._draining.set()

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Any) -> health_pb2.HealthCheckResponse:
        status = self._status(request.service, _tenant(context))
        if status == _UNKNOWN:
            raise NotFound(f"there is no service or model {request.service!r}")
        return health_pb2.HealthCheckResponse(status=status)

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Any) -> None:
        tenant = _tenant(context)
        told = None
        while True:
            status = self._status(request.service, tenant)
            if status != told:
                await context.write(health_pb2.HealthCheckResponse(status=status))
                told = status
            await self._change()

    async def _change(self) -> None:
        if self._draining.is_set():
            await asyncio.sleep(self._watch_period_s)
            return
        try:
            async with asyncio.timeout(self._watch_period_s):
                await self._draining.wait()
        except TimeoutError:
            return

    def _status(self, service: str, tenant: str) -> int:
        if service in self._services:
            serving = self._catalogue.ready
        else:
            try:
                serving = self._catalogue.is_ready(self._catalogue.resolve(tenant, service, ""))
            except Unavailable:
                serving = False
            except (NotFound, PermissionDenied):
                return _UNKNOWN
        return SERVING if serving and not self._draining.is_set() else NOT_SERVING


def _tenant(context: Any) -> str:
    return tenant_of(dict(context.invocation_metadata()).get(TENANT_KEY))


def add_router_health(server: ServicerHost, servicer: RouterHealth) -> None:
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
