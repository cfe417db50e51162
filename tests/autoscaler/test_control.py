"""ControlService.Sync, with a real client on a unix socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path

import grpc
import pytest

from headrace.control.v1 import control_pb2, control_pb2_grpc
from headrace_autoscaler.control.board import LEASE_TTL_S, Board
from headrace_autoscaler.control.messages import report_of
from headrace_autoscaler.control.server import ControlServicer
from headrace_autoscaler.core.leases import DEAD_BAND
from headrace_autoscaler.core.pricing import LocalPrices
from headrace_autoscaler.core.promises import Promise
from headrace_autoscaler.domain import (
    Limits,
    Loaded,
    Model,
    ModelFile,
    ModelSpec,
    Resources,
    Revision,
    RevisionState,
    Signature,
    Tenant,
    TensorSpec,
)
from headrace_autoscaler.fleet.announcements import BudgetNotice, BudgetNotices, PlacementNotice
from headrace_autoscaler.fleet.reports import Report
from headrace_common.clock import FakeClock
from headrace_common.grpc_server import new_server

EPOCH = 5
DEADLINE_S = 10.0
LOADED = Loaded(Signature((TensorSpec("x", "FP32", (-1, 4)),), (), True), 16, "batchable: probed", "onnxruntime")
PLACED = PlacementNotice("runner-1", "m", 1, "unix:/r/runner-1.sock", "loading", Resources(), 0.01, 0.002, ((1, 900),))


def model_of(name: str = "m", *states: RevisionState, spec: ModelSpec | None = None) -> Model:
    revisions = tuple(
        Revision(
            name, number, "1", state, "artifact", (ModelFile("f", "a" * 64, 1),), "f", "onnxruntime",
            loaded=None if state is RevisionState.LOADING else LOADED,
        )
        for number, state in enumerate(states or (RevisionState.SERVING,), start=1)
    )  # fmt: skip
    return Model(spec or ModelSpec(name), 0.0, revisions)


@dataclass
class Heard:
    """`control.Routers` that remembers."""

    connected: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)

    def router_connected(self, router: str) -> None:
        self.connected.append(router)

    def router_gone(self, router: str) -> None:
        self.gone.append(router)

    def report(self, report: Report) -> None:
        self.reports.append(report)


class Router:
    """A router's end of the stream."""

    def __init__(self, stub: control_pb2_grpc.ControlServiceStub, name: str, highest_epoch: int = 0) -> None:
        self.call = stub.Sync()
        # A stream takes one message after the other.
        self._writing = asyncio.Lock()
        self._hello = control_pb2.SyncRequest(
            hello=control_pb2.Hello(router_id=name, software_version="1", highest_epoch=highest_epoch)
        )

    async def greet(self) -> control_pb2.SyncResponse:
        await self._say(self._hello)
        return await self.next()

    async def next(self) -> control_pb2.SyncResponse:
        async with asyncio.timeout(DEADLINE_S):
            return await self.call.read()

    async def applied(self, version: int, *excess: control_pb2.Excess) -> None:
        await self._say(control_pb2.SyncRequest(applied_version=version, excess=excess))

    async def report(
        self, *demands: control_pb2.Demand, urgent: bool = False, excess: Iterable[control_pb2.Excess] = ()
    ) -> None:
        report = control_pb2.DemandReport(demands=demands, urgent=urgent)
        await self._say(control_pb2.SyncRequest(demand=report, excess=excess))

    async def _say(self, message: control_pb2.SyncRequest) -> None:
        async with self._writing:
            await self.call.write(message)


@dataclass
class Mesh:
    board: Board
    heard: Heard
    clock: FakeClock
    stub: control_pb2_grpc.ControlServiceStub
    replaced: asyncio.Event
    promised: dict[str, Promise]
    servicer: ControlServicer

    def announce(
        self,
        *models: Model,
        blocked: dict[tuple[str, int], str] | None = None,
        placements: tuple[PlacementNotice, ...] = (),
        tenants: tuple[Tenant, ...] = (),
    ) -> int:
        return self.board.announce(models, blocked or {}, placements, tenants)


