"""Starts in the simulator: no more than the rate allows, and one that is withdrawn gives its place to another."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_autoscaler.sim.starts import StartRate


def test_a_start_that_is_withdrawn_gives_its_place_to_the_next() -> None:
    rate = StartRate(1.0, 1)
    assert [rate.begin(0.0) for _ in range(4)] == [0.0, 1.0, 2.0, 3.0]
    rate.withdraw(1.0, 0.5)
    assert [rate.begin(0.5), rate.begin(0.5)] == [1.0, 4.0]


def test_one_that_has_begun_keeps_it() -> None:
    rate = StartRate(1.0, 1)
    rate.begin(0.0)
    rate.withdraw(0.0, 0.5)
    assert rate.begin(0.5) == 1.0


def test_a_place_whose_moment_has_passed_is_lost() -> None:
    rate = StartRate(1.0, 1)
    assert [rate.begin(0.0) for _ in range(3)] == [0.0, 1.0, 2.0]
    rate.withdraw(1.0, 0.0)
    assert rate.begin(1.5) == 3.0


steps = st.lists(
    st.tuples(st.sampled_from([0.0, 0.1, 0.25, 1.0, 5.0]), st.integers(0, 5), st.integers(0, 5)), max_size=30
)


@given(st.sampled_from([0.5, 2.0, 8.0]), st.integers(1, 4), steps, st.randoms(use_true_random=False))
def test_no_window_holds_more_starts_than_the_rate_allows(
    per_s: float, burst: int, steps: object, random: object
) -> None:
    """Counted over every pair of starts that were not withdrawn."""
    rate, now, begun = StartRate(per_s, burst), 0.0, list[float]()
    for passed, begins, withdrawn in steps:  # type: ignore[attr-defined]
        now += passed
        begun += [rate.begin(now) for _ in range(begins)]
        waiting = [each for each in begun if each > now]
        for each in random.sample(waiting, min(withdrawn, len(waiting))):  # type: ignore[attr-defined]
            rate.withdraw(each, now)
            begun.remove(each)
    begun.sort()
    for last, end in enumerate(begun):
        for first, start in enumerate(begun[: last + 1]):
            assert last - first + 1 <= burst + (end - start) * per_s + 1e-6


@given(st.sampled_from([0.5, 2.0, 8.0]), st.integers(1, 4), steps)
def test_what_is_withdrawn_newest_first_leaves_nothing_behind(
    per_s: float, burst: int, steps: list[tuple[float, int, int]]
) -> None:
    rate, untouched, now = StartRate(per_s, burst), StartRate(per_s, burst), 0.0
    for passed, begins, extra in steps:
        now += passed
        assert [rate.begin(now) for _ in range(begins)] == pytest.approx([untouched.begin(now) for _ in range(begins)])
        added = [rate.begin(now) for _ in range(extra)]
        waiting = [each for each in added if each > now]
        for each in reversed(waiting):
            rate.withdraw(each, now)
        for _ in range(len(added) - len(waiting)):
            untouched.begin(now)
