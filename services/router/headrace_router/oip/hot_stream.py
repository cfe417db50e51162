"""The hot path of ModelStreamInfer: bytes in and bytes out, and no task or future for each request.

It answers as `stream` does over `decode` and `encode`, which stay the reference; tests hold the two together.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from headrace.oip import inference_pb2 as pb
from headrace_common.asgi_grpc import Call
from headrace_common.grpc_server import log_failure
from headrace_common.identity import TENANT_KEY, tenant_of
from headrace_router.domain import InferenceRequest, InferenceResult
from headrace_router.oip.caller import TRACEPARENT_KEY, Caller
from headrace_router.oip.decode import asks_for_final, parse_infer
from headrace_router.oip.hot import HotInference
from headrace_router.oip.parameters import IS_FINAL
from headrace_router.oip.stream import MAX_IN_FLIGHT, METHOD
from headrace_router.oip.wire import varint
from headrace_router.ports import DataPlane

_EVENT_BYTES = 1 << 20
"""Answers are put into one event until it is as large as this; copies of many large ones would be held at once."""

# Fields of ModelStreamInferResponse, and the id in the ModelInferResponse there; field << 3 | 2 each.
_ERROR, _RESPONSE, _ID = b"\x0a", b"\x12", b"\x1a"


def _final_mark() -> bytes:
    marked = pb.ModelInferResponse()
    marked.parameters[IS_FINAL].bool_param = True
    return marked.SerializeToString()


_FINAL = _final_mark()
"""To be put behind a serialised ModelInferResponse: fields may come in any order."""


class HotStreams:
    """Opens streams for `GrpcAsgiApp.register_stream_bytes`.

    Args:
        max_in_flight: requests in hand per stream.
    """

    def __init__(self, hot: HotInference, plane: DataPlane, max_in_flight: int = MAX_IN_FLIGHT) -> None:
        self._hot = hot
        self._plane = plane
        self._max_in_flight = max_in_flight

    def open(self, call: Call, wake: Callable[[], None]) -> HotStream:
        """Raises Unauthenticated as `tenant_of` does."""
        caller = Caller(tenant_of(call.header(TENANT_KEY)), traceparent=call.header(TRACEPARENT_KEY) or "")
        return HotStream(self._hot, self._plane, call, caller, wake, self._max_in_flight)


class HotStream:
    """One stream; implements `asgi_grpc.Exchange`. A request that fails is answered with `error_message`.

    What an ended call leaves to the garbage collector, which runs seldom, holds no answers: with their data it would
    keep the shared memory that they are in.

    Attributes:
        in_hand: see there.
        hot: writes the answers.
        closed: nobody wants answers any more.
    """

    def __init__(
        self,
        hot: HotInference,
        plane: DataPlane,
        call: Call,
        caller: Caller,
        wake: Callable[[], None],
        max_in_flight: int,
    ) -> None:
        self.in_hand = 0
        # In the order of completion.
        self._ready: list[_Answer] = []
        self._wake = wake
        self.hot = hot
        self._plane = plane
        self._call = call
        self._caller = caller
        self._max_in_flight = max_in_flight
        self.closed = False
        caller.is_gone = self._is_closed

    @property
    def has_room(self) -> bool:
        return self.in_hand < self._max_in_flight

    def take(self, message: bytes) -> None:
        """Raises InvalidArgument for bytes that are not a ModelInferRequest; other failures are answered."""
        answer = _Answer(self)
        try:
            self._caller.time_left_s = self._call.time_left_s
            request, answer.request_id, answer.final = self.hot.decode(message, self._caller)
            answer.request = request
            self._plane.submit(request, answer)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an answer and the log the rest
            if answer.request is None:
                refused = parse_infer(message)
                answer.request_id, answer.final = refused.id.encode(), asks_for_final(refused)
            answer.set_exception(error)
        self.in_hand += 1

    def put(self, answer: _Answer) -> None:
        """The outcome of a request is known, and the stream is not closed."""
        self._ready.append(answer)
        if len(self._ready) == 1:
            self._wake()

    def collect(self) -> list[bytes]:
        made: list[bytes] = []
        size = 0
        for answer in self._ready:
            made.append(answer.encoded())
            size += len(made[-1])
            if size >= _EVENT_BYTES:
                break
        del self._ready[: len(made)]
        self.in_hand -= len(made)
        return made

    def close(self) -> None:
        """The plane withdraws what is in hand, since its caller has gone now."""
        self.closed = True
        # Answers refer to their stream, and so does the caller's question.
        self._ready.clear()
        self._caller.is_gone = None

    def _is_closed(self) -> bool:
        return self.closed


class _Answer:
    """Where the plane leaves the answer to one request: a `core.waiting.Answer`."""

    __slots__ = ("_done", "_encoded", "_error", "_result", "_stream", "final", "request", "request_id")

    def __init__(self, stream: HotStream) -> None:
        self._stream = stream
        self._done = False
        self._encoded: bytes | None = None
        self._result: InferenceResult | None = None
        self._error: BaseException | None = None
        self.request: InferenceRequest | None = None
        self.request_id = b""
        self.final = False

    def done(self) -> bool:
        return self._done

    def set_result(self, result: InferenceResult, /) -> None:
        self._done = True
        if self._stream.closed:
            return
        self._result = result
        # Views, of shared memory or of a whole batch, are not kept until the client reads. What others keep too,
        # as a response cache does, is copied as late as it can be.
        for tensor in result.outputs:
            if isinstance(tensor.data, memoryview):
                self._encoded = self._encode()
                self._result = self.request = None
                break
        self._stream.put(self)

    def set_exception(self, exception: BaseException, /) -> None:
        self._done = True
        if not self._stream.closed:
            self._error = exception
            self._stream.put(self)

    def encoded(self) -> bytes:
        """A serialised ModelStreamInferResponse."""
        return self._encode() if self._encoded is None else self._encoded

    def _encode(self) -> bytes:
        error = b""
        try:
            response = self._response()
        except Exception as raised:  # noqa: BLE001 - one request's failure does not end the stream
            # Also on an error the id says which request it was.
            response = _ID + varint(len(self.request_id)) + self.request_id if self.request_id else b""
            text = log_failure(METHOD, raised).message.encode()
            error = _ERROR + varint(len(text)) + text
        if self.final:
            response += _FINAL
        return error + _response_head(len(response)) + response

    def _response(self) -> bytes:
        if self._result is None or self.request is None:
            raise self._error or RuntimeError("a request was collected before its outcome was known")
        return self._stream.hot.template(self.request.revision).encode(self.request_id, self._result.outputs)


@lru_cache(maxsize=4096)
def _response_head(size: int) -> bytes:
    return _RESPONSE + varint(size)
