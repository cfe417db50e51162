"""One gRPC call on its ASGI connection."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import grpc

from headrace_common.asgi_grpc.framing import PREFIX_BYTES, Deframer, Framed, frame, frame_all
from headrace_common.asgi_grpc.metadata import (
    Headers,
    Metadatum,
    decode_metadata,
    encode_message,
    parse_timeout,
)
from headrace_common.compression import ENCODINGS
from headrace_common.errors import Cancelled, DeadlineExceeded, InvalidArgument
from headrace_common.status import DETAILS_KEY, WireStatus

Event = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]

_GRPC = b"application/grpc"
CONTENT_TYPE = (b"content-type", _GRPC)
_ACCEPTS = (b"grpc-accept-encoding", ",".join(ENCODINGS).encode())
START: Event = {
    "type": "http.response.start",
    "status": 200,
    "headers": [CONTENT_TYPE],
    "trailers": True,
}
END_OK: Event = {"type": "http.response.trailers", "headers": [(b"grpc-status", b"0")]}


class ClientGone(Cancelled):
    """The client went away while its request was read or answered."""


class Call:
    """What a handler can know of a call, and the way to its client.

    Attributes:
        path: "/package.Service/Method".
        internal: it came over the process's own unix socket, not from the public port.
        deadline: monotonic seconds; None: the caller set none.
        half_closed: the client has sent all it will send.
        gone: the client has gone away, as far as was noticed.
        reader: reads the request and is cancelled by the sweep when the deadline passes; None: that has a timer.
        late: the deadline, or the time that a request may take to arrive, passed before it had.
        read_by: when an unfinished request is given up, monotonic seconds; set by the sweep.
        started: the response's headers are sent.
    """

    __slots__ = (
        "_headers",
        "_limit",
        "_receive",
        "_send",
        "deadline",
        "deframer",
        "gone",
        "half_closed",
        "internal",
        "late",
        "on_gone",
        "path",
        "read_by",
        "reader",
        "response_encoding",
        "scope",
        "started",
        "swept",
    )

    read_by: float

    def __init__(self, scope: Scope, receive: Receive, send: Send, limit: int) -> None:
        self.scope = scope
        self.path: str = scope["path"]
        # Envoy gives no address for a unix socket. Nothing that a client sends changes that.
        self.internal: bool = scope["server"] is None
        self._headers: dict[bytes, bytes] = dict(scope["headers"])
        self._receive = receive
        self._send = send
        self._limit = limit
        self.deframer: Deframer | None = None
        self.half_closed = False
        self.gone = False
        self.late = False
        self.reader: asyncio.Task[Any] | None = None
        self.started = False
        self.swept = False
        self.on_gone: Callable[[], None] | None = None
        self.response_encoding = ""
        self.deadline: float | None = None

    def read_headers(self) -> None:
        """Raises `InvalidArgument` or `Unimplemented` for headers that are not as they should be."""
        timeout = self._headers.get(b"grpc-timeout")
        if timeout is not None:
            self.deadline = time.monotonic() + parse_timeout(timeout)
        encoding = self._headers.get(b"grpc-encoding")
        if encoding is not None and encoding != b"identity" and self.accepts(encoding.decode("latin-1")):
            self.response_encoding = encoding.decode("latin-1")

    @property
    def is_grpc(self) -> bool:
        """By its content type."""
        content_type = self._headers.get(b"content-type", b"")
        return content_type == _GRPC or content_type.startswith((_GRPC + b"+", _GRPC + b";"))

    def header(self, name: str) -> str | None:
        """A header's value; the last one where it came more than once. `name` in lower case."""
        value = self._headers.get(name.encode("ascii"))
        return None if value is None else value.decode("latin-1")

    def metadata(self) -> tuple[Metadatum, ...]:
        return decode_metadata(self.scope["headers"])

    @property
    def time_left_s(self) -> float | None:
        """Seconds to the deadline, not below 0; None: the caller set none."""
        if self.deadline is None:
            return None
        return max(0.0, self.deadline - time.monotonic())

    def is_gone(self) -> bool:
        """Whether the client is known to have gone. Costs nothing: a sweep of the host keeps the answer."""
        return self.gone

    def accepts(self, encoding: str) -> bool:
        accepted = self.header("grpc-accept-encoding")
        return (
            encoding in ENCODINGS
            and accepted is not None
            and encoding in {part.strip() for part in accepted.split(",")}
        )

    def mark_gone(self) -> None:
        if not self.gone:
            self.gone = True
            if self.on_gone is not None:
                self.on_gone()

    def stop_reading_if_late(self) -> None:
        """Cancels the reader once its time has passed. Only while the request still arrives."""
        if self.reader is not None and not self.late and (self.time_left_s == 0 or time.monotonic() > self.read_by):
            self.late = True
            self.reader.cancel()

    async def poll(self) -> None:
        """Looks whether the client is still there. Only after the whole request has been read."""
        try:
            event = await self._receive()
        except Exception:  # noqa: BLE001 - whatever the server raises, the connection is of no more use
            self.mark_gone()
            return
        if event["type"] == "http.disconnect":
            self.mark_gone()

    async def read_messages(self) -> list[Framed]:
        """The messages that complete with the next chunk, for `inflated`; [] also where none does, see `half_closed`.

        Raises:
            ClientGone: it left before it had sent all.
            InvalidArgument, LimitExceeded: see `Deframer.feed`.
        """
        return self._messages_of(await self._receive())

    def inflated(self, framed: Framed) -> bytes:
        """Raises as `Deframer.message` does."""
        return self._deframer().message(framed)

    def _deframer(self) -> Deframer:
        if self.deframer is None:
            self.deframer = Deframer(self.header("grpc-encoding") or "", self._limit)
        return self.deframer

    def _messages_of(self, event: Event) -> list[Framed]:
        if event["type"] == "http.disconnect":
            self.mark_gone()
            raise ClientGone("the client has gone")
        deframer = self._deframer()
        messages = deframer.feed(event.get("body", b""))
        if not event.get("more_body", False):
            self.half_closed = True
            deframer.finish()
        return messages

    async def read_one_in_time(self) -> bytes:
        """As `read_one`, watched by the sweep: a timer for each call would cost more than reading it.

        Raises:
            DeadlineExceeded: the deadline, or the time to arrive, passed first.
        """
        self.reader = asyncio.current_task()
        try:
            return await self.read_one()
        except asyncio.CancelledError:
            if not self.late or self.reader is None:
                raise
            self.reader.uncancel()
            raise DeadlineExceeded("the request did not arrive whole in time") from None

    async def read_one(self) -> bytes:
        """The only message of a unary request. Raises as `read_messages` does."""
        event = await self._receive()
        whole = self._whole_message(event)
        if whole is not None:
            return whole
        messages = self._messages_of(event)
        while not self.half_closed and len(messages) <= 1:
            messages += await self.read_messages()
        if len(messages) != 1:
            raise InvalidArgument(f"{self.path} takes exactly one message; {len(messages) or 'none'} came")
        return self.inflated(messages[0])

    def _whole_message(self, event: Event) -> bytes | None:
        """The common case, without a deframer: all in one event, not compressed."""
        body: bytes = event.get("body", b"")
        size = len(body) - PREFIX_BYTES
        if (
            size < 0
            or body[0]
            or event.get("more_body", False)
            or int.from_bytes(body[1:PREFIX_BYTES]) != size
            or size > self._limit
        ):
            return None
        self.half_closed = True
        return body[PREFIX_BYTES:]

    async def send(self, event: Event) -> None:
        try:
            await self._send(event)
        except Exception as error:
            self.mark_gone()
            raise ClientGone("the client has gone") from error

    async def reply(self, message: bytes) -> None:
        """The whole answer to a unary call that went well."""
        if self.response_encoding:
            await self.start([])
            await self.write(message)
            await self.end(grpc.StatusCode.OK, "", [])
            return
        self.started = True
        send = self._send
        try:
            await send(START)
            await send({"type": "http.response.body", "body": b"\0" + len(message).to_bytes(4) + message})
            await send(END_OK)
        except Exception as error:
            self.mark_gone()
            raise ClientGone("the client has gone") from error

    async def start(self, metadata: Headers) -> None:
        """Sends the response's headers, once."""
        if self.started:
            return
        self.started = True
        headers = [CONTENT_TYPE, _ACCEPTS, *metadata]
        if self.response_encoding:
            headers.append((b"grpc-encoding", self.response_encoding.encode()))
        await self.send({"type": "http.response.start", "status": 200, "headers": headers, "trailers": True})

    async def write(self, message: bytes, compress: bool = True) -> None:
        body = frame(message, self.response_encoding if compress else "")
        await self.send({"type": "http.response.body", "body": body, "more_body": True})

    async def write_all(self, messages: list[bytes]) -> None:
        """Many messages as one event."""
        await self.start([])
        body = frame_all(messages, self.response_encoding)
        await self.send({"type": "http.response.body", "body": body, "more_body": True})

    async def end(self, code: grpc.StatusCode, message: str, trailers: Headers) -> None:
        """Sends the status and what is still missing before it."""
        await self.start([])
        await self.send({"type": "http.response.body", "body": b"", "more_body": False})
        headers = [(b"grpc-status", str(code.value[0]).encode()), *trailers]
        if message:
            headers.append((b"grpc-message", encode_message(message)))
        await self.send({"type": "http.response.trailers", "headers": headers})


def status_trailers(wire: WireStatus) -> list[tuple[str, str | bytes]]:
    """What an error adds to the trailing metadata."""
    return [] if wire.details is None else [(DETAILS_KEY, wire.details)]
