"""Batches are as large as is worth while, whatever shape an engine's times have."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_router.core.efficiency import SHORT_S, SLACK, TRY_EVERY, EfficientSize

Time = Callable[[int], float]

# Seconds of a batch of so many rows.
FIXED: Time = lambda rows: 0.005  # noqa: E731
LINEAR: Time = lambda rows: 0.004 * rows  # noqa: E731
USUAL: Time = lambda rows: 0.004 + 0.0005 * rows  # noqa: E731
MAGIKA: dict[int, float] = {1: 148, 2: 144, 4: 141, 8: 132, 16: 121, 32: 103, 64: 101}
CACHE_BOUND: Time = lambda rows: rows / MAGIKA[1 << max(0, rows - 1).bit_length()]  # noqa: E731
CLIFF: Time = lambda rows: 0.002 + 0.001 * rows if rows <= 16 else 0.003 * rows  # noqa: E731
TINY: Time = lambda rows: 1e-6 * rows * rows  # noqa: E731


def run(size: EfficientSize, time: Time, batches: int) -> float:
    """Batches from a queue that never ends; rows per second."""
    rows = seconds = 0.0
    for _ in range(batches):
        cut = size.cut_at()
        took = time(cut)
        size.observe(cut, took)
        rows += cut
        seconds += took
    return rows / seconds


@pytest.mark.parametrize(
    ("time", "usual"),
    [
        pytest.param(FIXED, 64, id="a batch costs what a row costs: as many as go"),
        pytest.param(USUAL, 64, id="rows are cheaper together"),
        pytest.param(LINEAR, 64, id="rows cost the same together: the wire is spared"),
        pytest.param(CACHE_BOUND, 4, id="rows get dearer together: as measured of a real model"),
        pytest.param(CLIFF, 16, id="cheaper up to where it does not fit any more"),
        pytest.param(TINY, 32, id="dearer, and no burden all the same"),
    ],
)
def test_the_size_settles_where_it_is_worth_while(time: Time, usual: int) -> None:
    size = EfficientSize(64)
    size.seed([(1, time(1)), (64, time(64))])
    run(size, time, 40 * TRY_EVERY)
    assert size.usual == usual


def test_without_any_knowledge_the_maximum_is_cut_at() -> None:
    assert EfficientSize(48).cut_at() == 48
    assert EfficientSize(1).cut_at() == 1


def test_a_change_of_the_engine_is_followed() -> None:
    size = EfficientSize(32)
    size.seed([(1, CACHE_BOUND(1)), (32, CACHE_BOUND(32))])
    run(size, CACHE_BOUND, 1000)
    assert size.usual == 4
    run(size, USUAL, 4000)
    assert size.usual == 32


def test_trials_are_few() -> None:
    size = EfficientSize(64)
    size.seed([(1, 0.01), (64, 6.4)])
    cuts = [size.cut_at() for _ in range(10 * TRY_EVERY)]
    assert cuts.count(2) == 10
    assert set(cuts) == {1, 2}
    large = EfficientSize(64)
    large.seed([(1, 0.01), (64, 0.01)])
    run(large, FIXED, 40 * TRY_EVERY)
    assert {large.cut_at() for _ in range(10 * TRY_EVERY)} == {64}, "once all sizes are known the largest is cut at"


@given(st.integers(1, 100), st.lists(st.floats(0.5, 2.0), min_size=8, max_size=8), st.floats(SHORT_S, 0.05))
def test_no_engine_is_emptied_much_slower_than_at_its_best_size(most: int, factors: list[float], row_s: float) -> None:
    """Costs per row that change by any factor from size to size; neighbours are what trials compare."""
    costs = [row_s]
    for factor in factors:
        costs.append(costs[-1] * factor)

    def time(rows: int) -> float:
        return rows * costs[max(0, rows - 1).bit_length()]

    size = EfficientSize(most)
    size.seed([(1, time(1)), (most, time(most))])
    run(size, time, 48 * TRY_EVERY)
    reached = run(size, time, 4 * TRY_EVERY)
    known = [1, most, min(most, size.usual), min(most, 2 * size.usual)]
    assert reached >= max(rows / time(rows) for rows in known) / SLACK * 0.85
