"""What `explain` says of refused requests, and that exactly what is to be typed lets them in.

A board leases to routers whose limiters are the real ones; the clock is fake.
"""

from __future__ import annotations

import shlex
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from headrace.control.v1 import control_pb2
from headrace_autoscaler.control.board import LEASE_TTL_S, Board
from headrace_autoscaler.control.messages import report_of
from headrace_autoscaler.core.budgets import Budget, BudgetState, Period, Standing, Standings
from headrace_autoscaler.core.explaining import Explanation, Obstacle, RefusedRequests
from headrace_autoscaler.core.explaining_requests import Surroundings, explain_refused
from headrace_autoscaler.core.leases import LeaseBook, Want
from headrace_autoscaler.core.lending import Trees
from headrace_autoscaler.core.pricing import LocalPrices
from headrace_autoscaler.core.quota import Dimension, Refusal, quota_of
from headrace_autoscaler.core.raising import Raises
from headrace_autoscaler.core.refused import MOST_EXPLAINED, WINDOW_S, RefusalLog, Refused
from headrace_autoscaler.domain import Limits, Model, ModelSpec, Revision, RevisionState, Tenant
from headrace_common.clock import FakeClock
from headrace_router.core import admission
from headrace_router.core.accounts import Totals
from tests.autoscaler.lease_books import settle
from tests.autoscaler.typed import type_it

TICK_S = 0.25
HOUR_S = 3600


@dataclass
class Waiting:
    """`admission.Occupant`: what of a tenant's waits at a router."""

    queued: int = 0
    queued_bytes: int = 0
    totals: Totals = field(default_factory=Totals)


class Router:
    """Limiters as a router has them: a tenant's own, and its own for the model."""

    def __init__(self, number: int) -> None:
        self.name = f"router-{number}"
        self.waiting: dict[str, Waiting] = {}
        self.limiters: dict[tuple[str, str], admission.Limiter] = {}

    def obey(self, update: control_pb2.StateUpdate, now: float) -> None:
        for each in update.leases:
            lease = admission.Lease(_limits(each.limits), _limits(each.floor), each.ttl.seconds or None)
            self.limiter(each.tenant, each.model).set_lease(lease, now)

    def limiter(self, tenant: str, model: str = "") -> admission.Limiter:
        limiter = self.limiters.setdefault((tenant, model), admission.Limiter(tenant))
        limiter.occupants = [self.waiting.setdefault(tenant, Waiting())]
        return limiter

    def offer(self, tenant: str, count: int, now: float, *, wait: bool) -> dict[str, int]:
        """So many requests at once, after all from before have been answered. Refusals by reason."""
        limiters = (self.limiter(tenant), self.limiter(tenant, "m"))
        waiting = self.waiting[tenant]
        waiting.queued = limiters[0].in_hand = limiters[1].in_hand = 0
        refused: dict[str, int] = {}
        for _ in range(count):
            refusals = [each for limiter in limiters if (each := limiter.refusal(now, 100))]
            if refusals:
                refused[refusals[0].dimension] = refused.get(refusals[0].dimension, 0) + 1
                continue
            for limiter in limiters:
                limiter.enter(now)
            waiting.queued += wait
        return refused


