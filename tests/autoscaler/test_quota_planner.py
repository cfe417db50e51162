"""Cohorts in the plan: what is idle is borrowed, and given back by draining to whoever asks for its own."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace_autoscaler.core.planner import plan
from headrace_autoscaler.core.plans import DrainInstance, Holding, LoadOnStandby, Plan, Snapshot, Want
from headrace_autoscaler.domain import Limits, Resources, Tenant

ONE = Resources(1000, 1 << 20)
TWO = Resources(2000, 1 << 20)
ROOMY = Limits(cpu_millicores=64_000, memory_bytes=64 << 30)


def tenant(name: str, cpus: int, **rest: object) -> Tenant:
    limits = {key: Limits(cpu_millicores=value * 1000) for key, value in rest.items() if key.endswith("limit")}  # type: ignore[operator]
    other = {key: value for key, value in rest.items() if not key.endswith("limit")}
    return Tenant(name, Limits(cpu_millicores=cpus * 1000), cohort="c", **limits, **other)  # type: ignore[arg-type]


def want(model: str, desired: int, resources: Resources = ONE, **rest: object) -> Want:
    """Of the tenant that the model's name begins with."""
    return Want(model, 1, model[0], resources, desired, **rest)  # type: ignore[arg-type]


def held(id_: str, model: str, started_at: float = 0.0, resources: Resources = ONE, **rest: object) -> Holding:
    state = {"ready": True, "draining": False, **rest}
    return Holding(id_, model, 1, model[0], resources, started_at=started_at, **state)  # type: ignore[arg-type]


def decide(tenants: tuple[Tenant, ...], *, standby: int = 9, capacity: Limits = ROOMY, **parts: object) -> Plan:
    names = tuple(f"s{n}" for n in range(standby))
    rest = {"wants": (), "holdings": (), "starting": 0, "standby_target": standby, **parts}
    return plan(Snapshot(tenants=tenants, standby=names, capacity=capacity, **rest))  # type: ignore[arg-type]


def loads(decided: Plan) -> Counter[str]:
    return Counter(each.model for each in decided.actions if isinstance(each, LoadOnStandby))


def drains(decided: Plan) -> dict[str, str]:
    return {each.runner: each.reason for each in decided.actions if isinstance(each, DrainInstance)}


def test_a_tenant_uses_what_its_cohort_leaves_idle_up_to_its_borrowing_limit() -> None:
    pair = (tenant("a", 1, borrowing_limit=2), tenant("b", 4))
    decided = decide(pair, wants=(want("a-m", 5),))
    assert loads(decided) == {"a-m": 3}
    assert decided.bound["a-m", 1] == (
        "tenant 'a' may use 3 CPUs with what it may borrow and uses 3; model 'a-m' needs 1: raise the tenant's "
        "borrowing limit (--borrow cpu=) by 1, or its cpu"
    )


def test_what_a_lender_keeps_is_not_borrowed() -> None:
    decided = decide((tenant("a", 1), tenant("b", 2, lending_limit=1)), wants=(want("a-m", 4),))
    assert loads(decided) == {"a-m": 2}
    assert "tenant 'b' lends 1 CPU and keeps 1 idle by its lending limit" in decided.bound["a-m", 1]


def test_everybody_gets_its_own_before_anybody_borrows() -> None:
    decided = decide((tenant("a", 1), tenant("b", 2)), wants=(want("a-m", 3), want("a-n", 1), want("b-m", 2)))
    assert loads(decided) == {"a-m": 1, "b-m": 2}
    assert decided.blocked["a-n", 1].startswith("cohort 'c' has 3 CPUs in all and uses 3; model 'a-n' of tenant 'a'")


def test_what_is_spare_goes_by_share_over_weight() -> None:
    tenants = (tenant("a", 0, weight=2.0), tenant("b", 0), tenant("z", 6))
    assert loads(decide(tenants, wants=(want("a-m", 9), want("b-m", 9)))) == {"a-m": 4, "b-m": 2}


def test_a_lender_takes_its_own_back_by_draining_the_newest_that_was_borrowed() -> None:
    tenants = (tenant("a", 1), tenant("b", 2))
    holdings = (held("old", "a-m", 1.0), held("mid", "a-m", 2.0), held("new", "a-m", 3.0))
    wants = (want("a-m", 3), want("b-m", 1))
    decided = decide(tenants, wants=wants, holdings=holdings)
    assert drains(decided) == {"new": "makes room for model 'b-m' of tenant 'b'"}
    assert not loads(decided), "it starts when what it waits for has gone"
    going = (*holdings[:2], held("new", "a-m", 3.0, draining=True))
    assert decide(tenants, wants=wants, holdings=going).actions == ()
    after = decide(tenants, wants=wants, holdings=holdings[:2])
    assert loads(after) == {"b-m": 1}, "and not the borrower, which would have it again"


def test_a_lender_takes_back_all_that_it_asks_for_at_once() -> None:
    holdings = tuple(held(f"a{n}", "a-m", float(n)) for n in range(4))
    decided = decide((tenant("a", 1), tenant("b", 3)), wants=(want("a-m", 4), want("b-m", 3)), holdings=holdings)
    # The first makes room for the model's first instance; its second and third follow when that runs.
    assert set(drains(decided)) == {"a3"}
    second = decide(
        (tenant("a", 1), tenant("b", 3)),
        wants=(want("a-m", 4), want("b-m", 3)),
        holdings=(*holdings[:3], held("b0", "b-m")),
    )
    assert set(drains(second)) == {"a2", "a1"}


