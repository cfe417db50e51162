"""Changes of shape, by hand."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from headrace_autoscaler.core.allocator.types import Way
from headrace_autoscaler.core.budgets import Budget, BudgetState, Period, Standing, budget_key
from headrace_autoscaler.core.decider import TRUSTED, Decision
from headrace_autoscaler.core.planner import plan
from headrace_autoscaler.core.plans import DrainInstance, Holding, LoadOnStandby, Snapshot, Want
from headrace_autoscaler.core.rationing import ration
from headrace_autoscaler.core.resizing import (
    APART_S,
    CONFIRM_S,
    FORGOTTEN_S,
    TRIAL_S,
)
from headrace_autoscaler.core.shape_change import GIVE_UP_S
from headrace_autoscaler.core.sizing import coinciding
from headrace_autoscaler.domain import Limits, Resources, Tenant
from tests.autoscaler.resizing_mesh import (
    FASTER,
    FOUR,
    NEAR_TWICE,
    ONE,
    ROOMY,
    SLOW_ALONE,
    TWO,
    Mesh,
    Ranged,
)


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


@dataclass
class Coinciding(Ranged):
    """Requests that come independently, of which no reading shows which come together; a policy that knows that."""

    def decide(self, footing: Resources) -> Decision:
        way = Way("", footing, ((1, self.times_us[footing]),))
        seen = max(1, coinciding(self.load, way, self.slo_s))
        inputs = (("idle_s", 0.0), ("wanted_together", float(seen)))
        return Decision(seen, "together", seen, False, inputs, seen)


def test_instances_for_what_comes_together_are_no_throughput() -> None:
    """Three of one CPU meet the objective, and so does one of two; for the rate alone one of one CPU would do."""
    model = Coinciding(
        "m", {ONE: 5_000, TWO: 1_600}, load=140.0, slo_s=0.0075, most_millicores=2000, measured={ONE, TWO}
    )
    assert model.decide(ONE).desired == 3
    assert model.decide(TWO).desired == 1
    mesh = Mesh([model]).run("m", ONE)
    seen = []
    for _ in range(3600):
        mesh.pass_(1.0)
        if not seen or mesh.shapes_of("m") != seen[-1]:
            seen.append(mesh.shapes_of("m"))
    assert seen[-1] == [2]
    assert seen.count([2]) == 1, seen
