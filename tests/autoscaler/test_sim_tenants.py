"""Tenants in the simulator: limits from a file, the quota tree at work, budgets, and what is counted against them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace_autoscaler.core.policies.base import Profile, Reading, Wish
from headrace_autoscaler.core.policies.named import POLICIES
from headrace_autoscaler.domain import Limits, Tenant
from headrace_autoscaler.sim.cases import Changes, case_of_scenario, case_of_trace
from headrace_autoscaler.sim.engine import simulate
from headrace_autoscaler.sim.outcome import Outcome
from headrace_autoscaler.sim.scenarios import scenario
from headrace_autoscaler.sim.score import score
from headrace_autoscaler.sim.tenants import read_tenants
from headrace_autoscaler.sim.trace import Trace, read_trace
from headrace_autoscaler.sim.treasury import ANSWER_S
from headrace_autoscaler.sim.violations import quota_violations
from headrace_autoscaler.sim.workload import Case, Conditions, Workload
from headrace_common.config import AutoscalerConfig
from headrace_common.errors import InvalidArgument

HOUR_S = 3600.0


class Scripted:
    """Wishes by time: the last whose time has come."""

    interval_s = 1.0

    def __init__(self, *wishes: tuple[float, int]) -> None:
        self._wishes = wishes

    def decide(self, reading: Reading, profile: Profile) -> Wish:
        return Wish([count for at, count in self._wishes if at <= reading.now][-1], "the script")


def case(
    arrivals: Sequence[float],
    tenants: Sequence[Tenant],
    *,
    models: Sequence[int] | None = None,
    owners: Sequence[str] = ("ann", "bob"),
    service: float = 1.0,
    horizon: float = 20.0,
    **conditions: Any,
) -> Case:
    workload = Workload(
        name="case",
        arrival_s=np.array(arrivals, dtype=np.float64),
        model=np.array(models if models is not None else [0] * len(arrivals), dtype=np.int32),
        service_s=np.full(len(arrivals), service),
        models=tuple(f"m{k}" for k in range(len(owners))),
        tenants=tuple(owners),
        horizon_s=horizon,
    )
    known = {"slo_s": 5.0, "cold_start_s": 0.5, "starts_per_s": 1000.0, **conditions}
    return Case(workload, Conditions(tenants=tuple(tenants), **known))


def run(given_case: Case, *scripts: Scripted) -> Outcome:
    queue = iter(scripts)
    return simulate(given_case, "script", lambda: next(queue))


def started(outcome: Outcome) -> list[tuple[int, float, float]]:
    return [(life.model, life.started, life.gone) for life in outcome.lifetimes]


def cpus(name: str, count: float, **fields: Any) -> Tenant:
    return Tenant(name, Limits(cpu_millicores=int(count * 1000)), **fields)


# The file.


def read(tmp_path: Path, text: str) -> tuple[Tenant, ...]:
    path = tmp_path / "tenants.toml"
    path.write_text(text, encoding="utf-8")
    return read_tenants(path)


def test_the_file_has_the_names_that_tenant_set_has(tmp_path: Path) -> None:
    text = """
        [ann]
        cpu = 2
        memory = "4Gi"
        gpu = 0.5
        gpu-memory = "8Gi"
        concurrency = 64
        rps = 0.5
        budget = ["1.50/h", "300/month"]
        at-budget = "queue"
        cohort = "team"
        borrow = {cpu = "500m", rps = 1}
        lend = {memory = "1Gi"}
        weight = 2
        [bob]
        budget = "2/h"
    """
    ann = Tenant(
        "ann",
        Limits(2000, 4 << 30, 500, 8 << 30, 64, 0.5, None, None, 1_500_000, 300_000_000),
        Limits(cpu_millicores=500, requests_per_second=1.0),
        Limits(memory_bytes=1 << 30),
        "team",
        2.0,
        refuse_at_budget=False,
    )
    assert read(tmp_path, text) == (ann, Tenant("bob", Limits(budget_micros_per_hour=2_000_000)))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "names no tenant; expected a table"),
        ("[ann", "cannot be read"),
        ("ann = 3", r"ann: expected a table \[ann\] of limits; got 3"),
        ("['a b']", "expected a name of letters"),
        ("[ann]\ncpus = 2", "ann: cpus is not known; expected cpu, memory"),
        ("[ann]\nqueue-length = 2", "ann: queue-length is not simulated"),
        ("[ann]\ncpu = 'two'", "ann: cpu: expected a count like 2, 0.5 or 500m; got 'two'"),
        ("[ann]\nconcurrency = 1.5", "ann: concurrency: expected a whole number; got 1.5"),
        ("[ann]\nrps = -1", "ann: rps: expected a number, 0 or more; got -1"),
        ("[ann]\nborrow = 1", "ann: borrow: expected quantities such as {cpu = 1}; got 1"),
        ("[ann]\nlend = {budget = 1}", "ann: lend: budget is not known"),
        ("[ann]\nbudget = '3'", "ann: budget: expected an amount per time such as 1.50/h"),
        ("[ann]\nbudget = ['3/h', '4/hour']", "ann: budget: a budget per hour is given twice"),
        ("[ann]\nat-budget = 'cry'", "ann: at-budget: expected refuse or queue; got 'cry'"),
        ("[ann]\ncohort = ''", "ann: cohort: expected a name; got ''"),
        ("[ann]\nweight = 0", "ann: weight: expected more than 0"),
    ],
)
def test_what_is_wrong_with_the_file_is_said_with_tenant_and_key(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(InvalidArgument, match=told):
        read(tmp_path, text)


def test_a_tenant_that_sends_nothing_is_told_of_and_two_kinds_of_limits_are_refused() -> None:
    limits = (cpus("anne", 1),)
    found = case_of_scenario(scenario("steady"), Changes(tenants=limits))
    assert found.notes == ("tenant anne has limits and sends no request; requests are of default",)
    with pytest.raises(InvalidArgument, match="--tenants has the limits; expected one of the two"):
        case_of_scenario(scenario("steady"), Changes(tenants=limits, tenant_instances=3))


# Instances.


def test_a_tenant_borrows_what_its_cohort_leaves_up_to_its_borrowing_limit() -> None:
    tenants = [
        cpus("ann", 1, cohort="team", borrowing_limit=Limits(cpu_millicores=2000)),
        cpus("bob", 4, cohort="team", lending_limit=Limits(cpu_millicores=3000)),
    ]
    outcome = run(case([], tenants), Scripted((0, 9)), Scripted((0, 0)))
    assert len(outcome.lifetimes) == 1 + 2
    assert quota_violations(outcome) == 0
    alone = [replace(tenant, cohort="") for tenant in tenants]
    assert len(run(case([], alone), Scripted((0, 9)), Scripted((0, 0))).lifetimes) == 1


def test_memory_and_gpus_bind_as_cpus_do() -> None:
    tenants = [Tenant("ann", Limits(memory_bytes=5 << 30, gpu_millis=2000))]
    given_case = case([], tenants)
    resources = replace(given_case.conditions.resources, memory_bytes=2 << 30, gpu_millis=500)
    given_case = replace(given_case, conditions=replace(given_case.conditions, resources=resources))
    assert len(run(given_case, Scripted((0, 9)), Scripted((0, 0))).lifetimes) == 2


def test_a_lender_takes_back_its_own_and_what_drains_answers_first_and_nobody_borrows_it_meanwhile() -> None:
    tenants = [cpus("ann", 1, cohort="team"), cpus("bob", 2, cohort="team")]
    # ann runs three from 0 on, each busy until 14; bob wants two of its own from 5 on.
    given_case = case([4.0, 4.0, 4.0], tenants, service=10.0)
    outcome = run(given_case, Scripted((0, 3)), Scripted((0, 0), (5, 2)))
    first, second, third, *bobs = outcome.lifetimes
    assert (first.stopped, second.stopped, third.stopped) == (20.0, 5.0, 5.0), "the newest go"
    assert third.stop_reason == "makes room for model 'm1' of tenant 'bob'"
    assert (second.gone, third.gone) == (14.0, 14.0)
    assert [(life.model, life.started) for life in bobs] == [(1, 14.0), (1, 14.0)], "at the next decision"
    assert score(outcome).refused == 0
    assert score(outcome).quota_violations == 0


def test_what_a_lender_no_longer_asks_for_is_borrowed_again() -> None:
    tenants = [cpus("ann", 1, cohort="team"), cpus("bob", 1, cohort="team")]
    given_case = case([4.0, 4.0], tenants, service=6.0)
    outcome = run(given_case, Scripted((0, 2)), Scripted((0, 0), (5, 1), (7, 0)))
    assert started(outcome) == [(0, 0.0, 20.0), (0, 0.0, 10.0), (0, 10.0, 20.0)]


def test_what_is_lent_without_need_is_given_back_first() -> None:
    class Spare(Scripted):
        def decide(self, reading: Reading, profile: Profile) -> Wish:
            return replace(super().decide(reading, profile), spare=True, needed=0)

    tenants = [cpus("ann", 1, cohort="team"), cpus("bob", 2, cohort="team")]
    given_case = case([], tenants, owners=("ann", "bob", "ann"))
    outcome = run(given_case, Spare((0, 1)), Scripted((0, 0), (5, 1)), Scripted((0, 0), (1, 2)))
    assert outcome.lifetimes[0].stopped == 5.0


def test_a_number_of_instances_is_the_same_as_so_much_cpu() -> None:
    arrivals = np.random.default_rng(8).uniform(0, 300, 900)
    arrivals.sort()
    whole = case(arrivals.tolist(), [cpus("ann", 3)], horizon=300.0)
    counted = replace(whole, conditions=replace(whole.conditions, tenants=(), tenant_instances=3))
    found = [score(simulate(each, "kpa", POLICIES["kpa"])) for each in (whole, counted)]
    assert found[0] == found[1]
    assert found[0].starts_refused > 0


# Requests.


def test_requests_over_concurrency_are_refused_and_the_refusal_is_counted() -> None:
    tenants = [Tenant("ann", Limits(concurrency=2))]
    outcome = run(case([0.0, 0.0, 0.0, 1.4, 1.5, 1.6], tenants), Scripted((0, 1)), Scripted((0, 0)))
    # One answers at 1.5, in time for the one that comes then; at 1.4 and 1.6 two are in hand.
    assert outcome.refused == {2: "over concurrency", 3: "over concurrency", 5: "over concurrency"}
    assert score(outcome).refused_by_reason == {"over concurrency": 3}


def test_requests_over_a_rate_are_refused_after_a_second_s_worth_of_burst() -> None:
    tenants = [Tenant("ann", Limits(requests_per_second=2.0))]
    outcome = run(case([1.0, 1.0, 1.0, 1.4, 1.5, 1.9, 9.0, 9.0, 9.0], tenants), Scripted((0, 9)), Scripted((0, 0)))
    assert sorted(outcome.refused) == [2, 3, 5, 8]
    assert set(outcome.refused.values()) == {"over rps"}
    none = run(case([1.0], [Tenant("ann", Limits(requests_per_second=0.0))]), Scripted((0, 1)), Scripted((0, 0)))
    assert none.refused == {0: "over rps"}


def test_another_tenant_s_requests_are_not_touched() -> None:
    tenants = [Tenant("ann", Limits(concurrency=0))]
    outcome = run(case([1.0, 1.0], tenants, models=[0, 1]), Scripted((0, 1)), Scripted((0, 1)))
    assert outcome.refused == {0: "over concurrency"}


# Budgets.


def spending(tenant: Tenant, arrivals: Sequence[float], count: int, *, began: float, horizon: float) -> Outcome:
    """One instance costs 3.6 an hour: a thousandth a second."""
    given_case = case(
        arrivals, [tenant], owners=("ann",), horizon=horizon, price_micros_per_hour=3_600_000, began=began
    )
    return run(given_case, Scripted((0, count)))


def test_a_spent_budget_drains_and_refuses_until_the_next_hour() -> None:
    ann = Tenant("ann", Limits(budget_micros_per_hour=100_000))
    half_past = datetime(2026, 11, 2, 7, 30, tzinfo=UTC).timestamp()
    outcome = spending(ann, [10.0, 60.0, 1799.0, 1805.0], 2, began=half_past, horizon=2000.0)
    # Two instances spend 0.002 a second: at 49 s one tick more is all that is left.
    assert started(outcome)[:2] == [(0, 0.0, 49.0), (0, 0.0, 49.0)]
    assert outcome.refused == {1: "budget spent", 2: "budget spent"}
    assert outcome.lifetimes[2].started == 1800.0
    assert outcome.lifetimes[0].stop_reason.startswith("tenant 'ann' has spent its 0.10")


def test_requests_wait_for_the_next_hour_where_the_tenant_chose_so() -> None:
    ann = Tenant("ann", Limits(budget_micros_per_hour=100_000), refuse_at_budget=False)
    outcome = spending(ann, [60.0, 61.0, 3601.0], 2, began=0.0, horizon=3700.0)
    assert outcome.refused == {}
    assert outcome.begin_s.tolist() == pytest.approx([3600.5, 3600.5, 3601.5], abs=0.002), (
        "starts are a millisecond apart"
    )


def test_what_was_admitted_is_answered_before_a_spent_budget_drains() -> None:
    ann = Tenant("ann", Limits(budget_micros_per_hour=100_000))
    given_case = case([98.0, 98.0], [ann], owners=("ann",), service=3.0, horizon=300.0, price_micros_per_hour=3_600_000)
    outcome = run(given_case, Scripted((0, 1)))
    assert outcome.answer_s.tolist() == [101.0, 104.0]
    assert outcome.lifetimes[0].gone == 104.0


def test_where_requests_wait_for_money_what_was_not_sent_waits_too_and_what_runs_drains_at_once() -> None:
    ann = Tenant("ann", Limits(budget_micros_per_hour=100_000), refuse_at_budget=False)
    given_case = case(
        [80.0] * 6 + [90.0], [ann], owners=("ann",), service=10.0, horizon=3700.0, price_micros_per_hour=3_600_000
    )
    outcome = run(given_case, Scripted((0, 1)))
    # Spent at 99 s, when the second executes: it is answered, and the other five are not begun before the next hour.
    assert outcome.lifetimes[0].stopped == 99.0
    assert outcome.lifetimes[0].gone == 100.0
    assert outcome.begin_s.tolist() == [80.0, 90.0, 3600.5, 3610.5, 3620.5, 3630.5, 3640.5], "in order"


def test_what_was_admitted_has_thirty_seconds_to_be_answered() -> None:
    ann = Tenant("ann", Limits(concurrency=10, budget_micros_per_hour=100_000))
    given_case = case(
        [80.0] * 10 + [3605.0] * 8,
        [ann],
        owners=("ann",),
        service=10.0,
        horizon=3700.0,
        price_micros_per_hour=3_600_000,
    )
    outcome = run(given_case, Scripted((0, 1)))
    # Spent at 99 s. At 129 s the fifth executes; it is answered at 130 s, and what waits is refused.
    assert (outcome.lifetimes[0].stopped, outcome.lifetimes[0].gone) == (129.0, 130.0)
    assert outcome.refused == dict.fromkeys(range(5, 10), "budget spent"), "and they are in hand no more"
    assert AutoscalerConfig().drain_timeout_s == ANSWER_S


def test_what_waits_for_money_when_the_run_is_over_is_never_answered() -> None:
    ann = Tenant("ann", Limits(budget_micros_per_hour=100_000), refuse_at_budget=False)
    given_case = case(
        [95.0, 100.0, 101.0], [ann], owners=("ann",), service=10.0, horizon=103.0, price_micros_per_hour=3_600_000
    )
    outcome = run(given_case, Scripted((0, 1)))
    assert outcome.refused == {1: "never answered", 2: "never answered"}


@settings(max_examples=40, deadline=None)
@given(
    budget=st.integers(1_000, 200_000),
    wishes=st.lists(st.integers(0, 6), min_size=1, max_size=12),
    service=st.sampled_from([0.5, 3.0]),
    queues=st.booleans(),
)
def test_no_hour_costs_more_than_its_budget_a_tick_and_the_drain(
    budget: int, wishes: list[int], service: float, queues: bool
) -> None:
    ann = Tenant("ann", Limits(budget_micros_per_hour=budget), refuse_at_budget=not queues)
    given_case = case(
        np.linspace(0, 230, 460).tolist(), [ann], owners=("ann",), service=service, horizon=240.0,
        price_micros_per_hour=3_600_000, began=HOUR_S - 120.0, queue_length=4,
    )  # fmt: skip
    outcome = run(given_case, Scripted(*((20.0 * k, count) for k, count in enumerate(wishes))))
    # Where it is spent, one tick is under way, and what was admitted is answered: by one instance at the least.
    drain_s = 1.0 + 0.5 + (4 + 1) * service
    for begin, end in ((0.0, 120.0), (120.0, math.inf)):
        spent_s = sum(max(0.0, min(life.gone, end) - max(life.started, begin)) for life in outcome.lifetimes)
        assert spent_s * 1000 <= budget + 1000 * max(wishes) * (1.0 + drain_s)


# What is counted.


def test_violations_are_counted_against_a_tree_of_their_own() -> None:
    free = run(case([1.0, 1.0, 1.1], [], models=[0, 0, 0]), Scripted((0, 3)), Scripted((0, 2)))

    def violations(*tenants: Tenant) -> int:
        conditions = replace(free.case.conditions, tenants=tenants)
        return quota_violations(replace(free, case=replace(free.case, conditions=conditions)))

    assert violations() == 0
    assert violations(cpus("ann", 1), cpus("bob", 1)) == 2 + 1
    assert violations(cpus("ann", 1, cohort="team"), cpus("bob", 3, cohort="team")) == 1, "the cohort's sum"
    assert violations(cpus("ann", 2, cohort="team", borrowing_limit=Limits(cpu_millicores=0)),
                      cpus("bob", 3, cohort="team")) == 1  # fmt: skip
    assert violations(Tenant("ann", Limits(concurrency=2))) == 1
    assert violations(Tenant("ann", Limits(requests_per_second=1.0))) == 2


def _cpu_held(outcome: Outcome) -> dict[str, list[tuple[float, int]]]:
    """Changes of every tenant's instances; ends before starts of one moment."""
    changes: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for life in outcome.lifetimes:
        if life.gone > life.started:
            owner = outcome.case.workload.tenants[life.model]
            changes[owner] += [(life.started, 1), (life.gone, -1)]
    return changes


