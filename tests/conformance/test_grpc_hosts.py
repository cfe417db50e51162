"""The same servicers, the same answers: on a plain grpc.aio server and inside Envoy."""

from __future__ import annotations

import ast
import asyncio
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status.rpc_status import GRPC_DETAILS_METADATA_KEY

from headrace.control.v1 import process_pb2, process_pb2_grpc
from headrace_common.grpc_server import new_server

HOSTS = Path(__file__).parents[1] / "hosts"
sys.path.insert(0, str(HOSTS))

import echo_app  # noqa: E402
import envoy_child  # noqa: E402

WITHIN_S = 10
MIB = 1 << 20


@pytest.fixture(scope="module")
def envoy() -> Iterator[envoy_child.EnvoyChild]:
    with envoy_child.envoy_child("echo_app:app", HOSTS) as child:
        yield child


@pytest.fixture(params=["grpc.aio", "asgi-in-envoy"])
async def target(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """Where a host serves `echo_app.add_everything`."""
    if request.param == "asgi-in-envoy":
        yield request.getfixturevalue("envoy").process_target
        return
    directory = tempfile.mkdtemp(prefix="hr-")
    server = new_server()
    echo_app.add_everything(server)
    server.add_insecure_port(f"unix:{directory}/s.sock")
    await server.start()
    yield f"unix:{directory}/s.sock"
    await server.stop(0)
    shutil.rmtree(directory)


@pytest.fixture
async def channel(target: str) -> AsyncIterator[grpc.aio.Channel]:
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    async with grpc.aio.insecure_channel(target, options=options) as channel:
        yield channel


def unary(channel: grpc.aio.Channel, method: str, request: bytes = b"", **options: Any) -> Any:
    return channel.unary_unary(f"/{echo_app.SERVICE}/{method}")(request, **({"timeout": WITHIN_S} | options))


async def refusal(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return raised.value


async def waiters(channel: grpc.aio.Channel, running: int) -> int:
    """Waits until so many `Wait`s run; returns how many have been cancelled so far."""
    deadline = time.monotonic() + WITHIN_S
    while time.monotonic() < deadline:
        now_running, cancelled = map(int, (await unary(channel, "Waiters")).split())
        if now_running == running:
            return cancelled
        await asyncio.sleep(0.02)
    raise AssertionError(f"{now_running} waits run, expected {running}")


@pytest.mark.parametrize(
    "message",
    [b"", b"x", b"\0" * 5, bytes(range(256)) * 4 * 4096],
    ids=["empty", "one byte", "like a prefix", "4 MiB"],
)
async def test_unary_unary_echoes(channel: grpc.aio.Channel, message: bytes) -> None:
    assert await unary(channel, "Echo", message) == message


@pytest.mark.parametrize("method", ["Repeat", "Write"], ids=["generator", "context.write"])
@pytest.mark.parametrize("count", [0, 1, 100])
async def test_unary_stream_yields_all_in_order(channel: grpc.aio.Channel, method: str, count: int) -> None:
    call = channel.unary_stream(f"/{echo_app.SERVICE}/{method}")(str(count).encode(), timeout=WITHIN_S)
    assert [int(message) async for message in call] == list(range(count))


@pytest.mark.parametrize("messages", [[], [b""], [b"a"] * 100, [b"x" * MIB] * 3], ids=["none", "empty", "100", "large"])
async def test_stream_unary_collects(channel: grpc.aio.Channel, messages: list[bytes]) -> None:
    call = channel.stream_unary(f"/{echo_app.SERVICE}/Collect")(iter(messages), timeout=WITHIN_S)
    assert await call == b",".join(messages)


async def test_stream_stream_answers_before_the_client_half_closes_and_sees_that_it_did(
    channel: grpc.aio.Channel,
) -> None:
    call = channel.stream_stream(f"/{echo_app.SERVICE}/Chat")(timeout=WITHIN_S)
    for message in (b"one", b"", b"three"):
        await call.write(message)
        assert await call.read() == message
    await call.done_writing()
    assert await call.read() == b"half-closed"
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK


async def test_stream_stream_by_read_and_write(channel: grpc.aio.Channel) -> None:
    messages = [b"a", b"b" * MIB, b""]
    call = channel.stream_stream(f"/{echo_app.SERVICE}/ReadWrite")(iter(messages), timeout=WITHIN_S)
    assert [message async for message in call] == messages


async def test_metadata_of_both_kinds_goes_both_ways(channel: grpc.aio.Channel) -> None:
    sent = [("x-text", "a b=c"), ("x-data-bin", b"\0\xff\x01"), ("x-data-bin", b""), ("x-twice", "1"), ("x-twice", "2")]
    call = unary(channel, "Metadata", metadata=sent)
    seen = ast.literal_eval((await call).decode())
    ours = [pair for pair in seen if not pair[0].startswith(("x-forwarded", "x-envoy"))]
    texts = {value for key, value in ours if key == "x-twice"}
    assert texts in ({"1", "2"}, {"1,2"}), "HTTP allows a proxy to join values of one name"
    assert [pair for pair in ours if pair[0] != "x-twice"] == [
        ("x-data-bin", b""),
        ("x-data-bin", b"\0\xff\x01"),
        ("x-text", "a b=c"),
    ]
    for received in (await call.initial_metadata(), await call.trailing_metadata()):
        assert received["x-text"] == "a b=c"
        assert b"\0\xff\x01" in received.get_all("x-data-bin")


async def test_time_remaining_is_what_the_client_gave(channel: grpc.aio.Channel) -> None:
    assert 3 < float(await unary(channel, "TimeLeft", timeout=5)) <= 5.1
    assert await unary(channel, "TimeLeft", timeout=None) == b"None"


@pytest.mark.parametrize("details", ["plain", "", "naïve 100% ☂\nnext line"], ids=["plain", "empty", "percent-encoded"])
async def test_abort_gives_code_details_and_trailers(channel: grpc.aio.Channel, details: str) -> None:
    error = await refusal(unary(channel, "Abort", details.encode()))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert error.details() == details
    assert error.trailing_metadata()["x-why"] == "because"


async def test_abort_with_status_carries_its_details(channel: grpc.aio.Channel) -> None:
    error = await refusal(unary(channel, "AbortWithDetails"))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    status = status_pb2.Status.FromString(error.trailing_metadata()[GRPC_DETAILS_METADATA_KEY])
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.reason == "BECAUSE"


async def test_set_code_ends_the_call_with_it(channel: grpc.aio.Channel) -> None:
    error = await refusal(unary(channel, "SetCode"))
    assert (error.code(), error.details()) == (grpc.StatusCode.DATA_LOSS, "lost")


async def test_unknown_exception_is_generic_to_the_client(channel: grpc.aio.Channel) -> None:
    error = await refusal(unary(channel, "Fail"))
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in error.details()


async def test_our_errors_keep_code_message_and_details(channel: grpc.aio.Channel) -> None:
    error = await refusal(unary(channel, "Quota"))
    assert (error.code(), error.details()) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
    status = status_pb2.Status.FromString(error.trailing_metadata()[GRPC_DETAILS_METADATA_KEY])
    failure = error_details_pb2.QuotaFailure()
    assert status.details[0].Unpack(failure)
    assert failure.violations[0].subject == "tenant:acme"


async def test_error_after_a_response_follows_it(channel: grpc.aio.Channel) -> None:
    call = channel.unary_stream(f"/{echo_app.SERVICE}/FailLate")(b"", timeout=WITHIN_S)
    assert await call.read() == b"one"
    error = await refusal(call.read())
    assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "nothing after one")


async def test_malformed_message_is_the_clients_fault(channel: grpc.aio.Channel) -> None:
    error = await refusal(unary(channel, "Typed", b"\x0a\xff"))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert await unary(channel, "Echo", b"next") == b"next"


@pytest.mark.parametrize("path", [f"/{echo_app.SERVICE}/Nope", "/no.Service/Echo"], ids=["method", "service"])
async def test_what_is_not_served_is_unimplemented(channel: grpc.aio.Channel, path: str) -> None:
    error = await refusal(channel.unary_unary(path)(b"", timeout=WITHIN_S))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_deadline_ends_the_call_and_cancels_the_servicer(channel: grpc.aio.Channel) -> None:
    before = await waiters(channel, running=0)
    error = await refusal(unary(channel, "Wait", timeout=0.2))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert await waiters(channel, running=0) == before + 1


async def test_cancelled_unary_call_cancels_the_servicer(channel: grpc.aio.Channel) -> None:
    before = await waiters(channel, running=0)
    call = unary(channel, "Wait")
    waiting = asyncio.ensure_future(call)
    await waiters(channel, running=1)
    waiting.cancel()
    assert await waiters(channel, running=0) == before + 1


@pytest.mark.parametrize("half_closed", [False, True], ids=["open", "half-closed"])
async def test_cancelled_stream_cancels_the_servicer(channel: grpc.aio.Channel, half_closed: bool) -> None:
    before = await waiters(channel, running=0)
    call = channel.stream_stream(f"/{echo_app.SERVICE}/WaitStreaming")(timeout=WITHIN_S)
    assert await call.read() == b"waiting"
    if half_closed:
        await call.done_writing()
    await waiters(channel, running=1)
    call.cancel()
    assert await waiters(channel, running=0) == before + 1


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate], ids=["gzip", "deflate"])
@pytest.mark.parametrize("size", [0, 100, 4 * MIB], ids=["empty", "small", "4 MiB"])
async def test_compressed_requests_are_inflated(
    channel: grpc.aio.Channel, compression: grpc.Compression, size: int
) -> None:
    message = b"0123456789abcdef" * (size // 16)
    assert await unary(channel, "Echo", message, compression=compression) == message
    call = channel.stream_unary(f"/{echo_app.SERVICE}/Collect")(
        iter([message, message]), timeout=WITHIN_S, compression=compression
    )
    assert await call == message + b"," + message


async def test_servicer_can_compress_its_response(channel: grpc.aio.Channel) -> None:
    message = b"0123456789abcdef" * 4096
    assert await unary(channel, "Compressed", message) == message


async def test_calls_side_by_side_do_not_mix(channel: grpc.aio.Channel) -> None:
    messages = [str(index).encode() * 1000 for index in range(200)]
    assert await asyncio.gather(*(unary(channel, "Echo", message) for message in messages)) == messages


async def test_health_answers_and_watches(channel: grpc.aio.Channel) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    request = health_pb2.HealthCheckRequest(service="")
    assert (await stub.Check(request, timeout=WITHIN_S)).status == health_pb2.HealthCheckResponse.SERVING
    error = await refusal(stub.Check(health_pb2.HealthCheckRequest(service="nobody"), timeout=WITHIN_S))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    watch = stub.Watch(request, timeout=WITHIN_S)
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
    watch.cancel()


async def test_reflection_knows_services_of_both_pools(channel: grpc.aio.Channel) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=echo_app.INFERENCE),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="grpc.health.v1.Health"),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="nobody.knows.This"),
    ]
    call = stub.ServerReflectionInfo(iter(requests), timeout=WITHIN_S)
    listed, ours, health, unknown = [response async for response in call]
    names = {service.name for service in listed.list_services_response.service}
    assert {echo_app.INFERENCE, "grpc.health.v1.Health"} <= names
    for found in (ours, health):
        assert found.file_descriptor_response.file_descriptor_proto
    assert unknown.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


async def test_process_service_scrapes_and_drains(channel: grpc.aio.Channel) -> None:
    stub = process_pb2_grpc.ProcessServiceStub(channel)
    scraped = await stub.ScrapeMetrics(process_pb2.ScrapeMetricsRequest(), timeout=WITHIN_S)
    assert scraped.text == b"# metrics\n"
    assert (await stub.Drain(process_pb2.DrainRequest(timeout_ms=10), timeout=WITHIN_S)).abandoned == 3
