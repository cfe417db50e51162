"""A system whose answers are wrong is not measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.answers import WrongAnswer, check
from benchmarks.systems import Running
from benchmarks.systems.base import Row
from benchmarks.workloads import Workload
from benchmarks.workloads import base as workload_base

ROWS = np.arange(6, dtype=np.float32).reshape(3, 2)


@pytest.fixture
def workload(monkeypatch: pytest.MonkeyPatch) -> Workload:
    """Its model doubles."""

    class Session:
        def run(self, _names: list[str], feed: dict[str, np.ndarray]) -> list[np.ndarray]:
            return [2 * feed["x"]]

    monkeypatch.setattr(workload_base, "open_session", lambda _path: Session())
    return Workload("double", Path("double.onnx"), "x", "y", ROWS, (2,))


def running(infer: object) -> Running:
    return Running("http://host", False, {}, b"", infer)


def test_every_row_is_asked_for_alone_and_together(workload: Workload) -> None:
    assert check(running(lambda row: 2 * row), workload) == 3 + 64


def test_one_wrong_row_is_enough(workload: Workload) -> None:
    def infer(row: Row) -> Row:
        return 2 * row + (row[0, 0] == 4.0)

    with pytest.raises(WrongAnswer, match="row 2: differs from ONNX Runtime's answer by up to 1"):
        check(running(infer), workload)


def test_a_wrong_shape_is_wrong(workload: Workload) -> None:
    with pytest.raises(WrongAnswer, match=r"row 0: shape \(2,\), expected \(1, 2\)"):
        check(running(lambda row: 2 * row[0]), workload)


def test_an_error_is_wrong(workload: Workload) -> None:
    def infer(row: Row) -> Row:
        raise ConnectionResetError("gone")

    with pytest.raises(WrongAnswer, match="gone"):
        check(running(infer), workload)
