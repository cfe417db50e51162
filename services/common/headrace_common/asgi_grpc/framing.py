"""Length-prefixed messages of gRPC over HTTP/2, without I/O.

A message is one byte of flags (1: compressed), four bytes of length, big-endian, and that many bytes.
"""

from __future__ import annotations

from collections.abc import Iterable

from headrace_common.compression import deflate, inflate
from headrace_common.errors import InvalidArgument, LimitExceeded

PREFIX_BYTES = 5
_COMPRESSED = 1

Framed = tuple[int, bytes]
"""A message's flags and its content as sent; `Deframer.message` inflates it."""


class Deframer:
    """Cuts a byte stream, however it is chunked, into messages.

    Messages are inflated one by one, when they are taken: a chunk of some kilobytes holds many that inflate to the
    limit each.

    Attributes:
        encoding: what compressed messages are in (grpc-encoding).
        limit: largest message in bytes, on the wire and inflated.
    """

    def __init__(self, encoding: str, limit: int) -> None:
        self.encoding = encoding
        self.limit = limit
        self._chunks: list[bytes] = []
        self._buffered = 0
        self._wanted = PREFIX_BYTES

    def feed(self, chunk: bytes) -> list[Framed]:
        """Messages that are complete with `chunk`, as sent.

        Raises:
            LimitExceeded: a message announces more than the limit. It is raised as soon as the length is known:
                nothing of that message is kept.
            InvalidArgument: unknown flags.
        """
        if chunk:
            self._chunks.append(chunk)
            self._buffered += len(chunk)
        if self._buffered < self._wanted:
            return []
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        messages: list[Framed] = []
        start = 0
        while len(data) - start >= PREFIX_BYTES:
            end = start + PREFIX_BYTES + self._length(data, start)
            if end > len(data):
                break
            messages.append((data[start], data[start + PREFIX_BYTES : end]))
            start = end
        self._keep(data[start:])
        return messages

    def finish(self) -> None:
        """At the end of the stream.

        Raises:
            InvalidArgument: it ended inside a message.
        """
        if self._buffered:
            raise InvalidArgument(
                f"the request ended inside a message: {self._buffered} bytes came of at least {self._wanted}"
            )

    def message(self, framed: Framed) -> bytes:
        """What `feed` gave, inflated.

        Raises:
            LimitExceeded: it inflates to more than the limit.
            InvalidArgument: the content is not what grpc-encoding says.
            Unimplemented: grpc-encoding names a compression that is not offered.
        """
        flags, content = framed
        if not flags:
            return content
        if self.encoding in {"", "identity"}:
            raise InvalidArgument("a message is flagged as compressed and grpc-encoding names no compression")
        return inflate(self.encoding, content, self.limit)

    def _keep(self, rest: bytes) -> None:
        self._chunks = [rest] if rest else []
        self._buffered = len(rest)
        self._wanted = PREFIX_BYTES + (self._length(rest, 0) if len(rest) >= PREFIX_BYTES else 0)

    def _length(self, data: bytes, start: int) -> int:
        if data[start] > _COMPRESSED:
            raise InvalidArgument(f"a message begins with flags {data[start]}; expected 0 or 1: is this gRPC?")
        length = int.from_bytes(data[start + 1 : start + PREFIX_BYTES])
        if length > self.limit:
            raise LimitExceeded(f"a message of {length} bytes is larger than the {self.limit} that are accepted")
        return length


def frame_all(messages: Iterable[bytes], encoding: str = "") -> bytes:
    """Messages one behind the other, as `frame` makes them."""
    if encoding:
        return b"".join([frame(message, encoding) for message in messages])
    return b"".join([part for message in messages for part in (b"\0" + len(message).to_bytes(4), message)])


def frame(message: bytes, encoding: str = "") -> bytes:
    """`message` with its prefix; compressed if `encoding` names a compression."""
    if encoding:
        packed = deflate(encoding, message)
        return b"\1" + len(packed).to_bytes(4) + packed
    return b"\0" + len(message).to_bytes(4) + message