@pytest.fixture
async def open_mesh(runtime_dir: Path) -> AsyncIterator[Callable[..., object]]:
    closing: list[Callable[[], object]] = []

    async def open_one(processes: int = 1) -> Mesh:
        clock, heard, replaced = FakeClock(), Heard(), asyncio.Event()
        promised: dict[str, Promise] = {}

        async def forgets(outdated: Mapping[str, Limits]) -> None:
            for key in outdated:
                promised.pop(key)

        board = Board(LocalPrices(42_500, "USD"), processes, clock, promised.copy)
        servicer = ControlServicer(EPOCH, board, heard, replaced.set, forgets)
        server = new_server()
        control_pb2_grpc.add_ControlServiceServicer_to_server(servicer, server)
        target = f"unix:{runtime_dir / 'autoscaler.sock'}"
        server.add_insecure_port(target)
        await server.start()
        channel = grpc.aio.insecure_channel(target)
        closing.extend((channel.close, servicer.close, lambda: server.stop(0)))
        return Mesh(board, heard, clock, control_pb2_grpc.ControlServiceStub(channel), replaced, promised, servicer)

    yield open_one
    for close in closing:
        await close()  # type: ignore[misc]


async def test_the_first_answer_is_everything_then_deltas_rise_by_one(open_mesh: Callable[..., object]) -> None:
    mesh = await open_mesh()
    mesh.announce(model_of(), placements=(PLACED,))
    router = Router(mesh.stub, "router-0")
    first = await router.greet()
    assert (first.epoch, first.update.full, first.update.version) == (EPOCH, True, 1)
    [entry] = first.update.models
    [revision] = entry.revisions
    assert (entry.name, entry.tenant, revision.current, revision.max_batch_size) == ("m", "default", True, 16)
    assert (revision.signature.inputs[0].name, revision.platform) == ("x", "onnxruntime")
    [placed] = first.update.placements
    assert placed.state == control_pb2.PLACEMENT_STATE_LOADING
    assert (placed.decide.ToMilliseconds(), placed.place.ToMilliseconds(), placed.profile_us[1]) == (10, 2, 900)
    assert mesh.heard.connected == ["router-0"]

    ready = PlacementNotice("runner-1", "m", 1, "unix:/r/runner-1.sock", "ready", Resources())
    mesh.announce(model_of(), placements=(ready,))
    second = (await router.next()).update
    assert (second.full, second.version, len(second.models)) == (False, 2, 0)
    assert [each.state for each in second.placements] == [control_pb2.PLACEMENT_STATE_READY]

    mesh.announce()
    third = (await router.next()).update
    assert (third.version, third.removed_models, third.removed_placements) == (3, ["m"], ["runner-1"])


async def test_nothing_new_sends_nothing(open_mesh: Callable[..., object]) -> None:
    mesh = await open_mesh()
    before = mesh.announce(model_of(), placements=(PLACED,))
    router = Router(mesh.stub, "router-0")
    await router.greet()
    assert mesh.announce(model_of(), placements=(PLACED,)) == before
    mesh.announce(model_of(), blocked={("m", 1): "no room"}, placements=(PLACED,))
    update = (await router.next()).update
    assert update.version == 2
    assert update.models[0].revisions[0].blocked_reason == "no room"


async def test_a_revision_in_its_first_load_is_named_only_alone(open_mesh: Callable[..., object]) -> None:
    mesh = await open_mesh()
    loading, serving = RevisionState.LOADING, RevisionState.SERVING
    mesh.announce(model_of("a", loading), model_of("b", serving, loading))
    update = (await Router(mesh.stub, "router-0").greet()).update
    revisions = {entry.name: [(each.revision, each.loading) for each in entry.revisions] for entry in update.models}
    assert revisions == {"a": [(1, True)], "b": [(1, False)]}


