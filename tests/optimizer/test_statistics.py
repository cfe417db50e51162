from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_runner.optimizer.core.statistics import samples_needed, wilson


@pytest.mark.parametrize(
    ("share", "count", "lower", "upper"),
    [
        # R: prop.test(x, n, correct = FALSE)$conf.int
        pytest.param(0.5, 10, 0.2366, 0.7634, id="half of ten"),
        pytest.param(0.0, 10, 0.0, 0.2775, id="none of ten"),
        pytest.param(1.0, 10, 0.7225, 1.0, id="all of ten"),
        pytest.param(81 / 263, 263, 0.2553, 0.3662, id="Newcombe's first example: 81 of 263"),
        pytest.param(15 / 148, 148, 0.0624, 0.1605, id="Newcombe's second example: 15 of 148"),
        pytest.param(1 / 29, 29, 0.0061, 0.1718, id="Newcombe's fourth example: 1 of 29"),
    ],
)
def test_wilsons_interval_has_the_published_values(share: float, count: int, lower: float, upper: float) -> None:
    found = wilson(share, count)
    assert (found.lower, found.upper) == (pytest.approx(lower, abs=5e-5), pytest.approx(upper, abs=5e-5))


@given(count=st.integers(1, 10**6), data=st.data())
def test_an_interval_holds_its_share_and_mirrors_its_complement(count: int, data: st.DataObject) -> None:
    share = data.draw(st.integers(0, count)) / count
    found, mirrored = wilson(share, count), wilson(1 - share, count)
    assert 0 <= found.lower <= share <= found.upper <= 1
    assert found.lower == pytest.approx(1 - mirrored.upper, abs=1e-9)


@pytest.mark.parametrize(("share", "count"), [(-0.1, 5), (1.1, 5), (0.5, 0)])
def test_what_is_no_share_has_no_interval(share: float, count: int) -> None:
    with pytest.raises(ValueError, match="expected a share"):
        wilson(share, count)


def test_even_right_answers_alone_need_381_samples_to_show_99_percent() -> None:
    assert samples_needed(1.0, 0.99) == 381


@pytest.mark.parametrize(("share", "floor"), [(0.99, 0.99), (0.9, 0.99)])
def test_no_number_of_samples_shows_what_is_not_so(share: float, floor: float) -> None:
    assert samples_needed(share, floor) is None


@given(floor=st.floats(0.01, 0.98), above=st.floats(0.01, 1.0))
def test_as_many_as_needed_are_the_least_whose_interval_is_above_the_floor(floor: float, above: float) -> None:
    share = floor + (1 - floor) * above
    needed = samples_needed(share, floor)
    assert needed is not None
    assert wilson(share, needed).lower >= floor - 1e-9
    if needed > 1:
        assert wilson(share, needed - 1).lower < floor + 1e-9
