"""The generator against a real server on loopback."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from benchmarks.generator import http1, pools
from benchmarks.generator.http2 import ProtocolError
from benchmarks.generator.loop import Loop
from benchmarks.generator.schedule import Plan, summarise

PLAN = Plan(rate=400.0, warm_up_s=0.05, seconds=0.2)


class Handler(BaseHTTPRequestHandler):
    """Refuses every tenth request of the server."""

    protocol_version = "HTTP/1.1"
    count = 0

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        Handler.count += 1
        self.send_response(503 if Handler.count % 10 == 0 else 200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Silence."""


@pytest.fixture
def address() -> Iterator[tuple[str, int]]:
    Handler.count = 0
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield "127.0.0.1", server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def links(address: tuple[str, int], count: int = 2) -> pools.LoneLinks:
    return pools.LoneLinks(lambda: http1.Connection("/", "host", {}, b"body"), address, count)


def test_every_request_is_sent_and_every_answer_is_seen(address: tuple[str, int]) -> None:
    loop = Loop(PLAN, links(address))
    loop.run()
    outcome = summarise(PLAN, loop.done, loop.sent_at)
    assert sorted(item.number for item in loop.done) == list(range(PLAN.count)) == list(range(100))
    assert sum(not item.ok for item in loop.done) == Handler.count // 10 == 10
    assert (outcome.ok + outcome.failed, outcome.unanswered) == (80, 0)
    assert all(
        item.at >= sent for item, sent in zip(sorted(loop.done, key=lambda d: d.number), loop.sent_at, strict=True)
    )


def test_requests_wait_where_there_are_no_more_connections(
    address: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "MOST_CONNECTIONS", 2)
    made = links(address)
    loop = Loop(PLAN, made)
    loop.run()
    assert len(made.links) == 2
    assert len(loop.done) == PLAN.count


def test_a_server_that_hangs_up_ends_the_run(address: tuple[str, int]) -> None:
    made = links(address, count=1)
    loop = Loop(PLAN, made)
    made.links[0].socket.shutdown(2)
    with pytest.raises((ProtocolError, BrokenPipeError)):
        loop.run()
