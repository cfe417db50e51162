"""The simulator: runs worked out by hand, and against a slow second implementation."""

import heapq
import math
from collections.abc import Callable, Sequence
from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace_autoscaler.core.policies.base import Profile, Reading, Wish
from headrace_autoscaler.core.policies.headrace import HeadracePolicy
from headrace_autoscaler.core.policies.named import POLICIES
from headrace_autoscaler.core.policies.targets import TargetedPolicy, parse_target
from headrace_autoscaler.sim.cases import Changes, case_of_scenario
from headrace_autoscaler.sim.engine import GIVE_UP_S, simulate
from headrace_autoscaler.sim.gate import Admission, Gate
from headrace_autoscaler.sim.outcome import Outcome
from headrace_autoscaler.sim.scenarios import scenario
from headrace_autoscaler.sim.score import Score, score
from headrace_autoscaler.sim.violations import quota_violations
from headrace_autoscaler.sim.workload import Case, Conditions, Workload


class Scripted:
    """Wishes by time: the last whose time has come."""

    def __init__(self, *wishes: tuple[float, int], interval_s: float = 1.0, holds: bool = False) -> None:
        self.interval_s = interval_s
        self.readings: list[Reading] = []
        self._wishes = wishes
        self._holds = holds

    def decide(self, reading: Reading, profile: Profile) -> Wish:
        self.readings.append(reading)
        desired = [count for at, count in self._wishes if at <= reading.now][-1]
        return Wish(desired, "the script", holds_until=math.inf if self._holds else 0.0)


def case(
    arrivals: Sequence[float],
    *,
    service: float = 1.0,
    horizon: float = 10.0,
    models: Sequence[int] | None = None,
    tenants: Sequence[str] = ("t",),
    **conditions: float | None,
) -> Case:
    count = len(tenants)
    workload = Workload(
        name="case",
        arrival_s=np.array(arrivals, dtype=np.float64),
        model=np.array(models if models is not None else [0] * len(arrivals), dtype=np.int32),
        service_s=np.full(len(arrivals), service),
        models=tuple(f"m{k}" for k in range(count)),
        tenants=tuple(tenants),
        horizon_s=horizon,
    )
    return Case(workload, Conditions(**({"slo_s": 2.0, "cold_start_s": 2.0} | conditions)))  # type: ignore[arg-type]


def run(given_case: Case, make: Callable[[], Scripted], gate: Gate | None = None) -> tuple[Outcome, Score]:
    outcome = simulate(given_case, "scripted", make, gate)
    return outcome, score(outcome)


def test_a_run_worked_out_by_hand() -> None:
    # One instance from second 0, ready at 2: requests of 1 s begin at 2, 3 and 5; it lives until the horizon, 10.
    outcome, found = run(case([0.0, 0.5, 5.0]), lambda: Scripted((0, 1)))
    assert outcome.begin_s.tolist() == [2.0, 3.0, 5.0]
    # Latencies 3, 3.5 and 1 under an objective of 2.
    assert found.slo_share == pytest.approx(1 / 3)
    assert (found.instance_seconds, found.service_seconds, found.excess_seconds) == (10.0, 3.0, 7.0)
    assert (found.p50_wait_ms, found.p99_wait_ms) == (2000.0, 2500.0)
    assert (found.p50_latency_ms, found.p99_latency_ms) == (3000.0, 3500.0)
    assert (found.starts, found.cold_starts, found.refused, found.quota_violations) == (1, 1, 0, 0)
    # One change in 10 s.
    assert found.scale_changes_per_hour == 360.0
    # 10 instance-seconds at 0.0425 an hour; a credit of 0.001.
    assert found.cost == pytest.approx(10 * 0.0425 / 3600)
    assert found.net == pytest.approx(0.001 - found.cost)


def test_a_run_goes_on_until_all_is_answered_and_bills_it() -> None:
    # The instance answers at 12, 13 and 14, the horizon being 10.
    outcome, found = run(case([9.0, 9.0, 9.0], horizon=10.0), lambda: Scripted((0, 0), (9, 1)))
    assert outcome.answer_s.tolist() == [12.0, 13.0, 14.0]
    assert found.instance_seconds == 14.0 - 9.0
    assert outcome.ended_s == 14.0


def test_the_first_request_at_zero_asks_the_policy_at_once_and_not_at_the_next_interval() -> None:
    policy = Scripted((0, 0), (0.1, 1), interval_s=5.0)
    outcome, _ = run(case([3.7]), lambda: policy)
    assert [reading.now for reading in policy.readings] == [0.0, 3.7, 5.0]
    assert (policy.readings[1].queued, policy.readings[1].arrivals) == (1, 1)
    assert outcome.begin_s.tolist() == [5.7]


