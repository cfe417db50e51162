"""What a running job holds of quotas and the machine, that it gives way to serving, and who pays."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_autoscaler.core.planner import plan
from headrace_autoscaler.core.plans import DrainInstance, Holding, LoadOnStandby, Plan, Snapshot, StopJob, Want
from headrace_autoscaler.domain import Limits, ModelSpec, Resources, Tenant
from tests.autoscaler.bookkeeping import OpenWorld, serving

ONE = Resources(1000, 1 << 20)
ROOMY = Limits(cpu_millicores=64_000, memory_bytes=64 << 30)
JOB = Holding("m (optimize)", "m (optimize)", 0, "acme", ONE, True, False, 0.0)
OTHER_JOB = Holding("n (optimize)", "n (optimize)", 0, "acme", ONE, True, False, 0.0)


def decide(cpus: int, *, jobs: tuple[Holding, ...] = (JOB,), capacity: Limits = ROOMY, **parts: Any) -> Plan:
    tenants = (Tenant("acme", Limits(cpu_millicores=cpus * 1000)), Tenant("globex"))
    rest = {"wants": (), "holdings": (), "starting": 0, "standby_target": 4, **parts}
    standby = tuple(f"s{n}" for n in range(4))
    return plan(Snapshot(tenants=tenants, standby=standby, capacity=capacity, jobs=jobs, **rest))


def want(desired: int, model: str = "m", tenant: str = "acme", **rest: Any) -> Want:
    return Want(model, 1, tenant, ONE, desired, **rest)


def held(id_: str, model: str = "m", **rest: Any) -> Holding:
    return Holding(id_, model, 1, "acme", ONE, **{"ready": True, "draining": False, "started_at": 0.0, **rest})


def stopped(decided: Plan) -> list[str]:
    return [each.job for each in decided.actions if isinstance(each, StopJob)]


def started(decided: Plan) -> int:
    return sum(isinstance(each, LoadOnStandby) for each in decided.actions)


@pytest.mark.parametrize(
    ("cpus", "desired", "jobs", "expected"),
    [
        (2, 1, (JOB,), (1, [])),
        (1, 1, (JOB,), (1, ["m (optimize)"])),
        (2, 2, (JOB,), (2, ["m (optimize)"])),
        (2, 2, (OTHER_JOB, JOB), (2, ["m (optimize)", "n (optimize)"])),
        (3, 2, (OTHER_JOB, JOB), (2, ["m (optimize)"])),
        (0, 1, (replace(JOB, tenant="globex"),), (0, [])),
    ],
    ids=[
        "there is room for both",
        "a first instance",
        "a second instance",
        "as many as it takes",
        "no more than it takes",
        "it would not fit all the same",
    ],
)
def test_a_job_gives_way_to_what_fits_without_it(
    cpus: int, desired: int, jobs: tuple[Holding, ...], expected: tuple[int, list[str]]
) -> None:
    decided = decide(cpus, jobs=jobs, wants=(want(desired),))
    assert (started(decided), stopped(decided)) == expected


def test_no_instance_is_drained_where_a_job_can_be_stopped() -> None:
    idle = want(0, "idle", spare=True)
    decided = decide(2, wants=(want(1), idle), holdings=(held("i", "idle"),))
    assert (started(decided), stopped(decided)) == (1, ["m (optimize)"])


def test_a_job_and_an_idle_instance_give_way_together_where_neither_is_enough() -> None:
    idle, wide = want(0, "idle", spare=True), replace(want(1, "wide"), resources=Resources(2000, 1 << 20))
    decided = decide(2, wants=(wide, idle), holdings=(held("i", "idle"),))
    assert stopped(decided) == ["m (optimize)"]
    assert [each.runner for each in decided.actions if isinstance(each, DrainInstance)] == ["i"]


def test_a_job_that_is_in_nobodys_way_goes_on() -> None:
    theirs = replace(JOB, id="t (optimize)", model="t (optimize)", tenant="globex")
    assert stopped(decide(1, jobs=(JOB, theirs), wants=(want(1),))) == ["m (optimize)"]


@pytest.mark.parametrize("cpus", [0, 1])
def test_a_limit_that_is_cut_stops_the_job_and_no_instance(cpus: int) -> None:
    idle = want(1, "idle", spare=True)
    decided = decide(cpus, wants=(idle,), holdings=(held("i", "idle"),))
    assert stopped(decided) == ["m (optimize)"]
    assert [each.runner for each in decided.actions if isinstance(each, DrainInstance)] == ["i"][: 1 - cpus]


def test_a_job_gives_way_where_the_machine_is_full_whosever_it_is() -> None:
    full = Limits(cpu_millicores=1000, memory_bytes=64 << 30)
    decided = decide(4, capacity=full, wants=(want(1, "theirs", "globex"),))
    assert (started(decided), stopped(decided)) == (1, ["m (optimize)"])
    [stop] = [each for each in decided.actions if isinstance(each, StopJob)]
    assert stop.reason == "gave way to model 'theirs'"


def test_what_was_verified_stays_and_the_job_goes() -> None:
    decided = decide(1, wants=(want(1),), holdings=(held("v", admitted=False),))
    assert stopped(decided) == ["m (optimize)"]
    assert decided.admitted == ("v",)
    assert not any(isinstance(each, DrainInstance) for each in decided.actions)


@given(
    st.integers(0, 5),
    st.lists(st.tuples(st.integers(0, 4), st.integers(1, 3)), max_size=3),
    st.integers(0, 3),
    st.lists(st.sampled_from(["acme", "globex"]), max_size=3),
)
def test_serving_is_never_worse_off_for_jobs(
    cpus: int, desired: list[tuple[int, int]], idle: int, owners: list[str]
) -> None:
    wants = [
        replace(want(count, f"m{n}"), resources=Resources(size * 1000, 1)) for n, (count, size) in enumerate(desired)
    ]
    spares = tuple(held(f"i{n}", "idle", started_at=float(n)) for n in range(idle))
    jobs = tuple(replace(JOB, id=f"j{n}", model=f"j{n}", tenant=owner) for n, owner in enumerate(owners))
    serving = {"wants": (*wants, want(0, "idle", spare=True)), "holdings": spares}
    busy, free = decide(cpus, jobs=jobs, **serving), decide(cpus, jobs=(), **serving)
    assert [each for each in busy.actions if not isinstance(each, StopJob)] == list(free.actions)
    assert not [name for name in stopped(busy) if owners[int(name[1:])] == "globex"], "what is not in the way goes on"


async def test_a_job_holds_quota_is_paid_for_and_lets_go(open_world: OpenWorld) -> None:
    tenant = Tenant("acme", Limits(cpu_millicores=2000))
    world = await serving(open_world, tenant)
    spec = ModelSpec("m", "acme")
    assert world.fleet.claim_job(spec) == ""
    refusal = world.fleet.claim_job(ModelSpec("n", "acme"))
    assert "tenant 'acme' may use 2 CPUs and uses 2; model 'n (optimize)' needs 1" in refusal
    world.clock.advance(10)
    world.fleet.release_job("m")
    world.fleet.release_job("m")
    await world.until(lambda: any(key.shape == "optimize" for key in world.usage))
    [(key, usage)] = [(key, usage) for key, usage in world.usage.items() if key.shape == "optimize"]
    assert (key.tenant, key.model, usage.instance_seconds) == ("acme", "m", pytest.approx(10, abs=0.01))
    assert world.fleet.claim_job(ModelSpec("n", "acme")) == ""
    await world.fleet.close()


async def test_a_job_is_told_to_stop_when_serving_needs_what_it_holds(open_world: OpenWorld) -> None:
    world = await serving(open_world, Tenant("acme", Limits(cpu_millicores=2000)))
    assert world.fleet.claim_job(ModelSpec("m", "acme")) == ""
    assert world.fleet.job_must_stop("m") == ""
    model = world.catalogue.model("m")
    world.catalogue.put(replace(model.spec, min_instances=2), *model.revisions)
    world.fleet.catalogue_changed()
    await world.until(lambda: world.fleet.job_must_stop("m"))
    assert world.fleet.job_must_stop("m") == "gave way to model 'm'"
    world.fleet.release_job("m")
    assert world.fleet.job_must_stop("m") == ""
    await world.fleet.close()


async def test_a_spent_budget_stops_a_job_and_begins_none(open_world: OpenWorld) -> None:
    tenant = Tenant("acme", Limits(budget_micros_per_hour=1))
    world = await serving(open_world, Tenant("acme"))
    assert world.fleet.claim_job(ModelSpec("m", "acme")) == ""
    world.catalogue.tenant_list = [tenant]
    world.fleet.catalogue_changed()
    await world.until(lambda: world.fleet.job_must_stop("m"))
    assert "tenant 'acme' has spent its" in world.fleet.job_must_stop("m")
    world.fleet.release_job("m")
    assert "tenant 'acme' has spent its" in world.fleet.claim_job(ModelSpec("m", "acme"))
    await world.fleet.close()
