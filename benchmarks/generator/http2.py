"""The client's half of HTTP/2, as much as many small gRPC calls on one connection need. Pure: bytes in, bytes out.

RFC 9113 and RFC 7541. Answers' header tables are switched off, so that equal headers are equal bytes
and each form is decoded once.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Mapping

from hpack import Decoder

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST, _SETTINGS, _PING, _GOAWAY, _WINDOW, _CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
_END_STREAM, _ACK, _END_HEADERS, _PADDED, _PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
_HEADER_TABLE_SIZE, _MAX_STREAMS, _INITIAL_WINDOW = 1, 3, 4
_DEFAULT_WINDOW = 65_535
_MAX_WINDOW = (1 << 31) - 1
_MAX_FRAME = 16_384
_UNLIMITED = 1 << 30


class ProtocolError(Exception):
    """The server did what this client does not know, or closed the connection."""


def frame(kind: int, flags: int, stream: int, content: bytes = b"") -> bytes:
    """One frame."""
    return struct.pack(">IBI", len(content) << 8 | kind, flags, stream) + content


def header_block(headers: Mapping[str, str]) -> bytes:
    """HPACK without tables and Huffman codes (RFC 7541, 6.2.2): the same bytes for every request."""
    block = bytearray()
    for name, value in headers.items():
        for text in (name.encode(), value.encode()):
            if text is not None and len(text) > 126:
                raise ValueError(f"header {name} is longer than this client writes (126 bytes)")
        block += b"\0" + bytes((len(name),)) + name.encode() + bytes((len(value),)) + value.encode()
    return bytes(block)


class Connection:
    """One connection. The socket is somebody else's: send what `to_send` gives, feed what comes.

    Attributes:
        ready: the server has acknowledged our settings; requests may leave.
    """

    def __init__(self, headers: Mapping[str, str], body: bytes) -> None:
        self._headers = header_block(headers)
        self._body = body
        self._next_stream = 1
        self._numbers: dict[int, int] = {}
        self._waiting: deque[int] = deque()
        self._window = _DEFAULT_WINDOW
        self._max_streams = _UNLIMITED
        self._received = b""
        self._well: dict[bytes, bool] = {}
        self.ready = False
        settings = struct.pack(">HIHI", _HEADER_TABLE_SIZE, 0, _INITIAL_WINDOW, _MAX_WINDOW)
        # What answers take is not given back: 2 GiB are enough for a run.
        grown = struct.pack(">I", _MAX_WINDOW - _DEFAULT_WINDOW)
        self._out = bytearray(_PREFACE + frame(_SETTINGS, 0, 0, settings) + frame(_WINDOW, 0, 0, grown))

    def request(self, number: int) -> None:
        """Takes request `number`; it leaves as soon as the server's limits let it."""
        self._waiting.append(number)

    def to_send(self) -> bytes:
        """What is to be written now; b"" where that is nothing."""
        if self.ready:
            while self._waiting and self._window >= len(self._body) and len(self._numbers) < self._max_streams:
                self._open(self._waiting.popleft())
        out = bytes(self._out)
        self._out.clear()
        return out

    def feed(self, received: bytes) -> list[tuple[int, bool]]:
        """Requests that have ended: (number, whether grpc-status is 0). Raises ProtocolError."""
        data = self._received + received if self._received else received
        at, size, ended = 0, len(data), []
        while size - at >= 9:
            length = int.from_bytes(data[at : at + 3], "big")
            end = at + 9 + length
            if end > size:
                break
            kind, flags = data[at + 3], data[at + 4]
            stream = int.from_bytes(data[at + 5 : at + 9], "big")
            result = self._take(kind, flags, stream, data[at + 9 : end])
            if result is not None and (number := self._numbers.pop(stream, None)) is not None:
                ended.append((number, result))
            at = end
        self._received = data[at:]
        return ended

    def _open(self, number: int) -> None:
        stream, body = self._next_stream, self._body
        self._next_stream += 2
        self._numbers[stream] = number
        self._window -= len(body)
        self._out += frame(_HEADERS, _END_HEADERS, stream, self._headers)
        for start in range(0, len(body), _MAX_FRAME):
            part = body[start : start + _MAX_FRAME]
            self._out += frame(_DATA, _END_STREAM if start + len(part) == len(body) else 0, stream, part)

    def _take(self, kind: int, flags: int, stream: int, content: bytes) -> bool | None:
        """Whether a stream ended, and how; None: it did not."""
        if kind == _DATA:
            # A gRPC answer ends with trailers; one that ends without has no status.
            return False if flags & _END_STREAM else None
        if kind == _HEADERS:
            if not flags & _END_HEADERS or flags & (_PADDED | _PRIORITY):
                raise ProtocolError("the server cut or padded its headers")
            return self._is_ok(content) if flags & _END_STREAM else None
        if kind == _RST:
            return False
        self._control(kind, flags, stream, content)
        return None

    def _control(self, kind: int, flags: int, stream: int, content: bytes) -> None:
        if kind == _SETTINGS:
            if flags & _ACK:
                self.ready = True
            else:
                self._settings(content)
        elif kind == _PING and not flags & _ACK:
            self._out += frame(_PING, _ACK, 0, content)
        elif kind == _WINDOW and stream == 0:
            self._window += int.from_bytes(content, "big")
        elif kind == _GOAWAY:
            raise ProtocolError(f"the server closed the connection: {content[8:].decode(errors='replace')}")
        elif kind == _CONTINUATION:
            raise ProtocolError("the server cut its headers")

    def _settings(self, content: bytes) -> None:
        for key, value in struct.iter_unpack(">HI", content):
            if key == _MAX_STREAMS:
                self._max_streams = value
            elif key == _INITIAL_WINDOW and value < len(self._body):
                raise ProtocolError(f"bodies of {len(self._body)} bytes do not fit the server's window of {value}")
        self._out += frame(_SETTINGS, _ACK, 0)

    def _is_ok(self, block: bytes) -> bool:
        known = self._well.get(block)
        if known is None:
            known = self._well[block] = ("grpc-status", "0") in Decoder().decode(block)
        return known