async def test_changes_that_were_not_sent_yet_are_one_update(open_mesh: Callable[..., object]) -> None:
    mesh = await open_mesh()
    mesh.announce()
    session = mesh.board.open("router-slow")
    mesh.board.update_for(session)
    for state in ("loading", "ready", "draining"):
        mesh.announce(model_of(), placements=(PlacementNotice("runner-1", "m", 1, "unix:/r", state, Resources()),))
    update = mesh.board.update_for(session)
    assert [each.state for each in update.placements] == [control_pb2.PLACEMENT_STATE_DRAINING]
    assert update.version == 2


async def test_reports_are_handed_on(open_mesh: Callable[..., object]) -> None:
    mesh = await open_mesh()
    mesh.announce()
    router = Router(mesh.stub, "router-0")
    await router.greet()
    demand = control_pb2.Demand(
        tenant="acme", model="m", revision=1, arrivals=4, rows=8, queued=2, in_flight=1, completed=1, bundles=1,
        service_time_us=900, oldest_wait_us=1500, refusals={"concurrency": 2, "budget": 1, "requests_per_second": 4},
        cache_hits=6, following=5,
    )  # fmt: skip
    await router.report(demand, urgent=True)
    async with asyncio.timeout(DEADLINE_S):
        while not mesh.heard.reports:  # noqa: ASYNC110 - crosses a real socket
            await asyncio.sleep(0.002)
    [report] = mesh.heard.reports
    [entry] = report.entries
    assert (report.router, report.urgent, entry.tenant, entry.key) == ("router-0", True, "acme", ("m", 1))
    assert (entry.counts.arrivals, entry.counts.rows, entry.counts.service_time_us) == (4, 8, 900)
    assert (entry.level.queued, entry.level.in_flight, entry.level.oldest_wait_s) == (2, 1, 0.0015)
    assert (entry.refused, entry.over_rate, entry.cache_hits, entry.following) == (7, 4, 6, 5)


async def test_a_router_has_heard_once_it_applied_and_reported_after_that(open_mesh: Callable[..., object]) -> None:
    mesh = await open_mesh()
    mesh.announce()
    router = Router(mesh.stub, "router-0")
    await router.greet()
    mark = mesh.announce(model_of("m", RevisionState.RETIRING))
    version = (await router.next()).update.version

    async def heard(reports: int) -> bool:
        async with asyncio.timeout(DEADLINE_S):
            while len(mesh.heard.reports) < reports:  # noqa: ASYNC110 - crosses a real socket
                await asyncio.sleep(0.002)
        await asyncio.sleep(0)
        return mesh.board.heard_since(mark)

    await router.report()
    assert not await heard(1)
    await router.applied(version)
    await router.report(urgent=True)
    assert not await heard(2)
    await router.report()
    assert await heard(3)


async def test_a_router_that_is_missing_is_waited_for_but_not_for_ever(open_mesh: Callable[..., object]) -> None:
    mesh = await open_mesh(processes=2)
    mark = mesh.announce(model_of("m", RevisionState.RETIRING))
    assert not mesh.board.heard_since(mark)
    mesh.clock.advance(10.5)
    assert mesh.board.heard_since(mark)


async def test_a_lower_epoch_than_a_router_has_obeyed_ends_us(open_mesh: Callable[..., object]) -> None:
    mesh = await open_mesh()
    router = Router(mesh.stub, "router-0", highest_epoch=EPOCH + 1)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await router.greet()
    assert error.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert mesh.replaced.is_set()
    assert mesh.heard.connected == []


async def test_a_stream_without_hello_is_refused(open_mesh: Callable[..., object]) -> None:
    mesh = await open_mesh()
    call = mesh.stub.Sync()
    await call.write(control_pb2.SyncRequest(applied_version=1))
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call.read()
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert not mesh.replaced.is_set()


