"""Our own policy, through `decide` and in simulated runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace_autoscaler.core.policies.base import Policy, Profile, Reading, Wish
from headrace_autoscaler.core.policies.headrace import HeadracePolicy
from headrace_autoscaler.core.policies.headrace_backlog import Backlog
from headrace_autoscaler.core.policies.headrace_keep import Gaps
from headrace_autoscaler.core.policies.headrace_supply import Supply
from headrace_autoscaler.core.policies.kpa import KpaPolicy
from headrace_autoscaler.sim.cases import Changes, case_of_scenario
from headrace_autoscaler.sim.engine import simulate
from headrace_autoscaler.sim.outcome import Outcome
from headrace_autoscaler.sim.scenarios import scenario
from headrace_autoscaler.sim.score import score
from headrace_autoscaler.sim.workload import Case, Conditions, Workload

SLOW_START = Profile(slo_s=1.0, service_s=0.2, latency_s=0.2, cold_start_s=2.0, starts_per_s=6.0)
FAST_START = Profile(slo_s=1.0, service_s=0.2, latency_s=0.2, cold_start_s=0.06, starts_per_s=20.0)


@dataclass
class Bench:
    """A policy and what it was told: the queue and the instances are the test's to say."""

    profile: Profile
    policy: HeadracePolicy = field(default_factory=HeadracePolicy)
    now: float = 100.0

    def ask(self, after_s: float = 0.25, **reading: float) -> Wish:
        self.now += after_s
        return self.policy.decide(Reading(self.now, **reading), self.profile)  # type: ignore[arg-type]


# What waits.


def test_a_queue_that_the_ready_instances_begin_in_time_needs_no_new_one() -> None:
    bench = Bench(FAST_START)
    assert bench.ask(arrivals=2, queued=1, executing=1, ready=1, oldest_wait_s=0.01).desired == 1


def test_a_longer_queue_needs_as_many_as_begin_it_in_time() -> None:
    # Patience is a quarter of 0.8 s, so by 0.2 s from when it came; half of its period is over for a burst's first.
    bench = Bench(FAST_START)
    wish = bench.ask(arrivals=11, queued=10, executing=1, ready=1, oldest_wait_s=0.0)
    assert 1 < wish.desired <= 10
    assert wish.reason == "as many as begin what waits in time"


def test_what_is_on_its_way_is_not_asked_for_again() -> None:
    bench = Bench(FAST_START)
    wanted = bench.ask(arrivals=11, queued=10, executing=1, ready=1).desired
    again = bench.ask(0.02, queued=10, executing=1, ready=1, starting=wanted - 1, oldest_wait_s=0.02).desired
    assert again <= wanted + 1


def test_no_more_starts_are_asked_for_than_can_be_under_way() -> None:
    slow = Profile(slo_s=10.0, service_s=2.0, latency_s=2.0, cold_start_s=2.0, starts_per_s=3.0)
    assert Bench(slow).ask(arrivals=500, queued=500).desired == math.ceil(3.0 * 2.5)


def test_the_same_backlog_takes_fewer_when_it_has_longer() -> None:
    def needed(slo_s: float) -> int:
        profile = Profile(slo_s=slo_s, service_s=0.2, latency_s=0.2, cold_start_s=0.06)
        return Bench(profile).ask(arrivals=40, queued=40).desired

    assert needed(1.0) > needed(3.0) > needed(30.0) >= 1


# What is not known.


def test_a_guess_starts_one_and_only_a_measurement_more() -> None:
    bench = Bench(Profile(slo_s=0.1))
    first = bench.ask(arrivals=50, queued=50)
    assert (first.desired, first.reason) == (
        1,
        "demand, and no service time is known yet: one instance until it is measured",
    )
    assert bench.ask(queued=60, arrivals=10, ready=1).desired == 1
    bench.profile = Profile(slo_s=0.1, service_s=0.05, latency_s=0.05, cold_start_s=0.05)
    assert bench.ask(queued=70, arrivals=10, ready=1).desired > 1


def test_nothing_has_ever_come() -> None:
    assert Bench(SLOW_START).ask() == Wish(
        0, "nothing waits, and starting again costs less than staying", _inputs(), math.inf
    )


def _inputs() -> tuple[tuple[str, float], ...]:
    return Bench(SLOW_START).ask().inputs


# What stays.


def test_where_a_start_is_faster_than_the_slack_an_idle_model_goes_to_zero_at_once() -> None:
    bench = Bench(FAST_START)
    bench.ask(arrivals=1, executing=1, ready=1)
    assert bench.ask(ready=1).spare
    assert bench.ask(2.0, ready=1).desired == 0


def test_the_user_s_idle_timeout_wins() -> None:
    bench = Bench(Profile(slo_s=1.0, service_s=0.2, latency_s=0.2, cold_start_s=0.06, idle_timeout_s=30.0))
    bench.ask(arrivals=1, executing=1, ready=1)
    kept = bench.ask(1.0, ready=1)
    assert (kept.desired, kept.reason, kept.spare) == (1, "kept until the idle timeout", True)
    assert kept.holds_until == bench.now - 1.0 + 30.0
    assert bench.ask(29.5, ready=1).desired == 0