class World:
    """Tenants that ask model m of tenant a for something, every tick, at every router alike."""

    def __init__(self, tenants: list[Tenant], routers: int, spec: ModelSpec | None = None) -> None:
        self.clock = FakeClock()
        self.board = Board(LocalPrices(42_500, "USD"), routers, self.clock)
        self.routers = [Router(number) for number in range(routers)]
        self.sessions = [self.board.open(router.name) for router in self.routers]
        self.tenants = {each.name: each for each in tenants}
        self.spec = spec or ModelSpec("m", "a")
        self.run({}, 1.0)

    def run(self, offered: dict[str, int], seconds: float = 30.0, *, wait: bool = False) -> dict[str, int]:
        """Offered: by tenant, requests per tick in all. Refusals of the last second, by tenant."""
        revision = Revision("m", 1, "1", RevisionState.SERVING, "a", (), "f", "fake")
        self.board.announce([Model(self.spec, 0.0, (revision,))], {}, (), self.tenants.values())
        last: dict[str, int] = {}
        ticks = int(seconds / TICK_S)
        for tick in range(ticks):
            self._lease(tick)
            self.clock.advance(TICK_S)
            for number, router in enumerate(self.routers):
                demands = []
                for tenant, count in offered.items():
                    part = count // len(self.routers) + (number < count % len(self.routers))
                    refused = router.offer(tenant, part, self.clock.monotonic(), wait=wait)
                    admitted = part - sum(refused.values())
                    demands.append(control_pb2.Demand(
                        tenant=tenant, model="m", revision=1, arrivals=part, refusals=refused,
                        queued=admitted if wait else 0, in_flight=0 if wait else admitted,
                    ))  # fmt: skip
                    if tick >= ticks - int(1 / TICK_S):
                        last[tenant] = last.get(tenant, 0) + sum(refused.values())
                self.board.reported(report_of(router.name, control_pb2.DemandReport(demands=demands)))
        return last

    def explain(self, standings: Standings | None = None, now_s: int = 0) -> tuple[RefusedRequests, ...]:
        around = Surroundings(Raises(self.spec, self.tenants), standings or {}, 1000, now_s)
        return explain_refused(self.spec, self.board.refused("m"), around)

    def type_it(self, command: str) -> None:
        words = shlex.split(command)
        if words[1] == "tenant":
            type_it(self.tenants, command)
            return
        [(flag, value)] = zip(words[-2::2], words[-1::2], strict=True)
        key, _, number = value.rpartition("=")
        name = {"rps": "requests_per_second"}.get(key, key) or flag.removeprefix("--").replace("-", "_")
        self.spec = replace(self.spec, limits=replace(self.spec.limits, **{name: int(number)}))

    def _lease(self, tick: int) -> None:
        self.board.move_leases()
        if tick % 8 == 0:
            self.board.refresh_leases()
        for session, router in zip(self.sessions, self.routers, strict=True):
            update = self.board.update_for(session)
            router.obey(update, self.clock.monotonic())
            self.board.applied(session, update.version)


def _limits(limits: control_pb2.QuotaLimits) -> admission.Limits:
    names = ("concurrency", "requests_per_second", "queue_length", "queue_bytes")
    return admission.Limits(*(getattr(limits, name) if limits.HasField(name) else None for name in names))


def tenant(name: str, limits: Limits, **rest: object) -> Tenant:
    return Tenant(name, limits, cohort="c", **rest)  # type: ignore[arg-type]


CONCURRENCY, RATE = Limits(concurrency=12), Limits(requests_per_second=11.0)
CASES = {
    "a tenant alone": ([Tenant("a", CONCURRENCY)], {"a": 13}, None, "nominal", "a", "12"),
    "a tenant alone, its rate": ([Tenant("a", RATE)], {"a": 3}, None, "nominal", "a", "11"),
    "a model's own": ([Tenant("a")], {"a": 13}, ModelSpec("m", "a", limits=CONCURRENCY), "model limit", "m", "12"),
    "a model's own rate": ([Tenant("a")], {"a": 3}, ModelSpec("m", "a", limits=RATE), "model limit", "m", "11"),
    "a model's own within its tenant's": (
        [Tenant("a", Limits(concurrency=40))], {"a": 13}, ModelSpec("m", "a", limits=CONCURRENCY), "model limit", "m",
        "12"),
    "its borrowing limit": (
        [tenant("a", CONCURRENCY, borrowing_limit=Limits(concurrency=4)), tenant("b", Limits(concurrency=40))],
        {"a": 17}, None, "borrowing limit", "a", "16"),
    "its borrowing limit of a rate": (
        [tenant("a", Limits(requests_per_second=8.0), borrowing_limit=Limits(requests_per_second=3.0)),
         tenant("b", Limits(requests_per_second=40.0))],
        {"a": 3}, None, "borrowing limit", "a", "11"),
    "a lender": (
        [tenant("a", CONCURRENCY), tenant("b", Limits(concurrency=40), lending_limit=Limits(concurrency=4))],
        {"a": 17}, None, "lending limit", "b", "4"),
    "a lender, beside one that has what it needs": (
        [tenant("a", Limits(concurrency=14)), tenant("b", Limits(concurrency=17), weight=2.0),
         tenant("c", Limits(concurrency=17), lending_limit=Limits(concurrency=3))],
        {"a": 18, "b": 17, "c": 1}, None, "lending limit", "c", "3"),
    "the cohort, which is busy": (
        [tenant("a", CONCURRENCY), tenant("b", CONCURRENCY)], {"a": 13, "b": 12}, None, "cohort", "c", "24"),
    "the cohort, but for floors": (
        [tenant("a", CONCURRENCY), tenant("b", CONCURRENCY)], {"a": 19}, None, "cohort", "c", "24"),
    "the cohort's rate": (
        [tenant("a", RATE), tenant("b", Limits(requests_per_second=40.0))], {"a": 3, "b": 10}, None, "cohort", "c",
        "51"),
}  # fmt: skip