def _highest(changes: list[tuple[float, int]]) -> int:
    held = most = 0
    for _, change in sorted(changes):
        held += change
        most = max(most, held)
    return most


LIMITS = st.one_of(st.none(), st.integers(0, 3))


@settings(max_examples=40, deadline=None)
@given(
    gaps=st.lists(st.floats(0, 5), min_size=1, max_size=80),
    models=st.lists(st.integers(0, 3), min_size=80, max_size=80),
    nominal=st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)),
    borrow=st.tuples(LIMITS, LIMITS, LIMITS),
    lend=st.tuples(LIMITS, LIMITS, LIMITS),
    concurrency=st.one_of(st.none(), st.integers(1, 4)),
    rate=st.one_of(st.none(), st.floats(0.2, 3)),
    policy=st.sampled_from(sorted(POLICIES)),
)
def test_whatever_the_quotas_no_limit_is_passed_and_every_request_is_answered_or_refused(
    gaps: list[float],
    models: list[int],
    nominal: tuple[int, int, int],
    borrow: tuple[int | None, ...],
    lend: tuple[int | None, ...],
    concurrency: int | None,
    rate: float | None,
    policy: str,
) -> None:
    names = ("a", "b", "c")
    tenants = [
        Tenant(
            name,
            Limits(cpu_millicores=own * 1000, concurrency=concurrency, requests_per_second=rate),
            Limits(cpu_millicores=None if most is None else most * 1000),
            Limits(cpu_millicores=None if lent is None else lent * 1000),
            "team",
        )
        for name, own, most, lent in zip(names, nominal, borrow, lend, strict=True)
    ]
    arrivals = np.cumsum(gaps)
    given_case = case(
        arrivals.tolist(), tenants, models=models[: len(gaps)], owners=("a", "b", "c", "a"),
        horizon=float(arrivals[-1]) + 1.0,
    )  # fmt: skip
    outcome = simulate(given_case, policy, POLICIES[policy])
    found = score(outcome)
    assert found.quota_violations == 0
    assert np.count_nonzero(~np.isnan(outcome.begin_s)) + found.refused == len(arrivals)
    assert all(life.started <= life.stopped <= life.gone < math.inf for life in outcome.lifetimes)
    # By the words of docs/quotas.md, without a tree.
    held = _cpu_held(outcome)
    assert _highest([change for changes in held.values() for change in changes]) <= sum(nominal)
    for name, own, most in zip(names, nominal, borrow, strict=True):
        assert most is None or _highest(held[name]) <= own + most


