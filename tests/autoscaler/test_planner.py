"""Where instances start and stop: by hand, and what no plan may do."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace_autoscaler.core.planner import plan
from headrace_autoscaler.core.plans import (
    DrainInstance,
    Holding,
    LoadOnStandby,
    Plan,
    Snapshot,
    StartStandby,
    StopStandby,
    Want,
)
from headrace_autoscaler.domain import Limits, Resources, Tenant

ONE = Resources(1000, 1 << 30)
ROOMY = Limits(cpu_millicores=64_000, memory_bytes=64 << 30, gpu_millis=0, gpu_memory_bytes=0)


def want(model: str, desired: int, tenant: str = "acme", **rest: object) -> Want:
    return Want(model, 1, tenant, rest.pop("resources", ONE), desired, **rest)  # type: ignore[arg-type]


def held(id_: str, model: str, tenant: str = "acme", **rest: object) -> Holding:
    settled = {"resources": ONE, "ready": True, "draining": False, "started_at": 0.0, "revision": 1, **rest}
    return Holding(id=id_, model=model, tenant=tenant, **settled)  # type: ignore[arg-type]


def snapshot(**parts: object) -> Snapshot:
    defaults = {"wants": (), "holdings": (), "standby": (), "starting": 0, "standby_target": 0, "capacity": ROOMY}
    limits: dict[str, Limits] = parts.pop("limits", {})  # type: ignore[assignment]
    tenants = tuple(Tenant(name, nominal) for name, nominal in limits.items())
    return Snapshot(**{**defaults, "tenants": tenants, **parts})  # type: ignore[arg-type]


def loads(decided: Plan) -> list[tuple[str, str]]:
    return [(each.runner, each.model) for each in decided.actions if isinstance(each, LoadOnStandby)]


def drains(decided: Plan) -> list[str]:
    return [each.runner for each in decided.actions if isinstance(each, DrainInstance)]


def starts(decided: Plan) -> int:
    return sum(isinstance(each, StartStandby) for each in decided.actions)


def test_a_wanted_model_takes_the_oldest_standby_and_the_pool_is_refilled() -> None:
    decided = plan(snapshot(wants=(want("m", 1),), standby=("a", "b"), standby_target=2))
    assert loads(decided) == [("a", "m")]
    assert starts(decided) == 1


def test_without_a_standby_one_is_started_beyond_the_pool() -> None:
    decided = plan(snapshot(wants=(want("m", 1),), standby_target=1))
    assert loads(decided) == []
    assert starts(decided) == 2
    assert decided.blocked == {}


def test_runners_that_start_already_are_counted() -> None:
    assert starts(plan(snapshot(wants=(want("m", 1),), standby_target=1, starting=2))) == 0


def test_everybodys_first_comes_before_anybodys_second() -> None:
    decided = plan(snapshot(wants=(want("a", 3), want("b", 1)), standby=("1", "2")))
    assert loads(decided) == [("1", "a"), ("2", "b")]


def test_a_verification_goes_first_and_is_outside_the_limits() -> None:
    decided = plan(
        snapshot(
            wants=(want("m", 1),), standby=("1",), verifications=(("new", 4),),
            limits={"acme": Limits(cpu_millicores=0)}, standby_target=0,
        )
    )  # fmt: skip
    assert decided.actions[0] == LoadOnStandby("1", "new", 4, "deployed: a first load", True)


def test_surplus_goes_newest_first_and_never_one_that_loads() -> None:
    decided = plan(
        snapshot(
            wants=(want("m", 1),),
            holdings=(
                held("old", "m", started_at=1.0),
                held("new", "m", started_at=2.0),
                held("loading", "m", started_at=3.0, ready=False),
            ),
        )
    )
    assert drains(decided) == ["new"], "the old one answers until the other has loaded"


def test_one_that_loads_does_not_stand_in_for_the_one_that_is_ready() -> None:
    holdings = (held("ready", "m", started_at=1.0), held("loading", "m", started_at=2.0, ready=False))
    assert drains(plan(snapshot(wants=(want("m", 1),), holdings=holdings))) == []
    assert drains(plan(snapshot(wants=(want("m", 0),), holdings=holdings))) == ["ready"]


def test_an_instance_of_nothing_known_is_drained_unless_it_is_being_verified() -> None:
    holdings = (held("a", "gone"), held("b", "new"))
    assert drains(plan(snapshot(holdings=holdings, protected=frozenset({("new", 1)})))) == ["a"]


def test_the_tenants_limit_binds_with_a_sentence_that_says_what_to_do() -> None:
    decided = plan(
        snapshot(
            wants=(want("busy", 2), want("m", 1)),
            holdings=(held("a", "busy"), held("b", "busy")),
            standby=("s",),
            standby_target=1,
            limits={"acme": Limits(cpu_millicores=2000)},
        )
    )
    assert loads(decided) == []
    assert decided.blocked == {
        ("m", 1): "tenant 'acme' may use 2 CPUs and uses 2; model 'm' needs 1: raise the tenant's cpu "
        "(`headrace tenant describe acme` shows all its limits; `tenant set` replaces them)"
    }


def test_a_model_that_runs_is_bound_but_not_blocked() -> None:
    decided = plan(
        snapshot(
            wants=(want("m", 2),), holdings=(held("a", "m"),), standby=("s",), standby_target=1,
            limits={"acme": Limits(memory_bytes=1 << 30)},
        )
    )  # fmt: skip
    assert decided.blocked == {}
    assert "1Gi of memory" in decided.bound["m", 1]
    assert loads(decided) == []


def test_the_models_own_limit_binds_inside_its_tenants() -> None:
    decided = plan(snapshot(wants=(want("m", 2, limits=Limits(cpu_millicores=1000)),), standby=("1", "2")))
    assert loads(decided) == [("1", "m")]
    assert decided.bound["m", 1].startswith("model 'm' may use 1 CPU ")


def test_the_machine_binds_and_says_how_much_it_has() -> None:
    small = Limits(cpu_millicores=1000, memory_bytes=64 << 30)
    decided = plan(snapshot(wants=(want("a", 1), want("b", 1)), standby=("1", "2"), capacity=small, standby_target=1))
    assert loads(decided) == [("1", "a")]
    assert decided.blocked["b", 1].startswith("this machine has 1 CPU to promise and 1 are taken; model 'b' needs 1")


def test_a_model_that_needs_a_gpu_is_refused_where_there_is_none() -> None:
    with_gpu = want("m", 1, resources=Resources(1000, 1, 1000))
    decided = plan(snapshot(wants=(with_gpu,), standby=("1",), standby_target=1))
    assert decided.blocked == {
        ("m", 1): "this machine has no GPU to promise and model 'm' asks for 1: deploy it without --gpu"
    }


def test_what_nobody_uses_makes_room_the_longest_idle_first() -> None:
    small = Limits(cpu_millicores=2000, memory_bytes=64 << 30)
    before = snapshot(
        wants=(want("a", 1, spare=True, idle_s=5.0), want("b", 1, spare=True, idle_s=50.0), want("m", 1)),
        holdings=(held("1", "a"), held("2", "b")),
        standby=("s",),
        standby_target=1,
        capacity=small,
    )
    decided = plan(before)
    assert drains(decided) == ["2"]
    assert decided.blocked == {}
    # While it drains, nothing more is taken; once it is gone, the model loads.
    wants = (before.wants[0], replace(before.wants[1], desired=0, spare=False), before.wants[2])
    draining = replace(before, wants=wants, holdings=(held("1", "a"), held("2", "b", draining=True)))
    assert plan(draining).actions == ()
    assert loads(plan(replace(draining, holdings=(held("1", "a"),)))) == [("s", "m")]


def test_nobodys_second_instance_takes_anothers_only_one() -> None:
    small = Limits(cpu_millicores=2000, memory_bytes=64 << 30)
    decided = plan(
        snapshot(
            wants=(want("a", 1, spare=True), want("m", 2)), holdings=(held("1", "a"), held("2", "m")),
            standby=("s",), standby_target=1, capacity=small,
        )
    )  # fmt: skip
    assert decided.actions == ()
    assert ("m", 1) in decided.bound


def test_a_verified_instance_that_its_tenant_may_not_have_goes_at_once() -> None:
    decided = plan(
        snapshot(
            wants=(want("m", 1, spare=True),), holdings=(held("1", "m"),), limits={"acme": Limits(cpu_millicores=0)}
        )
    )
    assert drains(decided) == ["1"]


def test_a_redeploy_at_the_limit_keeps_the_new_instance() -> None:
    retiring = replace(want("m", 1), retiring=True)
    current = Want("m", 2, "acme", ONE, 1, spare=True)
    decided = plan(
        snapshot(
            wants=(retiring, current),
            holdings=(held("old", "m"), held("new", "m", revision=2)),
            limits={"acme": Limits(cpu_millicores=1000)},
        )
    )
    assert drains(decided) == []


def test_a_load_that_failed_waits_and_one_that_keeps_failing_blocks() -> None:
    paused = want("a", 1, paused=True)
    blocked = want("b", 1, paused=True, held_back="model 'b' cannot be loaded: bad opset")
    decided = plan(snapshot(wants=(paused, blocked), standby=("1", "2"), standby_target=2))
    assert decided.actions == ()
    assert decided.blocked == {("b", 1): "model 'b' cannot be loaded: bad opset"}


def test_when_no_runner_can_be_started_the_reason_is_said() -> None:
    decided = plan(snapshot(wants=(want("m", 1),), standby_target=1, start_limit=0, start_refusal="disk full"))
    assert decided.actions == ()
    assert decided.blocked == {("m", 1): "disk full"}


def test_too_many_standby_runners_are_stopped() -> None:
    decided = plan(snapshot(standby=("1", "2", "3"), standby_target=1))
    assert [each.runner for each in decided.actions if isinstance(each, StopStandby)] == ["3", "2"]


TENANTS = ("t0", "t1", "t2")


@st.composite
def any_snapshot(draw: st.DrawFn) -> Snapshot:
    shapes = st.builds(Resources, st.integers(1, 3).map(lambda n: n * 500), st.integers(1, 3).map(lambda n: n << 28))
    wants, holdings = [], []
    for index in range(draw(st.integers(0, 6))):
        tenant, shape = draw(st.sampled_from(TENANTS)), draw(shapes)
        wants.append(
            want(
                f"m{index}",
                draw(st.integers(0, 4)),
                tenant,
                resources=shape,
                spare=draw(st.booleans()),
                idle_s=draw(st.floats(0, 100)),
                paused=draw(st.booleans()),
                limits=draw(st.sampled_from((Limits(), Limits(cpu_millicores=1500)))),
            )
        )
        for number in range(draw(st.integers(0, 3))):
            state = draw(st.sampled_from(("ready", "loading", "draining")))
            holdings.append(
                held(
                    f"h{index}-{number}",
                    f"m{index}",
                    tenant,
                    resources=shape,
                    ready=state == "ready",
                    draining=state == "draining",
                    started_at=float(number),
                )
            )
    return snapshot(
        wants=tuple(wants),
        holdings=tuple(holdings),
        standby=tuple(f"s{n}" for n in range(draw(st.integers(0, 4)))),
        starting=draw(st.integers(0, 3)),
        standby_target=draw(st.integers(0, 3)),
        capacity=Limits(cpu_millicores=draw(st.integers(0, 12_000)), memory_bytes=draw(st.integers(0, 4)) << 30),
        limits={name: Limits(cpu_millicores=draw(st.none() | st.integers(0, 6000))) for name in TENANTS},
    )


@settings(max_examples=300, deadline=None)
@given(any_snapshot())
def test_no_plan_breaks_a_limit_or_loses_a_runner(before: Snapshot) -> None:
    decided = plan(before)
    by_model = {each.model: each for each in before.wants}
    loaded = [each for each in decided.actions if isinstance(each, LoadOnStandby)]
    used_runners = [each.runner for each in loaded] + [
        each.runner for each in decided.actions if isinstance(each, StopStandby)
    ]
    assert len(set(used_runners)) == len(used_runners)
    assert set(used_runners) <= set(before.standby)
    drained = drains(decided)
    assert len(set(drained)) == len(drained)
    assert all(each.ready and not each.draining for each in before.holdings if each.id in drained)

    started = [by_model[each.model] for each in loaded]
    for want_ in before.wants:
        live = sum(each.model == want_.model and not each.draining for each in before.holdings)
        new = started.count(want_)
        assert not new or live + new <= want_.desired
        assert not new or not want_.paused
    _assert_within(before.capacity, [each.resources for each in before.holdings], [each.resources for each in started])
    for tenant in TENANTS:
        _assert_within(
            next(each.nominal for each in before.tenants if each.name == tenant),
            [each.resources for each in before.holdings if each.tenant == tenant],
            [each.resources for each in started if each.tenant == tenant],
        )
    assert set(decided.blocked) <= set(decided.bound)
    left = len(before.standby) - len(used_runners)
    assert starts(decided) + before.starting <= max(before.start_limit, before.starting)
    assert left >= 0


def _assert_within(limits: Limits, before: list[Resources], started: list[Resources]) -> None:
    """What was there may be over a limit that was lowered; what is started may not add to that."""
    for dimension in ("cpu_millicores", "memory_bytes"):
        limit = getattr(limits, dimension)
        added = sum(getattr(each, dimension) for each in started)
        if limit is not None and added:
            assert sum(getattr(each, dimension) for each in before) + added <= limit


@settings(max_examples=100, deadline=None)
@given(any_snapshot())
def test_when_nothing_is_wanted_the_pool_comes_to_its_target(before: Snapshot) -> None:
    quiet = replace(before, wants=(), holdings=(), starting=0)
    standby, rounds = list(quiet.standby), 0
    while (decided := plan(replace(quiet, standby=tuple(standby)))).actions:
        rounds += 1
        assert rounds < 5
        for action in decided.actions:
            if isinstance(action, StopStandby):
                standby.remove(action.runner)
            else:
                standby.append(f"new{rounds}-{len(standby)}")
    assert len(standby) == quiet.standby_target


@pytest.mark.parametrize("count", [2000])
def test_a_plan_of_many_models_is_quick(count: int) -> None:
    wants = tuple(want(f"m{n}", 1, f"t{n % 7}", spare=n % 2 == 0) for n in range(count))
    holdings = tuple(held(f"h{n}", f"m{n}", f"t{n % 7}") for n in range(count))
    big = Limits(cpu_millicores=count * 1000, memory_bytes=count << 30)
    assert plan(snapshot(wants=wants, holdings=holdings, capacity=big)).actions == ()
