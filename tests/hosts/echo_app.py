"""The servicers of the host conformance suite, and the ASGI application that serves them inside Envoy.

Messages are bare bytes, so that the suite needs no generated code. Envoy imports this file as `echo_app`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2
from grpc_status import rpc_status

from headrace_common.asgi_grpc import Call, GrpcAsgiApp, serve_lifespan
from headrace_common.errors import NotFound, QuotaExceeded
from headrace_common.grpc_server import ServicerHost, add_health, add_process_service
from headrace_common.reflection import add_reflection

SERVICE = "hosts.v1.Echo"
INFERENCE = "inference.GRPCInferenceService"


class EchoServicer:
    """Each method provokes one thing that a host must get right."""

    def __init__(self) -> None:
        self.cancelled = 0
        self.running = 0
        self._gates: dict[bytes, asyncio.Event] = {}

    async def Echo(self, request: bytes, context: Any) -> bytes:
        return request

    async def Repeat(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        for index in range(int(request)):
            yield str(index).encode()

    async def Write(self, request: bytes, context: Any) -> None:
        for index in range(int(request)):
            await context.write(str(index).encode())

    async def Collect(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        return b",".join([request async for request in requests])

    async def Chat(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request
        yield b"half-closed"

    async def ReadWrite(self, _requests: Any, context: Any) -> None:
        while (request := await context.read()) is not grpc.aio.EOF:
            await context.write(request)

    async def Metadata(self, _request: bytes, context: Any) -> bytes:
        metadata = [(key, value) for key, value in context.invocation_metadata() if key.startswith("x-")]
        await context.send_initial_metadata(metadata)
        context.set_trailing_metadata(metadata)
        return repr(sorted(metadata)).encode()

    async def TimeLeft(self, _request: bytes, context: Any) -> bytes:
        return repr(context.time_remaining()).encode()

    async def Abort(self, request: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, request.decode(), (("x-why", "because"),))

    async def AbortWithDetails(self, _request: bytes, context: Any) -> bytes:
        detail = status_pb2.Status(code=code_pb2.RESOURCE_EXHAUSTED, message="too much")
        detail.details.add().Pack(error_details_pb2.ErrorInfo(reason="BECAUSE"))
        await context.abort_with_status(rpc_status.to_status(detail))

    async def SetCode(self, request: bytes, context: Any) -> bytes:
        context.set_code(grpc.StatusCode.DATA_LOSS)
        context.set_details("lost")
        return request

    async def Fail(self, _request: bytes, context: Any) -> bytes:
        raise RuntimeError("the secret of the server")

    async def FailLate(self, _request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield b"one"
        raise NotFound("nothing after one")

    async def Quota(self, _request: bytes, context: Any) -> bytes:
        raise QuotaExceeded("full", subject="tenant:acme", dimension="concurrency", retry_after_s=1.5)

    async def Wait(self, _request: bytes, context: Any) -> bytes:
        self.running += 1
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
        return b""

    async def WaitStreaming(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        yield b"waiting"
        await self.Wait(b"", context)

    async def Waiters(self, _request: bytes, context: Any) -> bytes:
        """How many waits run, and how many were cancelled."""
        return f"{self.running} {self.cancelled}".encode()

    async def Compressed(self, request: bytes, context: Any) -> bytes:
        context.set_compression(grpc.Compression.Gzip)
        return request


_KINDS = {
    "Repeat": "unary_stream",
    "Write": "unary_stream",
    "Collect": "stream_unary",
    "Chat": "stream_stream",
    "ReadWrite": "stream_stream",
    "FailLate": "unary_stream",
    "WaitStreaming": "stream_stream",
}
UNARY = (
    "Echo", "Metadata", "TimeLeft", "Abort", "AbortWithDetails", "SetCode", "Fail", "Quota", "Wait", "Waiters",
    "Compressed",
)  # fmt: skip


def add_echo(server: ServicerHost) -> None:
    servicer = EchoServicer()
    handlers = {
        name: getattr(grpc, f"{_KINDS.get(name, 'unary_unary')}_rpc_method_handler")(getattr(servicer, name))
        for name in (*_KINDS, *UNARY)
    }
    handlers["Typed"] = grpc.unary_unary_rpc_method_handler(
        servicer.Echo,
        request_deserializer=health_pb2.HealthCheckRequest.FromString,
        response_serializer=health_pb2.HealthCheckRequest.SerializeToString,
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    server.add_registered_method_handlers(SERVICE, handlers)


async def _drain(_timeout_s: float | None) -> int:
    return 3


def add_everything(server: ServicerHost) -> Any:
    add_echo(server)
    add_reflection(server, [INFERENCE, "grpc.health.v1.Health", "headrace.v1.ModelService"])
    add_process_service(server, lambda: b"# metrics\n", _drain)
    return add_health(server)


async def hot_echo(body: bytes, call: Call) -> bytes:
    """The hand-tuned kind of route; `fail` and `wait` as their names say."""
    if body == b"fail":
        raise QuotaExceeded("full", subject="tenant:acme", dimension="concurrency", retry_after_s=1.5)
    if body == b"tenant":
        return (call.header("x-headrace-tenant") or "nobody").encode()
    if body == b"time":
        return repr(call.time_left_s).encode()
    if body == b"wait":
        while not call.is_gone():  # noqa: ASYNC110 - asking is what is tested
            await asyncio.sleep(0.01)
        GONE.append(call.path)
        return b"nobody reads this"
    if body == b"gone":
        return str(len(GONE)).encode()
    return body


GONE: list[str] = []
_grpc_app = GrpcAsgiApp(max_message_bytes=8 << 20, internal_services=["headrace.control.v1.ProcessService"])
add_everything(_grpc_app)
_grpc_app.register_unary_bytes("/hosts.v1.Hot/Echo", hot_echo)


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await serve_lifespan(_grpc_app, receive, send)
    elif scope["path"] == "/http/503":
        await send({"type": "http.response.start", "status": 503, "headers": [(b"retry-after", b"7")]})
        await send({"type": "http.response.body", "body": b"from the application"})
    else:
        await _grpc_app(scope, receive, send)