# The time of day.


OFFICE = ("0 8 * * 1-5 Europe/Paris=2", "0 19 * * 1-5 Europe/Paris=0")


def test_a_schedule_is_tried_on_the_clock_that_the_run_begins_at() -> None:
    monday = datetime(2026, 11, 2, 6, 0, tzinfo=UTC).timestamp()
    given_case = case([], [], owners=("ann",), horizon=14 * HOUR_S, began=monday, schedules=OFFICE)
    outcome = run(given_case, Following())
    assert started(outcome) == [(0, HOUR_S, 12 * HOUR_S)] * 2
    assert "minimum" in outcome.lifetimes[0].reason
    saturday = replace(given_case.conditions, began=monday - 2 * 24 * HOUR_S)
    assert run(replace(given_case, conditions=saturday), Following()).lifetimes == []


class Following:
    """Wants its minimum, and need not be asked before something changes."""

    interval_s = 1.0

    def decide(self, reading: Reading, profile: Profile) -> Wish:
        return Wish(profile.min_instances, "the model's minimum", holds_until=math.inf)


def traced(tmp_path: Path, rows: str) -> Trace:
    path = tmp_path / "trace.csv"
    path.write_text("TIMESTAMP\n" + rows, encoding="utf-8")
    return read_trace(path)


def test_a_run_begins_when_the_trace_says_unless_told_otherwise(tmp_path: Path) -> None:
    dated = traced(tmp_path, "2026-11-02T08:00:01+01:00\n2026-11-02 07:00:00.5\n")
    began = datetime(2026, 11, 2, 7, 0, 0, 500_000, tzinfo=UTC).timestamp()
    assert case_of_trace("t", dated, Changes(schedules=OFFICE)).conditions.began == began
    assert case_of_trace("t", dated, Changes(schedules=OFFICE, began=5.0)).conditions.began == 5.0
    seconds = traced(tmp_path, "1\n2\n")
    assert case_of_trace("t", seconds, Changes()).conditions.began is None
    for undated in (
        lambda: case_of_trace("t", seconds, Changes(schedules=OFFICE)),
        lambda: case_of_scenario(scenario("steady"), Changes(schedules=OFFICE)),
    ):
        with pytest.raises(InvalidArgument, match=r"--schedule: the time of day .* is not known; give it: --start"):
            undated()
    with pytest.raises(InvalidArgument, match="--schedule: expected CRON=N"):
        case_of_trace("t", dated, Changes(schedules=("often",)))