def test_a_policy_that_holds_is_asked_again_when_something_arrives() -> None:
    policy = Scripted((0, 1), interval_s=1.0, holds=True)
    run(case([4.5], cold_start_s=0.5), lambda: policy)
    # At 0; after its instance became ready; and after the request.
    assert [reading.now for reading in policy.readings] == [0.0, 1.0, 5.0]


def test_readings_integrate_over_the_time_since_the_last() -> None:
    policy = Scripted((0, 1), interval_s=4.0)
    run(case([0.0, 0.5]), lambda: policy)
    first = policy.readings[-2]
    # From 0: present 1 until 0.5, 2 until 3 (the first is answered), 1 until 4. Executing from 2 on. Ready from 2 on.
    assert (first.now, first.concurrency_s, first.busy_s, first.ready_s) == (4.0, 0.5 + 5.0 + 1.0, 2.0, 2.0)
    assert (first.completed, first.executing, first.last_arrival) == (2, 0, 0.5)


def test_an_instance_that_is_stopped_finishes_what_it_executes_and_is_billed_until_then() -> None:
    outcome, found = run(case([2.5, 2.6], service=4.0, horizon=20.0), lambda: Scripted((0, 1), (3, 0), (7, 1)))
    first, second = outcome.lifetimes
    assert (first.started, first.stopped, first.gone) == (0.0, 3.0, 6.5)
    assert (second.started, second.ready) == (7.0, 9.0)
    assert outcome.begin_s.tolist() == [2.5, 9.0]
    assert found.cold_starts == 2


def test_what_starts_is_cancelled_first_then_what_is_idle() -> None:
    # Two are ready at 2 and one is busy; the one started at 3 is cancelled at 4, the idle one stopped at 6.
    outcome, _ = run(case([2.5], service=7.0, horizon=9.0), lambda: Scripted((0, 2), (3, 3), (4, 2), (6, 1)))
    assert [life.gone for life in outcome.lifetimes] == [6.0, 9.5, 4.0]


def test_an_instance_executes_as_many_as_its_concurrency() -> None:
    outcome, found = run(case([3.0, 3.0, 3.0], concurrency=2), lambda: Scripted((0, 1)))
    assert outcome.begin_s.tolist() == [3.0, 3.0, 4.0]
    assert found.service_seconds == 1.5


def test_starts_begin_no_faster_than_they_can_and_are_billed_from_the_command() -> None:
    outcome, found = run(case([0.0], starts_per_s=2.0), lambda: Scripted((0, 4)))
    assert [life.ready for life in outcome.lifetimes] == [2.0, 2.5, 3.0, 3.5]
    assert found.instance_seconds == 40.0


def test_a_start_that_is_cancelled_before_it_begins_gives_its_place_back() -> None:
    # Four are commanded at 0 and begin every 2 s; at 1 the three that wait are cancelled, at 3 one is wanted again.
    outcome, _ = run(case([0.0], starts_per_s=0.5), lambda: Scripted((0, 4), (1, 1), (3, 2)))
    assert [life.ready for life in outcome.lifetimes] == [2.0, 4.0, 6.0, 8.0, 5.0]


def test_a_standby_pool_lets_as_many_start_at_once_and_is_paid_for() -> None:
    conditions = {"starts_per_s": 2.0, "standby": 3, "replacement_cpu_s": 0.5, "cold_start_s": 0.1}
    outcome, found = run(case([0.0], **conditions), lambda: Scripted((0, 4)))
    assert [life.ready for life in outcome.lifetimes] == pytest.approx([0.1, 0.1, 0.1, 0.6])
    assert found.standby_seconds == 30.0
    # 40 instance-seconds, 3 standbys for 10 s, 4 replacements of 0.5 s.
    assert found.cost == pytest.approx((40.0 + 30.0 + 2.0) * 0.0425 / 3600)


def test_a_full_queue_refuses() -> None:
    _, found = run(case([0.0, 0.1, 0.2], queue_length=2), lambda: Scripted((0, 1)))
    assert (found.refused, found.refused_by_reason) == (1, {"queue full": 1})


def test_what_is_never_answered_is_refused_in_the_end() -> None:
    outcome, found = run(case([1.0, 1.0]), lambda: Scripted((0, 0)))
    assert (found.slo_share, found.refused_by_reason) == (0.0, {"never answered": 2})
    assert outcome.ended_s == 10.0
    assert GIVE_UP_S > 0


def test_nodes_and_quotas_bind_and_what_is_free_again_is_used() -> None:
    # Two models of one tenant wish two instances each; the node has room for two, then the first model gives one back.
    scripts = iter([Scripted((0, 2), (5, 1)), Scripted((0, 2))])
    given_case = case([], tenants=("t", "t"), nodes=1, instances_per_node=2)
    outcome, found = run(given_case, lambda: next(scripts))
    assert [(life.model, life.started) for life in outcome.lifetimes] == [(0, 0.0), (0, 0.0), (1, 5.0)]
    assert found.starts_refused > 0
    assert found.quota_violations == 0


