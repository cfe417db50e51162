"""An ASGI application that serves grpcio servicers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self

import grpc

from headrace_common.asgi_grpc.call import Call, ClientGone, Receive, Scope, Send, status_trailers
from headrace_common.asgi_grpc.exchange import OpenExchange, exchange_handler
from headrace_common.asgi_grpc.metadata import encode_metadata
from headrace_common.asgi_grpc.serve import STOPPING, serve
from headrace_common.asgi_grpc.sweep import DisconnectSweep
from headrace_common.grpc_server import log_failure

AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]
BytesHandler = Callable[[bytes, Call], Awaitable[bytes]]

_MIB = 1 << 20


class _HandlerCallDetails(NamedTuple):
    method: str
    invocation_metadata: Any


class GrpcAsgiApp:
    """Takes servicers as a `grpc.aio.Server` does (`add_XServicer_to_server(servicer, app)`).

    Use it as a context manager while it serves: that runs the sweep which finds clients that have gone.
    No exception leaves it, and every call is ended with a grpc-status.
    """

    def __init__(
        self,
        max_message_bytes: int = 64 * _MIB,
        internal_services: Iterable[str] = (),
        sweep_period_s: float = 0.1,
        other: AsgiApp | None = None,
        arrival_timeout_s: float = 60.0,
    ) -> None:
        """
        Args:
            max_message_bytes: largest request message, inflated.
            internal_services: answered only on the process's own unix socket, unknown elsewhere.
            sweep_period_s: how long a lost client may go unnoticed, roughly.
            other: answers requests that are not gRPC, by their content type; None: they are refused (415).
            arrival_timeout_s: a unary request that has not arrived whole by then is given up.
        """
        self._other = other
        self._max_message_bytes = max_message_bytes
        self._internal = tuple(f"/{service}/" for service in internal_services)
        self._methods: dict[str, Any] = {}
        self._generic: list[Any] = []
        self._bytes: dict[str, BytesHandler] = {}
        self._exchanges: dict[str, OpenExchange] = {}
        self._sweep = DisconnectSweep(sweep_period_s, arrival_timeout_s)
        self._sweeper: asyncio.Task[None] | None = None

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[Any]) -> None:
        self._generic.extend(generic_rpc_handlers)

    def add_registered_method_handlers(self, service_name: str, method_handlers: Mapping[str, Any]) -> None:
        for method, handler in method_handlers.items():
            self._methods[f"/{service_name}/{method}"] = handler

    def register_unary_bytes(self, path: str, handler: BytesHandler) -> None:
        """Serves a unary method without a context, for a route where every microsecond counts.

        The handler gets and returns serialised messages. It heeds `call.time_left_s` and `call.is_gone()`
        itself: it is not cancelled. Errors are raised, as in any servicer.
        """
        self._bytes[path] = handler

    def register_stream_bytes(self, path: str, open_exchange: OpenExchange) -> None:
        """Serves a method whose request and answer are streams, without a context; before a servicer's method.

        The exchange gets and returns serialised messages. See `Exchange`.
        """
        self._exchanges[path] = open_exchange

    async def __aenter__(self) -> Self:
        self._sweeper = asyncio.create_task(self._sweep.run())
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sweeper
            self._sweeper = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = Call(scope, receive, send, self._max_message_bytes)
        handler = self._bytes.get(call.path)
        try:
            if not call.is_grpc:
                await (self._other or _refuse_media_type)(scope, receive, call.send)
            elif handler is not None:
                await self._serve_bytes(call, handler)
            else:
                await self._serve(call)
        except ClientGone:
            return  # Nobody is left to be told.
        except Exception as error:  # noqa: BLE001 - what leaves an ASGI application ends the call as a success
            wire = log_failure(call.path, error)
            if call.is_grpc:  # Such as trailers of a servicer's that are none.
                with contextlib.suppress(ClientGone):
                    await call.end(wire.code, wire.message, [])

    async def _serve(self, call: Call) -> None:
        handler = self._find(call)
        if handler is None:
            message = f"method {call.path} is not served here"
            await call.end(grpc.StatusCode.UNIMPLEMENTED, message, [])
            return
        self._sweep.add(call)
        try:
            await serve(call, handler)
        finally:
            self._sweep.discard(call)

    async def _serve_bytes(self, call: Call, handler: BytesHandler) -> None:
        try:
            call.read_headers()
            self._sweep.add(call)
            reply = await handler(await call.read_one_in_time(), call)
        except asyncio.CancelledError:
            with contextlib.suppress(ClientGone):
                await call.end(grpc.StatusCode.UNAVAILABLE, STOPPING, [])
            raise
        except Exception as error:  # noqa: BLE001 - every error becomes a status
            if not call.gone:
                wire = log_failure(call.path, error)
                await call.end(wire.code, wire.message, encode_metadata(status_trailers(wire)))
            return
        finally:
            self._sweep.discard(call)
        await call.reply(reply)

    def _find(self, call: Call) -> Any:
        open_exchange = self._exchanges.get(call.path)
        if open_exchange is not None:
            return exchange_handler(call, open_exchange)
        if not call.internal and call.path.startswith(self._internal):
            return None
        handler = self._methods.get(call.path)
        if handler is not None or not self._generic:
            return handler
        details = _HandlerCallDetails(call.path, ())
        found = (generic.service(details) for generic in self._generic)
        return next((handler for handler in found if handler is not None), None)


async def _refuse_media_type(_scope: Scope, _receive: Receive, send: Send) -> None:
    body = b"expected content-type application/grpc"
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 415, "headers": headers})
    await send({"type": "http.response.body", "body": body})