@pytest.mark.parametrize("routers", [1, 2])
@pytest.mark.parametrize(("tenants", "offered", "spec", "kind", "owner", "limit"), CASES.values(), ids=CASES.keys())
def test_the_limit_is_named_and_one_more_of_it_lets_the_request_in(
    tenants: list[Tenant], offered: dict[str, int], spec: ModelSpec | None, kind: str, owner: str, limit: str,
    routers: int,
) -> None:  # fmt: skip
    world = World(tenants, routers, spec)
    refused = world.run(offered)
    assert refused["a"] > 0
    [found] = world.explain()
    [obstacle] = found.obstacles
    assert (found.tenant, found.count > 0) == ("a", True)
    assert (obstacle.kind, obstacle.owner, obstacle.limit, obstacle.missing) == (kind, owner, limit, "1")
    assert f"{found.count} requests of tenant 'a' to model 'm' were refused in the last minute" in obstacle.sentence
    assert owner in obstacle.sentence
    assert limit in obstacle.sentence
    world.type_it(obstacle.command)
    assert world.run(offered, 4 * LEASE_TTL_S) == dict.fromkeys(offered, 0)
    [settled] = [each.kind for refused in world.explain() for each in refused.obstacles]
    assert settled == "settled"
    world.run({}, WINDOW_S)
    assert world.explain() == ()


def test_what_is_typed_for_a_rate_and_then_for_concurrency_raises_both() -> None:
    world = World([Tenant("a", Limits(concurrency=8, requests_per_second=11.0))], 1)
    world.run({"a": 3})
    world.run({}, 2.0)
    world.run({"a": 9}, TICK_S)
    obstacles = [obstacle for found in world.explain() for obstacle in found.obstacles]
    assert [(each.dimension, each.missing) for each in obstacles] == [("rps", "1"), ("concurrency", "1")]
    for each in obstacles:
        world.type_it(each.command)
    assert world.tenants["a"].nominal == Limits(concurrency=9, requests_per_second=12.0)


@pytest.mark.parametrize("of_model", [False, True], ids=["of the tenant", "of the model"])
def test_a_queue_that_is_one_too_short(of_model: bool) -> None:
    limits = Limits(queue_length=10)
    spec = ModelSpec("m", "a", limits=limits if of_model else Limits())
    world = World([Tenant("a", Limits(concurrency=99) if of_model else replace(limits, concurrency=99))], 1, spec)
    assert world.run({"a": 11}, wait=True)["a"] > 0
    [found] = world.explain()
    [obstacle] = found.obstacles
    assert (found.reason, obstacle.dimension, obstacle.limit, obstacle.missing) == (
        "queue_length", "queue-length", "10", "1")  # fmt: skip
    assert obstacle.sentence.startswith(
        f"{'model' if of_model else 'tenant'} '{'m' if of_model else 'a'}' may have 10 requests that wait and 11 were "
        f"needed, so {found.count} requests"
    )
    world.type_it(obstacle.command)
    assert world.run({"a": 11}, wait=True) == {"a": 0}
    assert world.tenants["a"].nominal.concurrency == 99, "and nothing else is changed"


def report(world: World, **refusals: int) -> None:
    world.run({}, 1.0)
    demand = control_pb2.Demand(tenant="a", model="m", revision=1, refusals=refusals)
    world.board.reported(report_of("router-0", control_pb2.DemandReport(demands=[demand])))


def only(world: World, **parts: object) -> Obstacle:
    [found] = world.explain(**parts)  # type: ignore[arg-type]
    [obstacle] = found.obstacles
    return obstacle


def test_bytes_that_wait_are_doubled_and_a_full_router_is_nobodys() -> None:
    world = World([Tenant("a", Limits(concurrency=5, queue_bytes=4 << 20))], 1)
    report(world, queue_bytes=2)
    obstacle = only(world)
    assert (obstacle.limit, obstacle.missing) == ("4Mi", "4Mi")
    assert obstacle.command == "headrace tenant set a --concurrency 5 --queue-bytes 8Mi"
    full = World([Tenant("a")], 1)
    report(full, queue_full=1)
    told = only(full)
    assert (told.kind, told.owner, told.limit, told.command) == ("queue", "m", "1000", "")
    assert "so 1 request of tenant 'a' to model 'm' was refused in the last minute: more instances" in told.sentence