@pytest.mark.parametrize(
    ("limits", "violations"),
    [({"nodes": 1, "instances_per_node": 2}, 1), ({"tenant_instances": 1}, 2), ({"tenant_instances": 3}, 0)],
    ids=["a node over its room", "a tenant over its quota", "inside"],
)
def test_violations_are_counted_from_what_happened_whoever_admitted_it(limits: dict[str, int], violations: int) -> None:
    class Careless:
        def start(self, model: str, tenant: str, now: float) -> Admission:
            return Admission(node=0)

        def stop(self, model: str, tenant: str) -> None:
            pass

        def release(self, model: str, tenant: str, node: int, now: float) -> None:
            pass

    outcome, _ = run(case([], **limits), lambda: Scripted((0, 3)), Careless())
    assert quota_violations(outcome) == violations


def _slow(arrivals: Sequence[float], services: Sequence[float], slots: int, ready: float) -> list[float]:
    """When each begins: first in, first out, to whichever slot is free first."""
    free = [ready] * slots
    begins = []
    for arrival, service in zip(arrivals, services, strict=True):
        begin = max(arrival, heapq.heappop(free))
        heapq.heappush(free, begin + service)
        begins.append(begin)
    return begins


@given(
    gaps=st.lists(st.integers(0, 40), max_size=60),
    services=st.lists(st.integers(1, 64), min_size=60, max_size=60),
    instances=st.integers(1, 4),
    concurrency=st.integers(1, 3),
)
def test_waits_are_those_of_a_slow_queue_of_as_many_slots(
    gaps: list[int], services: list[int], instances: int, concurrency: int
) -> None:
    arrivals = np.cumsum(np.array(gaps, dtype=np.float64)) / 16  # Sixteenths: sums are exact.
    took = np.array(services[: len(gaps)], dtype=np.float64) / 16
    workload = Workload("w", arrivals, np.zeros(len(gaps), np.int32), took, ("m",), ("t",), 200.0)
    conditions = Conditions(1.0, concurrency=concurrency, cold_start_s=2.0, starts_per_s=1e9)
    outcome = simulate(Case(workload, conditions), "s", lambda: Scripted((0, instances)))
    expected = _slow(arrivals.tolist(), took.tolist(), instances * concurrency, 2.0)
    assert outcome.begin_s.tolist() == pytest.approx(expected, abs=1e-6)


@settings(max_examples=25)
@given(
    gaps=st.lists(st.floats(0, 60), min_size=1, max_size=40),
    models=st.lists(st.integers(0, 2), min_size=40, max_size=40),
    room=st.integers(1, 6),
    quota=st.integers(1, 4),
    policy=st.sampled_from(sorted(POLICIES)),
)
def test_whatever_the_policy_every_request_is_answered_once_or_refused_and_no_limit_is_passed(
    gaps: list[float], models: list[int], room: int, quota: int, policy: str
) -> None:
    arrivals = np.cumsum(gaps)
    given_case = case(
        arrivals.tolist(),
        models=models[: len(gaps)],
        tenants=("a", "a", "b"),
        horizon=float(arrivals[-1]),
        nodes=2,
        instances_per_node=room,
        tenant_instances=quota,
    )
    outcome = simulate(given_case, policy, POLICIES[policy])
    found = score(outcome)
    assert found.quota_violations == 0
    answered = np.count_nonzero(~np.isnan(outcome.begin_s))
    assert answered + found.refused == len(arrivals)
    assert (outcome.begin_s[~np.isnan(outcome.begin_s)] >= arrivals[~np.isnan(outcome.begin_s)]).all()
    assert all(life.started <= life.stopped <= life.gone < math.inf for life in outcome.lifetimes)
    assert found.excess_seconds >= -1e-6


def test_a_latency_that_execution_alone_exceeds_does_not_run_away_with_the_instances() -> None:
    def highest(target_s: float) -> int:
        def policy() -> TargetedPolicy:
            return TargetedPolicy(HeadracePolicy(), [parse_target("latency", target_s)])

        outcome = simulate(case_of_scenario(scenario("steady"), Changes()), "targeted", policy)
        moments = [(life.started, 1) for life in outcome.lifetimes] + [(life.gone, -1) for life in outcome.lifetimes]
        return max(accumulate(change for _, change in sorted(moments)))

    # 20 a second of 100 ms each keep two busy; what waits for the first start makes more of them at first.
    assert highest(0.05) <= highest(60.0) < highest(0.2)


def test_the_same_run_twice_is_the_same() -> None:
    given_case = case(np.linspace(0, 100, 400).tolist(), horizon=100.0)
    first, second = (score(simulate(given_case, "kpa", POLICIES["kpa"])) for _ in range(2))
    assert first == second
