"""How many runners stand by, and how fast they may be started."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_autoscaler.core.standby import (
    COVERAGE,
    HISTORY_S,
    UNMEASURED_START_S,
    Bounds,
    StartTimes,
    Wanted,
    at_once,
    size,
)
from headrace_autoscaler.domain import StandbyTarget

PRICE = 42_500
TIMES = st.lists(st.floats(0, 4000), max_size=60).map(sorted)


def bounds(minimum: int = 1, maximum: int = 8, budget: int | None = None) -> Bounds:
    return Bounds(minimum, maximum, PRICE, budget)


def wanted(*times: float) -> Wanted:
    log = Wanted()
    for time in times:
        log.note(1, 0, time)
    return log


@pytest.mark.parametrize(
    ("times", "limits", "runners", "reason"),
    [
        ((), bounds(), 1, "the minimum; fewer were wanted at once"),
        ((), bounds(minimum=0), 0, "nothing was wanted of late"),
        ((10, 20, 30), bounds(minimum=0), 1, "as many as were wanted at once"),
        ((10, 10, 10, 90), bounds(), 3, "as many as were wanted at once"),
        ((10, 10.4, 10.9, 90), bounds(), 2, "as many as were wanted at once"),
        ((10,) * 12, bounds(), 8, "the maximum; more were wanted at once"),
        ((10,) * 12, bounds(minimum=3, maximum=2), 3, "the maximum; more were wanted at once"),
        ((10,) * 12, bounds(budget=2 * PRICE + 1), 2, "what the budget pays for; more were wanted at once"),
        ((10,) * 12, bounds(budget=20 * PRICE), 8, "the maximum; more were wanted at once"),
        ((10,) * 12, bounds(minimum=2, budget=PRICE), 2, "what the budget pays for; more were wanted at once"),
    ],
    ids=[
        "nothing yet", "no minimum", "one at a time", "a burst", "some within a start", "a burst over the maximum",
        "a minimum above the maximum", "the budget", "a budget that does not bind", "a minimum that costs more",
    ],
)  # fmt: skip
def test_the_pool_holds_what_was_wanted_at_once(
    times: tuple[float, ...], limits: Bounds, runners: int, reason: str
) -> None:
    target = size(wanted(*times), 0.5, limits, 100.0)
    assert (target.runners, target.reason) == (runners, reason)
    assert dict(target.inputs)["micros_per_hour"] == runners * PRICE


def test_a_burst_is_forgotten_after_an_hour() -> None:
    log = wanted(10, 10, 10)
    assert size(log, 0.5, bounds(), 10 + HISTORY_S).runners == 3
    assert size(log, 0.5, bounds(), 11 + HISTORY_S).runners == 1


def test_one_burst_among_many_single_starts_is_not_worth_a_pool() -> None:
    singles = [float(10 * each) for each in range(100)]
    target = size(wanted(*singles, 2000, 2000, 2000), 0.5, bounds(), 2000.0)
    assert target.runners == 1
    assert dict(target.inputs)["expected_at_once"] == pytest.approx(106 / 103)


def test_who_waits_for_a_runner_wants_it_once() -> None:
    log = Wanted()
    log.note(1, 3, 10.0)
    log.note(0, 3, 10.2)
    log.note(1, 2, 11.0)
    log.note(2, 0, 12.0)
    assert log.since(0) == [10.0] * 4


def test_who_gave_up_is_not_counted_for_the_next() -> None:
    log = Wanted()
    log.note(0, 2, 10.0)
    log.note(0, 0, 11.0)
    log.note(1, 0, 12.0)
    assert log.since(0) == [10.0, 10.0, 12.0]


def test_a_start_takes_what_was_measured() -> None:
    starts = StartTimes()
    assert starts.typical_s == UNMEASURED_START_S
    for took in (0.5, 0.4, 0.6):
        starts.took(took)
    assert starts.typical_s == 0.6


def test_no_more_begin_at_once_than_the_fastest_start_allows() -> None:
    starts = StartTimes()
    for now in (1.0, 1.1, 1.2):
        starts.begun(now)
    assert starts.allowed(4, 1.2) == 4, "nothing has been measured yet"
    starts.took(0.5)
    starts.begun(2.0)
    starts.begun(2.0)
    assert [starts.allowed(4, now) for now in (2.0, 2.4, 2.5)] == [2, 2, 4]
    assert starts.allowed(1, 2.5) == 1


@given(TIMES, st.floats(0, 100))
def test_at_once_is_what_counting_says(times: list[float], within_s: float) -> None:
    counted = [sum(1 for other in times[: index + 1] if other >= time - within_s) for index, time in enumerate(times)]
    assert at_once(times, within_s) == counted


@given(TIMES, st.integers(0, 5), st.integers(0, 10), st.none() | st.integers(0, 20 * PRICE))
def test_bounds_hold_and_what_is_not_bound_covers(
    times: list[float], minimum: int, maximum: int, budget: int | None
) -> None:
    target = size(wanted(*times), 0.7, Bounds(minimum, maximum, PRICE, budget), 4000.0)
    assert target.runners >= minimum
    assert target.runners <= max(minimum, maximum)
    if budget is not None:
        assert target.runners == minimum or target.runners * PRICE <= budget
    if "more were wanted" not in target.reason:
        counts = at_once([time for time in times if time >= 4000.0 - HISTORY_S], 0.7)
        assert sum(count <= target.runners for count in counts) >= math.floor(COVERAGE * len(counts))


@given(TIMES)
def test_a_higher_bound_never_means_fewer(times: list[float]) -> None:
    def of(limits: Bounds) -> StandbyTarget:
        return size(wanted(*times), 0.7, limits, 4000.0)

    grow: Callable[[int], Bounds] = lambda more: bounds(1 + more, 4 + more, (2 + more) * PRICE)  # noqa: E731
    assert of(grow(0)).runners <= of(grow(1)).runners
