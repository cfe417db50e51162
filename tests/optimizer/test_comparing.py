from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_runner.optimizer.core import comparing
from headrace_runner.optimizer.core.comparing import Comparison, agreeing, answers, broken


@pytest.mark.parametrize(
    ("reference", "found", "how", "same"),
    [
        pytest.param([[1.0, 2.0]], [[5.0, 9.0]], "auto", [True], id="the larger score is at the same place"),
        pytest.param([[1.0, 2.0]], [[5.0, 4.0]], "auto", [False], id="it is at another one"),
        pytest.param([[1.0, 2.0]], [[5.0, 9.0]], "close", [False], id="scores themselves differ"),
        pytest.param([[0.0], [100.0]], [[0.9], [98.0]], "auto", [True, False], id="within a hundredth of the range"),
        pytest.param([0.0, 1.0], [0.0, 1.5], "argmax", [True, False], id="one number a row has no largest"),
        pytest.param([3, 4], [3, 5], "auto", [True, False], id="integers are equal or not"),
        pytest.param([[0.0], [1.0]], [[0.0, 0.0], [1.0, 1.0]], "close", [False, False], id="another shape"),
        pytest.param([[np.nan], [1.0]], [[np.nan], [1.0]], "close", [True, True], id="NaN in both"),
        pytest.param([[1.0], [2.0]], [[np.nan], [2.0]], "close", [False, True], id="NaN in one"),
    ],
)
def test_the_same_answer(reference: list, found: list, how: str, same: list[bool]) -> None:  # type: ignore[type-arg]
    a, b = ({"y": answers(np.array(each), Comparison(how))} for each in (reference, found))
    assert agreeing(a, b, 0.01).tolist() == same


def test_every_output_counts() -> None:
    a = {"y": answers(np.array([1, 2]), Comparison.AUTO), "z": answers(np.array([1, 2]), Comparison.AUTO)}
    b = {"y": a["y"], "z": answers(np.array([1, 3]), Comparison.AUTO)}
    assert agreeing(a, b, 0.01).tolist() == [True, False]


def test_what_only_the_variant_makes_infinite_breaks_it() -> None:
    reference = {"y": answers(np.array([[1.0], [np.inf], [2.0]]), Comparison.CLOSE)}
    found = {"y": answers(np.array([[np.nan], [np.inf], [2.0]]), Comparison.CLOSE)}
    assert broken(reference, found) == {"y": 1}
    assert broken(reference, reference) == {}


@given(st.integers(1, 3000))
def test_calibration_and_measuring_share_no_row_and_leave_none_out(count: int) -> None:
    calibrating, measuring = comparing.split(count)
    assert sorted([*calibrating, *measuring]) == list(range(count))
    assert len(calibrating) <= 256


@given(st.integers(1, 3000))
def test_samples_asked_for_are_the_least_that_leave_enough(measuring: int) -> None:
    def left(total: int) -> int:
        return total - comparing.calibration_count(total)

    total = comparing.samples_for(measuring)
    assert left(total) >= measuring
    assert left(total - 1) < measuring


def test_a_row_that_comes_again_is_left_out() -> None:
    inputs = {"a": np.array([[1, 2], [3, 4], [1, 2], [1, 2]]), "b": np.array([0, 0, 0, 9])}
    assert comparing.unique_rows(inputs).tolist() == [0, 1, 3]