def test_nothing_is_taken_back_for_what_would_be_borrowed_itself() -> None:
    holdings = (held("a0", "a-m"), held("a1", "a-m"), held("b0", "b-m"))
    decided = decide(
        (tenant("a", 1), tenant("b", 1), tenant("z", 1)), wants=(want("a-m", 2), want("b-m", 2)), holdings=holdings
    )
    assert drains(decided) == {}
    assert "raise the cpu of tenant 'b' by 1" in decided.bound["b-m", 1]


def test_nobody_waits_for_what_nobody_needs_to_be_given_back() -> None:
    """An idle instance of a lender keeps its place: it takes nothing back, whatever others have borrowed."""
    holdings = (held("a0", "a-m"), held("a1", "a-m"))
    decided = decide(
        (tenant("a", 1), tenant("b", 1)), wants=(want("a-m", 2), want("b-m", 1, spare=True)), holdings=holdings
    )
    assert drains(decided) == {}


@pytest.mark.parametrize(
    ("holdings", "gone"),
    [
        ((held("big", "a-m", 9.0, TWO), held("small", "a-n", 1.0)), "small"),
        ((held("big", "a-m", 9.0, TWO),), "big"),
    ],
    ids=["one that is wholly borrowed goes first", "one that is partly borrowed goes where there is no other"],
)
def test_which_instance_is_given_back(holdings: tuple[Holding, ...], gone: str) -> None:
    cpus = sum(each.resources.cpu_millicores for each in holdings) // 1000
    wants = (want("a-m", 1, TWO), want("a-n", len(holdings) - 1), want("b-m", 1))
    decided = decide((tenant("a", cpus - 1), tenant("b", 1)), wants=wants, holdings=holdings)
    assert set(drains(decided)) == {gone}


def test_what_is_borrowed_gives_way_where_the_machine_is_short_too() -> None:
    tenants = (tenant("a", 1), tenant("b", 1), tenant("z", 6))
    decided = decide(
        tenants,
        wants=(want("a-m", 2), want("b-m", 1)),
        holdings=(held("a0", "a-m", 1.0), held("a1", "a-m", 2.0)),
        capacity=Limits(cpu_millicores=2000, memory_bytes=1 << 30),
    )
    assert set(drains(decided)) == {"a1"}


def test_after_a_cut_what_is_idle_and_borrowed_goes() -> None:
    holdings = (held("a0", "a-m", 1.0), held("a1", "a-n", 2.0))
    wants = (want("a-m", 1), want("a-n", 1, spare=True))
    assert set(drains(decide((tenant("a", 1), tenant("b", 0)), wants=wants, holdings=holdings))) == {"a1"}
    assert drains(decide((tenant("a", 1), tenant("b", 1)), wants=wants, holdings=holdings)) == {}


@st.composite
def cohorts(draw: st.DrawFn) -> tuple[tuple[Tenant, ...], tuple[Want, ...], tuple[Holding, ...], Limits]:
    some = st.none() | st.integers(0, 2)
    tenants = []
    for name in "abc":
        cut = {
            key: Limits(cpu_millicores=None if (v := draw(some)) is None else v * 1000) for key in ("borrow", "lend")
        }
        nominal = Limits(cpu_millicores=draw(st.integers(0, 3)) * 1000)
        weight = draw(st.sampled_from((0.5, 1.0, 2.0)))
        tenants.append(Tenant(name, nominal, cut["borrow"], cut["lend"], draw(st.sampled_from(("", "c", "c"))), weight))
    wants, holdings = [], []
    for model in ("a-1", "a-2", "b-1", "b-2", "c-1"):
        resources = draw(st.sampled_from((ONE, ONE, TWO)))
        wants.append(want(model, draw(st.integers(0, 3)), resources, spare=draw(st.booleans())))
        holdings += [
            held(f"{model}-{n}", model, float(n), resources, admitted=draw(st.booleans()))
            for n in range(draw(st.integers(0, 2)))
        ]
    capacity = Limits(cpu_millicores=draw(st.integers(2, 12)) * 1000, memory_bytes=1 << 30)
    return tuple(tenants), tuple(wants), tuple(holdings), capacity


@settings(max_examples=400, deadline=None)
@given(cohorts())
def test_planning_again_and_again_comes_to_rest_and_nothing_started_is_taken_again(
    case: tuple[tuple[Tenant, ...], tuple[Want, ...], tuple[Holding, ...], Limits],
) -> None:
    tenants, wants, holdings, capacity = case
    shapes = {each.model: each.resources for each in wants}
    born = 0
    started: set[str] = set()
    drained: set[str] = set()
    for _ in range(60):
        live = Counter(each.model for each in holdings if not each.draining)
        # As the decider has it: what nobody needs is kept, and never started.
        now = tuple(replace(each, desired=min(1, live[each.model])) if each.spare else each for each in wants)
        decided = decide(tenants, wants=now, holdings=holdings, capacity=capacity)
        gone = drains(decided)
        drained |= set(gone)
        kept = [
            Holding(e.id, e.model, 1, e.tenant, e.resources, True, e.id in gone, e.started_at,
                    e.admitted or e.id in decided.admitted)
            for e in holdings
            if not e.draining
        ]  # fmt: skip
        for model, count in loads(decided).items():
            for _ in range(count):
                born += 1
                kept.append(held(f"new{born}", model, 100.0 + born, shapes[model]))
                started.add(f"new{born}")
        if tuple(kept) == holdings and not decided.actions:
            break
        holdings = tuple(kept)
    else:
        pytest.fail(f"still acts after 60 plans: {decided.actions}")
    assert not started & drained
