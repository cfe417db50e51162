"""The ASGI host on a scripted connection: what real clients cannot easily be made to send."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest

from headrace_common.asgi_grpc import Call, GrpcAsgiApp
from headrace_common.asgi_grpc.framing import frame
from headrace_common.errors import EngineFailed

MIB = 1 << 20
GZIP = ((b"grpc-encoding", b"gzip"),)
PATH = "/test.Service/Method"


class Connection:
    """One request, as an ASGI server would bring it, and what was answered.

    Attributes:
        gone: the client has left: reads say so, writes fail.
    """

    def __init__(
        self,
        *chunks: bytes,
        path: str = PATH,
        headers: tuple[tuple[bytes, bytes], ...] = (),
        content_type: bytes = b"application/grpc",
        server: tuple[str, int] | None = ("127.0.0.1", 8080),
        gone: bool = False,
    ) -> None:
        self.scope = {
            "type": "http",
            "path": path,
            "headers": [(b"content-type", content_type), *headers],
            "server": server,
            "client": ("127.0.0.1", 1),
        }
        self._chunks = list(chunks)
        self.gone = gone
        self.sent: list[Any] = []

    async def receive(self) -> dict[str, Any]:
        if self.gone:
            return {"type": "http.disconnect"}
        body = self._chunks.pop(0) if self._chunks else b""
        return {"type": "http.request", "body": body, "more_body": bool(self._chunks)}

    async def send(self, event: Any) -> None:
        if self.gone:
            raise RuntimeError("the client has gone")
        self.sent.append(event)

    @property
    def status(self) -> tuple[grpc.StatusCode, str]:
        trailers = dict(self.sent[-1]["headers"])
        code = next(one for one in grpc.StatusCode if one.value[0] == int(trailers[b"grpc-status"]))
        return code, trailers.get(b"grpc-message", b"").decode()

    @property
    def body(self) -> bytes:
        return b"".join(event["body"] for event in self.sent if event["type"] == "http.response.body")


Behaviour = Callable[[Any, Any], Any]


async def echo(request: bytes, _context: Any) -> bytes:
    return request


def host(behaviour: Behaviour = echo, kind: str = "unary_unary", **options: Any) -> GrpcAsgiApp:
    app = GrpcAsgiApp(**({"max_message_bytes": MIB, "sweep_period_s": 0.01} | options))
    handler = getattr(grpc, f"{kind}_rpc_method_handler")(behaviour)
    app.add_registered_method_handlers("test.Service", {"Method": handler})
    return app


def hot(handler: Callable[[bytes, Call], Awaitable[bytes]], **options: Any) -> GrpcAsgiApp:
    app = GrpcAsgiApp(**({"max_message_bytes": MIB, "sweep_period_s": 0.01} | options))
    app.register_unary_bytes(PATH, handler)
    return app


async def hot_echo(body: bytes, _call: Call) -> bytes:
    return body


@pytest.fixture(params=[host, lambda: hot(hot_echo)], ids=["servicer", "hot route"])
def app(request: pytest.FixtureRequest) -> GrpcAsgiApp:
    made: GrpcAsgiApp = request.param()
    return made


async def serve(app: GrpcAsgiApp, connection: Connection) -> Connection:
    await app(connection.scope, connection.receive, connection.send)
    return connection


async def test_message_split_over_chunks_is_put_together(app: GrpcAsgiApp) -> None:
    framed = frame(b"hello")
    answered = await serve(app, Connection(*(framed[index : index + 1] for index in range(len(framed)))))
    assert answered.status == (grpc.StatusCode.OK, "")
    assert answered.body == framed


@pytest.mark.parametrize(
    ("chunks", "headers", "code", "match"),
    [
        ([b"\0" + (1 << 30).to_bytes(4)], (), grpc.StatusCode.RESOURCE_EXHAUSTED, str(1 << 30)),
        ([frame(b"\0" * 2 * MIB, "gzip")], GZIP, grpc.StatusCode.RESOURCE_EXHAUSTED, "larger"),
        ([frame(b"hello")[:7]], (), grpc.StatusCode.INVALID_ARGUMENT, "ended inside a message"),
        ([b""], (), grpc.StatusCode.INVALID_ARGUMENT, "exactly one message; none came"),
        ([frame(b"a") + frame(b"b")], (), grpc.StatusCode.INVALID_ARGUMENT, "exactly one message; 2 came"),
        ([frame(b"a", "gzip")], (), grpc.StatusCode.INVALID_ARGUMENT, "names no compression"),
        ([b"\1\0\0\0\1a"], ((b"grpc-encoding", b"br"),), grpc.StatusCode.UNIMPLEMENTED, "'br'"),
        ([frame(b"a")], ((b"grpc-timeout", b"soon"),), grpc.StatusCode.INVALID_ARGUMENT, "grpc-timeout"),
    ],
    ids=["1 GB prefix", "bomb", "truncated", "no message", "two", "unannounced gzip", "unknown encoding", "timeout"],
)
async def test_bad_requests_get_a_status_and_the_next_one_works(
    app: GrpcAsgiApp, chunks: list[bytes], headers: Any, code: grpc.StatusCode, match: str
) -> None:
    refused = await serve(app, Connection(*chunks, headers=headers))
    assert refused.status[0] is code
    assert match in refused.status[1].replace("%27", "'")
    assert (await serve(app, Connection(frame(b"next")))).body == frame(b"next")


async def test_a_gigabyte_is_refused_before_the_rest_is_read(app: GrpcAsgiApp) -> None:
    endless = Connection(b"\0" + (1 << 30).to_bytes(4), *[b"x" * 1024] * 100)
    await serve(app, endless)
    assert endless.status[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert len(endless._chunks) >= 99


@pytest.mark.parametrize("content_type", [b"application/json", b"application/grpc-web", b"", b"application/grpcx"])
async def test_other_media_types_are_refused(app: GrpcAsgiApp, content_type: bytes) -> None:
    answered = await serve(app, Connection(frame(b"a"), content_type=content_type))
    assert answered.sent[0]["status"] == 415


@pytest.mark.parametrize("content_type", [b"application/grpc", b"application/grpc+proto", b"application/grpc;a=b"])
async def test_media_types_of_grpc_are_taken(app: GrpcAsgiApp, content_type: bytes) -> None:
    answered = await serve(app, Connection(frame(b"a"), content_type=content_type))
    assert answered.status[0] is grpc.StatusCode.OK


async def test_answer_is_compressed_as_the_request_was_if_the_client_takes_that(app: GrpcAsgiApp) -> None:
    asks = (b"grpc-encoding", b"gzip")
    takes = (b"grpc-accept-encoding", b"identity, gzip")
    packed = await serve(app, Connection(frame(b"a" * 1000, "gzip"), headers=(asks, takes)))
    assert packed.body == frame(b"a" * 1000, "gzip")
    assert (b"grpc-encoding", b"gzip") in packed.sent[0]["headers"]
    plain = await serve(app, Connection(frame(b"a" * 1000, "gzip"), headers=(asks,)))
    assert plain.body == frame(b"a" * 1000)


async def test_internal_service_answers_on_the_unix_socket_only() -> None:
    app = host(internal_services=["test.Service"])
    assert (await serve(app, Connection(frame(b"a")))).status[0] is grpc.StatusCode.UNIMPLEMENTED
    assert (await serve(app, Connection(frame(b"a"), server=None))).status[0] is grpc.StatusCode.OK


async def test_client_that_left_before_its_request_was_read_ends_in_silence(app: GrpcAsgiApp) -> None:
    assert (await serve(app, Connection(gone=True))).sent == []


async def test_client_that_leaves_during_the_answer_ends_in_silence(app: GrpcAsgiApp) -> None:
    connection = Connection(frame(b"a"))
    send = connection.send

    async def leave(event: Any) -> None:
        connection.gone = True
        await send(event)

    await app(connection.scope, connection.receive, leave)
    assert connection.sent == []


async def test_servicer_is_cancelled_when_the_sweep_finds_the_client_gone() -> None:
    cancelled = asyncio.Event()
    connection = Connection(frame(b"a"))

    async def wait(_request: bytes, _context: Any) -> bytes:
        connection.gone = True
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return b""

    async with host(wait) as app, asyncio.timeout(5):
        await serve(app, connection)
    assert cancelled.is_set()
    assert connection.sent == []


async def test_hot_route_is_told_that_the_client_has_gone() -> None:
    connection = Connection(frame(b"a"))

    async def until_gone(_body: bytes, call: Call) -> bytes:
        connection.gone = True
        while not call.is_gone():  # noqa: ASYNC110 - asking is what is tested
            await asyncio.sleep(0)
        return b"nobody reads this"

    async with hot(until_gone) as app, asyncio.timeout(5):
        await serve(app, connection)
    assert connection.sent == []


async def test_sweep_leaves_a_client_that_waits_alone() -> None:
    class Counting(Connection):
        asked = 0

        async def receive(self) -> dict[str, Any]:
            self.asked += 1
            return await super().receive()

    connection = Counting(frame(b"a"))

    async def slow(request: bytes, context: Any) -> bytes:
        while connection.asked < 4:  # noqa: ASYNC110 - the sweep asks behind our back
            await asyncio.sleep(0)
        return request

    async with host(slow) as app, asyncio.timeout(5):
        answered = await serve(app, connection)
    assert answered.status[0] is grpc.StatusCode.OK


@pytest.mark.parametrize("kind", ["unary_unary", "unary_stream", "stream_unary", "stream_stream"])
async def test_deadline_ends_every_kind_of_call(kind: str) -> None:
    async def wait(_request: Any, _context: Any) -> None:
        await asyncio.Event().wait()

    answered = await serve(host(wait, kind), Connection(frame(b"a"), headers=((b"grpc-timeout", b"20m"),)))
    assert answered.status[0] is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_servicer_that_swallows_its_cancellation_cannot_answer_late() -> None:
    async def stubborn(request: bytes, _context: Any) -> bytes:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return request
        return b""

    answered = await serve(host(stubborn), Connection(frame(b"a"), headers=((b"grpc-timeout", b"20m"),)))
    assert answered.status[0] is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize("make", [host, hot], ids=["servicer", "hot route"])
async def test_stopping_the_server_tells_the_client_and_stops(make: Callable[[Any], GrpcAsgiApp]) -> None:
    started = asyncio.Event()

    async def wait(_request: bytes, _context: Any) -> bytes:
        started.set()
        await asyncio.Event().wait()
        return b""

    connection = Connection(frame(b"a"))
    task = asyncio.ensure_future(serve(make(wait), connection))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert connection.status[0] is grpc.StatusCode.UNAVAILABLE


async def test_callbacks_run_when_the_call_is_done() -> None:
    seen: list[tuple[bool, bool]] = []

    async def behaviour(request: bytes, context: Any) -> bytes:
        context.add_done_callback(lambda done: seen.append((done.done(), done.cancelled())))
        return request

    await serve(host(behaviour), Connection(frame(b"a")))
    assert seen == [(True, False)]


async def test_what_an_engine_said_stays_in_the_log(app: GrpcAsgiApp, capsys: pytest.CaptureFixture[str]) -> None:
    async def fail(_body: bytes, _call: Any) -> bytes:
        raise EngineFailed("the secret of the engine")

    for failing in (host(fail), hot(fail)):
        answered = await serve(failing, Connection(frame(b"a")))
        assert answered.status[0] is grpc.StatusCode.INTERNAL
        assert "secret" not in answered.status[1]
    assert "the secret of the engine" in "".join(capsys.readouterr())


async def test_reader_ahead_stops_at_a_slow_servicer() -> None:
    connection = Connection(*[frame(b"a")] * 1000)
    left: list[int] = []

    async def slow(requests: Any, _context: Any) -> bytes:
        count = 0
        async for _ in requests:
            count += 1
            if count == 1:
                for _ in range(100):
                    await asyncio.sleep(0)
                left.append(len(connection._chunks))
        return str(count).encode()

    answered = await serve(host(slow, "stream_unary"), connection)
    assert answered.body == frame(b"1000")
    assert left[0] > 900


async def test_time_left_counts_down() -> None:
    async def time_left(_body: bytes, call: Call) -> bytes:
        first = call.time_left_s
        await asyncio.sleep(0.002)
        second = call.time_left_s
        assert first is not None
        assert second is not None
        assert second < first <= 10
        return b""

    answered = await serve(hot(time_left), Connection(frame(b""), headers=((b"grpc-timeout", b"10S"),)))
    assert answered.status[0] is grpc.StatusCode.OK


@pytest.mark.parametrize("kind", ["unary_unary", "stream_unary"])
async def test_a_chunk_full_of_bombs_is_not_inflated_at_once(kind: str) -> None:
    bombs = [frame(b"\0" * MIB, "gzip")] * 64

    async def first(request: Any, _context: Any) -> bytes:
        async for message in request:
            return str(len(message)).encode()
        return b""

    app = host(first if kind == "stream_unary" else echo, kind)
    tracemalloc.start()
    try:
        answered = await serve(app, Connection(b"".join(bombs), headers=GZIP))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(b"".join(bombs)) < MIB
    assert peak < 8 * MIB
    if kind == "stream_unary":
        assert answered.body == frame(str(MIB).encode())
    else:
        assert answered.status[0] is grpc.StatusCode.INVALID_ARGUMENT


class Dripping(Connection):
    """Sends what it has, and then nothing more, and not the end."""

    async def receive(self) -> dict[str, Any]:
        if not self._chunks:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": self._chunks.pop(0), "more_body": True}


async def test_deadline_ends_a_call_whose_request_never_arrives_whole(app: GrpcAsgiApp) -> None:
    timeout = (b"grpc-timeout", b"20m")
    for chunks in ([], [frame(b"hello")[:7]]):
        async with app, asyncio.timeout(5):
            answered = await serve(app, Dripping(*chunks, headers=(timeout,)))
        assert answered.status[0] is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize("make", [host, lambda **options: hot(hot_echo, **options)], ids=["servicer", "hot route"])
async def test_a_request_without_a_deadline_may_not_take_for_ever_to_arrive(make: Callable[..., GrpcAsgiApp]) -> None:
    for chunks in ([], [frame(b"hello")[:7]]):
        async with make(arrival_timeout_s=0.02) as app, asyncio.timeout(5):
            answered = await serve(app, Dripping(*chunks))
        assert answered.status == (grpc.StatusCode.DEADLINE_EXCEEDED, "the request did not arrive whole in time")


async def test_call_ends_with_a_status_even_if_its_trailers_cannot_be_sent() -> None:
    async def odd(request: bytes, context: Any) -> bytes:
        context.set_trailing_metadata((("naïve", "value"),))
        return request

    answered = await serve(host(odd), Connection(frame(b"a")))
    assert answered.status[0] is grpc.StatusCode.INTERNAL


async def test_client_that_leaves_while_enough_is_read_ahead_cancels_the_servicer() -> None:
    cancelled = asyncio.Event()
    connection = Connection(*[frame(b"a")] * 1000)

    async def busy(requests: Any, _context: Any) -> bytes:
        async for _ in requests:
            for _ in range(100):  # Until what this one made room for is read, too.
                await asyncio.sleep(0)
            connection.gone = True
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()
        return b""

    async with host(busy, "stream_unary") as app, asyncio.timeout(5):
        await serve(app, connection)
    assert cancelled.is_set()
    assert connection.sent == []


async def test_little_is_read_beyond_what_a_servicer_that_is_busy_for_long_takes() -> None:
    connection = Connection(*[frame(b"a")] * 1000)

    async def busy(requests: Any, _context: Any) -> bytes:
        async for _ in requests:
            for _ in range(3000):  # A reader without a bound would have taken everything by then.
                await asyncio.sleep(0)
            return str(1000 - len(connection._chunks)).encode()
        return b""

    answered = await serve(host(busy, "stream_unary"), connection)
    assert int(answered.body[5:]) < 9 + 5


class Backwards:
    """An exchange that answers each message with itself backwards, at once.

    Attributes:
        closed: the host said that the call is over.
    """

    def __init__(self, room: int = 2) -> None:
        self._room = room
        self._made: list[bytes] = []
        self.closed = False

    @property
    def has_room(self) -> bool:
        return self.in_hand < self._room

    @property
    def in_hand(self) -> int:
        return len(self._made)

    def take(self, message: bytes) -> None:
        if message == b"fail":
            raise EngineFailed("the secret of the engine")
        self._made.append(message[::-1])

    def collect(self) -> list[bytes]:
        made, self._made = self._made, []
        return made

    def close(self) -> None:
        self.closed = True


def exchanging(exchange: Backwards) -> GrpcAsgiApp:
    app = host(sweep_period_s=0.01)
    app.register_stream_bytes(PATH, lambda _call, _wake: exchange)
    return app


async def test_exchange_gets_each_message_and_its_answers_leave_together() -> None:
    exchange = Backwards()
    chunks = [frame(b"ab") + frame(b"cd") + frame(b"ef"), frame(b"gh")[:3], frame(b"gh")[3:]]
    answered = await serve(exchanging(exchange), Connection(*chunks))
    assert answered.body == frame(b"ba") + frame(b"dc") + frame(b"fe") + frame(b"hg")
    assert answered.sent[1]["body"] == frame(b"ba") + frame(b"dc")
    assert (answered.status, exchange.closed) == ((grpc.StatusCode.OK, ""), True)


@pytest.mark.parametrize(
    ("connection", "code"),
    [
        (Connection(frame(b"fail")), grpc.StatusCode.INTERNAL),
        (Connection(frame(b"ab"), headers=((b"grpc-timeout", b"soon"),)), grpc.StatusCode.INVALID_ARGUMENT),
        (Connection(frame(b"ab"), frame(b"cd")[:6]), grpc.StatusCode.INVALID_ARGUMENT),
        (Dripping(headers=((b"grpc-timeout", b"20m"),)), grpc.StatusCode.DEADLINE_EXCEEDED),
    ],
    ids=["it fails", "headers are wrong", "cut off", "late"],
)
async def test_exchange_ends_with_a_status(connection: Connection, code: grpc.StatusCode) -> None:
    async with asyncio.timeout(5):
        answered = await serve(exchanging(Backwards()), connection)
    assert answered.status[0] is code
    assert "secret" not in answered.status[1]


async def test_bombs_wait_uninflated_until_an_exchange_has_room() -> None:
    exchange = Backwards(room=0)
    connection = Connection(frame(b"\0" * MIB, "gzip") * 64, headers=GZIP)
    tracemalloc.start()
    try:
        task = asyncio.ensure_future(serve(exchanging(exchange), connection))
        for _ in range(100):
            await asyncio.sleep(0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert peak < MIB
    assert (exchange.closed, connection.status[0]) == (True, grpc.StatusCode.UNAVAILABLE)
