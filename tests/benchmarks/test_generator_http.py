"""The generator's clients: HTTP/2 against the `h2` library as the server, HTTP/1.1 against written answers."""

from __future__ import annotations

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, StreamEnded
from h2.settings import SettingCodes

from benchmarks.generator import http1, http2

HEADERS = {":method": "POST", ":scheme": "http", ":authority": "host", ":path": "/service/method", "te": "trailers"}
BODY = b"b" * 40_000


class H2Server:
    """An independent implementation of the other side."""

    def __init__(self) -> None:
        self.connection = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self.connection.initiate_connection()
        self.bodies: dict[int, bytes] = {}
        self.ended: list[int] = []
        self.headers: dict[int, dict[str, str]] = {}

    def exchange(self, client: http2.Connection) -> list[tuple[int, bool]]:
        """Lets both sides talk until neither has more to say."""
        ended = []
        while True:
            to_client, to_server = self.connection.data_to_send(), client.to_send()
            if not to_client and not to_server:
                return ended
            # Byte by byte where it is little: frames do not come whole.
            step = 1 if len(to_client) < 500 else 1000
            for start in range(0, len(to_client), step):
                ended += client.feed(to_client[start : start + step])
            self._take(to_server)

    def _take(self, data: bytes) -> None:
        for event in self.connection.receive_data(data):
            if isinstance(event, RequestReceived):
                self.headers[event.stream_id] = dict(event.headers)
            elif isinstance(event, DataReceived):
                self.bodies[event.stream_id] = self.bodies.get(event.stream_id, b"") + event.data
                self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, StreamEnded):
                self.ended.append(event.stream_id)

    def answer(self, stream: int, status: str, body: bytes = b"answer") -> None:
        self.connection.send_headers(stream, [(":status", "200"), ("date", f"of {stream}")])
        self.connection.send_data(stream, body)
        self.connection.send_headers(stream, [("grpc-status", status)], end_stream=True)


@pytest.fixture
def server() -> H2Server:
    return H2Server()


@pytest.fixture
def client(server: H2Server) -> http2.Connection:
    made = http2.Connection(HEADERS, BODY)
    server.exchange(made)
    assert made.ready
    return made


def test_nothing_leaves_before_the_server_has_acknowledged_the_settings() -> None:
    made = http2.Connection(HEADERS, BODY)
    made.to_send()
    made.request(0)
    assert made.to_send() == b""


def test_requests_arrive_whole_even_where_the_window_must_be_given_back(
    server: H2Server, client: http2.Connection
) -> None:
    for number in range(10):
        client.request(number)
    server.exchange(client)
    assert server.ended == [1, 3, 5, 7, 9, 11, 13, 15, 17, 19]
    assert set(server.bodies.values()) == {BODY}
    assert server.headers[19] == HEADERS


def test_answers_are_told_apart_by_their_grpc_status(server: H2Server, client: http2.Connection) -> None:
    for number in range(4):
        client.request(number)
    server.exchange(client)
    for stream, status in ((3, "0"), (1, "8"), (7, "0"), (5, "4")):
        server.answer(stream, status)
    assert server.exchange(client) == [(1, True), (0, False), (3, True), (2, False)]


def test_a_reset_stream_and_an_answer_without_trailers_are_failures(server: H2Server, client: http2.Connection) -> None:
    client.request(0)
    client.request(1)
    server.exchange(client)
    server.connection.reset_stream(1)
    server.connection.send_headers(3, [(":status", "503")])
    server.connection.send_data(3, b"no", end_stream=True)
    assert server.exchange(client) == [(0, False), (1, False)]


def test_the_servers_limit_on_streams_is_kept(server: H2Server, client: http2.Connection) -> None:
    server.connection.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: 2})
    server.exchange(client)
    for number in range(3):
        client.request(number)
    server.exchange(client)
    assert server.ended == [1, 3]
    server.answer(1, "0")
    server.exchange(client)
    assert server.ended == [1, 3, 5]


def test_pings_are_answered(server: H2Server, client: http2.Connection) -> None:
    server.connection.ping(b"12345678")
    client.feed(server.connection.data_to_send())
    assert client.to_send() == http2.frame(6, 1, 0, b"12345678")


def test_a_goodbye_ends_the_run(server: H2Server, client: http2.Connection) -> None:
    server.connection.close_connection(additional_data=b"enough")
    with pytest.raises(http2.ProtocolError, match="enough"):
        server.exchange(client)


def test_http1_takes_one_request_at_a_time_and_answers_in_pieces() -> None:
    client = http1.Connection("/infer", "host:1", {"content-type": "text/plain"}, b"body")
    client.request(7)
    assert client.to_send() == (
        b"POST /infer HTTP/1.1\r\nhost: host:1\r\ncontent-length: 4\r\ncontent-type: text/plain\r\n\r\nbody"
    )
    with pytest.raises(RuntimeError, match="one request at a time"):
        client.request(8)
    assert client.feed(b"HTTP/1.1 200 OK\r\nContent-") == []
    assert client.feed(b"Length: 3\r\n\r\nab") == []
    assert client.feed(b"c") == [(7, True)]
    client.request(8)
    assert client.feed(b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n") == [(8, False)]


def test_http1_refuses_what_it_cannot_delimit() -> None:
    client = http1.Connection("/infer", "host:1", {}, b"")
    client.request(0)
    with pytest.raises(http2.ProtocolError, match="content-length"):
        client.feed(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
