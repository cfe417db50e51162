"""The client's half of HTTP/1.1: one request at a time on a connection that is kept. Pure: bytes in, bytes out."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.generator.http2 import ProtocolError


class Connection:
    """Has the interface of `http2.Connection`.

    Attributes:
        ready: always; HTTP/1.1 has no settings.
    """

    ready = True

    def __init__(self, path: str, host: str, headers: Mapping[str, str], body: bytes) -> None:
        fields = {"host": host, "content-length": str(len(body)), **headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self._request = f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body
        self._number: int | None = None
        self._out = b""
        self._received = b""

    @property
    def idle(self) -> bool:
        """It can take a request."""
        return self._number is None

    def request(self, number: int) -> None:
        if self._number is not None:
            raise RuntimeError("one request at a time: this connection has one in flight")
        self._number = number
        self._out = self._request

    def to_send(self) -> bytes:
        out, self._out = self._out, b""
        return out

    def feed(self, received: bytes) -> list[tuple[int, bool]]:
        """The request that has ended: (number, whether its status is 2xx). Raises ProtocolError."""
        self._received += received
        head, separator, rest = self._received.partition(b"\r\n\r\n")
        if not separator or len(rest) < _length(head):
            return []
        number, self._number, self._received = self._number, None, b""
        if number is None:
            raise ProtocolError("the server sent an answer that nobody asked for")
        return [(number, head.split(b" ", 2)[1].startswith(b"2"))]


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            return int(value)
    raise ProtocolError("the server's answer has no content-length")