@pytest.mark.parametrize("of_model", [False, True], ids=["of the tenant", "of the model"])
def test_a_spent_budget_is_short_by_what_its_pace_asks_for(of_model: bool) -> None:
    budget = Limits(budget_micros_per_hour=1_000_000)
    spec = ModelSpec("m", "a", limits=budget if of_model else Limits())
    world = World([Tenant("a", Limits() if of_model else budget)], 1, spec)
    report(world, budget=3)
    spent = Standing(
        Budget("a", "m" if of_model else "", Period.HOUR, 1_000_000), 1_000_000, 0, BudgetState.SPENT, HOUR_S, "USD"
    )
    obstacle = only(world, standings={spent.budget.key: (spent,)}, now_s=HOUR_S // 4)
    command = "headrace deploy SOURCE --name m ... --budget 4/h" if of_model else "headrace tenant set a --budget 4/h"
    assert (obstacle.limit, obstacle.used, obstacle.missing, obstacle.command) == ("1/h", "1/h", "3/h", command)
    assert "has spent its budget of 1.00 USD per hour, so 3 requests of tenant 'a'" in obstacle.sentence
    assert only(world).kind == "settled"


def test_what_was_lent_and_is_asked_for_again_comes_back() -> None:
    """A refusal of its own while others have it: nothing is to be typed."""
    world = World([tenant("a", Limits(concurrency=20)), tenant("b", Limits(concurrency=20))], 1)
    world.run({"b": 40})
    assert world.run({"a": 1, "b": 40}, 2.0)["a"] == 0
    report(world, concurrency=1)
    [found] = [each for each in world.explain() if each.tenant == "a"]
    assert [(each.kind, each.command) for each in found.obstacles] == [("borrowed by others", "")]
    assert "of what tenant 'a' has of its own were lent in cohort 'c' to tenant 'b'" in found.obstacles[0].sentence


@pytest.mark.parametrize("borrowed", [90.0, 12.0], ids=["all that is idle", "a little"])
def test_a_lender_is_not_told_to_buy_what_it_had_lent(borrowed: float) -> None:
    cohort = [tenant("a", Limits(concurrency=10)), tenant("b", Limits(concurrency=10))]
    book = LeaseBook(1, LEASE_TTL_S, 0.0)
    book.set_limits({each.name: each.nominal for each in cohort}, [quota_of(each) for each in cohort])
    book.want("router-0", {"b": Want(in_hand=borrowed)})
    assert settle(book)["a"].concurrency == 5
    log = RefusalLog()
    book.want("router-0", {"b": Want(in_hand=borrowed), "a": Want(in_hand=8.0)})
    log.note("router-0", "a", "m", {"concurrency": 3}, 0, book, 1.0)
    around = Surroundings(Raises(ModelSpec("m", "a"), {each.name: each for each in cohort}), {}, 1000, 0)
    for _ in range(2):
        [found] = explain_refused(ModelSpec("m", "a"), log.refused("m", book, 1.0), around)
        [obstacle] = found.obstacles
        assert (obstacle.kind, obstacle.command) == ("settled", "")
        assert "tenant 'a' has enough, which was lent to others or at another router" in obstacle.sentence
        assert settle(book, 1.0)["a"].concurrency == 10


def test_nobody_is_told_to_buy_what_is_at_another_router() -> None:
    spec = ModelSpec("m", "a")
    around = Surroundings(Raises(spec, {"a": Tenant("a", Limits(concurrency=10))}), {}, 1000, 0)
    book, log = LeaseBook(2, LEASE_TTL_S, 0.0), RefusalLog()
    book.set_limits({"a": Limits(concurrency=10)})
    settle(book)
    book.want("router-0", {"a": Want(in_hand=6.0)})
    log.note("router-0", "a", "m", {"concurrency": 1}, 0, book, 1.0)
    [found] = explain_refused(spec, log.refused("m", book, 1.0), around)
    assert [(each.kind, each.command) for each in found.obstacles] == [("settled", "")]
    log.note("router-1", "a", "m", {"concurrency": 1}, 0, book, 1.5)
    [found] = explain_refused(spec, log.refused("m", book, 1.5), around)
    [both] = found.obstacles
    assert (both.limit, both.missing) == ("10", "2"), "six at each, though no more than five are ever seen in hand"


class CountingBook(LeaseBook):
    """How often it is asked what stands against more, and how many cohorts are gone through for that."""

    asked = 0
    trees: Trees

    def refusal(self, *args: Any) -> Refusal | None:
        self.asked += 1
        self.trees = args[-1]
        return super().refusal(*args)


def test_of_a_thousand_refused_tenants_those_with_most_are_explained_and_the_others_counted() -> None:
    """It goes through their cohort once, not once for each of them."""
    cohort = [tenant(f"t{number:03}", Limits(concurrency=4)) for number in range(1000)]
    book = CountingBook(2, LEASE_TTL_S, 0.0)
    book.set_limits({each.name: each.nominal for each in cohort}, [quota_of(each) for each in cohort])
    book.want("router-0", {each.name: Want(in_hand=9.0) for each in cohort})
    settle(book)
    log = RefusalLog()
    for number, each in enumerate(cohort):
        log.note("router-0", each.name, "m", {"concurrency": 1000 - number}, 0, book, 1.0)
    around = Surroundings(Raises(ModelSpec("m", "a"), {each.name: each for each in cohort}), {}, 1000, 0)
    found = explain_refused(ModelSpec("m", "t000"), log.refused("m", book, 1.0), around)
    assert [each.tenant for each in found] == [*(f"t{number:03}" for number in range(MOST_EXPLAINED)), ""]
    assert {each.kind for refused in found[:-1] for each in refused.obstacles} == {"cohort"}
    assert (book.asked, list(book.trees)) == (MOST_EXPLAINED, [("c", Dimension.CONCURRENCY)])
    count = sum(range(1, 1001 - MOST_EXPLAINED))
    assert found[-1].count == count
    [others] = found[-1].obstacles
    assert others.kind == "others"
    assert others.sentence.startswith(f"{count} requests of 992 other tenants to model 'm' were refused")


@pytest.mark.parametrize("number", range(3))
def test_one_look_at_a_cohort_says_the_same_of_each_as_a_look_for_each(number: int) -> None:
    own = [Limits(concurrency=limit, requests_per_second=9.0) for limit in (3, 20, 8)]
    cohort = [
        tenant(name, limits, lending_limit=Limits(concurrency=2)) for name, limits in zip("abc", own, strict=True)
    ]
    book = LeaseBook(2, LEASE_TTL_S, 0.0)
    book.set_limits({each.name: each.nominal for each in cohort}, [quota_of(each) for each in cohort])
    needs = ({"a": 9.0, "b": 2.0}, {"a": 9.0, "b": 30.0}, {"a": 1.0, "b": 3.0, "c": 50.0})[number]
    book.want("router-0", {name: Want(rate=need, in_hand=need) for name, need in needs.items()})
    settle(book)
    shared: Trees = {}
    for _ in range(2):
        for name in "abc":
            for dimension in (Dimension.CONCURRENCY, Dimension.REQUEST_RATE):
                found = book.refusal(name, name, "m", dimension, 7, shared)
                assert found == book.refusal(name, name, "m", dimension, 7, {})


@pytest.mark.parametrize(("away_s", "parts"), [(1.0, (15, 5)), (4.0, (10, 10))], ids=["a blip", "gone"])
def test_a_stream_that_breaks_for_a_moment_takes_nothing_from_its_borrowers(
    away_s: float, parts: tuple[int, int]
) -> None:
    world = World([tenant("a", Limits(concurrency=10)), tenant("b", Limits(concurrency=10))], 1)
    world.run({"a": 40})
    assert world.board.close(world.sessions[0])
    world.clock.advance(away_s)
    world.board.move_leases()
    [router] = world.routers
    session = world.board.open(router.name)
    for _ in range(2):
        update = world.board.update_for(session)
        world.board.applied(session, update.version)
        router.obey(update, world.clock.monotonic())
        world.board.refresh_leases()
    assert tuple(router.limiter(name).lease.limits.concurrency for name in "ab") == parts


async def test_the_fleet_says_what_routers_refused_beside_what_keeps_instances_away(
    open_world: Callable[..., Awaitable[Any]],
) -> None:
    world = await open_world()
    world.announcements.refusals += [Refused("a", "m", "queue_full", 5), Refused("a", "other", "queue_full", 7)]
    told = world.fleet.explain(ModelSpec("m", "a"))
    assert [(each.tenant, each.reason, each.count) for each in told.refused] == [("a", "queue_full", 5)]
    assert told.sentence.startswith("model 'm' may have 10000 requests that wait at a router")


def test_what_keeps_requests_out_is_said_first_only_where_no_instance_is_missing() -> None:
    refused = RefusedRequests("a", "concurrency", 3, (Obstacle("nominal", "a", "too few at once"),))
    enough = RefusedRequests("a", "concurrency", 3, (Obstacle("settled", "a", "enough by now"),))
    free = Explanation("m", "a", 1, 1, "nothing binds")
    bound = replace(free, sentence="no CPU", obstacles=(Obstacle("machine", "this machine", "no CPU"),))
    assert free.with_refused((enough, refused)).sentence == "too few at once"
    assert free.with_refused((enough,)).sentence == "nothing binds"
    assert bound.with_refused((refused,)).sentence == "no CPU"
