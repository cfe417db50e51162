from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_runner.optimizer.core.choice import Candidate, Choice, Demand, Timing, Verdict, choose

DEMAND = Demand(0.99, None, "agreement")


def candidate(name: str, *, size: int = 100, right: int = 2000, total: int = 2000, ms: float = 1.0, problem: str = ""):  # type: ignore[no-untyped-def]
    """`ms` per row in batches of one; half of it in batches of eight."""
    timings = (Timing(1, ms / 1e3, ms / 1e3), Timing(8, 4 * ms / 1e3, 4 * ms / 1e3))
    return Candidate(name, size, right, total, timings, problem)


ORIGINAL = candidate("original")


def verdict(choice: Choice, name: str) -> Verdict:
    [found] = [each.verdict for each in choice.judgements if each.candidate.name == name]
    return found


@pytest.mark.parametrize(
    ("others", "chosen"),
    [
        pytest.param([], "original", id="nothing but the original"),
        pytest.param([candidate("int8", ms=0.5)], "int8", id="the cheapest that is good enough"),
        pytest.param([candidate("int8", ms=0.5, right=1900)], "original", id="never what is below the floor"),
        pytest.param([candidate("int8", ms=0.5, right=1984)], "original", id="nor what is only seen above it"),
        pytest.param([candidate("int8", ms=0.5, problem="NaN")], "original", id="nor what is broken"),
        pytest.param([candidate("int8", ms=2, size=10)], "original", id="small and dear is not cheap"),
        pytest.param([candidate("fp16", ms=1.01, size=50)], "fp16", id="of equally dear ones the smaller"),
        pytest.param([candidate("a", ms=0.5), candidate("b", ms=0.52, size=9)], "b", id="equal within the noise"),
    ],
)
def test_the_choice(others: list[Candidate], chosen: str) -> None:
    assert choose([ORIGINAL, *others], DEMAND).chosen == chosen


def test_what_cannot_be_told_says_how_many_samples_would_tell() -> None:
    choice = choose([ORIGINAL, candidate("int8", ms=0.5, right=1984)], DEMAND)
    assert verdict(choice, "int8") is Verdict.UNDECIDED
    assert "int8 might be cheaper: 2,000 held-out samples are too few to tell agreement 0.9920" in choice.reason
    assert "9,508 would be enough if the share stays" in choice.reason


def test_an_undecided_variant_that_is_no_cheaper_is_not_worth_a_word() -> None:
    choice = choose([ORIGINAL, candidate("int8", ms=3, right=1984)], DEMAND)
    assert "int8" not in choice.reason


@pytest.mark.parametrize(
    ("latency_ms", "chosen", "first"),
    [(None, "original", Verdict.FITS), (1.0, "original", Verdict.FITS), (0.5, None, Verdict.TOO_SLOW)],
)
def test_a_latency_counts_for_the_best_batch_inside_it(latency_ms: float | None, chosen: str, first: Verdict) -> None:
    demand = Demand(0.99, None if latency_ms is None else latency_ms / 1e3, "agreement")
    choice = choose([ORIGINAL], demand)
    assert (choice.chosen, verdict(choice, "original")) == (chosen, first)
    if latency_ms == 1.0:
        assert choice.judgements[0].cost_s == pytest.approx(1e-3)  # Batches of eight take four milliseconds.
    if latency_ms is None:
        assert choice.judgements[0].cost_s == pytest.approx(0.5e-3)


def test_where_the_original_is_below_the_floor_a_lower_one_is_advised() -> None:
    choice = choose([candidate("original", right=1900)], Demand(0.99, None, "accuracy"))
    assert choice.chosen is None
    assert "Nothing is inside the floor 0.99, the original included: ask for a lower --floor" in choice.reason


def test_a_variant_with_another_on_every_count_below_it_is_off_the_front() -> None:
    choice = choose(
        [ORIGINAL, candidate("worse", ms=2, size=200, right=1999), candidate("small", size=9, ms=3)], DEMAND
    )
    assert {each.candidate.name for each in choice.judgements if each.on_front} == {"original", "small"}


CANDIDATES = st.lists(
    st.builds(
        candidate,
        name=st.just(""),
        size=st.integers(1, 5),
        right=st.integers(1970, 2000),
        ms=st.sampled_from([0.5, 1.0, 2.0]),
        problem=st.sampled_from(["", "", "", "NaN"]),
    ),
    min_size=1,
    max_size=8,
).map(
    lambda found: [Candidate(str(i), c.size_bytes, c.right, c.total, c.timings, c.problem) for i, c in enumerate(found)]
)


@given(CANDIDATES)
def test_the_choice_is_on_no_account_worse_than_another_that_fits(candidates: list[Candidate]) -> None:
    choice = choose(candidates, DEMAND)
    fitting = [each for each in choice.judgements if each.verdict is Verdict.FITS]
    assert (choice.chosen is None) == (not fitting)
    for each in fitting:
        interval = each.candidate.interval
        assert interval is not None
        assert interval.lower >= DEMAND.floor
        [best] = [other for other in fitting if other.candidate.name == choice.chosen]
        assert best.cost_s <= each.cost_s * 1.05  # type: ignore[operator]


@given(CANDIDATES)
def test_the_front_is_what_a_slow_search_finds(candidates: list[Candidate]) -> None:
    choice = choose(candidates, DEMAND)
    sound = [each for each in choice.judgements if each.verdict is not Verdict.DISQUALIFIED]

    def at_least_as_good(a, b) -> tuple[bool, bool, bool]:  # type: ignore[no-untyped-def]
        return (
            a.candidate.right >= b.candidate.right,
            a.candidate.size_bytes <= b.candidate.size_bytes,
            a.cost_s <= b.cost_s,
        )

    for each in sound:
        beaten = any(all(at_least_as_good(o, each)) and not all(at_least_as_good(each, o)) for o in sound)
        assert each.on_front == (not beaten)
