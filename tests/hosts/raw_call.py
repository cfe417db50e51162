"""One HTTP/2 request, byte by byte as a test wants it."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass, field

import h2.connection
import h2.events

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
