"""What policies have learnt is told and recalled: whoever comes after a restart decides as if there had been none."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace_autoscaler.core.memory import recall, remember, shift_between
from headrace_autoscaler.core.policies.base import Policy, Profile, Reading, Wish
from headrace_autoscaler.core.policies.choose import make_policy
from headrace_autoscaler.core.policies.named import POLICIES
from headrace_autoscaler.core.policies.schedules import parse_schedule
from headrace_autoscaler.core.policies.targets import parse_target

PROFILE = Profile(
    concurrency=2, slo_s=0.5, service_s=0.1, latency_s=0.2, cold_start_s=0.8, starts_per_s=4.0,
    instance_micros_per_hour=42_500, credit_micros=20,
)  # fmt: skip
WALL = 1_750_000_000.0


def scheduled() -> Policy:
    targets = [parse_target("concurrency", 2.0), parse_target("cpu", 0.5)]
    return make_policy(
        "headrace", "high", [parse_schedule("*/5 * * * * UTC=2"), parse_schedule("3 * * * *=0")], targets
    )


MAKERS: dict[str, Callable[[], Policy]] = {
    **{name: (lambda name=name: make_policy(name)) for name in POLICIES},
    "headrace, scheduled and with targets": scheduled,
}

traffic = st.lists(
    st.tuples(
        st.sampled_from([0.25, 0.25, 0.25, 1.0, 5.0, 40.0, 400.0]),
        st.sampled_from([0, 0, 0, 1, 3, 40]),
        st.integers(0, 6),
        st.booleans(),
    ),
    min_size=1,
    max_size=60,
)


def readings(steps: list[tuple[float, int, int, bool]], follow: Callable[[Reading], Wish]) -> None:
    """A crude model of instances that do as they are told, one reading late."""
    now, ready, starting, last = 1000.0, 0, 0, None
    for passed_s, arrivals, queued, executes in steps:
        now += passed_s
        ready, starting = ready + starting, 0
        executing = min(ready, arrivals + queued) if executes else 0
        last = now if arrivals else last
        wish = follow(
            Reading(
                now, WALL + now, arrivals, arrivals, (queued + executing) * passed_s, executing * passed_s,
                ready * passed_s, queued, executing, 0.1 * queued, ready, starting, last,
            )
        )  # fmt: skip
        desired = min(wish.desired, 50)
        starting, ready = max(0, desired - ready), min(ready, desired)


@pytest.mark.parametrize("name", MAKERS)
@settings(max_examples=40)
@given(steps=traffic, every=st.integers(1, 9))
def test_a_policy_that_is_recalled_decides_as_if_nothing_had_happened(
    name: str, steps: list[tuple[float, int, int, bool]], every: int
) -> None:
    """Against one that goes on, restarted after every so many readings. Half way the profile changes."""
    lives, restarted, count = MAKERS[name](), MAKERS[name](), 0

    def follow(reading: Reading) -> Wish:
        nonlocal restarted, count
        count += 1
        profile = PROFILE if count < len(steps) / 2 else replace(PROFILE, cold_start_s=2.0)
        expected = lives.decide(reading, profile)
        assert restarted.decide(reading, profile) == expected
        if count % every == 0:
            told = json.loads(json.dumps(remember(restarted), allow_nan=False))
            restarted = MAKERS[name]()
            recall(restarted, told, 0.0)
        return expected

    readings(steps, follow)


@pytest.mark.parametrize("name", MAKERS)
def test_after_the_machine_was_restarted_moments_are_moved_to_the_new_clock(name: str) -> None:
    lives, restarted = MAKERS[name](), MAKERS[name]()
    steps = [(0.25, 3, 1, True), (1.0, 0, 0, False), (0.25, 40, 5, True), (5.0, 0, 2, True), (40.0, 1, 0, True)] * 4
    count, shift_s = 0, 0.0

    def follow(reading: Reading) -> Wish:
        nonlocal restarted, count, shift_s
        count += 1
        wish = lives.decide(reading, PROFILE)
        again = restarted.decide(replace(reading, now=reading.now + shift_s), PROFILE)
        assert (again.desired, again.reason, again.spare) == (wish.desired, wish.reason, wish.spare)
        if count == 7:
            told = remember(restarted)
            restarted, shift_s = MAKERS[name](), -512.0
            recall(restarted, told, shift_s)
        return wish

    readings(steps, follow)


@pytest.mark.parametrize(
    ("then", "now", "shift_s"),
    [
        pytest.param((1000.0, WALL), (1030.0, WALL + 30.4), 0.0, id="the same clock, the wall clock corrected a bit"),
        pytest.param((1000.0, WALL), (5.0, WALL + 30.0), -1025.0, id="the machine was restarted"),
        pytest.param((1000.0, WALL), (5000.0, WALL + 30.0), 3970.0, id="another machine, up for longer"),
        pytest.param((1000.0, WALL), (5.0, WALL - 30.0), -995.0, id="the wall clock went back: just now"),
    ],
)
def test_clocks_of_two_lives(then: tuple[float, float], now: tuple[float, float], shift_s: float) -> None:
    assert shift_between(then, now) == shift_s


@pytest.mark.parametrize("name", MAKERS)
def test_what_is_of_another_kind_is_refused(name: str) -> None:
    told = remember(MAKERS[name]())
    assert told is not None
    broken: list[object] = [None, [], {}, {**told, "more": 1}]
    broken += [{**told, attribute: "x"} for attribute in told]
    for each in broken:
        with pytest.raises((ValueError, TypeError)):
            recall(MAKERS[name](), each, 0.0)


def test_forever_stays_forever() -> None:
    from headrace_autoscaler.core.memory import MOMENT

    assert MOMENT.take(MOMENT.put(math.inf), None, 5.0) == math.inf
