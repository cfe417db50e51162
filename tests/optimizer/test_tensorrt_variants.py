"""Variants that are said to run on TensorRT are parsed and built by TensorRT-RTX itself, for a GPU that is not here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import magika
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from headrace_runner.compile.__main__ import main
from headrace_runner.compile.plan_files import read_plan
from headrace_runner.engines import trt_library
from headrace_runner.engines.base import ModelSource
from headrace_runner.engines.ort import OnnxRuntimeEngine
from headrace_runner.optimizer import building
from headrace_runner.optimizer.core.recipes import Recipe, plan

MAGIKA = Path(magika.__file__).parent / "models" / "standard_v3_3" / "model.onnx"
PORTABLE = [recipe for recipe in plan(("fp32", "fp16", "int8", "int4"), [0.5]) if "tensorrt" in recipe.engines]
[SYMMETRIC] = [recipe for recipe in PORTABLE if recipe.name == "int8-symmetric"]
_RANDOM = np.random.default_rng(7)

needs_tensorrt_rtx = pytest.mark.skipif(
    trt_library.installed("tensorrt-rtx") is None, reason="needs TensorRT-RTX: pip install 'headrace[tensorrt-rtx]'"
)


def cnn() -> onnx.ModelProto:
    """Two convolutions with biases and a classifier: n x 3 x 16 x 16 to n x 10."""
    weights = {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (16, 8, 3, 3), "b2": (16,), "w3": (16, 10), "b3": (10,)}
    tensors = [
        numpy_helper.from_array(_RANDOM.normal(scale=0.2, size=shape).astype("f4"), name)
        for name, shape in weights.items()
    ]
    nodes = [
        helper.make_node("Conv", ["image", "w1", "b1"], ["c1"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("GlobalAveragePool", ["r2"], ["pool"]),
        helper.make_node("Flatten", ["pool"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w3", "b3"], ["scores"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 16, 16])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 10])
    graph = helper.make_graph(nodes, "cnn", [image], [scores], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def images() -> Iterator[dict[str, NDArray[np.float32]]]:
    random = np.random.default_rng(3)
    for _ in range(4):
        yield {"image": random.normal(size=(16, 3, 16, 16)).astype(np.float32)}


def texts() -> Iterator[dict[str, NDArray[np.int32]]]:
    random = np.random.default_rng(3)
    for _ in range(2):
        yield {"bytes": random.integers(0, 256, (16, 2048)).astype(np.int32)}


def built(recipe: Recipe, model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / f"{recipe.name}.onnx"
    batches = texts if model.graph.input[0].name == "bytes" else images
    building.build(recipe, building.clean(model), batches, path)
    return path


def test_symmetric_int8_has_zero_points_of_zero_and_biases_in_floating_point(tmp_path: Path) -> None:
    model = onnx.load(str(built(SYMMETRIC, cnn(), tmp_path)))
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    producers = {name: node for node in model.graph.node for name in node.output}
    steps = [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]

    assert steps
    for node in steps:
        zero = tensors[node.input[2]]
        assert zero.dtype == np.int8
        assert not zero.any()
    for node in model.graph.node:
        if node.op_type in ("Conv", "Gemm"):
            assert producers[node.input[0]].op_type == producers[node.input[1]].op_type == "DequantizeLinear"
            assert tensors[node.input[2]].dtype == np.float32
            scales = tensors[producers[node.input[1]].input[1]]
            assert scales.size == tensors[node.input[2]].size, "a scale for each channel"


def test_symmetric_int8_answers_nearly_as_the_model_does(tmp_path: Path) -> None:
    """It runs on ONNX Runtime as well, which is where its accuracy is measured."""
    model = cnn()
    quantised, whole = built(SYMMETRIC, model, tmp_path), tmp_path / "whole.onnx"
    onnx.save(model, str(whole))
    batch = next(images())
    found, expected = (
        OnnxRuntimeEngine().load(ModelSource(path, path.name)).run(batch)["scores"] for path in (quantised, whole)
    )
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()


@needs_tensorrt_rtx
@pytest.mark.parametrize("recipe", PORTABLE, ids=lambda recipe: recipe.name)
def test_a_convolutional_network_is_built_in_every_way_that_tensorrt_is_said_to_run(
    recipe: Recipe, tmp_path: Path
) -> None:
    path = built(recipe, cnn(), tmp_path)
    assert main([str(path), "--target", "sm_86", "--batch", "1:8", "--out", str(tmp_path), "--no-cache"]) == 0
    manifest = read_plan(tmp_path / f"{recipe.name}.sm_86.plan").manifest
    assert recipe.precision in manifest.request.precision


@needs_tensorrt_rtx
def test_magika_is_built_in_symmetric_int8(tmp_path: Path) -> None:
    path = built(SYMMETRIC, onnx.load(str(MAGIKA)), tmp_path)
    assert main([str(path), "--target", "sm_86", "--out", str(tmp_path), "--no-cache"]) == 0
    manifest = read_plan(tmp_path / "int8-symmetric.sm_86.plan").manifest
    assert "int8" in manifest.request.precision
    assert path.stat().st_size < 0.4 * MAGIKA.stat().st_size
