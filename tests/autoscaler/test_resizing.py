"""Changes of shape over a planner and a clock: by hand, and what never happens whatever the model."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace_autoscaler.core.allocator.choice import sustained
from headrace_autoscaler.core.budgets import Budget, BudgetState, Period, Standing, budget_key
from headrace_autoscaler.core.decider import TRUSTED, Decision
from headrace_autoscaler.core.planner import plan
from headrace_autoscaler.core.plans import DrainInstance, Holding, LoadOnStandby, Plan, Snapshot, StartStandby, Want
from headrace_autoscaler.core.quota import bounds_of
from headrace_autoscaler.core.rationing import ration
from headrace_autoscaler.core.resizing import (
    APART_S,
    CONFIRM_S,
    FORGOTTEN_S,
    TRIAL_S,
    Resizing,
    Situation,
    Sizing,
)
from headrace_autoscaler.core.room import Room
from headrace_autoscaler.core.shape_change import GIVE_UP_S
from headrace_autoscaler.core.sizing import shapes, ways
from headrace_autoscaler.domain import Limits, Resources, ShapeProfile, Tenant

GIB = 1 << 30
ONE, TWO, FOUR = (Resources(cpus * 1000, GIB) for cpus in (1, 2, 4))
ROOMY = Limits(cpu_millicores=64_000, memory_bytes=64 * GIB, gpu_millis=0, gpu_memory_bytes=0)


def price(resources: Resources) -> int:
    return 85 * resources.cpu_millicores


@dataclass
class Ranged:
    """A model with a range, the load on it, and what its shapes would measure (microseconds of one row)."""

    name: str
    times_us: dict[Resources, int]
    load: float = 0.0
    slo_s: float | None = None
    tenant: str = "acme"
    minimum: int = 0
    maximum: int | None = None
    most_millicores: int = 4000
    measured: set[Resources] = field(default_factory=lambda: {ONE})
    limits: Limits = field(default_factory=Limits)
    reason: str = "demand"
    kept: int = 0
    least: Resources = ONE

    @property
    def key(self) -> tuple[str, int]:
        return (self.name, 1)

    def sustains(self, shape: Resources) -> float:
        return sustained(((1, self.times_us[shape]),), self.slo_s)[0]

    def decide(self, footing: Resources) -> Decision:
        """A policy that knows the load: as many as it takes, with head-room."""
        needed = math.ceil(1.3 * self.load / self.sustains(footing)) if self.load else 0
        wanted = max(needed, self.minimum, self.kept)
        desired = wanted if self.maximum is None else min(wanted, self.maximum)
        idle_s = 0.0 if self.load else 100.0
        return Decision(desired, self.reason, wanted, self.kept > needed, (("idle_s", idle_s),), min(needed, desired))


@dataclass
class Mesh:
    """Runners that do at once what they are told, and load until the next pass."""

    models: list[Ranged]
    capacity: Limits = ROOMY
    tenants: tuple[Tenant, ...] = ()
    holdings: list[Holding] = field(default_factory=list)
    now: float = 1000.0
    born: int = 0
    standby: int = 8
    awaiting: bool = False
    failing: set[Resources] = field(default_factory=set)
    failures: int = 0
    resizing: Resizing = field(default_factory=lambda: Resizing(price))
    sizings: dict[str, Sizing] = field(default_factory=dict)

    def run(self, model: str, *held: Resources) -> Mesh:
        for resources in held:
            self.born += 1
            tenant = next(each.tenant for each in self.models if each.name == model)
            self.holdings.append(Holding(f"i{self.born}", model, 1, tenant, resources, True, False, float(self.born)))
        return self

    def shapes_of(self, model: str) -> list[int]:
        """CPUs of its instances, ascending."""
        live = [each for each in self.holdings if each.model == model and not each.draining]
        return sorted(each.resources.cpu_millicores // 1000 for each in live)

    def reason(self, model: str) -> str:
        return self.sizings[model].reason

    def pass_(self, after_s: float = 0.0) -> Plan:
        """One pass; then what was told is done, and loads end."""
        self.now += after_s
        decided = plan(self._snapshot())
        self._obey(decided)
        return decided

    def passes(self, count: int, each_s: float = 1.0) -> None:
        for _ in range(count):
            self.pass_(each_s)

    def _snapshot(self) -> Snapshot:
        room = Room(self.tenants, self.capacity)
        for holding in self.holdings:
            room.add(holding)
        for model in self.models:
            self.sizings[model.name] = self._size(model, room)
        leaving = frozenset().union(*(each.leaving for each in self.sizings.values()))
        return Snapshot(
            wants=tuple(self.sizings[model.name].want for model in self.models),
            holdings=tuple(replace(each, leaving=each.id in leaving) for each in self.holdings),
            standby=tuple(f"s{self.born + number}" for number in range(1, self.standby + 1)),
            starting=0,
            standby_target=8,
            capacity=self.capacity,
            tenants=self.tenants,
        )

    def _size(self, model: Ranged, room: Room) -> Sizing:
        live = tuple(each for each in self.holdings if each.model == model.name and not each.draining)
        footing = self.resizing.footing(model.key, model.least, [each.resources for each in live], self.now)
        decision = model.decide(footing)
        room.quotas.set_model(model.name, bounds_of(model.limits))
        profiles = [ShapeProfile(shape, ((1, model.times_us[shape]),)) for shape in model.measured]
        want = Want(
            model.name, 1, model.tenant, footing, decision.desired, model.limits, decision.spare,
            max(decision.needed, model.minimum), dict(decision.inputs)["idle_s"],
        )  # fmt: skip
        allowed = ways(shapes(model.least, model.most_millicores), profiles)
        situation = Situation(
            want, decision, allowed, live, model.slo_s, model.minimum, model.maximum, model.load, self.failures,
            awaiting=self.awaiting,
        )  # fmt: skip
        return self.resizing.size(situation, room, self.now)

    def _obey(self, decided: Plan) -> None:
        gone = {each.runner for each in decided.actions if isinstance(each, DrainInstance)}
        by_name = {model.name: model for model in self.models}
        after = []
        for each in self.holdings:
            if each.draining:
                continue
            if not each.ready and each.resources in self.failing:
                self.failures += 1
                continue
            if not each.ready:
                by_name[each.model].measured.add(each.resources)
            after.append(replace(each, ready=True, draining=each.id in gone))
        self.holdings = after
        for action in decided.actions:
            if isinstance(action, LoadOnStandby) and action.resources is not None:
                self.born += 1
                tenant = by_name[action.model].tenant
                held = Holding(action.runner, action.model, 1, tenant, action.resources, False, False, self.now)
                self.holdings.append(held)


SLOW_ALONE = {ONE: 120_000, TWO: 70_000, FOUR: 40_000}
"""One CPU misses an objective of 100 ms."""
NEAR_TWICE = {ONE: 10_000, TWO: 5_500, FOUR: 3_200}
FASTER = {ONE: 10_000, TWO: 2_000, FOUR: 1_500}
"""Two CPUs do five times what one does (say, its caches are its own)."""


def test_a_shape_that_misses_the_objective_is_replaced_once_a_larger_one_was_measured() -> None:
    mesh = Mesh([Ranged("m", SLOW_ALONE, 5, 0.1)]).run("m", ONE)
    mesh.pass_()
    assert mesh.shapes_of("m") == [1, 2]
    assert mesh.reason("m") == "tries 2 CPUs per instance, which was never measured"
    mesh.pass_()
    assert mesh.shapes_of("m") == [1, 2], "it loads: the old one answers"
    decided = mesh.pass_()
    why = "2 CPUs per instance meet the objective, which what runs cannot even for a single request"
    assert mesh.reason("m") == why
    assert [each.reason for each in decided.actions if isinstance(each, DrainInstance)] == [f"resized: {why}"]
    mesh.passes(3)
    assert mesh.shapes_of("m") == [2]


def test_beside_an_instance_that_is_added_a_shape_is_tried_and_goes_where_it_saves_nothing() -> None:
    model = Ranged("m", NEAR_TWICE, 110, most_millicores=2000)
    mesh = Mesh([model]).run("m", ONE)
    mesh.pass_()
    assert mesh.shapes_of("m") == [1, 1], "what demand asks for is not made to wait"
    mesh.pass_()
    assert mesh.shapes_of("m") == [1, 1, 2]
    mesh.passes(2)
    assert model.measured == {ONE, TWO}
    assert mesh.shapes_of("m") == [1, 1], "two CPUs serve less than two instances, for the same money"
    mesh.passes(20, 400.0)
    assert mesh.shapes_of("m") == [1, 1]


def test_a_trial_waits_for_a_runner_but_not_for_long() -> None:
    mesh = Mesh([Ranged("m", NEAR_TWICE, 110, most_millicores=2000)]).run("m", ONE)
    mesh.pass_()
    mesh.standby = 0
    mesh.passes(3)
    mesh.standby = 8
    mesh.pass_()
    assert mesh.shapes_of("m") == [1, 1, 2]
    late = Mesh([Ranged("m", NEAR_TWICE, 110, most_millicores=2000)]).run("m", ONE)
    late.pass_()
    late.standby = 0
    late.passes(3, TRIAL_S)
    late.standby = 8
    late.passes(3)
    assert late.shapes_of("m") == [1, 1]


def test_a_burst_is_no_time_to_try_something() -> None:
    mesh = Mesh([Ranged("m", NEAR_TWICE, 300)]).run("m", ONE)
    mesh.passes(3)
    assert mesh.shapes_of("m") == [1, 1, 1, 1]


def test_cheaper_instances_replace_all_that_run_at_once_and_only_when_they_are_ready() -> None:
    model = Ranged("m", FASTER, 300, measured={ONE, TWO, FOUR})
    mesh = Mesh([model]).run("m", ONE, ONE, ONE, ONE)
    mesh.pass_()
    assert mesh.shapes_of("m") == [1, 1, 1, 1]
    mesh.pass_(CONFIRM_S)
    assert mesh.shapes_of("m") == [1, 1, 1, 1, 2]
    mesh.pass_()
    mesh.pass_()
    assert mesh.shapes_of("m") == [2]
    mesh.passes(20, 400.0)
    assert mesh.shapes_of("m") == [2]


@pytest.mark.parametrize(
    ("load", "resized"), [pytest.param(150, False, id="the same price"), pytest.param(350, True, id="five against two")]
)
def test_nothing_is_replaced_for_less_than_a_sixth(load: float, resized: bool) -> None:
    model = Ranged("m", {**FASTER, FOUR: 10_000}, load, measured={ONE, TWO, FOUR})
    count = model.decide(ONE).desired
    mesh = Mesh([model]).run("m", *[ONE] * count)
    mesh.passes(6, CONFIRM_S)
    assert (mesh.shapes_of("m") != [1] * count) is resized


def test_without_room_for_both_what_runs_stays_while_it_is_used() -> None:
    small = replace(ROOMY, cpu_millicores=2000)
    model = Ranged("m", SLOW_ALONE, 5, 0.1, measured={ONE, TWO}, most_millicores=2000)
    mesh = Mesh([model], small).run("m", ONE)
    mesh.passes(5)
    assert mesh.shapes_of("m") == [1]
    assert mesh.reason("m").endswith("there is no room for both, so what runs stays while it is used")
    # Idle, it may go before there is another.
    model.load, model.minimum = 0.0, 1
    mesh.passes(4)
    assert mesh.shapes_of("m") == [2]


@pytest.mark.parametrize(
    ("leaving", "drained"),
    [pytest.param(False, ["n2"], id="its own second instance"), pytest.param(True, [], id="a change of shape")],
)
def test_what_a_tenant_has_lent_is_not_taken_back_for_a_change(leaving: bool, drained: list[str]) -> None:
    tenants = (
        Tenant("acme", Limits(cpu_millicores=3000), cohort="c"),
        Tenant("globex", Limits(cpu_millicores=1000), cohort="c"),
    )
    lent = tuple(Holding(f"n{n}", "n", 1, "globex", ONE, True, False, float(n)) for n in range(3))
    own = Holding("m0", "m", 1, "acme", ONE, True, False, 0.0, leaving=leaving)
    wants = (Want("m", 1, "acme", ONE, 1 if leaving else 2), Want("n", 1, "globex", ONE, 3))
    decided = plan(Snapshot(wants, (own, *lent), ("s1",), 0, 1, ROOMY, tenants=tenants))
    assert [each.runner for each in decided.actions if isinstance(each, DrainInstance)] == drained


def test_an_instance_that_is_ready_is_not_too_many_before_its_load_has_said_what_it_measured() -> None:
    mesh = Mesh([Ranged("m", SLOW_ALONE, 5, 0.1)]).run("m", ONE)
    mesh.passes(2)
    mesh.models[0].measured = {ONE}
    mesh.awaiting = True
    mesh.passes(3)
    assert mesh.shapes_of("m") == [1, 2]
    mesh.awaiting = False
    mesh.models[0].measured = {ONE, TWO}
    mesh.passes(2)
    assert mesh.shapes_of("m") == [2]


def test_a_shape_that_cannot_be_loaded_is_given_up_and_not_tried_again() -> None:
    model = Ranged("m", SLOW_ALONE, 5, 0.1, measured={ONE, TWO}, most_millicores=2000)
    mesh = Mesh([model], failing={TWO}).run("m", ONE)
    mesh.passes(20, 5.0)
    assert mesh.failures == 1
    assert mesh.shapes_of("m") == [1]


def test_one_that_never_gets_ready_is_given_up() -> None:
    model = Ranged("m", SLOW_ALONE, 5, 0.1, measured={ONE, TWO}, most_millicores=2000)
    mesh = Mesh([model]).run("m", ONE)
    mesh.pass_()
    mesh.holdings = mesh.holdings[:1]
    decided = mesh.pass_(GIVE_UP_S + 1)
    assert not any(isinstance(each, LoadOnStandby) for each in decided.actions)
    assert mesh.shapes_of("m") == [1]


def test_a_shape_that_was_given_up_is_tried_again_after_an_hour() -> None:
    model = Ranged("m", SLOW_ALONE, 5, 0.1, measured={ONE, TWO}, most_millicores=2000)
    mesh = Mesh([model], failing={TWO}).run("m", ONE)
    mesh.passes(5)
    mesh.failing.clear()
    mesh.passes(5, 60.0)
    assert mesh.shapes_of("m") == [1]
    mesh.pass_(FORGOTTEN_S)
    mesh.passes(5)
    assert mesh.shapes_of("m") == [2]


def test_what_went_first_comes_back_where_the_shape_that_it_went_for_cannot_be_loaded() -> None:
    """Idle and without room for both, the old one goes before there is another."""
    model = Ranged("m", SLOW_ALONE, 0, 0.1, minimum=1, measured={ONE, TWO}, most_millicores=2000)
    mesh = Mesh([model], replace(ROOMY, cpu_millicores=2000), failing={TWO}).run("m", ONE)
    mesh.passes(20)
    assert (mesh.failures, mesh.shapes_of("m")) == (1, [1])


@pytest.mark.parametrize("measured", [{ONE, TWO}, {TWO}], ids=["another was measured", "no other was measured"])
def test_from_zero_another_shape_is_loaded_where_the_best_one_cannot_be(measured: set[Resources]) -> None:
    model = Ranged("m", SLOW_ALONE, 5, 0.1, measured=measured, most_millicores=2000)
    mesh = Mesh([model], failing={TWO})
    mesh.passes(6)
    assert (mesh.failures, mesh.shapes_of("m")) == (1, [1])


def test_where_no_shape_can_be_loaded_one_is_tried_until_it_can() -> None:
    model = Ranged("m", SLOW_ALONE, 5, 0.1, measured={ONE, TWO}, most_millicores=2000)
    mesh = Mesh([model], failing={ONE, TWO})
    mesh.passes(20)
    assert mesh.failures > 5
    mesh.failing.clear()
    mesh.passes(3)
    assert mesh.shapes_of("m") in ([1], [2])


def test_a_change_of_many_instances_has_time_for_each() -> None:
    model = Ranged("m", FASTER, 1500, measured={ONE, TWO}, most_millicores=2000)
    mesh = Mesh([model]).run("m", *[ONE] * 20)
    mesh.passes(2, CONFIRM_S)
    mesh.standby = 1
    mesh.passes(8, 0.7 * GIVE_UP_S)
    assert mesh.shapes_of("m") == [2, 2, 2, 2]


def test_failures_of_before_a_change_do_not_hide_its_own() -> None:
    model = Ranged("m", SLOW_ALONE, 5, 0.1, measured={ONE, TWO}, most_millicores=2000)
    mesh = Mesh([model], failing={TWO}, failures=3, standby=0).run("m", ONE)
    mesh.pass_()
    mesh.failures, mesh.standby = 0, 8
    mesh.passes(20, 5.0)
    assert (mesh.failures, mesh.shapes_of("m")) == (1, [1])


def test_a_model_at_zero_starts_with_the_shape_that_meets_its_objective() -> None:
    mesh = Mesh([Ranged("m", SLOW_ALONE, 5, 0.1, measured={ONE, TWO})])
    mesh.pass_()
    assert mesh.shapes_of("m") == [2]


def test_where_no_shape_that_meets_the_objective_fits_a_slower_one_runs() -> None:
    model = Ranged("m", SLOW_ALONE, 5, 0.1, measured={ONE, TWO}, least=ONE)
    mesh = Mesh([model], replace(ROOMY, cpu_millicores=1000))
    mesh.resizing.footing(model.key, TWO, [], mesh.now)
    mesh.passes(2)
    assert mesh.shapes_of("m") == [1]


def test_changes_are_apart() -> None:
    model = Ranged("m", FASTER, 300, measured={ONE, TWO}, most_millicores=2000)
    mesh = Mesh([model]).run("m", ONE, ONE, ONE, ONE)
    mesh.passes(6, CONFIRM_S)
    assert mesh.shapes_of("m") == [2]
    model.load = 10.0
    mesh.passes(3, CONFIRM_S)
    assert mesh.shapes_of("m") == [2], "it costs twice what would do"
    mesh.passes(4, APART_S / 2)
    assert mesh.shapes_of("m") == [1]


def test_what_is_kept_since_before_a_change_starts_nothing() -> None:
    model = Ranged("m", FASTER, 300, measured={ONE, TWO}, most_millicores=2000)
    mesh = Mesh([model]).run("m", ONE, ONE, ONE, ONE)
    model.kept = 4
    mesh.passes(8, CONFIRM_S)
    assert mesh.shapes_of("m") == [2]


def test_nothing_changes_while_an_autoscaler_that_has_just_begun_trusts_what_runs() -> None:
    model = Ranged("m", SLOW_ALONE, 5, 0.1, measured={ONE, TWO}, reason=TRUSTED)
    mesh = Mesh([model]).run("m", ONE)
    mesh.passes(4)
    assert mesh.shapes_of("m") == [1]


def test_a_range_that_was_made_smaller_is_followed() -> None:
    model = Ranged("m", NEAR_TWICE, 5, measured={ONE, TWO, FOUR}, most_millicores=2000)
    mesh = Mesh([model]).run("m", FOUR)
    mesh.passes(6, CONFIRM_S)
    assert mesh.shapes_of("m") == [1]


def test_a_range_that_has_nothing_measured_in_it_is_followed() -> None:
    model = Ranged("m", NEAR_TWICE, 5)
    mesh = Mesh([model]).run("m", ONE)
    mesh.pass_()
    model.least = TWO
    mesh.passes(8, CONFIRM_S)
    assert mesh.shapes_of("m") == [2]
    smaller = Ranged("m", NEAR_TWICE, 5, measured={TWO}, most_millicores=1000)
    mesh = Mesh([smaller]).run("m", TWO)
    mesh.passes(8, CONFIRM_S)
    assert mesh.shapes_of("m") == [1]


def test_a_model_at_zero_begins_inside_its_range() -> None:
    model = Ranged("m", NEAR_TWICE, 5)
    mesh = Mesh([model])
    mesh.pass_()
    model.load = 0.0
    mesh.passes(2)
    model.load, model.least = 5.0, TWO
    mesh.holdings.clear()
    mesh.pass_()
    assert mesh.shapes_of("m") == [2]


def test_a_budget_that_has_money_for_half_a_change_pays_for_none() -> None:
    hour = Budget("acme", "", Period.HOUR, 130)
    standings = {budget_key("acme"): (Standing(hour, 100, 0, BudgetState.WARNED, 3600, "USD"),)}
    old = tuple(Holding(f"i{n}", "m", 1, "acme", ONE, True, False, 0.0, leaving=True) for n in range(4))
    want = Want("m", 1, "acme", TWO, 2, start_reason="cheaper")

    def paid(holdings: tuple[Holding, ...]) -> Want:
        # A tick of an instance costs 20 here.
        [rationed] = ration([want], holdings, standings, lambda _: 20 * 3600, lambda _: True)
        return rationed

    assert paid(old).held_back
    assert paid(()).desired == 1, "what is no change gets what there is money for"


# Whatever the model.

TENANTS = ("t0", "t1")


@st.composite
def meshes(draw: st.DrawFn) -> Mesh:
    models = []
    for index in range(draw(st.integers(1, 4))):
        one = draw(st.integers(2_000, 150_000))
        two = int(one * draw(st.floats(0.2, 1.1)))
        four = int(two * draw(st.floats(0.2, 1.1)))
        models.append(
            Ranged(
                f"m{index}",
                {ONE: one, TWO: two, FOUR: four},
                float(draw(st.sampled_from((0, 0, 1, 20, 60, 150)))),
                draw(st.sampled_from((None, 0.01, 0.1))),
                draw(st.sampled_from(TENANTS)),
                draw(st.integers(0, 2)),
                draw(st.sampled_from((None, None, 2, 3))),
                draw(st.sampled_from((1000, 2000, 4000))),
                {ONE} | draw(st.sets(st.sampled_from((TWO, FOUR)))),
                draw(st.sampled_from((Limits(), Limits(), Limits(cpu_millicores=3000)))),
            )
        )
    cohort = draw(st.sampled_from(("", "c")))
    tenants = tuple(
        Tenant(name, Limits(cpu_millicores=draw(st.sampled_from((None, 2000, 4000, 8000)))), cohort=cohort)
        for name in TENANTS
    )
    mesh = Mesh(models, Limits(draw(st.integers(2, 16)) * 1000, draw(st.integers(2, 16)) * GIB, 0, 0), tenants)
    for model in models:
        mesh.run(model.name, *draw(st.lists(st.sampled_from((ONE, ONE, TWO, FOUR)), max_size=3)))
    return mesh


def used(holdings: list[Holding], tenant: str | None = None, model: str | None = None) -> int:
    return sum(
        each.resources.cpu_millicores
        for each in holdings
        if tenant in (None, each.tenant) and model in (None, each.model)
    )


@settings(max_examples=200, deadline=None)
@given(meshes())
def test_no_start_breaks_a_limit_with_mixed_shapes_and_no_change_leaves_demand_unserved(mesh: Mesh) -> None:
    settled = {
        model.name: sum(model.sustains(each.resources) for each in mesh.holdings if each.model == model.name)
        for model in mesh.models
    }
    for _ in range(25):
        before = list(mesh.holdings)
        decided = mesh.pass_(7.0)
        loads = [each for each in decided.actions if isinstance(each, LoadOnStandby)]
        started = [each for each in mesh.holdings if not each.ready and each.started_at == mesh.now]
        assert len(loads) == len(started)
        if started:
            assert used(before) + used(started) <= (mesh.capacity.cpu_millicores or 0)
        for tenant in mesh.tenants:
            if used(started, tenant.name) and tenant.nominal.cpu_millicores is not None and not tenant.cohort:
                assert used(before, tenant.name) + used(started, tenant.name) <= tenant.nominal.cpu_millicores
        for model in mesh.models:
            if used(started, model=model.name) and model.limits.cpu_millicores is not None:
                taken = used(before, model=model.name) + used(started, model=model.name)
                assert taken <= model.limits.cpu_millicores
            _assert_answers(mesh, model, before, decided, settled)


def _assert_answers(mesh: Mesh, model: Ranged, before: list[Holding], decided: Plan, settled: dict[str, float]) -> None:
    """A change of shape takes nothing away that demand needs and that was there before it began."""
    ready = {each.id: each for each in before if each.model == model.name and each.ready and not each.draining}
    resized = [each.runner for each in decided.actions if isinstance(each, DrainInstance) and "resized" in each.reason]
    gone = ready.keys() & set(resized)
    staying = [each for id_, each in ready.items() if id_ not in gone]
    # During a change there are more than the maximum; afterwards there may not be.
    if gone and (model.maximum is None or len(staying) < model.maximum):
        left = sum(model.sustains(each.resources) for each in staying)
        assert left >= min(settled[model.name], model.load) * (1 - 1e-9)
    if not mesh.sizings[model.name].leaving:
        settled[model.name] = sum(model.sustains(each.resources) for each in ready.values())


@settings(max_examples=150, deadline=None)
@given(meshes())
def test_under_unchanged_demand_shapes_come_to_rest(mesh: Mesh) -> None:
    quiet = 0
    for _ in range(400):
        decided = mesh.pass_(20.0 if not quiet else 700.0)
        acts = [each for each in decided.actions if not isinstance(each, StartStandby)]
        quiet = quiet + 1 if not acts and all(each.ready for each in mesh.holdings) else 0
        # More than an hour in which nothing happened: no pause ends later.
        if quiet > 12:
            return
    pytest.fail(f"still acts: {acts}; {mesh.sizings}")
