"""A plain `grpc.aio` server as the mesh's processes run it, and what each of them serves beside its own service."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn, Protocol

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health import aio as health_aio

from headrace.control.v1 import process_pb2, process_pb2_grpc
from headrace_common.errors import EngineFailed, InvalidArgument
from headrace_common.logs import get_logger
from headrace_common.status import DETAILS_KEY, WireStatus, wire_status

_OPTIONS: tuple[tuple[str, int], ...] = (
    # Two servers on one port would share its connections in silence; a port in use must be an error.
    ("grpc.so_reuseport", 0),
    # Clients may ping as they like, also without a call: streams here live for hours.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_ping_strikes", 0),
)


class ServicerHost(Protocol):
    """What generated `add_XServicer_to_server` functions need: a `grpc.aio.Server` or a `GrpcAsgiApp`."""

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Any) -> None: ...

    def add_registered_method_handlers(self, service_name: str, method_handlers: Any) -> None: ...


def new_server(max_message_bytes: int = -1) -> grpc.aio.Server:
    """A server without services or ports, to be made inside a running event loop.

    Errors that leave a servicer are mapped by `status.wire_status`; servicer methods must be async.

    Args:
        max_message_bytes: largest message either way; -1: any size.
    """
    limits = (
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
    )
    return grpc.aio.server(interceptors=(ErrorInterceptor(),), options=(*_OPTIONS, *limits))


def add_health(server: ServicerHost) -> health_aio.HealthServicer:
    """Serves grpc.health.v1. The empty service name is SERVING until `set` says otherwise."""
    servicer = health_aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    return servicer


def add_process_service(
    server: ServicerHost,
    scrape: Callable[[], bytes],
    drain: Callable[[float | None], Awaitable[int]],
) -> None:
    """Serves `headrace.control.v1.ProcessService`.

    Args:
        server: where to.
        scrape: this process's metrics in Prometheus text format; called in a thread, since those of thousands of
            models take seconds.
        drain: stops taking new work and waits until nothing is in hand, at most the given seconds
            (None: for ever); returns how many requests it gave up on.
    """
    servicer = _ProcessServicer(scrape, drain)
    process_pb2_grpc.add_ProcessServiceServicer_to_server(servicer, server)


class _ProcessServicer(process_pb2_grpc.ProcessServiceServicer):
    def __init__(self, scrape: Callable[[], bytes], drain: Callable[[float | None], Awaitable[int]]) -> None:
        self._scrape = scrape
        self._drain = drain

    async def ScrapeMetrics(
        self, _request: process_pb2.ScrapeMetricsRequest, _context: Any
    ) -> process_pb2.ScrapeMetricsResponse:
        return process_pb2.ScrapeMetricsResponse(text=await asyncio.to_thread(self._scrape))

    async def Drain(self, request: process_pb2.DrainRequest, _context: Any) -> process_pb2.DrainResponse:
        timeout_s = request.timeout_ms / 1000 if request.timeout_ms else None
        return process_pb2.DrainResponse(abandoned=await self._drain(timeout_s))


def log_failure(method: str, error: BaseException) -> WireStatus:
    """What a client is told of `error`; the log gets everything about the errors that clients see as generic text.

    The end of an error: it keeps no traceback, nor what it came of.
    """
    wire = wire_status(error)
    if isinstance(error, EngineFailed):
        get_logger().error("engine_failed", method=method, error=error.detail)
    elif wire.code is grpc.StatusCode.INTERNAL:
        get_logger().error("rpc_failed", method=method, error=repr(error), exc_info=error)
    _release_frames(error)
    return wire


def _release_frames(error: BaseException | None) -> None:
    """The frames that an error passed hold the request, and one of them the error: a cycle, and a process that serves
    collects those seldom."""
    while error is not None:
        error.__traceback__, error.__cause__ = None, None
        error.__context__, error = None, error.__context__


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Ends calls whose servicer raised with the status that `wire_status` gives the error."""

    async def intercept_service(
        self,
        continuation: Callable[[Any], Awaitable[Any]],
        handler_call_details: Any,
    ) -> Any:
        handler = await continuation(handler_call_details)
        return handler if handler is None else _guarded(handler, handler_call_details.method)


def _guarded(handler: Any, method: str) -> Any:
    kind = ("stream" if handler.request_streaming else "unary") + (
        "_stream" if handler.response_streaming else "_unary"
    )
    behaviour = getattr(handler, kind)
    decode = decoder(handler.request_deserializer, method)
    decode_first = None if handler.request_streaming else decode
    if inspect.isasyncgenfunction(behaviour):
        guarded: Any = _guard_generator(behaviour, method, decode_first)
    elif inspect.iscoroutinefunction(behaviour):
        guarded = _guard_coroutine(behaviour, method, decode_first)
    else:
        raise TypeError(f"{method}: servicer methods must be async; {behaviour!r} is not")
    make = getattr(grpc, f"{kind}_rpc_method_handler")
    # grpc ends a call UNKNOWN where a single request cannot be parsed; so that is done inside the guard.
    return make(
        guarded,
        request_deserializer=decode if handler.request_streaming else None,
        response_serializer=handler.response_serializer,
    )


def decoder(deserialise: Callable[[bytes], Any] | None, method: str) -> Callable[[bytes], Any]:
    """A request deserialiser whose failure is the client's: `InvalidArgument`."""

    def decode(data: bytes) -> Any:
        if deserialise is None:
            return data
        try:
            return deserialise(data)
        except DecodeError:
            raise InvalidArgument(f"{method}: the request's {len(data)} bytes are not a valid message") from None

    return decode


def _guard_coroutine(behaviour: Any, method: str, decode: Callable[[bytes], Any] | None) -> Any:
    async def call(request: Any, context: Any) -> Any:
        try:
            return await behaviour(decode(request) if decode else request, context)
        except Exception as error:  # noqa: BLE001 - every error becomes a status
            await _end(context, method, error)

    return call


def _guard_generator(behaviour: Any, method: str, decode: Callable[[bytes], Any] | None) -> Any:
    async def call(request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            async for response in behaviour(decode(request) if decode else request, context):
                yield response
        except Exception as error:  # noqa: BLE001 - every error becomes a status
            await _end(context, method, error)

    return call


async def _end(context: Any, method: str, error: Exception) -> NoReturn:
    if isinstance(error, grpc.aio.AbortError):  # The servicer ended the call itself.
        raise error
    if context.cancelled():  # Nobody is left to be told; writing to the call is what failed.
        raise asyncio.CancelledError
    wire = log_failure(method, error)
    trailers = tuple(context.trailing_metadata() or ())
    if wire.details is not None:
        trailers = (*trailers, (DETAILS_KEY, wire.details))
    await context.abort(wire.code, wire.message, trailing_metadata=trailers)
    raise AssertionError("abort returned")
