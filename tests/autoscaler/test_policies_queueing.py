"""How many instances keep those short that come together, against formulas and a queue that is simulated here."""

from __future__ import annotations

import heapq
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_autoscaler.core.policies.base import Profile, Reading
from headrace_autoscaler.core.policies.headrace import HeadracePolicy
from headrace_autoscaler.core.queueing import LATE_SHARE, Service, erlang_c, together


def service(service_s: float, slack_s: float, at_once: float = 1) -> Service:
    return Service(service_s, service_s * at_once, slack_s)


def late_share(servers: int, rate_per_s: float, service_s: float, slack_s: float) -> float:
    """Of 40,000 Poisson arrivals at servers that share one queue, the second half: who waited longer."""
    rng, now, late, count = random.Random(servers), 0.0, 0, 40_000
    free_at = [0.0] * servers
    for number in range(count):
        now += rng.expovariate(rate_per_s)
        begins = max(now, heapq.heappop(free_at))
        heapq.heappush(free_at, begins + service_s)
        late += number >= count // 2 and begins - now > slack_s
    return late / (count // 2)


def textbook_erlang_c(servers: int, load: float) -> float:
    """By its sums, as it is printed."""
    last = load**servers / math.factorial(servers) * servers / (servers - load)
    return last / (sum(load**k / math.factorial(k) for k in range(servers)) + last)


@pytest.mark.parametrize(("servers", "load"), [(1, 0.3), (2, 0.3), (2, 1.9), (5, 3.0), (20, 18.5)])
def test_the_recursion_is_erlangs_formula(servers: int, load: float) -> None:
    assert erlang_c(servers, load) == pytest.approx(textbook_erlang_c(servers, load), rel=1e-12)


def test_servers_that_cannot_keep_up_are_always_busy() -> None:
    assert erlang_c(2, 2.0) == erlang_c(2, 50.0) == 1.0


@pytest.mark.parametrize("load", [0.1, 0.3, 0.7, 1.5, 5.0, 12.0])
@pytest.mark.parametrize("slack", [0.5, 1.0, 2.0, 4.0], ids=lambda slack: f"slack of {slack:g} services")
def test_as_many_as_it_takes_and_hardly_more(load: float, slack: float) -> None:
    count = together(load / 0.005, service(0.005, slack * 0.005)) or 1
    assert late_share(count, load / 0.005, 0.005, slack * 0.005) <= 1.3 * LATE_SHARE
    if count - 2 > load:
        assert late_share(count - 2, load / 0.005, 0.005, slack * 0.005) > LATE_SHARE, "two fewer would not do"


@pytest.mark.parametrize("rate", [0.0, 1e-9, 0.1], ids=["nothing comes", "long ago", "now and then"])
def test_one_that_is_enough_is_not_asked_for(rate: float) -> None:
    assert together(rate, service(0.005, 0.005)) == 0


def test_an_instance_that_executes_several_at_once_stands_for_so_many() -> None:
    alone, four = service(0.02, 0.01), service(0.005, 0.01, at_once=4)
    one_by_one = together(500.0, alone)
    assert together(500.0, four) == math.ceil(one_by_one / 4)


@pytest.mark.parametrize("at_once", [1.1, 1.4, 1.49, 1.6, 5.5])
def test_what_executes_at_once_in_part_is_counted_in_whole_instances(at_once: float) -> None:
    """A load that was timed while the machine was busy, or batches of a size that requests do not divide."""
    count = together(2000.0, service(0.005, 0.0025, at_once))
    assert 10 < count <= together(2000.0, service(0.005, 0.0025))


def test_what_more_would_cost_than_earn_is_left() -> None:
    tight = service(0.005, 0.0025)
    unbounded = together(140.0, tight)
    counts = [together(140.0, tight, LATE_SHARE, worth) for worth in (0.0, 0.01, 0.1, 1.0, 100.0)]
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (0, unbounded)
    assert unbounded == 3


@given(rate=st.floats(0.1, 5000.0), more=st.floats(1.0, 3.0), slack=st.floats(0.1, 5.0), at_once=st.integers(1, 8))
def test_more_requests_or_less_slack_never_take_fewer(rate: float, more: float, slack: float, at_once: int) -> None:
    def count(rate: float, slack: float) -> int:
        return together(rate, service(0.004, slack * 0.004 * at_once, at_once))

    assert count(rate, slack) <= count(rate * more, slack)
    assert count(rate, slack) <= count(rate, slack / more)
    assert max(1, count(rate, slack)) * at_once > rate * 0.004 * at_once, "they keep up"


def settled(profile: Profile, per_s: float, present: int, idle_s: int = 0) -> tuple[int, str, dict[str, float]]:
    """What the policy wishes for after 20 seconds of this, and then some of nothing.

    Args:
        present: requests that are there at every second reading; at the others there is one.
    """
    policy, wish = HeadracePolicy(), None
    for number in range(80 + 4 * idle_s):
        arrivals = round(per_s / 4) if number < 80 else 0
        there = (present if number % 2 else 1) if arrivals else 0
        ready = wish.desired if wish else 1
        reading = Reading(
            now=number / 4, arrivals=arrivals, completed=arrivals, executing=min(ready, there),
            queued=max(0, there - ready), ready=ready,
        )  # fmt: skip
        wish = policy.decide(reading, profile)
    assert wish is not None
    return wish.desired, wish.reason, dict(wish.inputs)


TIGHT = Profile(slo_s=0.01, service_s=0.005, latency_s=0.005, cold_start_s=0.05)


def test_a_tight_objective_gets_instances_for_what_no_reading_shows() -> None:
    desired, _, inputs = settled(TIGHT, 60.0, present=2)
    assert (desired, inputs["wanted_together"], inputs["wanted_load"]) == (2, 2.0, 0.0)


def test_of_requests_that_follow_each_other_none_meets_another() -> None:
    assert settled(TIGHT, 60.0, present=1)[2]["wanted_together"] == 1.0
    assert settled(TIGHT, 300.0, present=3)[2]["wanted_together"] == 3.0, "three that wait for their answers"


@pytest.mark.parametrize("slo_s", [0.001, 0.005], ids=["far below what one takes", "just what one takes"])
def test_an_objective_that_nothing_meets_gets_nothing(slo_s: float) -> None:
    hopeless = Profile(slo_s=slo_s, service_s=0.005, latency_s=0.005, cold_start_s=0.05)
    assert settled(hopeless, 60.0, present=4)[2]["wanted_together"] == 0.0


def test_a_tight_objective_does_not_keep_a_model_from_zero() -> None:
    assert settled(TIGHT, 60.0, present=2, idle_s=600)[0] == 0


def test_what_may_wait_for_longer_than_a_reading_lasts_is_left_to_readings() -> None:
    patient = Profile(slo_s=0.3, service_s=0.005, latency_s=0.005, cold_start_s=0.05)
    assert settled(patient, 60.0, present=2)[2]["wanted_together"] == 0.0