def test_the_minimum_is_nobody_s_spare() -> None:
    bench = Bench(Profile(service_s=0.2, latency_s=0.2, min_instances=1))
    wish = bench.ask(5.0, ready=1)
    assert (wish.desired, wish.spare, wish.reason) == (1, False, "the model's minimum")


def test_gaps_that_are_always_short_are_waited_for_and_long_ones_are_not() -> None:
    def kept_after(gap_s: float, absence_s: float) -> float:
        gaps = Gaps(0.0)
        for visit in range(20):
            gaps.needed(visit * gap_s, 0.5, absence_s)
        return gaps.keep_s

    assert kept_after(10.0, 60.0) >= 10.0
    assert kept_after(120.0, 60.0) == 0.0


@given(st.lists(st.floats(0.6, 250.0), min_size=1, max_size=12), st.floats(0.1, 200.0))
def test_the_time_kept_costs_no_more_than_any_other_of_its_grid(lengths: list[float], absence_s: float) -> None:
    gaps = Gaps(0.0)
    now = 0.0
    gaps.needed(now, 0.5, absence_s)
    for length in lengths:
        now += length
        gaps.needed(now, 0.5, absence_s)
    edges = [0.0, *(0.5 * 2 ** (step / 2) for step in range(19))]

    def cost(keep_s: float) -> float:
        """With each gap at the middle of its bin, and older ones fading, as documented."""
        total = 0.0
        for age, length in enumerate(reversed(lengths)):
            index = next((i for i in range(1, len(edges)) if edges[i] >= length), len(edges))
            middle = (edges[index - 1] + edges[index]) / 2 if index < len(edges) else math.inf
            inside = index < len(edges) and edges[index] <= keep_s
            total += 0.97**age * (middle if inside else keep_s + absence_s)
        return total

    assert cost(gaps.keep_s) == pytest.approx(min(cost(edge) for edge in edges if edge <= 300.0))


# Money.


def test_nothing_stands_ready_where_it_costs_more_than_its_objective_earns() -> None:
    def standing(credit_micros: int) -> tuple[int, str]:
        profile = Profile(
            slo_s=1.0, service_s=0.2, latency_s=0.2, cold_start_s=2.0,
            instance_micros_per_hour=1_000_000, credit_micros=credit_micros,
        )  # fmt: skip
        bench = Bench(profile)
        wish = bench.ask(arrivals=20, queued=18, executing=2, ready=2)
        return int(dict(wish.inputs)["wanted_standing"]), wish.reason

    assert standing(1)[0] < standing(1_000_000)[0]
    assert standing(1_000_000) == standing(0)


def test_thrift_accepts_being_short_more_often() -> None:
    def standing(thrift: float) -> int:
        bench = Bench(SLOW_START, HeadracePolicy(thrift))
        return int(dict(bench.ask(arrivals=20, queued=18, executing=2, ready=2).inputs)["wanted_standing"])

    assert standing(2.0) < standing(0.5)


# Whatever comes.

profiles = st.builds(
    Profile,
    concurrency=st.integers(1, 8),
    slo_s=st.none() | st.floats(0.01, 20),
    service_s=st.none() | st.floats(1e-4, 5),
    latency_s=st.none() | st.floats(1e-4, 5),
    cold_start_s=st.none() | st.floats(0, 30),
    starts_per_s=st.none() | st.floats(0.1, 100),
    instance_micros_per_hour=st.integers(0, 10**6),
    credit_micros=st.integers(0, 10**4),
    min_instances=st.integers(0, 3),
    max_instances=st.none() | st.integers(3, 20),
    idle_timeout_s=st.none() | st.floats(0, 100),
)
steps = st.lists(
    st.fixed_dictionaries(
        {
            "after_s": st.sampled_from([0.0, 0.1, 0.25, 0.25, 1.0, 60.0]),
            "arrivals": st.integers(0, 60),
            "queued": st.integers(0, 60),
            "executing": st.integers(0, 20),
            "ready": st.integers(0, 20),
            "starting": st.integers(0, 20),
            "oldest_wait_s": st.floats(0, 10),
        }
    ),
    min_size=1,
    max_size=25,
)


@given(profiles, steps)
def test_never_outside_the_bounds_and_zero_only_when_nothing_waits(
    profile: Profile, history: list[dict[str, float]]
) -> None:
    bench = Bench(profile)
    for step in history:
        wish = bench.ask(**step)
        assert wish.desired >= profile.min_instances
        assert profile.max_instances is None or wish.desired <= profile.max_instances
        if wish.desired == 0:
            assert not step["queued"]
            assert not step["executing"]
        if wish.spare:
            assert not step["queued"]
            assert wish.desired > profile.min_instances
        assert wish.holds_until == 0.0 or wish.holds_until > bench.now or not wish.desired
        assert not any(character.isdigit() for character in wish.reason)


