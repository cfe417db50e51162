"""Medians, quantiles and spreads."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.figures import Spread, median, quantile, ratio, spread

NUMBERS = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50)


@pytest.mark.parametrize(
    ("values", "expected"),
    [([3.0], 3.0), ([1.0, 3.0], 2.0), ([9.0, 1.0, 5.0], 5.0), ([4.0, 1.0, 3.0, 2.0], 2.5)],
    ids=["one", "two", "odd", "even"],
)
def test_median(values: list[float], expected: float) -> None:
    assert median(values) == expected


@given(NUMBERS, st.floats(0.01, 1.0))
def test_a_quantile_is_the_least_value_that_enough_do_not_exceed(values: list[float], share: float) -> None:
    ordered = sorted(values)
    found = quantile(ordered, share)
    enough = [value for value in ordered if sum(other <= value for other in ordered) >= share * len(ordered)]
    assert found == min(enough)


def test_of_a_hundred_latencies_p99_is_the_second_worst() -> None:
    ordered = [float(number) for number in range(1, 101)]
    assert (quantile(ordered, 0.5), quantile(ordered, 0.99), quantile(ordered, 1.0)) == (50.0, 99.0, 100.0)


def test_a_spread_has_the_median_and_the_extremes() -> None:
    assert spread([30.0, 10.0, 20.0]) == Spread(20.0, 10.0, 30.0, 3)
    with pytest.raises(ValueError, match="at least one"):
        spread([])


def test_a_ratio_is_of_medians_and_a_peer_that_served_nothing_is_infinitely_slow() -> None:
    assert ratio(spread([2.0, 4.0, 9.0]), spread([1.0, 2.0, 8.0])) == 2.0
    assert ratio(spread([1.0]), spread([0.0])) == math.inf
