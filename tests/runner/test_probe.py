"""What a probe makes of an engine that cannot go on: that is no answer about the model."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from numpy.typing import NDArray

from headrace_common.clock import SystemClock
from headrace_common.enforcement import ENGINE_LOST_STATUS
from headrace_runner.core.signature import EngineTensor
from headrace_runner.domain import LoadPlan, ModelFile
from headrace_runner.engines.base import EngineLost, LoadedModel, ModelSource
from headrace_runner.loading import load
from headrace_runner.probe import probe_rows, workable_size


class Lost:
    """A model whose engine is lost at its first run."""

    def __init__(self, rows: str | int = "") -> None:
        self.inputs = self.outputs = (EngineTensor("x", "FP32", (rows, 4)),)
        self.runs = 0

    def run(self, inputs: Mapping[str, NDArray[Any]], outputs: tuple[str, ...] = ()) -> dict[str, NDArray[Any]]:
        self.runs += 1
        raise EngineLost("cudaErrorIllegalAddress")

    def close(self) -> None: ...


def test_an_engine_that_is_lost_is_no_model_whose_rows_depend_on_each_other() -> None:
    model = Lost()
    with pytest.raises(EngineLost, match="cudaErrorIllegalAddress"):
        probe_rows(model)
    assert model.runs == 1


def test_an_engine_that_is_lost_is_no_model_that_runs_at_no_size() -> None:
    model = Lost()
    with pytest.raises(EngineLost):
        workable_size(model, 1)
    assert model.runs == 1


class LostEngine:
    """Loads models that are `Lost`."""

    name = platform = "lost"

    def __init__(self, rows: str | int) -> None:
        self._rows = rows

    def prepare(self) -> None: ...

    def external_files(self, source: ModelSource) -> frozenset[str]:
        return frozenset()

    def load(self, source: ModelSource) -> LoadedModel:
        return Lost(self._rows)


@pytest.mark.parametrize("rows", ["", 1], ids=["while it is probed", "while it is warmed up"])
def test_a_runner_whose_engine_is_lost_while_it_loads_ends(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, rows: str | int
) -> None:
    def end(status: int) -> None:
        raise SystemExit(status)

    # In place of the end of the tests.
    monkeypatch.setattr(os, "_exit", end)
    (tmp_path / "model").write_bytes(b"")
    file = ModelFile("model", hashlib.sha256(b"").hexdigest(), 0)
    plan = LoadPlan(tmp_path, (file,), "model", "lost")
    with pytest.raises(SystemExit) as ended:
        load(plan, {"lost": LostEngine(rows)}, SystemClock())
    assert ended.value.code == ENGINE_LOST_STATUS