async def test_a_router_that_leaves_is_gone_unless_it_is_back_already(open_mesh: Callable[..., object]) -> None:
    mesh = await open_mesh()
    mesh.announce()
    old, new = Router(mesh.stub, "router-0"), Router(mesh.stub, "router-0")
    await old.greet()
    await new.greet()
    old.call.cancel()
    new_update = asyncio.create_task(new.next())
    mesh.announce(model_of())
    assert (await new_update).update.models[0].name == "m"
    assert mesh.heard.gone == []
    await new.call.done_writing()
    async with asyncio.timeout(DEADLINE_S):
        while mesh.heard.gone != ["router-0"]:  # noqa: ASYNC110 - crosses a real socket
            await asyncio.sleep(0.002)


async def test_a_stream_that_its_router_has_replaced_is_sent_no_lease_any_more(
    open_mesh: Callable[..., object],
) -> None:
    """What it is sent nobody obeys; once something newer is applied, it would pass for what the router has."""
    mesh = await open_mesh()
    mesh.announce(tenants=(Tenant("acme", Limits(concurrency=20)),))

    async def says() -> AsyncIterator[control_pb2.SyncRequest]:
        yield control_pb2.SyncRequest(hello=control_pb2.Hello(router_id="router-0"))
        await asyncio.Event().wait()

    async with aclosing(mesh.servicer.Sync(says(), None)) as old, aclosing(mesh.servicer.Sync(says(), None)) as new:
        await anext(old)
        mesh.announce(tenants=(Tenant("acme", Limits(concurrency=4)),))
        assert (await anext(new)).update.leases
        assert await anext(old, None) is None


async def test_leases_divide_limits_and_follow_them(open_mesh: Callable[..., object]) -> None:
    mesh = await open_mesh(processes=2)
    spec = ModelSpec("m", tenant="acme", limits=Limits(requests_per_second=10.0))
    acme = Tenant("acme", Limits(concurrency=5), weight=2.0)
    mesh.announce(model_of(spec=spec), tenants=(acme, Tenant("free")))
    first, second = Router(mesh.stub, "router-0"), Router(mesh.stub, "router-1")
    first_leases = {(each.tenant, each.model): each for each in (await first.greet()).update.leases}
    await second.greet()
    assert set(first_leases) == {("default", ""), ("acme", ""), ("free", ""), ("acme", "m")}
    lease = first_leases["acme", ""]
    assert (lease.limits.concurrency, lease.floor.concurrency) == (1, 1), "router-1 may still have more from before"
    assert (lease.ttl.seconds, lease.weight, lease.answers) == (10, 2.0, 0)
    assert not lease.limits.HasField("requests_per_second")
    assert first_leases["acme", "m"].limits.requests_per_second == 2.5
    free = first_leases["free", ""]
    assert not free.limits.HasField("concurrency")
    assert (free.ttl.ToMilliseconds(), free.weight) == (0, 1.0)
    assert free.budget_state == control_pb2.BUDGET_STATE_WITHIN

    await first.applied(1)
    await second.applied(1)
    renewing = asyncio.create_task(first.next())
    while not renewing.done():
        mesh.board.move_leases()
        await asyncio.sleep(0.002)
    renewed = (await renewing).update.leases
    limits = {each.model: each.limits for each in renewed}
    assert (limits[""].concurrency, limits["m"].requests_per_second) == (3, 5.0)
    answers: set[int] = set()
    while answers != {1}:
        mesh.board.refresh_leases()
        again = (await first.next()).update.leases
        assert sorted((each.tenant, each.model) for each in again) == [("acme", ""), ("acme", "m")]
        answers = {each.answers for each in again}
    mesh.announce(model_of(spec=spec), tenants=(acme,))
    assert (await first.next()).update.removed_leases == ["free"]


async def test_a_routers_first_word_gives_a_cohort_all_that_an_autoscaler_before_may_have_lent(
    open_mesh: Callable[..., object],
) -> None:
    mesh = await open_mesh()
    mesh.announce(tenants=tuple(Tenant(name, Limits(concurrency=20), cohort="c") for name in "ab"))
    router = Router(mesh.stub, "router-0")
    parts = [{each.tenant: each.limits.concurrency for each in (await router.greet()).update.leases}]
    await router.applied(1)
    parts.append({each.tenant: each.limits.concurrency for each in (await router.next()).update.leases})
    assert parts == [{"default": 0, "a": 10, "b": 10}, {"a": 20, "b": 20}], "nobody had to wait for a renewal"


