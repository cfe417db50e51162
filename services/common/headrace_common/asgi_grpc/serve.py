"""Runs one servicer method for one call, of any of the four kinds."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncIterator
from typing import Any, Literal

import grpc

from headrace_common.asgi_grpc.call import Call, ClientGone, status_trailers
from headrace_common.asgi_grpc.context import AsgiServicerContext
from headrace_common.asgi_grpc.requests import Requests
from headrace_common.errors import DeadlineExceeded, Unavailable
from headrace_common.grpc_server import decoder, log_failure

STOPPING = "the server is stopping"


class _Interrupt:
    """Cancels the task that serves a call when its deadline passes or its client goes.

    Attributes:
        reason: what happened; None: nothing did, or it was too late to matter.
    """

    def __init__(self, call: Call) -> None:
        self._call = call
        self._task = asyncio.current_task()
        self._timer: asyncio.TimerHandle | None = None
        self.reason: Literal["deadline", "gone"] | None = None

    def arm(self) -> None:
        self._call.on_gone = lambda: self._fire("gone")
        left_s = self._call.time_left_s
        if left_s is not None:
            self._timer = asyncio.get_running_loop().call_later(left_s, self._fire, "deadline")

    def disarm(self) -> None:
        self._call.on_gone = None
        if self._timer is not None:
            self._timer.cancel()
        if self.reason is not None and self._task is not None:
            self._task.uncancel()

    def _fire(self, reason: Literal["deadline", "gone"]) -> None:
        # Where the task itself found out, by reading or writing, it is told by `ClientGone`.
        if self.reason is None and self._task is not None and self._task is not asyncio.current_task():
            self.reason = reason
            self._task.cancel()


async def serve(call: Call, handler: Any) -> None:
    """Serves `call` by a grpc `RpcMethodHandler` with async behaviour, and always sends a status.

    Raises:
        asyncio.CancelledError: the server itself is stopping; the client has been told UNAVAILABLE.
    """
    requests = Requests(call, decoder(handler.request_deserializer, call.path))
    context = AsgiServicerContext(call, requests, handler.response_serializer)
    interrupt = _Interrupt(call)
    error: BaseException | None = None
    try:
        call.read_headers()
        interrupt.arm()
        await _behave(call, handler, requests, context)
    except (Exception, asyncio.CancelledError) as raised:  # noqa: BLE001 - every error becomes a status
        error = raised
    interrupt.disarm()
    try:
        await _conclude(call, context, interrupt, error)
    finally:
        context.close(cancelled=interrupt.reason is not None or call.gone)


async def _behave(call: Call, handler: Any, requests: Requests, context: AsgiServicerContext) -> None:
    if not handler.request_streaming:
        # With a deadline the interrupt ends a request that does not arrive.
        body = await (call.read_one_in_time() if call.deadline is None else call.read_one())
        await _respond(handler, requests.decode(body), context)
        return
    pump = asyncio.create_task(requests.pump())
    try:
        await _respond(handler, requests, context)
    finally:
        pump.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await pump


async def _respond(handler: Any, request: Any, context: AsgiServicerContext) -> None:
    behaviour = _behaviour(handler)
    if not handler.response_streaming:
        response = await behaviour(request, context)
        if context.code() in {None, grpc.StatusCode.OK}:
            await context.write(response)
    elif inspect.isasyncgenfunction(behaviour):
        await _forward(behaviour(request, context), context)
    else:
        await behaviour(request, context)


async def _forward(responses: AsyncIterator[Any], context: AsgiServicerContext) -> None:
    async with contextlib.aclosing(responses) as closing:  # type: ignore[type-var]
        async for response in closing:
            await context.write(response)


async def _conclude(
    call: Call, context: AsgiServicerContext, interrupt: _Interrupt, error: BaseException | None
) -> None:
    if call.gone or isinstance(error, ClientGone):
        return
    if interrupt.reason == "deadline":
        error = DeadlineExceeded("the deadline passed before the call was answered")
    stopping = isinstance(error, asyncio.CancelledError)
    if stopping:
        error = Unavailable(STOPPING)
    with contextlib.suppress(ClientGone):
        if error is None or isinstance(error, grpc.aio.AbortError):
            await context.finish()
        else:
            wire = log_failure(call.path, error)
            await context.fail(wire.code, wire.message, status_trailers(wire))
    if stopping:
        raise asyncio.CancelledError


def _behaviour(handler: Any) -> Any:
    if handler.request_streaming:
        return handler.stream_stream if handler.response_streaming else handler.stream_unary
    return handler.unary_stream if handler.response_streaming else handler.unary_unary
