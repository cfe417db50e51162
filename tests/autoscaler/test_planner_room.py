"""Who makes room for whom, what a deploy leaves running, and that planning comes to rest."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace_autoscaler.core.decider import Decider
from headrace_autoscaler.core.demand import Counts, DemandWindow, Level
from headrace_autoscaler.core.planner import plan
from headrace_autoscaler.core.plans import (
    DrainInstance,
    Holding,
    LoadOnStandby,
    Plan,
    Snapshot,
    StartStandby,
    Want,
)
from headrace_autoscaler.core.revision_status import RevisionStatus
from headrace_autoscaler.domain import Limits, ModelSpec, Resources, Tenant

ONE = Resources(1000, 1 << 30)
ROOMY = Limits(cpu_millicores=64_000, memory_bytes=64 << 30, gpu_millis=0, gpu_memory_bytes=0)
ONE_CPU = {"acme": Limits(cpu_millicores=1000)}


def want(model: str, desired: int, **rest: object) -> Want:
    return Want(model, 1, "acme", ONE, desired, **rest)  # type: ignore[arg-type]


def held(id_: str, model: str, **rest: object) -> Holding:
    settled = {"revision": 1, "ready": True, "draining": False, "started_at": 0.0, **rest}
    return Holding(id=id_, model=model, tenant="acme", resources=ONE, **settled)  # type: ignore[arg-type]


def snapshot(**parts: object) -> Snapshot:
    defaults = {"wants": (), "holdings": (), "standby": (), "starting": 0, "standby_target": 0, "capacity": ROOMY}
    limits: dict[str, Limits] = parts.pop("limits", {})  # type: ignore[assignment]
    tenants = tuple(Tenant(name, nominal) for name, nominal in limits.items())
    return Snapshot(**{**defaults, "tenants": tenants, **parts})  # type: ignore[arg-type]


def drains(decided: Plan) -> list[str]:
    return [each.runner for each in decided.actions if isinstance(each, DrainInstance)]


def starts(decided: Plan) -> int:
    return sum(isinstance(each, StartStandby) for each in decided.actions)


@pytest.mark.parametrize(
    ("minimum", "ready", "taken"),
    [(1, 1, []), (2, 2, []), (1, 2, ["h1"]), (0, 1, ["h0"])],
    ids=["its only one", "all of its minimum", "the newer one beyond the minimum", "without a minimum"],
)
def test_only_what_is_beyond_a_minimum_makes_room(minimum: int, ready: int, taken: list[str]) -> None:
    decided = plan(
        snapshot(
            wants=(want("idle", ready, spare=True, minimum=minimum), want("m", 1)),
            holdings=tuple(held(f"h{n}", "idle", started_at=float(n)) for n in range(ready)),
            standby=("s",),
            limits={"acme": Limits(cpu_millicores=ready * 1000)},
        )
    )
    assert drains(decided) == taken
    assert (("m", 1) in decided.blocked) is not bool(taken)


def test_nothing_is_drained_for_a_model_that_would_not_fit_all_the_same() -> None:
    decided = plan(
        snapshot(
            wants=(want("idle", 1, spare=True), want("busy", 1), want("m", 1)),
            holdings=(held("a", "idle"), Holding("b", "busy", 1, "globex", ONE, True, False, 0.0)),
            standby=("s",),
            capacity=Limits(cpu_millicores=2000, memory_bytes=1 << 30),
            limits=ONE_CPU,
        )
    )
    assert drains(decided) == [], "the tenant's quota could be met, the machine's memory could not"
    assert decided.blocked["m", 1].startswith("this machine has 1Gi of memory to promise and 2Gi are taken")


def test_a_spare_takes_no_other_spare() -> None:
    wants = (want("a", 1, spare=True), want("b", 1, spare=True))
    assert drains(plan(snapshot(wants=wants, holdings=(held("1", "a"),), standby=("s",), limits=ONE_CPU))) == []


# What was verified outside the limits.


def test_a_verified_instance_inside_the_limits_is_admitted() -> None:
    decided = plan(snapshot(wants=(want("m", 1, minimum=1),), holdings=(held("v", "m", admitted=False),)))
    assert (decided.admitted, decided.actions) == (("v",), ())


def test_a_verified_instance_of_a_minimum_that_does_not_fit_goes_and_its_model_is_blocked() -> None:
    decided = plan(
        snapshot(
            wants=(want("q1", 1, minimum=1), want("q2", 1, minimum=1)),
            holdings=(held("a", "q1"), held("v", "q2", admitted=False)),
            standby=("s",),
            limits=ONE_CPU,
        )
    )
    assert (drains(decided), decided.admitted) == (["v"], ())
    assert decided.blocked["q2", 1].startswith("tenant 'acme' may use 1 CPU and uses 1; model 'q2' needs 1: raise ")


def test_a_verified_instance_of_a_minimum_takes_an_idle_models_place() -> None:
    before = snapshot(
        wants=(want("idle", 1, spare=True), want("m", 1, minimum=1)),
        holdings=(held("a", "idle"), held("v", "m", admitted=False)),
        limits=ONE_CPU,
    )
    assert (drains(plan(before)), plan(before).admitted) == (["a"], ("v",))
    wanted_by_nobody = replace(before, wants=(before.wants[0], want("m", 1, spare=True)))
    assert drains(plan(wanted_by_nobody)) == ["v"]


def test_more_than_the_machine_has_is_not_kept_after_a_verification() -> None:
    names = ("a", "b", "c")
    decided = plan(
        snapshot(
            wants=tuple(want(name, 1, minimum=1) for name in names),
            holdings=tuple(held(name, name, admitted=False, started_at=float(n)) for n, name in enumerate(names)),
            capacity=Limits(cpu_millicores=2000, memory_bytes=64 << 30),
        )
    )
    assert (decided.admitted, drains(decided)) == (("a", "b"), ["c"])
    assert decided.blocked["c", 1].startswith("this machine has 2 CPUs to promise and 2 are taken; model 'c' needs 1")


def test_a_redeploy_at_the_limit_is_admitted_while_the_old_revision_retires() -> None:
    wants = (replace(want("m", 1), retiring=True), Want("m", 2, "acme", ONE, 1, minimum=1))
    holdings = (held("old", "m"), held("new", "m", revision=2, admitted=False))
    decided = plan(snapshot(wants=wants, holdings=holdings, limits=ONE_CPU))
    assert (decided.actions, decided.admitted) == ((), ("new",))


def test_what_is_still_being_verified_is_left_alone() -> None:
    holdings = (held("v", "m", admitted=False),)
    decided = plan(snapshot(holdings=holdings, protected=frozenset({("m", 1)}), limits=ONE_CPU))
    assert (decided.actions, decided.admitted) == ((), ())


# The standby pool's refill.


@pytest.mark.parametrize(
    ("parts", "started", "held_back"),
    [
        ({"holdings": (held("l", "m", ready=False),), "wants": (want("m", 1),)}, 0, True),
        ({"holdings": (replace(held("r", "m"), answer_due=True),), "wants": (want("m", 1),)}, 0, True),
        ({"wants": (want("m", 1),), "standby": ("s",)}, 0, True),
        ({"wants": (want("m", 1),)}, 1, True),
        ({"holdings": (held("r", "m"),), "wants": (want("m", 1),)}, 1, False),
        ({"wants": (want("m", 1),), "standby": ("s",), "hold_refill": False}, 1, False),
    ],
    ids=[
        "during a load",
        "a first answer is due",
        "with a load that begins",
        "a model that waits comes first",
        "afterwards",
        "after a while",
    ],
)
def test_the_pool_is_refilled_when_no_cold_start_is_under_way(
    parts: dict[str, object], started: int, held_back: bool
) -> None:
    decided = plan(snapshot(**{"standby_target": 1, "hold_refill": True, **parts}))
    assert (starts(decided), decided.refill_held) == (started, held_back)


# Planning comes to rest.

NOW = 1000.0


@dataclass
class Machine:
    """Runners that do at once what they are told; demand and time stand still."""

    specs: list[tuple[ModelSpec, DemandWindow | None]]
    holdings: list[Holding]
    limits: dict[str, Limits]
    capacity: Limits
    standby: list[str] = field(default_factory=list)
    born: int = 0

    def want(self, spec: ModelSpec, window: DemandWindow | None) -> Want:
        live = [each for each in self.holdings if each.model == spec.name and not each.draining]
        ready = sum(each.ready for each in live)
        profile = ((1, 10_000),)
        status = RevisionStatus(ready, len(live) - ready, 0.0 if ready else None, profile_us=profile)
        decision = Decider(lambda _: None, lambda _: 0).decide((spec.name, 1), spec, window, status, NOW, NOW)
        return Want(
            spec.name, 1, spec.tenant, spec.resources, decision.desired, spec.limits, decision.spare,
            spec.min_instances, dict(decision.inputs).get("idle_s", 0.0),
        )  # fmt: skip

    def plan(self) -> Plan:
        return plan(
            Snapshot(
                wants=tuple(self.want(*each) for each in self.specs),
                holdings=tuple(self.holdings),
                standby=tuple(self.standby),
                starting=0,
                standby_target=1,
                capacity=self.capacity,
                tenants=tuple(Tenant(name, nominal) for name, nominal in self.limits.items()),
            )
        )

    def obey(self, decided: Plan) -> None:
        shapes = {spec.name: spec for spec, _ in self.specs}
        gone = set(drains(decided))
        self.holdings = [
            replace(each, ready=True, draining=each.id in gone, admitted=each.admitted or each.id in decided.admitted)
            for each in self.holdings
            if not each.draining
        ]
        for action in decided.actions:
            if isinstance(action, LoadOnStandby):
                self.standby.remove(action.runner)
                spec = shapes[action.model]
                self.holdings.append(
                    Holding(action.runner, spec.name, 1, spec.tenant, spec.resources, False, False, float(self.born))
                )
            elif isinstance(action, StartStandby):
                self.born += 1
                self.standby.append(f"new{self.born}")
            elif not isinstance(action, DrainInstance):
                self.standby.remove(action.runner)


def window_of(queued: int) -> DemandWindow:
    window = DemandWindow(10.0)
    window.count(Counts(arrivals=queued, rows=queued), NOW)
    window.set_level("router-0", Level(queued=queued), NOW)
    return window


@st.composite
def machines(draw: st.DrawFn) -> Machine:
    specs: list[tuple[ModelSpec, DemandWindow | None]] = []
    holdings: list[Holding] = []
    for index in range(draw(st.integers(1, 5))):
        shape = Resources(draw(st.integers(1, 3)) * 500, draw(st.integers(1, 3)) << 28)
        tenant = draw(st.sampled_from(("t0", "t1")))
        spec = ModelSpec(f"m{index}", tenant, draw(st.integers(0, 2)), resources=shape)
        queued = draw(st.sampled_from((0, 0, 1, 300)))
        specs.append((spec, window_of(queued) if queued else None))
        holdings.extend(
            Holding(f"h{index}-{n}", spec.name, 1, tenant, shape, True, False, -float(n), draw(st.booleans()))
            for n in range(draw(st.integers(0, 2)))
        )
    limits = {name: Limits(cpu_millicores=draw(st.none() | st.integers(0, 4000))) for name in ("t0", "t1")}
    capacity = Limits(cpu_millicores=draw(st.integers(0, 6000)), memory_bytes=draw(st.integers(0, 3)) << 30)
    return Machine(specs, holdings, limits, capacity)


@settings(max_examples=300, deadline=None)
@given(machines())
def test_planning_again_and_again_under_unchanged_demand_comes_to_rest(machine: Machine) -> None:
    started: set[str] = set()
    drained: set[str] = set()
    for _ in range(60):
        before = (machine.holdings, machine.standby)
        decided = machine.plan()
        machine.obey(decided)
        started |= {each.runner for each in decided.actions if isinstance(each, LoadOnStandby)}
        drained |= set(drains(decided))
        if not decided.actions and before == (machine.holdings, machine.standby):
            break
    else:
        pytest.fail(f"still acts after 60 plans: {decided.actions}")
    assert not started & drained, "what was started for somebody was never taken again"


@pytest.mark.parametrize("deployed", [1, 2, 3], ids="{} verified".format)
def test_minimums_beyond_a_quota_leave_the_first_serving_and_the_rest_blocked(deployed: int) -> None:
    specs: list[tuple[ModelSpec, DemandWindow | None]] = [
        (ModelSpec(f"q{n}", "acme", min_instances=1), None) for n in range(1, 4)
    ]
    verified = [held(f"v{n}", f"q{n}", admitted=False, started_at=float(n)) for n in range(1, deployed + 1)]
    machine = Machine(specs, verified, dict(ONE_CPU), ROOMY)
    for _ in range(10):
        decided = machine.plan()
        machine.obey(decided)
    assert decided.actions == ()
    assert [each.id for each in machine.holdings] == ["v1"]
    assert set(decided.blocked) == {("q2", 1), ("q3", 1)}