async def test_routers_hear_whose_budget_is_spent_and_when_it_is_back(open_mesh: Callable[..., object]) -> None:
    mesh = await open_mesh()
    model = model_of("m", spec=ModelSpec("m", tenant="acme"))
    spent = BudgetNotice("refuse", "tenant:acme", "all of it is spent", 7200)
    own = BudgetNotice("warning", "tenant:acme/model:m", "nearly all of it is spent", 9000)

    def announce(budgets: BudgetNotices) -> None:
        mesh.board.announce([model], {}, [], [Tenant("acme", refuse_at_budget=False)], budgets)

    announce(BudgetNotices({"acme": spent, "acme/m": own}, {"m": spent}))
    router = Router(mesh.stub, "router-0")
    update = (await router.greet()).update
    leases = {(lease.tenant, lease.model): lease for lease in update.leases}
    of_tenant, of_model = leases["acme", ""], leases["acme", "m"]
    assert of_tenant.budget_state == control_pb2.BUDGET_STATE_EXHAUSTED_REFUSE
    assert (of_tenant.budget_reason, of_tenant.budget_returns_at.seconds) == ("all of it is spent", 7200)
    assert (of_model.budget_state, of_model.ttl.ToNanoseconds()) == (control_pb2.BUDGET_STATE_WARNING, 0)
    [entry] = update.models
    assert (entry.budget_subject, entry.budget_reason) == ("tenant:acme", "all of it is spent")
    assert entry.budget_returns_at.seconds == 7200

    announce(BudgetNotices({"acme": replace(spent, state="queue")}))
    update = (await router.next()).update
    assert [lease.budget_state for lease in update.leases] == [control_pb2.BUDGET_STATE_EXHAUSTED_QUEUE]
    assert (list(update.removed_leases), [each.budget_reason for each in update.models]) == (["acme/m"], [""])

    announce(BudgetNotices())
    update = (await router.next()).update
    assert [lease.budget_state for lease in update.leases] == [control_pb2.BUDGET_STATE_WITHIN]
    assert (len(update.models), len(update.removed_leases)) == (0, 0)


async def test_leases_follow_what_routers_report_once_the_other_has_given_way(open_mesh: Callable[..., object]) -> None:
    mesh = await open_mesh(processes=2)
    mesh.announce(model_of(), tenants=(Tenant("acme", Limits(concurrency=20)),))
    routers = [Router(mesh.stub, f"router-{number}") for number in range(2)]
    parts = [0, 0]
    for router in routers:
        await router.greet()
        await router.applied(1)

    async def hear(number: int) -> None:
        """Each router obeys what it is sent and says so."""
        while True:
            update = (await routers[number].next()).update
            for lease in update.leases:
                parts[number] = lease.limits.concurrency
            assert sum(parts) <= 20
            await routers[number].applied(update.version)

    busy = control_pb2.Demand(tenant="acme", model="m", revision=1, arrivals=9, in_flight=30)
    async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as tasks:
        hearing = [tasks.create_task(hear(number)) for number in range(2)]
        for receiver in (1, 0):
            while parts[receiver] != 15:
                mesh.clock.advance(0.25)
                await routers[receiver].report(busy)
                await routers[1 - receiver].report()
                mesh.board.move_leases()
                await asyncio.sleep(0.002)
        for task in hearing:
            task.cancel()


