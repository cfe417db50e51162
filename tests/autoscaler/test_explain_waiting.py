"""What `explain` says of requests that failed because nothing could start, and of those that wait for a budget."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from headrace_autoscaler.control.board import LEASE_TTL_S
from headrace_autoscaler.core import explaining
from headrace_autoscaler.core import plans as instances
from headrace_autoscaler.core.budgets import Budget, BudgetState, Period, Standing
from headrace_autoscaler.core.demand import Counts, Level
from headrace_autoscaler.core.explaining import Explanation, RefusedRequests
from headrace_autoscaler.core.explaining_requests import Surroundings, explain_held, explain_refused
from headrace_autoscaler.core.leases import LeaseBook
from headrace_autoscaler.core.raising import Raises
from headrace_autoscaler.core.refused import RefusalLog
from headrace_autoscaler.core.room import Room
from headrace_autoscaler.domain import Limits, ModelSpec, Resources, Revision, RevisionState, Tenant
from headrace_autoscaler.fleet.reports import DemandEntry, Report

HOUR_S = 3600


CANNOT_START = {
    "no quota": (1, {}, "nominal", "tenant 'a' may use 1 CPU and uses 1; model 'm' needs 1"),
    "it does not load": (0, {"failing": "model 'm' cannot be loaded: bad magic"}, "failures", "it is tried again"),
    "no runner": (0, {"bound": "no runner can be started: disk full"}, "runners", "disk full"),
    "room again": (0, {}, "settled", "an instance could start by now"),
    "it has one": (1, {"current": 1}, "settled", "an instance could start by now"),
}


def refused_for_want_of_an_instance(
    used: int, stands: dict[str, Any], desired: int = 0
) -> tuple[Explanation, list[RefusedRequests]]:
    """Of model m of tenant a, which has one CPU; two requests of its own and one of tenant b's were refused."""
    tenants, one = {"a": Tenant("a", Limits(cpu_millicores=1000))}, Resources(1000, 1 << 30)
    want = instances.Want("m", 1, "a", one, desired)
    room = Room(tenants.values(), Limits(cpu_millicores=64_000, memory_bytes=64 << 30), [want])
    for number in range(used):
        room.add(instances.Holding(f"r{number}", "other", 1, "a", one, True, False, 0.0))
    standing = explaining.Standing(want, **{"current": 0, "wanted": 0, "reason": "nothing waits", **stands})
    spec, book, log, raises = (
        ModelSpec("m", "a"),
        LeaseBook(1, LEASE_TTL_S, 0.0),
        RefusalLog(),
        Raises(ModelSpec("m", "a"), tenants),
    )
    log.note("router-0", "a", "m", {"blocked": 2}, 0, book, 1.0)
    log.note("router-0", "b", "m", {"blocked": 1}, 0, book, 1.0)
    told = explaining.explain(spec, standing, room, raises, 0)
    around = Surroundings(raises, {}, 1000, 0, standing, room, told.obstacles)
    found = list(explain_refused(spec, log.refused("m", book, 50.0), around))
    assert log.refused("m", book, 62.0) == (), "after a minute"
    return told, found


@pytest.mark.parametrize(("used", "stands", "kind", "said"), CANNOT_START.values(), ids=CANNOT_START.keys())
def test_requests_that_failed_because_nothing_could_start_are_explained_for_a_minute(
    used: int, stands: dict[str, Any], kind: str, said: str
) -> None:
    _, found = refused_for_want_of_an_instance(used, stands)
    assert [(each.tenant, each.reason, each.count) for each in found] == [("a", "blocked", 2), ("b", "blocked", 1)]
    [of_own], [of_other] = (each.obstacles for each in found)
    assert (of_own.kind, of_other.kind) == (kind, kind)
    assert of_own.sentence.startswith("2 requests of tenant 'a' to model 'm' were refused in the last minute")
    assert of_other.sentence.startswith("1 request of tenant 'b' to model 'm' was refused in the last minute")
    assert said in of_own.sentence
    assert said in of_other.sentence
    assert of_own.command == of_other.command == ("headrace tenant set a --cpu 2" if kind == "nominal" else "")


def test_what_keeps_instances_away_is_not_to_be_raised_again_for_the_requests_that_it_cost() -> None:
    told, refused = refused_for_want_of_an_instance(1, {"wanted": 1}, desired=1)
    commands = [each.command for each in (*told.obstacles, *(each for found in refused for each in found.obstacles))]
    assert commands == ["headrace tenant set a --cpu 2"] * 3


def test_requests_that_wait_for_a_callers_budget_are_explained() -> None:
    def spent(tenant: str, period: Period = Period.HOUR) -> Standing:
        return Standing(Budget(tenant, "", period, 500_000), 500_000, 0, BudgetState.SPENT, HOUR_S, "USD")

    tenants = {name: Tenant(name, Limits(budget_micros_per_hour=500_000)) for name in "ab"}
    spec, standings = ModelSpec("m", "a"), {"b": (spent("b"),)}
    around = Surroundings(Raises(spec, tenants), standings, 1000, HOUR_S // 2)
    [found] = explain_held(spec, {"b": 3, "c": 2}, around)
    assert (found.kind, found.owner, found.command) == ("budget", "b", "headrace tenant set b --budget 1/h")
    assert found.sentence == (
        "tenant 'b' has spent its budget of 0.50 USD per hour, so 3 requests of tenant 'b' to model 'm' wait for it: "
        "raise it by 0.5/h, which is what is missing at its pace so far, or wait for the next hour"
    )
    before = replace(spent("a"), spent_micros=499_999)
    want = instances.Want("m", 1, "a", Resources(), 1, unpaid=before)
    own = replace(around, standings={"a": (spent("a"),)}, standing=explaining.Standing(want, 0, 1, "demand"))
    assert explain_held(spec, {"a": 1}, own) == (), "it is told of as what keeps instances away"


async def test_the_fleet_says_who_waits_for_a_budget(open_world: Callable[..., Awaitable[Any]]) -> None:
    world = await open_world()
    world.catalogue.tenant_list = [Tenant("b", Limits(budget_micros_per_hour=0))]
    revision = Revision("m", 1, "1", RevisionState.SERVING, "a", (), "f", "fake")
    world.catalogue.put(ModelSpec("m", "a", min_instances=1), revision)
    world.fleet.catalogue_changed()
    await world.until(lambda: world.instances("m"))

    def report(held: int, *, urgent: bool = False, model: str = "m") -> None:
        entry = DemandEntry("b", model, 1, Counts(), Level(), 0, held=held)
        world.fleet.report(Report("router-0", (entry,) if held else (), urgent=urgent))

    def waiting() -> list[str]:
        world.fleet.decide_now()
        return [each.sentence for each in world.fleet.explain(ModelSpec("m", "a")).obstacles]

    report(2)
    [said] = waiting()
    assert "2 requests of tenant 'b' to model 'm' wait for it" in said
    report(0, urgent=True)
    assert waiting() == [said], "an urgent report says nothing of what it leaves out"
    report(3, model="other")
    assert waiting() == []
    report(1)
    assert "1 request of tenant 'b' to model 'm' waits for it" in waiting()[0]
    world.fleet.router_gone("router-0")
    assert waiting() == []
