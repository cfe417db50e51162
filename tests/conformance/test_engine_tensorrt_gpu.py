"""What of the suite is asked of TensorRT where there is a GPU: plans are compiled for it and answer as numpy does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace_common.gpu_facts import target_name
from headrace_common.gpus import find_gpus, own_gpu
from headrace_runner.compile.__main__ import main
from headrace_runner.compile.plan_files import manifest_path
from headrace_runner.engines.base import ExecutionFailed, InputRefused, LoadedModel, ModelSource
from headrace_runner.tensors import DTYPES
from tests.conformance.engines import onnx_models
from tests.conformance.engines.kits import ENGINES, Tensors, made_up

pytestmark = pytest.mark.gpu

Loader = Callable[..., LoadedModel]


@pytest.fixture(params=["tensorrt-rtx", "tensorrt"])
def loader(request: pytest.FixtureRequest, tmp_path: Path) -> Loader:
    """Compiles an ONNX model for the GPU that is here, and loads the plan."""
    engine, gpu = request.param, own_gpu(find_gpus())
    if engine not in ENGINES or gpu is None:
        pytest.skip(f"needs an NVIDIA GPU and {engine}")
    target = target_name(gpu.capability)

    def load(content: bytes, *arguments: str) -> LoadedModel:
        (tmp_path / "model.onnx").write_bytes(content)
        options = ["--engine", engine, "--target", target, "--out", str(tmp_path), "--no-cache", *arguments]
        assert main([str(tmp_path / "model.onnx"), *options]) == 0
        plan = tmp_path / f"model.{target}.plan"
        source = ModelSource(plan, plan.name)
        assert ENGINES[engine].external_files(source) == {manifest_path(plan).name}
        return ENGINES[engine].load(source)

    return load


def copies(datatype: str, dims: list[Any]) -> bytes:
    into: Tensors = [("x", datatype, dims)]
    return onnx_models.identity(into, [("y", datatype, dims)])


@pytest.mark.parametrize("datatype", ["BF16", "BOOL", "FP16", "FP32", "INT8", "INT32", "INT64", "UINT8"])
def test_every_datatype_passes_as_it_is(loader: Loader, datatype: str) -> None:
    given = made_up(datatype, (4, 3))
    result = loader(copies(datatype, ["N", 3])).run({"x": given})["y"]
    assert (result.dtype, result.tolist()) == (given.dtype, given.tolist())


@pytest.mark.parametrize("datatype", ["FP16", "FP32"])
def test_what_is_not_a_number_passes(loader: Loader, datatype: str) -> None:
    given = np.array([np.nan, np.inf, -np.inf, -0.0], DTYPES[datatype])
    np.testing.assert_array_equal(loader(copies(datatype, ["N"])).run({"x": given})["y"], given)


def test_one_model_takes_one_shape_after_another_within_its_profile(loader: Loader) -> None:
    model = loader(copies("FP32", ["N", "T"]), "--shape", "x=1x1:4x16:8x64")
    for shape in [(1, 5), (8, 64), (2, 1), (1, 5)] * 2:
        given = made_up("FP32", shape)
        assert model.run({"x": given})["y"].tolist() == given.tolist()
    for shape in [(9, 5), (1, 65), (0, 5)]:
        with pytest.raises(InputRefused):
            model.run({"x": np.zeros(shape, np.float32)})
    assert model.run({"x": np.ones((1, 2), np.float32)})["y"].tolist() == [[1, 1]]


@pytest.mark.parametrize("rows", [1, 2, 33, 64])
def test_answers_are_numpys_within_the_tolerance_of_tf32(loader: Loader, rows: int) -> None:
    random = np.random.default_rng(5)
    w, b = random.normal(size=(70, 30)).astype(np.float32), random.normal(size=30).astype(np.float32)
    x = random.normal(size=(rows, 70)).astype(np.float32)
    result = loader(onnx_models.dense(w, b)).run({"x": x})["y"]
    np.testing.assert_allclose(result, np.maximum(x.astype(np.float64) @ w + b, 0), rtol=1e-2, atol=5e-2)


def test_what_was_answered_stays_when_the_next_batch_runs_and_after_the_close(loader: Loader) -> None:
    model = loader(copies("FP32", ["N"]))
    first = model.run({"x": np.full(8, 1, np.float32)})["y"]
    model.run({"x": np.full(8, 2, np.float32)})
    model.close()
    model.close()
    assert first.tolist() == [1] * 8
    with pytest.raises(ExecutionFailed, match="closed"):
        model.run({"x": np.zeros(1, np.float32)})
