"""What an autoscaler knows of leases that the one before it has granted by limits that have changed since."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from headrace.control.v1 import control_pb2
from headrace_autoscaler.artifacts import ArtifactStore
from headrace_autoscaler.catalogue import StoredCatalogue
from headrace_autoscaler.control.board import LEASE_TTL_S, Board
from headrace_autoscaler.control.messages import report_of
from headrace_autoscaler.control.session import Session
from headrace_autoscaler.core.pricing import LocalPrices
from headrace_autoscaler.core.promises import Promise, Promised, promised_to_model, promised_to_tenant, with_earlier
from headrace_autoscaler.domain import Limits, ModelSpec, Tenant
from headrace_autoscaler.store import SqlStore, sqlite_url
from headrace_autoscaler.store.engine import open_engine
from headrace_common.clock import FakeClock
from headrace_common.errors import Unavailable

ACME = Tenant("acme", Limits(concurrency=21, cpu_millicores=4000))
OF_21 = Promise(Limits(concurrency=21), Limits(concurrency=21))
BORROWS = replace(ACME, cohort="c", borrowing_limit=Limits(concurrency=4))


@pytest.mark.parametrize(
    ("old", "new", "promised"),
    [
        pytest.param(None, ACME, None, id="a new tenant"),
        pytest.param(ACME, replace(ACME, weight=2.0, nominal=replace(ACME.nominal, cpu_millicores=1)), None,
                     id="what is not leased"),
        pytest.param(ACME, replace(ACME, nominal=Limits(concurrency=7)), Limits(concurrency=21), id="a cut"),
        pytest.param(ACME, replace(ACME, nominal=Limits(concurrency=22)), Limits(concurrency=21), id="more"),
        pytest.param(ACME, replace(ACME, nominal=Limits()), Limits(concurrency=21), id="a limit is lifted"),
        pytest.param(ACME, None, Limits(concurrency=21), id="it is deleted"),
        pytest.param(ACME, BORROWS, Limits(concurrency=21), id="it joins a cohort"),
        pytest.param(ACME, replace(BORROWS, cohort=""), None, id="bounds of no cohort"),
        pytest.param(BORROWS, replace(BORROWS, cohort="d"), Limits(concurrency=21), id="it changes its cohort"),
        pytest.param(BORROWS, replace(BORROWS, borrowing_limit=Limits(concurrency=3)), Limits(concurrency=21),
                     id="it borrows less"),
        pytest.param(BORROWS, replace(BORROWS, lending_limit=Limits(gpu_millis=3)), None, id="it lends no instances"),
        pytest.param(Tenant("acme"), replace(BORROWS, name="acme"), None, id="it had no limit"),
    ],
)  # fmt: skip
def test_what_a_tenants_routers_may_go_on_obeying(old: Tenant | None, new: Tenant | None, promised: object) -> None:
    assert promised_to_tenant(old, new) == promised


def test_what_a_models_routers_may_go_on_obeying() -> None:
    old = ModelSpec("m", limits=Limits(concurrency=3, budget_micros_per_hour=1))
    assert promised_to_model(None, old) is None
    assert promised_to_model(old, replace(old, max_instances=9)) is None
    assert promised_to_model(old, replace(old, limits=Limits(concurrency=2))) == Limits(concurrency=3)
    assert promised_to_model(old, None) == Limits(concurrency=3)


def test_of_what_was_promised_more_than_once_the_largest_and_the_smallest_count() -> None:
    earlier = with_earlier(Limits(concurrency=4, requests_per_second=0.5), None)
    assert with_earlier(Limits(concurrency=3, queue_length=5), earlier) == Promise(
        Limits(concurrency=4, requests_per_second=0.5, queue_length=5),
        Limits(concurrency=3, requests_per_second=0.5, queue_length=5),
    )


class Autoscaler:
    """A board over a real database, with two routers that a test lets hear."""

    def __init__(self, catalogue: StoredCatalogue, clock: FakeClock) -> None:
        self.catalogue, self.clock = catalogue, clock
        self.board = Board(LocalPrices(42_500, "USD"), 2, clock, catalogue.promised)
        self.announce()

    def announce(self) -> None:
        self.board.announce(self.catalogue.models(), {}, (), self.catalogue.tenants())

    async def sets(self, tenant: Tenant) -> None:
        await self.catalogue.put_tenant(tenant)
        self.announce()

    def hears(self, session: Session) -> int | None:
        """The router applies an update. What it has of acme's concurrency; None: the update says nothing of that."""
        update = self.board.update_for(session)
        self.board.applied(session, update.version)
        return next((each.limits.concurrency for each in update.leases if each.tenant == "acme"), None)

    def is_busy(self, router: Session) -> None:
        demand = control_pb2.Demand(tenant="acme", model="m", revision=1, in_flight=100)
        self.board.reported(report_of(router.router, control_pb2.DemandReport(demands=[demand])))
        self.board.move_leases()

    async def forgets(self) -> None:
        await self.catalogue.forget_promised(self.board.outdated())


