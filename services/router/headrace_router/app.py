"""The ASGI application that Envoy loads: a router, wired together."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from headrace.oip import inference_pb2_grpc
from headrace.v1 import mesh_pb2, models_pb2, tenants_pb2, usage_pb2
from headrace_common.asgi_grpc import Call, GrpcAsgiApp, serve_lifespan
from headrace_common.asgi_grpc.call import Receive, Scope, Send
from headrace_common.clock import Clock, SystemClock
from headrace_common.collector import spare_the_collector
from headrace_common.config import ProcessContext, RouterConfig, load_context
from headrace_common.grpc_server import add_process_service
from headrace_common.identity import TENANT_KEY, tenant_of
from headrace_common.logs import configure_logging, get_logger
from headrace_common.reflection import add_reflection
from headrace_common.telemetry import Telemetry
from headrace_router import compiled, instruments
from headrace_router.api import ApiApp, is_api_path
from headrace_router.cache import CachedPlane, open_store
from headrace_router.envoy.launch import CONTEXT_VARIABLE
from headrace_router.health import RouterHealth, add_router_health
from headrace_router.ingress.host import Ingress
from headrace_router.ingress.native import LIBRARY, IngressLibrary
from headrace_router.oip.hot import HotInference
from headrace_router.oip.hot_stream import HotStreams
from headrace_router.oip.rest import RestApp
from headrace_router.oip.servicer import InferenceServicer
from headrace_router.oip.stream import METHOD as STREAM_INFER
from headrace_router.plane import Plane
from headrace_router.traces import TracedPlane

INFERENCE = "inference.GRPCInferenceService"
_MODEL_INFER = f"/{INFERENCE}/ModelInfer"
_API = tuple(
    service
    for file in (mesh_pb2, models_pb2, tenants_pb2, usage_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
)
_SERVICES = (INFERENCE, "grpc.health.v1.Health", *(service.full_name for service in _API))


class Router:
    """One router: its plane, and the protocols in front of it. Made inside a running event loop.

    Args:
        ingress: the filter in Envoy that takes unary inference; None: there is none, and ASGI takes that too.
    """

    def __init__(
        self, context: ProcessContext, telemetry: Telemetry, clock: Clock, ingress: IngressLibrary | None = None
    ) -> None:
        limits = context.mesh.router
        self.plane = Plane(context, clock)
        self._cached = CachedPlane(self.plane, open_store(limits, clock), limits, clock)
        catalogue, plane = self.plane.catalogue, TracedPlane(self._cached, telemetry)
        self._health = RouterHealth(catalogue, _SERVICES)
        self._hot = HotInference(catalogue, plane, clock)
        self._hot_streams = HotStreams(self._hot, plane)
        self._api = ApiApp(_API, context.autoscaler_target, limits.sweep_period_s)
        self._rest = RestApp(catalogue, plane, clock, limits)
        self.serve = GrpcAsgiApp(
            limits.max_request_bytes,
            internal_services=["headrace.control.v1.ProcessService"],
            sweep_period_s=limits.sweep_period_s,
            other=self._serve_json,
        )
        servicer = InferenceServicer(catalogue, plane, clock)
        inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, self.serve)
        self.serve.register_unary_bytes(_MODEL_INFER, self._infer)
        self.serve.register_stream_bytes(STREAM_INFER, self._hot_streams.open)
        add_router_health(self.serve, self._health)
        add_reflection(self.serve, _SERVICES)
        add_process_service(self.serve, telemetry.scrape, self._drain)
        instruments.register(telemetry, self.plane, clock)
        self._ingress = None if ingress is None else Ingress(ingress, self._hot, plane, limits)
        instruments.register_cache(telemetry, self._cached)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with self.serve:
            await self.plane.start()
            await self._cached.start()
            if self._ingress is not None:
                self._ingress.start()
            try:
                yield
            finally:
                self._health.drain()
                await self._api.close()
                await self.plane.stop()
                await self._cached.stop()
                if self._ingress is not None:
                    self._ingress.stop()

    async def _serve_json(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What is not gRPC, by its content type."""
        await (self._api if is_api_path(scope["path"]) else self._rest)(scope, receive, send)

    async def _drain(self, timeout_s: float | None) -> int:
        self._health.drain()
        get_logger().info("drain_begins", in_hand=self.plane.in_hand)
        abandoned = await self.plane.drain(timeout_s)
        get_logger().info("drained", abandoned=abandoned)
        return abandoned

    async def _infer(self, body: bytes, call: Call) -> bytes:
        tenant = tenant_of(call.header(TENANT_KEY))
        traceparent = call.header("traceparent") or ""
        return await self._hot.infer_bytes(body, tenant, call.time_left_s, traceparent, call.is_gone)


def _filter(limits: RouterConfig) -> IngressLibrary | None:
    """None where Envoy has no such filter: see `envoy.settings`."""
    if not limits.native_ingress:
        return None
    if not LIBRARY.exists():
        get_logger().warning("no native ingress", effect="unary gRPC goes by ASGI, at a higher cost")
        return None
    return IngressLibrary()


_router: Router | None = None


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """See the module. Reads the context file that `CONTEXT_VARIABLE` names, once, at start-up."""
    if scope["type"] == "lifespan":
        await serve_lifespan(_running(), receive, send)
    elif _router is not None:
        await _router.serve(scope, receive, send)


@asynccontextmanager
async def _running() -> AsyncIterator[None]:
    global _router
    context = load_context(Path(os.environ[CONTEXT_VARIABLE]))
    configure_logging(context.process, context.mesh.telemetry.log_level)
    telemetry = Telemetry.start(context.process, context.mesh.telemetry, context.mesh.router.trace_sample_ratio)
    router = Router(context, telemetry, SystemClock(), _filter(context.mesh.router))
    try:
        async with router.running():
            _router = router
            spare_the_collector()
            get_logger().info("started", listen=context.listen, compiled_modules=compiled.count())
            if stale := compiled.stale():
                get_logger().warning("compiled_modules_are_stale", changed=stale, do="run `make setup`")
            yield
    finally:
        _router = None
        telemetry.shutdown()
        get_logger().info("stopped")
