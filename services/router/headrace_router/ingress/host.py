"""Takes requests from Envoy's worker thread in batches, and gives the answers back in batches."""

from __future__ import annotations

import asyncio
import time
from functools import lru_cache
from typing import Any

import grpc

from headrace_common.asgi_grpc.framing import Deframer
from headrace_common.asgi_grpc.metadata import encode_message, encode_value, parse_timeout
from headrace_common.config import RouterConfig
from headrace_common.errors import DeadlineExceeded, InvalidArgument, QueueFull
from headrace_common.grpc_server import log_failure
from headrace_common.identity import DEFAULT_TENANT, tenant_of
from headrace_common.logs import get_logger
from headrace_common.status import DETAILS_KEY
from headrace_router.domain import InferenceResult
from headrace_router.ingress.native import IngressLibrary, Kind, Taken
from headrace_router.oip.caller import Caller
from headrace_router.oip.hot import HotInference
from headrace_router.oip.wire import ResponseTemplate
from headrace_router.ports import DataPlane

METHOD = "/inference.GRPCInferenceService/ModelInfer"
FULL_RETRY_S = 1.0
MOST_AT_ONCE = 256
"""Requests taken before the loop does something else."""


class Ingress:
    """Between `start` and `stop` it answers what the filter queues.

    Args:
        limits: largest request; bytes of requests that may be arriving; how long a late one may go unnoticed.
        arrival_timeout_s: a request that has not arrived whole by then is given up.
    """

    def __init__(
        self,
        library: IngressLibrary,
        hot: HotInference,
        plane: DataPlane,
        limits: RouterConfig,
        arrival_timeout_s: float = 60.0,
    ) -> None:
        self.is_gone = library.is_gone
        self._library = library
        self._hot = hot
        self._submit = plane.submit
        self._limit = limits.max_request_bytes
        self._max_held_bytes = limits.max_queue_bytes
        self._sweep_period_s = limits.sweep_period_s
        self._arrival_timeout_s = arrival_timeout_s
        self._loop = asyncio.get_running_loop()
        self._replies: list[tuple[int, bytes]] = []
        self._sweep: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """From now on the filter keeps what is its own."""
        descriptor = self._library.open(self._limit, self._max_held_bytes, self._arrival_timeout_s)
        self._loop.add_reader(descriptor, self._take)
        self._give_up_late()

    def stop(self) -> None:
        """After the plane has answered all: the last answers leave. What still comes is refused by the plane."""
        self._send()
        if self._sweep is not None:
            self._sweep.cancel()

    def reply(self, stream: int, message: bytes) -> None:
        """Answers that come in one round of the event loop leave together."""
        if not self._replies:
            self._loop.call_soon(self._send)
        self._replies.append((stream, message))

    def fail(self, stream: int, error: BaseException) -> None:
        """Answers with an error; the stream is answered whatever happens here."""
        code, message, details = grpc.StatusCode.INTERNAL.value[0], b"", b""
        try:
            wire = log_failure(METHOD, error)
            message = encode_message(wire.message)
            details = b"" if wire.details is None else encode_value(DETAILS_KEY, wire.details)
            code = wire.code.value[0]
        finally:
            self._library.fail(stream, code, message, details)

    def _send(self) -> None:
        replies = self._replies
        if replies:
            self._replies = []
            unanswered = self._library.reply(replies)
            if unanswered:
                get_logger().error("answers that are none", count=unanswered)

    def _take(self) -> None:
        """What came while the first were begun is taken along: it shares their bundle."""
        left = MOST_AT_ONCE
        while left > 0:
            taken = self._library.take(left)
            left -= len(taken)
            for each in taken:
                self._begin_or_fail(each)
            if not self._library.waiting():
                return

    def _begin_or_fail(self, taken: Taken) -> None:
        answer = _Answer(self, taken[0])
        try:
            self._begin(taken, answer)
        except Exception as error:  # noqa: BLE001 - every error becomes a status
            if not answer.done():
                answer.set_exception(error)

    def _begin(self, taken: Taken, answer: _Answer) -> None:
        _, kind, arrived, tenant, timeout, traceparent, came, header, request_id, spans = taken
        # First, because a large body is ours to free.
        body = came if isinstance(came, bytes) else self._library.given(came)
        caller = Caller(DEFAULT_TENANT, None, "", answer.is_gone)
        if tenant is not None:
            caller.tenant = _tenant_of(tenant)
        if timeout is not None:
            caller.time_left_s = max(0.0, parse_timeout(timeout) - (time.monotonic() - arrived))
        if traceparent:
            caller.traceparent = traceparent.decode("latin-1")
        if kind != Kind.WHOLE:
            body = self._message_of(kind, bytes(body))
        if header:
            request, answer.request_id, _ = self._hot.decode_parts(body, header, request_id, spans, caller)
        else:
            request, answer.request_id, _ = self._hot.decode(body, caller)
        answer.template = self._hot.template(request.revision)
        self._submit(request, answer)

    def _message_of(self, kind: int, body: bytes) -> bytes:
        """The message of a body that is not the usual one; mostly raises what is wrong with it."""
        if kind == Kind.LATE:
            raise DeadlineExceeded("the request did not arrive whole in time")
        if kind == Kind.FULL:
            raise QueueFull(
                "this router holds as many bytes of requests as it may; retry later", retry_after_s=FULL_RETRY_S
            )
        deframer = Deframer("", self._limit)
        messages = deframer.feed(body)
        deframer.finish()
        if len(messages) != 1:
            raise InvalidArgument(f"{METHOD} takes exactly one message; {len(messages) or 'none'} came")
        return deframer.message(messages[0])

    def _give_up_late(self) -> None:
        self._library.give_up(time.monotonic())
        self._sweep = self._loop.call_later(self._sweep_period_s, self._give_up_late)


@lru_cache(maxsize=4096)
def _tenant_of(claimed: bytes) -> str:
    """Raises Unauthenticated as `tenant_of` does."""
    return tenant_of(claimed.decode("latin-1"))


class _Answer:
    """Where the plane puts the answer of one stream: `core.waiting.Answer`."""

    __slots__ = ("_done", "_ingress", "_stream", "request_id", "template")

    template: ResponseTemplate

    def __init__(self, ingress: Ingress, stream: int) -> None:
        self._ingress = ingress
        self._stream = stream
        self._done = False
        self.request_id = b""

    def is_gone(self) -> bool:
        return not self._done and bool(self._ingress.is_gone(self._stream))

    def done(self) -> bool:
        return self._done

    def set_result(self, result: InferenceResult, /) -> None:
        self._done = True
        try:
            message = self.template.encode(self.request_id, result.outputs)
        except Exception as error:  # noqa: BLE001 - every error becomes a status
            self._ingress.fail(self._stream, error)
        else:
            self._ingress.reply(self._stream, message)

    def set_exception(self, exception: Any, /) -> None:
        self._done = True
        self._ingress.fail(self._stream, exception)