class LossyStore(SqlStore):
    """Of a database whose answers can be lost: what was written is."""

    loses_answers = False

    def put_tenant(self, tenant: Tenant) -> None:
        super().put_tenant(tenant)
        if self.loses_answers:
            raise Unavailable("the connection was lost")


class Database:
    """Autoscalers that come after one another."""

    def __init__(self, state: Path) -> None:
        self.state, self.clock = state, FakeClock()
        self._open: list[StoredCatalogue] = []

    async def autoscaler(self) -> Autoscaler:
        self.store = store = LossyStore(open_engine(sqlite_url(self.state / "headrace.db")))
        store.begin_epoch()
        artifacts = ArtifactStore(self.state / "artifacts", 1 << 20, 3600.0, self.clock)
        self._open.append(await StoredCatalogue.open(store, artifacts, self.clock))
        return Autoscaler(self._open[-1], self.clock)

    async def close(self) -> None:
        await asyncio.gather(*(catalogue.close() for catalogue in self._open))

    def promised(self) -> Promised:
        store = SqlStore.open(sqlite_url(self.state / "headrace.db"))
        try:
            return store.promised()
        finally:
            store.close()


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    found = Database(tmp_path)
    yield found
    await found.close()


async def both_serve(autoscaler: Autoscaler) -> list[Session]:
    sessions = [autoscaler.board.open(f"router-{number}") for number in range(2)]
    for _ in range(2):
        autoscaler.board.refresh_leases()
        for session in sessions:
            autoscaler.hears(session)
    return sessions


@pytest.mark.parametrize("killed", ["after it announced the cut", "before it announced the cut"])
async def test_a_silent_router_has_the_floor_of_a_limit_that_was_cut_before_the_autoscaler_was_replaced(
    database: Database, killed: str
) -> None:
    first = await database.autoscaler()
    await first.sets(ACME)
    await both_serve(first)
    cut = replace(ACME, nominal=Limits(concurrency=7))
    await (first.sets(cut) if killed.startswith("after") else first.catalogue.put_tenant(cut))

    second = await database.autoscaler()
    one = second.board.open("router-0")
    second.is_busy(one)
    assert second.hears(one) == 1, "its floor: the other may have anything"
    database.clock.advance(LEASE_TTL_S + 1)
    second.is_busy(one)
    assert second.hears(one) == 2, "the other obeys 5 still"
    other = second.board.open("router-1")
    second.hears(other)
    second.is_busy(one)
    assert second.hears(one) == 6


async def test_a_promise_is_forgotten_once_every_router_has_heard(database: Database) -> None:
    autoscaler = await database.autoscaler()
    await autoscaler.sets(ACME)
    sessions = await both_serve(autoscaler)
    await autoscaler.sets(replace(ACME, nominal=Limits(concurrency=7)))
    assert database.promised() == {"acme": OF_21}
    for hearing in sessions:
        autoscaler.board.refresh_leases()
        await autoscaler.forgets()
        assert database.promised(), "not all have heard"
        autoscaler.hears(hearing)
    await autoscaler.forgets()
    assert database.promised() == {}
    assert autoscaler.catalogue.promised() == {}


