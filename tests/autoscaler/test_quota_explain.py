"""What `explain` says of a model, and that what is to be typed admits what waits."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace_autoscaler.core.explaining import Explanation, Standing, explain
from headrace_autoscaler.core.plans import Holding, Want
from headrace_autoscaler.core.raising import Raises
from headrace_autoscaler.core.room import Room
from headrace_autoscaler.domain import Limits, ModelSpec, Resources, Tenant
from tests.autoscaler.typed import type_it

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
    unpaid: str = "",
) -> Explanation:
    """Of model m of tenant a, which has none of the one instance that it should have."""
    want = Want(spec.name, 1, spec.tenant, ONE, 1, spec.limits)
    room = Room(tenants, capacity, [want])
    for name, count in used.items():
        for number in range(count):
            room.add(Holding(f"{name}{number}", f"of-{name}", 1, name, ONE, True, False, 0.0))
    settled = {"current": 0, "wanted": 1, "reason": "demand", **(standing or {})}
    desired = settled.pop("desired", 1)
    held = replace(want, desired=desired, held_back=unpaid, unpaid=bool(unpaid))
    stands = Standing(held, **settled)  # type: ignore[arg-type]
    return explain(spec, stands, room, Raises(spec, {each.name: each for each in tenants}))


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
    assert (
        capped.sentence
        == "model 'm' may have 2 instances and demand asks for 5: deploy it with a higher --max-instances"
    )
    failed = told(PAIR, {}, standing={"failing": "model 'm' cannot be loaded: bad magic"})
    assert (failed.obstacles[0].kind, failed.sentence) == (
        "failures",
        "model 'm' cannot be loaded: bad magic; it is tried again",
    )
    stuck = told(PAIR, {}, standing={"bound": "no runner can be started: disk full"})
    assert (stuck.obstacles[0].kind, stuck.sentence) == ("runners", "no runner can be started: disk full")
    poor = told(PAIR, {"a": 1, "b": 1}, unpaid="tenant 'a' has spent its budget")
    assert [each.kind for each in poor.obstacles] == ["budget", "cohort"]
    assert poor.sentence == "tenant 'a' has spent its budget"


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
