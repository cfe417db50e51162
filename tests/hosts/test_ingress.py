"""The short way of unary inference answers as the long one, by ASGI, does; whatever comes."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import struct
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hypothesis import example, given
from hypothesis import strategies as st

from headrace.control.v1 import control_pb2, control_pb2_grpc, process_pb2, process_pb2_grpc
from headrace.oip import inference_pb2, inference_pb2_grpc
from headrace.v1 import models_pb2
from headrace_common.config import MeshConfig, RouterConfig
from headrace_common.grpc_server import new_server
from headrace_router.envoy import admin_socket
from headrace_router.ingress.native import IngressLibrary
from headrace_router.oip.header import split

sys.path.insert(0, str(Path(__file__).parent))

import envoy_child
import raw_call

WITHIN_S = 20
LIMIT = 4096
LIBRARY = IngressLibrary()


class Blocked(control_pb2_grpc.ControlServiceServicer):
    """Tells of one model that is refused at once, and of one that waits for an instance for ever."""

    async def Sync(self, requests: Any, _context: Any) -> AsyncIterator[control_pb2.SyncResponse]:
        models = [self.model("blocked", "no memory"), self.model("waits", "")]
        yield control_pb2.SyncResponse(epoch=1, update=control_pb2.StateUpdate(version=1, full=True, models=models))
        async for _ in requests:
            continue

    @staticmethod
    def model(name: str, blocked_reason: str) -> control_pb2.ModelEntry:
        tensor = models_pb2.TensorSpec(name="x", datatype="FP32", shape=[-1, 2])
        signature = models_pb2.Signature(inputs=[tensor], outputs=[tensor], batchable=True)
        revision = control_pb2.Revision(
            revision=1, version="1", current=True, signature=signature, blocked_reason=blocked_reason
        )
        return control_pb2.ModelEntry(name=name, tenant="default", revisions=[revision])


@contextlib.contextmanager
def told_router(*, native: bool) -> Iterator[envoy_child.EnvoyChild]:
    config = MeshConfig(router=RouterConfig(native_ingress=native, max_request_bytes=LIMIT))
    with envoy_child.router_child(config) as child:
        yield child


@pytest.fixture(scope="module")
def routers() -> Iterator[tuple[envoy_child.EnvoyChild, envoy_child.EnvoyChild]]:
    """(short way, long way). No autoscaler speaks to them but in `told`."""
    with told_router(native=True) as short, told_router(native=False) as long:
        yield short, long


@pytest.fixture
async def told(routers: tuple[envoy_child.EnvoyChild, envoy_child.EnvoyChild]) -> AsyncIterator[None]:
    """Both routers know the models."""
    servers = []
    for router in routers:
        server = new_server()
        control_pb2_grpc.add_ControlServiceServicer_to_server(Blocked(), server)
        server.add_insecure_port(router.context.autoscaler_target)
        await server.start()
        servers.append(server)
        async with grpc.aio.insecure_channel(router.address) as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=WITHIN_S)
            while (await watch.read()).status != health_pb2.HealthCheckResponse.SERVING:
                continue
            watch.cancel()
    yield
    for server in servers:
        await server.stop(0)


def request(model: str = "blocked", **fields: Any) -> bytes:
    message = inference_pb2.ModelInferRequest(model_name=model, raw_input_contents=[bytes(8)], **fields)
    message.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    return message.SerializeToString()


def framed(message: bytes, flags: int = 0) -> bytes:
    return struct.pack(">BI", flags, len(message)) + message


GOOD = framed(request())
CASES: dict[str, tuple[list[bytes], list[tuple[str, str]], str]] = {
    "whole": ([GOOD], [], "no memory"),
    "in pieces": ([GOOD[:3], GOOD[3:20], GOOD[20:]], [], "no memory"),
    "end apart from the data": ([GOOD, b""], [], "no memory"),
    "no body": ([], [], "none came"),
    "an empty message": ([framed(b"")], [], "model"),
    "cut off in its length": ([GOOD[:4]], [], "ended inside a message"),
    "cut off in its content": ([GOOD[:-1]], [], "ended inside a message"),
    "two messages": ([GOOD + GOOD], [], "exactly one message; 2 came"),
    "unknown flags": ([framed(request(), 7)], [], "flags 7"),
    "flagged as compressed and nothing says how": ([framed(request(), 1)], [], "no compression"),
    "compressed": ([framed(gzip.compress(request()), 1)], [("grpc-encoding", "gzip")], "no memory"),
    "identity is no compression": ([GOOD], [("grpc-encoding", "identity")], "no memory"),
    "announces more than the limit": ([struct.pack(">BI", 0, LIMIT + 1)], [], "larger than the 4096"),
    "sends more than the limit": ([framed(bytes(LIMIT + 1))], [], "larger than the 4096"),
    "as large as the limit": ([framed(bytes(LIMIT))], [], "not a ModelInferRequest"),
    "not protobuf": ([framed(b"\xff" * 9)], [], "not a ModelInferRequest"),
    "id that is not ASCII": ([framed(request(id="é"))], [], "no memory"),
    "unknown model": ([framed(request("nobody"))], [], "nobody"),
    "no tenant's name": ([GOOD], [("x-headrace-tenant", "not a name")], "x-headrace-tenant"),
    "an empty tenant": ([GOOD], [("x-headrace-tenant", "")], "x-headrace-tenant"),
    "an empty timeout": ([GOOD], [("grpc-timeout", "")], "grpc-timeout is ''"),
    "timeout that is none": ([GOOD], [("grpc-timeout", "soon")], "grpc-timeout is 'soon'"),
    "kind of gRPC": ([GOOD], [("content-type", "application/grpc+proto")], "no memory"),
    "sampled trace": ([GOOD], [("traceparent", f"00-{'a' * 32}-{'b' * 16}-01")], "no memory"),
}


@pytest.mark.usefixtures("told")
@pytest.mark.parametrize(("chunks", "headers", "says"), CASES.values(), ids=CASES)
async def test_both_ways_answer_alike(
    routers: tuple[envoy_child.EnvoyChild, envoy_child.EnvoyChild],
    chunks: list[bytes],
    headers: list[tuple[str, str]],
    says: str,
) -> None:
    short, long = [await asyncio.to_thread(raw_call.call, router.address, chunks, headers) for router in routers]
    assert says in short.status[1]
    assert short.status == long.status
    assert short.headers.get("grpc-status-details-bin") == long.headers.get("grpc-status-details-bin")
    assert short.headers["content-type"] == "application/grpc"


@pytest.mark.usefixtures("told")
async def test_a_query_changes_nothing(routers: tuple[envoy_child.EnvoyChild, envoy_child.EnvoyChild]) -> None:
    path = f"{raw_call.MODEL_INFER}?a=1"
    answers = [await asyncio.to_thread(raw_call.call, router.address, [GOOD], path=path) for router in routers]
    assert [answer.status[0] for answer in answers] == ["14", "14"]
    assert "no memory" in answers[0].status[1]


async def test_bytes_that_arrive_are_bounded_over_all_requests() -> None:
    config = MeshConfig(router=RouterConfig(max_queue_bytes=1 << 20))
    with envoy_child.router_child(config) as router:
        whole = framed(bytes(3 << 20))
        refused = await asyncio.to_thread(
            raw_call.call, router.address, [whole[at : at + 16384] for at in range(0, len(whole), 16384)]
        )
        assert refused.status == ("8", "this router holds as many bytes of requests as it may; retry later")
        small = await asyncio.to_thread(raw_call.call, router.address, [GOOD])
        assert small.status[0] == "14", "what has been refused holds nothing"


@pytest.mark.parametrize("chunks", [[], [GOOD[:9]]], ids=["nothing comes", "the end does not come"])
async def test_what_does_not_arrive_in_its_time_is_given_up(
    routers: tuple[envoy_child.EnvoyChild, envoy_child.EnvoyChild], chunks: list[bytes]
) -> None:
    for router in routers:
        late = await asyncio.to_thread(raw_call.call, router.address, chunks, [("grpc-timeout", "300m")], end=False)
        assert late.status == (
            str(grpc.StatusCode.DEADLINE_EXCEEDED.value[0]),
            "the request did not arrive whole in time",
        )


@pytest.mark.usefixtures("told")
async def test_the_deadline_is_kept_in_the_queue(
    routers: tuple[envoy_child.EnvoyChild, envoy_child.EnvoyChild],
) -> None:
    async with grpc.aio.insecure_channel(routers[0].address) as channel:
        stub = inference_pb2_grpc.GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.ModelInfer(inference_pb2.ModelInferRequest.FromString(request("waits")), timeout=0.3)
        assert refused.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.usefixtures("told")
async def test_a_caller_that_leaves_is_withdrawn_from_the_queue(
    routers: tuple[envoy_child.EnvoyChild, envoy_child.EnvoyChild],
) -> None:
    async with (
        grpc.aio.insecure_channel(routers[0].address) as channel,
        grpc.aio.insecure_channel(routers[0].process_target) as inside,
    ):
        stub = inference_pb2_grpc.GRPCInferenceServiceStub(channel)
        waiting = stub.ModelInfer(inference_pb2.ModelInferRequest.FromString(request("waits")), timeout=WITHIN_S)
        await scraped(
            inside, 'headrace_queued_requests{model="waits",service_instance_id="router-0",tenant="default"} 1.0'
        )
        waiting.cancel()
        await scraped(
            inside, 'headrace_queued_requests{model="waits",service_instance_id="router-0",tenant="default"} 0.0'
        )
        await scraped(inside, 'outcome="cancelled"')


@pytest.mark.usefixtures("told")
async def test_a_client_that_reads_late_gets_all_its_answers(
    routers: tuple[envoy_child.EnvoyChild, envoy_child.EnvoyChild],
) -> None:
    """More answers than Envoy keeps for a connection by default, and than the sockets hold."""
    router, count, together = routers[0], 14_000, 1_000
    admin = admin_socket(router.context)
    before = _completed(admin)
    with raw_call.SlowReader(router.address) as client:
        for sent in range(together, count + 1, together):
            client.send(GOOD, together)
            async with asyncio.timeout(WITHIN_S):
                while await asyncio.to_thread(_completed, admin) < before + sent:
                    continue
        assert client.read_all() == count


def _completed(admin: Path) -> int:
    """Requests that this Envoy has answered."""
    stats = envoy_child.ask(admin, "GET", "/stats?filter=front.downstream_rq_completed")
    return sum(int(line.rpartition(" ")[2]) for line in stats.splitlines())


async def scraped(inside: grpc.aio.Channel, line: str) -> None:
    """Waits until the metrics have this."""
    process = process_pb2_grpc.ProcessServiceStub(inside)
    async with asyncio.timeout(WITHIN_S):
        while True:
            reply = await process.ScrapeMetrics(process_pb2.ScrapeMetricsRequest(), timeout=WITHIN_S)
            if line in reply.text.decode():
                return


ids = st.text(max_size=4) | st.text("ab", max_size=4)
messages = st.builds(
    lambda model, request_id, raw: request(model, id=request_id) + b"".join(b"\x3a" + bytes([len(r)]) + r for r in raw),
    st.text(max_size=3),
    ids,
    st.lists(st.binary(max_size=9), max_size=18),
)


def agrees(message: bytes) -> None:
    header, request_id, spans = LIBRARY.split(message)
    parts = split(message)
    if header:
        assert parts is not None
        assert (header, request_id, list(spans)) == (parts.header, parts.request_id, list(parts.spans))
    elif parts is not None:
        # It leaves a little more to the parser than it must.
        assert not parts.request_id.isascii() or len(parts.spans) > 32 or not parts.header


@given(messages)
def test_messages_are_taken_apart_as_in_python(message: bytes) -> None:
    agrees(message)


@given(st.integers(0, len(request(id="r"))), st.binary(max_size=4), st.integers(0, 4))
@example(0, b"\x1a\x01a\x1a\x02bc", 0)
@example(0, b"\x1a\x81\x80\x80\x80\x00a", 0)
@example(0, b"\x0a\xff\xff\xff\xff\x0f", 0)
def test_damaged_messages_are_taken_apart_as_in_python(at: int, insert: bytes, drop: int) -> None:
    whole = request(id="r")
    agrees(whole[:at] + insert + whole[at + drop :])


@given(st.binary(max_size=60))
def test_random_bytes_are_taken_apart_as_in_python(message: bytes) -> None:
    agrees(message)
