"""The fake engine does as it is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace_runner.engines.base import ExecutionFailed, LoadedModel, ModelRefused
from tests.conformance.engines.registered import FAKE, fake_identity


def load(folder: Path, **spec: Any) -> LoadedModel:
    return FAKE.load(folder, fake_identity([("x", "FP32", ["N"])], [("y", "FP32", ["N"])], **spec))


@pytest.mark.parametrize("spec", [{"behaviour": "fail"}, {"fail_on": 7}], ids=["always", "on a value"])
def test_it_fails_when_told_to(tmp_path: Path, spec: dict[str, Any]) -> None:
    model = load(tmp_path, **spec)
    with pytest.raises(ExecutionFailed, match="told to fail"):
        model.run({"x": np.array([1, 7], np.float32)})


def test_it_passes_other_values(tmp_path: Path) -> None:
    model = load(tmp_path, fail_on=7, crash_on=8, hang_on=9)
    assert model.run({"x": np.array([1, 6], np.float32)})["y"].tolist() == [1, 6]


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        pytest.param({"latency_ms": -1}, "latency_ms", id="a negative latency"),
        pytest.param({"speed": 1}, "speed", id="an unknown key"),
        pytest.param(
            {"outputs": [{"name": "y", "datatype": "INT8", "shape": [-1]}]}, "must be FP32", id="another datatype"
        ),
        pytest.param({"inputs": [{"name": "x", "datatype": "FP8", "shape": []}]}, "'FP8'", id="no such datatype"),
    ],
)
def test_a_bad_file_is_refused_by_key(tmp_path: Path, spec: dict[str, Any], reason: str) -> None:
    with pytest.raises(ModelRefused, match=reason):
        load(tmp_path, **spec)
