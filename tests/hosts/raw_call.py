"""One HTTP/2 request, byte by byte as a test wants it."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

import h2.connection
import h2.events
import hpack

MODEL_INFER = "/inference.GRPCInferenceService/ModelInfer"
_WITHIN_S = 20


@dataclass
class Answer:
    """Headers hold the trailers too."""

    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def status(self) -> tuple[str, str]:
        """(grpc-status, grpc-message)."""
        return self.headers["grpc-status"], self.headers.get("grpc-message", "")


def call(
    address: str,
    chunks: Sequence[bytes],
    headers: Sequence[tuple[str, str]] = (),
    *,
    end: bool = True,
    path: str = MODEL_INFER,
) -> Answer:
    """POSTs the chunks, each in frames of its own, to ModelInfer and waits for the answer.

    Args:
        address: host:port.
        headers: besides those that every gRPC call has; a content-type replaces gRPC's.
        end: end the stream after the last chunk.
    """
    host, port = address.rsplit(":", 1)
    http = h2.connection.H2Connection()
    with socket.create_connection((host, int(port)), timeout=_WITHIN_S) as connection:
        http.initiate_connection()
        sent = [(":method", "POST"), (":scheme", "http"), (":authority", address), (":path", path)]
        if "content-type" not in dict(headers):
            sent.append(("content-type", "application/grpc"))
        http.send_headers(1, [*sent, ("te", "trailers"), *headers], end_stream=end and not chunks)
        answer = Answer()
        for number, chunk in enumerate(chunks, start=1):
            while http.local_flow_control_window(1) < len(chunk):
                connection.sendall(http.data_to_send())
                if _take(answer, http, connection):
                    return answer
            http.send_data(1, chunk, end_stream=end and number == len(chunks))
            connection.sendall(http.data_to_send())
        connection.sendall(http.data_to_send())
        while not _take(answer, http, connection):
            connection.sendall(http.data_to_send())
        return answer


class SlowReader:
    """Sends requests on one connection and reads nothing until it is told to. Frames by hand (RFC 9113), because a
    client library counts a stream as open until its answer has been read."""

    _HEADERS, _SETTINGS, _WINDOW, _END_STREAM, _END_HEADERS = 1, 4, 8, 1, 4

    def __init__(self, address: str) -> None:
        host, port = address.rsplit(":", 1)
        headers = {":method": "POST", ":scheme": "http", ":authority": address, ":path": MODEL_INFER}
        headers |= {"content-type": "application/grpc", "te": "trailers"}
        # Not indexed, so that the same bytes are right for every request.
        self._headers = hpack.Encoder().encode([(name, value, True) for name, value in headers.items()], huffman=False)
        self._sent = 0
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._socket.settimeout(_WITHIN_S)
        self._socket.connect((host, int(port)))
        self._socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(self._SETTINGS, 0, 0, b""))
        self._file = self._socket.makefile("rb")
        while self._next()[0] != self._WINDOW:
            pass

    def __enter__(self) -> SlowReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._socket.close()

    def send(self, body: bytes, count: int) -> None:
        """So many requests with this body. All bodies together have to fit the window that the server opened."""
        for _ in range(count):
            stream = 2 * self._sent + 1
            head = _frame(self._HEADERS, self._END_HEADERS, stream, self._headers)
            self._socket.sendall(head + _frame(0, self._END_STREAM, stream, body))
            self._sent += 1

    def read_all(self) -> int:
        """Streams that have ended; returns when all have, or the connection has."""
        ended = 0
        while ended < self._sent:
            kind, flags = self._next()
            if kind is None:
                break
            ended += kind == self._HEADERS and bool(flags & self._END_STREAM)
        return ended

    def _next(self) -> tuple[int | None, int]:
        """Kind and flags of the next frame; no kind: the connection has ended."""
        head = self._file.read(9)
        if len(head) < 9:
            return None, 0
        self._file.read(int.from_bytes(head[:3], "big"))
        return head[3], head[4]


def _frame(kind: int, flags: int, stream: int, content: bytes) -> bytes:
    return struct.pack(">IBI", len(content) << 8 | kind, flags, stream) + content


def _take(answer: Answer, http: h2.connection.H2Connection, connection: socket.socket) -> bool:
    """Reads once. Whether the answer is complete."""
    if received := connection.recv(65536):
        for event in http.receive_data(received):
            if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
                answer.headers.update((bytes(key).decode(), bytes(value).decode()) for key, value in event.headers)
            elif isinstance(event, h2.events.DataReceived):
                answer.body += event.data
            elif isinstance(event, h2.events.StreamEnded | h2.events.StreamReset):
                return True
        return False
    raise AssertionError(f"the connection ended after {answer}")