async def test_a_promise_is_kept_for_a_router_that_is_away(database: Database) -> None:
    autoscaler = await database.autoscaler()
    await autoscaler.sets(ACME)
    sessions = await both_serve(autoscaler)
    autoscaler.board.close(sessions[1])
    await autoscaler.sets(replace(ACME, nominal=Limits(concurrency=7)))
    for _ in range(3):
        autoscaler.board.refresh_leases()
        autoscaler.hears(sessions[0])
        await autoscaler.forgets()
    assert database.promised()
    back = autoscaler.board.open("router-1")
    await autoscaler.forgets()
    assert database.promised(), "it is back, and has heard nothing yet"
    autoscaler.board.refresh_leases()
    for session in (sessions[0], back):
        autoscaler.hears(session)
    await autoscaler.forgets()
    assert database.promised() == {}


async def test_what_changed_again_in_the_meantime_stays_promised(database: Database) -> None:
    autoscaler = await database.autoscaler()
    await autoscaler.sets(ACME)
    sessions = await both_serve(autoscaler)
    await autoscaler.sets(replace(ACME, nominal=Limits(concurrency=15)))
    autoscaler.board.refresh_leases()
    for session in sessions:
        autoscaler.hears(session)
    outdated = autoscaler.board.outdated()
    await asyncio.gather(
        autoscaler.catalogue.put_tenant(replace(ACME, nominal=Limits(concurrency=7))),
        autoscaler.catalogue.forget_promised(outdated),
    )
    assert outdated == {"acme": OF_21}
    assert database.promised() == {"acme": Promise(OF_21.largest, Limits(concurrency=15))}
    autoscaler.announce()
    assert autoscaler.board.outdated() == {}


async def test_a_change_that_failed_and_was_written_all_the_same_stays_promised(database: Database) -> None:
    autoscaler = await database.autoscaler()
    await autoscaler.sets(ACME)
    sessions = await both_serve(autoscaler)
    await autoscaler.sets(replace(ACME, nominal=Limits(concurrency=15)))
    cut = replace(ACME, nominal=Limits(concurrency=7))
    database.store.loses_answers = True
    with pytest.raises(Unavailable):
        await autoscaler.sets(cut)
    autoscaler.announce()
    autoscaler.board.refresh_leases()
    for session in sessions:
        assert autoscaler.hears(session), "by the limit of 15"
    await autoscaler.forgets()
    assert database.promised(), "a successor finds the limit of 7"
    database.store.loses_answers = False
    await autoscaler.sets(cut)
    autoscaler.board.refresh_leases()
    for session in sessions:
        autoscaler.hears(session)
    await autoscaler.forgets()
    assert not database.promised()


async def test_limits_that_are_set_while_a_first_deploy_begins_or_is_undone_stay(database: Database) -> None:
    catalogue = (await database.autoscaler()).catalogue
    unlimited = Tenant("acme", created_at=1.0)
    await asyncio.gather(catalogue.put_tenant(ACME), catalogue.add_tenant(unlimited))
    assert catalogue.tenant("acme") == ACME
    await catalogue.remove_tenant("acme")
    await catalogue.add_tenant(unlimited)
    await asyncio.gather(catalogue.put_tenant(ACME), catalogue.remove_tenant("acme", only=unlimited))
    assert catalogue.tenant("acme") == ACME
    assert database.store.tenants() == (ACME,)
    await catalogue.remove_tenant("acme", only=ACME)
    assert database.store.tenants() == catalogue.tenants() == ()


@pytest.mark.parametrize("replaced", [False, True])
async def test_a_tenant_that_comes_back_smaller_leaves_a_silent_router_its_floor(
    database: Database, replaced: bool
) -> None:
    autoscaler = await database.autoscaler()
    await autoscaler.sets(ACME)
    one, _silent = await both_serve(autoscaler)
    await autoscaler.catalogue.remove_tenant("acme")
    autoscaler.announce()
    if replaced:
        autoscaler = await database.autoscaler()
        one = autoscaler.board.open("router-0")
    database.clock.advance(LEASE_TTL_S + 1)
    autoscaler.board.move_leases()
    autoscaler.hears(one)
    await autoscaler.sets(replace(ACME, nominal=Limits(concurrency=7)))
    autoscaler.is_busy(one)
    assert autoscaler.hears(one) == 2
