"""What `explain` says of a model, and that what is to be typed admits what waits."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace_autoscaler.core.budgets import Budget, BudgetState, Period
from headrace_autoscaler.core.budgets import Standing as BudgetStanding
from headrace_autoscaler.core.explaining import Explanation, Standing, explain
from headrace_autoscaler.core.plans import Holding, Want
from headrace_autoscaler.core.raising import Raises
from headrace_autoscaler.core.room import Room
from headrace_autoscaler.domain import Limits, ModelSpec, Resources, Tenant
from tests.autoscaler.typed import type_it

NOW_S = 1_700_000_000 // 3600 * 3600 + 1800
ONE = Resources(1000, 1 << 30)
PLAIN = ModelSpec("m", "a")
ROOMY = Limits(cpu_millicores=64_000, memory_bytes=64 << 30)


def tenant(name: str, cpus: int, cohort: str = "c", **limits: Limits) -> Tenant:
    return Tenant(name, Limits(cpu_millicores=cpus * 1000, queue_length=7), cohort=cohort, **limits)


def told(
    tenants: tuple[Tenant, ...],
    used: dict[str, int],
    *,
    spec: ModelSpec = PLAIN,
    capacity: Limits = ROOMY,
    standing: dict[str, object] | None = None,
    unpaid: BudgetStanding | None = None,
) -> Explanation:
    """Of model m of tenant a, which has none of the one instance that it should have."""
    want = Want(spec.name, 1, spec.tenant, ONE, 1, spec.limits)
    room = Room(tenants, capacity, [want])
    for name, count in used.items():
        for number in range(count):
            room.add(Holding(f"{name}{number}", f"of-{name}", 1, name, ONE, True, False, 0.0))
    settled = {"current": 0, "wanted": 1, "reason": "demand", **(standing or {})}
    desired = settled.pop("desired", 1)
    held = replace(want, desired=desired, held_back=unpaid.reason if unpaid else "", unpaid=unpaid)
    stands = Standing(held, **settled)  # type: ignore[arg-type]
    return explain(spec, stands, room, Raises(spec, {each.name: each for each in tenants}), NOW_S)


PAIR = (tenant("a", 1), tenant("b", 1))
RAISE_A = "headrace tenant set a --cpu 2 --queue-length 7"
CASES = {
    "a tenant alone": (
        (tenant("a", 1, ""),),
        {"a": 1},
        "nominal",
        "a",
        RAISE_A,
    ),
    "the cohort": (PAIR, {"a": 1, "b": 1}, "cohort", "c", RAISE_A),
    "its own, lent": (PAIR, {"b": 2}, "borrowed by others", "c", ""),
    "a lender": (
        (tenant("a", 1), tenant("b", 1, lending_limit=Limits(cpu_millicores=0, gpu_millis=500))),
        {"a": 1},
        "lending limit",
        "b",
        "headrace tenant set b --lend cpu=1 --lend gpu=0.5",
    ),
    "borrowing": (
        (tenant("a", 1, borrowing_limit=Limits(cpu_millicores=0, memory_bytes=1536)), tenant("b", 1)),
        {"a": 1},
        "borrowing limit",
        "a",
        "headrace tenant set a --borrow cpu=1 --borrow memory=1536",
    ),
}


@pytest.mark.parametrize(("tenants", "used", "kind", "owner", "command"), CASES.values(), ids=CASES.keys())
def test_the_limit_that_binds_is_named_with_its_owner_and_what_to_type(
    tenants: tuple[Tenant, ...], used: dict[str, int], kind: str, owner: str, command: str
) -> None:
    explanation = told(tenants, used)
    first = explanation.obstacles[0]
    assert (first.kind, first.owner, first.command) == (kind, owner, command)
    assert explanation.sentence == first.sentence
    assert "\n" not in first.sentence
    assert owner in first.sentence


def test_the_machine_the_maximum_failures_and_what_others_add() -> None:
    full = told(PAIR, {"b": 1}, capacity=Limits(cpu_millicores=1000, memory_bytes=64 << 30))
    assert (full.obstacles[0].kind, full.obstacles[0].owner) == ("machine", "this machine")
    capped = told(
        PAIR, {}, spec=ModelSpec("m", "a", max_instances=2), standing={"current": 2, "desired": 2, "wanted": 5}
    )
    assert capped.sentence == "model 'm' may have 2 instances and 5 are wanted: deploy it with a higher --max-instances"
    failed = told(PAIR, {}, standing={"failing": "model 'm' cannot be loaded: bad magic"})
    assert (failed.obstacles[0].kind, failed.sentence) == (
        "failures",
        "model 'm' cannot be loaded: bad magic; it is tried again",
    )
    stuck = told(PAIR, {}, standing={"bound": "no runner can be started: disk full"})
    assert (stuck.obstacles[0].kind, stuck.sentence) == ("runners", "no runner can be started: disk full")
    poor = told(PAIR, {"a": 1, "b": 1}, unpaid=spent())
    assert [each.kind for each in poor.obstacles] == ["budget", "cohort"]


def spent(model: str = "") -> BudgetStanding:
    """All of 0.50 USD per hour, half an hour into it."""
    return BudgetStanding(Budget("a", model, Period.HOUR, 500_000), 500_000, 0, BudgetState.SPENT, NOW_S + 1800, "USD")


@pytest.mark.parametrize(
    ("model", "owner", "command"),
    [
        ("", "a", "headrace tenant set a --budget 1/h"),
        ("m", "m", "headrace deploy SOURCE --name m ... --budget 1/h"),
    ],
    ids=["the tenant's", "the model's"],
)
def test_a_budget_that_holds_instances_back_is_told_with_its_owner_and_what_to_type(
    model: str, owner: str, command: str
) -> None:
    budget = Limits(budget_micros_per_hour=500_000)
    spec = replace(PLAIN, limits=budget) if model else PLAIN
    [found] = told((Tenant("a", Limits() if model else budget),), {}, spec=spec, unpaid=spent(model)).obstacles
    assert (found.kind, found.owner, found.dimension) == ("budget", owner, "budget")
    assert (found.limit, found.used, found.missing) == ("0.5/h", "0.5/h", "0.5/h")
    assert found.command == command
    assert found.sentence.startswith("model 'm' of tenant 'a' has spent" if model else "tenant 'a' has spent")
    assert "0.50 USD per hour" in found.sentence


def test_what_a_cut_leaves_over_is_told_although_no_instance_is_missing() -> None:
    kept = {"current": 2, "desired": 2, "wanted": 2, "reason": "the model's minimum"}
    [over] = told((tenant("a", 1, ""),), {"a": 2}, standing=kept).obstacles
    assert (over.kind, over.owner, over.limit, over.used, over.command) == ("nominal", "a", "1", "2", "")
    assert over.sentence == (
        "tenant 'a' uses 2 CPUs and may use 1: model 'm' keeps its 2 instances while they are needed (the model's "
        "minimum), and what ends is not replaced"
    )
    assert told((tenant("a", 2, ""),), {"a": 2}, standing=kept).obstacles == (), "at its limit is not over it"
    assert told((tenant("a", 1, ""),), {"a": 2}, standing={"current": 0, "desired": 0}).obstacles == ()
    one = {"current": 1, "desired": 1, "wanted": 1}
    assert told(PAIR, {"a": 1, "b": 2}, standing=one).obstacles == (), "b is over, and a within its own"
    [over] = told(PAIR, {"a": 2, "b": 1}, standing=kept).obstacles
    assert (over.kind, over.owner) == ("cohort", "c")
    assert told(PAIR, {"a": 1}, standing=one, capacity=Limits(0, 0)).obstacles == (), "a machine is nobody's limit"


def test_nothing_binds() -> None:
    assert told(PAIR, {}, standing={"current": 1}).sentence == (
        "nothing binds: model 'm' has the 1 instance that it should have (demand)"
    )
    assert told(PAIR, {}).sentence == "nothing binds: model 'm' has 0 instances, and 1 more are on their way"


def test_commands_that_follow_each_other_do_not_undo_each_other() -> None:
    both = Limits(cpu_millicores=1000, memory_bytes=1 << 30)
    alone = told((Tenant("a", both),), {"a": 1})
    assert [each.command for each in alone.obstacles] == [
        "headrace tenant set a --cpu 2 --memory 1Gi", "headrace tenant set a --cpu 2 --memory 2Gi",
    ]  # fmt: skip
    pair = (Tenant("a", both, cohort="c"), Tenant("b", both, lending_limit=Limits(0, 0), cohort="c"))
    assert [each.command for each in told(pair, {"a": 1}).obstacles] == [
        "headrace tenant set b --lend cpu=1 --lend memory=0", "headrace tenant set b --lend cpu=1 --lend memory=1Gi",
    ]  # fmt: skip
    spec = replace(PLAIN, limits=Limits(0, 0))
    assert [each.command for each in told((Tenant("a"),), {}, spec=spec).obstacles] == [
        "headrace deploy SOURCE --name m ... --limit cpu=1",
        "headrace deploy SOURCE --name m ... --limit cpu=1 --limit memory=1Gi",
    ]


some = st.none() | st.integers(0, 3)
drawn_tenants = st.lists(
    st.tuples(*(st.tuples(of, of) for of in (st.integers(0, 3), some, some))), min_size=1, max_size=3
)


@settings(max_examples=500, deadline=None)
@given(drawn_tenants, st.data())
def test_what_is_typed_admits_what_waits(drawn: list[tuple[tuple[int | None, ...], ...]], data: st.DataObject) -> None:
    def limits(counts: tuple[int | None, ...]) -> Limits:
        cpus, gibs = counts
        return Limits(None if cpus is None else cpus * 1000, None if gibs is None else gibs << 30)

    tenants = tuple(
        Tenant(name, limits(nominal), limits(borrow), limits(lend), "c")
        for name, (nominal, borrow, lend) in zip("abc", drawn, strict=False)
    )
    used = {each.name: data.draw(st.integers(0, 4)) for each in tenants}
    explanation = told(tenants, used)
    if any(each.kind == "borrowed by others" for each in explanation.obstacles):
        return
    by_name = {each.name: each for each in tenants}
    for obstacle in explanation.obstacles:
        type_it(by_name, obstacle.command)
    assert told(tuple(by_name.values()), used).obstacles == ()