async def test_what_a_router_has_in_hand_from_a_larger_lease_is_nobody_elses_yet(
    open_mesh: Callable[..., object],
) -> None:
    mesh = await open_mesh()
    tenants = (Tenant("a", Limits(concurrency=10), cohort="c"), Tenant("b", Limits(concurrency=20), cohort="c"))
    mesh.announce(model_of(), tenants=tenants)
    router = Router(mesh.stub, "router-0")
    await router.greet()
    await router.applied(1)
    parts, in_hand = {"a": 10, "b": 20}, {"a": 0}

    def excess() -> list[control_pb2.Excess]:
        held = control_pb2.QuotaLimits(concurrency=in_hand["a"])
        return [control_pb2.Excess(tenant="a", in_hand=held)] if in_hand["a"] > parts["a"] else []

    async def hear() -> None:
        while True:
            update = (await router.next()).update
            parts.update({lease.tenant: lease.limits.concurrency for lease in update.leases})
            assert max(parts["a"], in_hand["a"]) + parts["b"] <= 30
            await router.applied(update.version, *excess())

    async def until(tenant: str, part: int, *busy: str) -> None:
        demands = [control_pb2.Demand(tenant=each, model="m", revision=1, arrivals=9, in_flight=90) for each in busy]
        while parts[tenant] != part:
            mesh.clock.advance(0.25)
            await router.report(*demands, excess=excess())
            mesh.board.move_leases()
            await asyncio.sleep(0.002)

    async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as tasks:
        hearing = tasks.create_task(hear())
        await until("a", 20, "a")
        in_hand["a"] = 17
        await until("b", 13, "a", "b")
        in_hand["a"] = 0
        await until("b", 20, "a", "b")
        hearing.cancel()


@pytest.mark.parametrize("hits", [0, 225, 150], ids=["executed", "answered from a cache", "some of each"])
def test_a_rate_is_lent_for_all_that_come_whether_they_are_executed_or_not(hits: int) -> None:
    """900 per second come to one of two routers, and none to the other; each obeys what it is lent."""
    clock = FakeClock()
    board = Board(LocalPrices(42_500, "USD"), 2, clock)
    board.announce([model_of()], {}, (), [Tenant("acme", Limits(requests_per_second=1000.0, concurrency=40))])
    sessions = [board.open(f"router-{number}") for number in range(2)]
    lent = [control_pb2.QuotaLimits(), control_pb2.QuotaLimits()]
    for _ in range(100):
        for number, session in enumerate(sessions):
            update = board.update_for(session)
            lent[number] = next((each.limits for each in update.leases if each.tenant == "acme"), lent[number])
            board.applied(session, update.version)
        clock.advance(0.25)
        admitted = min(225, int(lent[0].requests_per_second / 4))
        spared, refused = hits * admitted // 225, 225 - admitted
        busy = control_pb2.Demand(
            tenant="acme", model="m", revision=1, arrivals=225 - spared, cache_hits=spared,
            in_flight=0 if spared == admitted else 4, refusals={"requests_per_second": refused},
        )  # fmt: skip
        board.reported(report_of("router-0", control_pb2.DemandReport(demands=[busy])))
        board.reported(report_of("router-1", control_pb2.DemandReport()))
        board.move_leases()
    assert [each.requests_per_second for each in lent] == pytest.approx([750, 250], abs=DEAD_BAND * 1000)
    assert [each.concurrency for each in lent] == [20, 20], "so few in hand need no more than anybody has"


@pytest.mark.parametrize("level", ["queued", "in_flight", "following"])
def test_concurrency_is_lent_for_all_that_is_in_hand(level: str) -> None:
    clock = FakeClock()
    board = Board(LocalPrices(42_500, "USD"), 2, clock)
    board.announce([model_of()], {}, (), [Tenant("acme", Limits(concurrency=40))])
    session, _ = (board.open(f"router-{number}") for number in range(2))
    clock.advance(2 * LEASE_TTL_S)
    demand = control_pb2.Demand(tenant="acme", model="m", revision=1, **{level: 100})
    board.reported(report_of("router-0", control_pb2.DemandReport(demands=[demand])))
    [part] = [each.limits.concurrency for each in board.update_for(session).leases if each.tenant == "acme"]
    assert part == 30, "all but the other's floor"