@given(profiles, steps, st.integers(1, 50))
def test_a_longer_queue_never_asks_for_fewer(profile: Profile, history: list[dict[str, float]], more: int) -> None:
    short, long = Bench(profile), Bench(profile)
    for step in history[:-1]:
        short.ask(**step)
        long.ask(**step)
    last = history[-1]
    assert long.ask(**{**last, "queued": last["queued"] + more}).desired >= short.ask(**last).desired


@given(
    st.lists(st.tuples(st.floats(0.01, 2.0), st.integers(0, 9)), max_size=12),
    st.integers(0, 3),
    st.floats(0.05, 1.0),
    st.floats(0.0, 1.0),
)
def test_what_is_added_to_a_backlog_begins_all_that_can_begin_in_time(
    waits: list[tuple[float, int]], ready: int, service_s: float, cold_start_s: float
) -> None:
    """Against instances that are really worked through the queue, and one fewer of them."""
    profile = Profile(
        slo_s=4 * service_s + service_s, service_s=service_s, latency_s=service_s, cold_start_s=cold_start_s
    )
    supply = Supply.of(profile, 0.25)
    backlog, now = Backlog(), 100.0
    for ago, count in sorted(waits, reverse=True):
        backlog.arrive(count, now - ago)
    total = sum(count for _, count in waits)
    oldest = max((ago for ago, count in waits if count), default=0.0)
    backlog.settle(total, oldest, now)
    added = backlog.missing(supply, ready, [], now, 0.0)
    assert added >= 0
    if added:
        assert _begun_late(waits, ready, added, service_s, cold_start_s) <= _begun_late(
            waits, ready, added - 1, service_s, cold_start_s
        )


def _begun_late(waits: Sequence[tuple[float, int]], ready: int, added: int, service_s: float, cold_s: float) -> float:
    """Sum of the waits, worked off first in, first out."""
    free = sorted([0.0] * ready + [cold_s] * added)
    if not free:
        return math.inf
    total = 0.0
    for ago, count in sorted(waits, reverse=True):
        for _ in range(count):
            begin = free.pop(0)
            total += begin + ago
            free = sorted([*free, begin + service_s])
    return total


def test_memory_is_bounded_whatever_comes() -> None:
    random = np.random.default_rng(3)
    bench = Bench(SLOW_START)
    sizes = []
    for step in range(20_000):
        bench.ask(
            float(random.choice([0.25, 0.25, 5.0])),
            arrivals=int(random.poisson(random.choice([0, 1, 30]))),
            queued=int(random.integers(0, 50)),
            executing=int(random.integers(0, 9)),
            ready=int(random.integers(0, 60)),
            starting=int(random.integers(0, 9)),
        )
        if step % 5_000 == 4_999:
            sizes.append(_size(bench.policy))
    assert max(sizes) < 6_000


def _size(thing: object) -> int:
    """Elements of all containers below it."""
    if isinstance(thing, (str, bytes, int, float, type(None))):
        return 1
    if isinstance(thing, dict):
        return sum(_size(each) for each in thing.values()) + len(thing)
    if hasattr(thing, "__iter__"):
        return sum(_size(each) for each in thing)
    slots = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())]
    return (
        sum(_size(value) for value in vars(thing).values())
        if not slots
        else sum(_size(getattr(thing, n)) for n in slots)
    )


# In simulated runs.


def _run(arrivals: Sequence[float], conditions: Conditions, service_s: float, policy: type[Policy]) -> Outcome:
    count = len(arrivals)
    workload = Workload(
        name="test",
        arrival_s=np.array(arrivals),
        model=np.zeros(count, dtype=np.int32),
        service_s=np.full(count, service_s),
        models=("m0",),
        tenants=("default",),
        horizon_s=float(arrivals[-1]) + 1.0,
    )
    return simulate(Case(workload, conditions), "headrace", policy)


@settings(max_examples=12, deadline=None)
@given(st.sampled_from([0.5, 3.0, 12.0, 40.0]), st.sampled_from([0.05, 0.2, 0.5]), st.sampled_from([0.06, 2.0]))
def test_a_constant_load_changes_nothing_once_it_has_settled(
    rate: float, service_s: float, cold_start_s: float
) -> None:
    arrivals = np.arange(0.0, 600.0, 1.0 / rate)
    outcome = _run(arrivals.tolist(), Conditions(5 * service_s, cold_start_s=cold_start_s), service_s, HeadracePolicy)
    late = [life for life in outcome.lifetimes if life.started > 120.0]
    # One that comes every two seconds is served from zero where a start is cheap: once for each at most.
    allowed = 480.0 * rate if rate * service_s < 0.5 else 60.0
    assert len(late) <= allowed


@pytest.mark.parametrize("name", ["steady", "flash-crowd", "sparse", "on-off"])
def test_no_worse_than_knative_and_better_on_one_count(name: str) -> None:
    case = case_of_scenario(scenario(name), Changes())
    ours, theirs = score(simulate(case, "headrace", HeadracePolicy)), score(simulate(case, "kpa", KpaPolicy))
    assert ours.better_than(theirs)
    assert (ours.refused, ours.quota_violations) == (0, 0)
