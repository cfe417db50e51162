"""Two models made here: `mlp` (little data, little work) and `image` (much data, little work)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.paths import MODELS
from benchmarks.workloads.base import Workload

_ROWS = 16
_OPSET = 17
_IR_VERSION = 9


def mlp() -> Workload:
    """64 -> 256 -> 10, fp32: 256 bytes a request."""
    random = np.random.default_rng(0)
    sizes = {"w1": (64, 256), "b1": (256,), "w2": (256, 10), "b2": (10,)}
    weights = [
        numpy_helper.from_array((random.standard_normal(size) / 16).astype(np.float32), name)
        for name, size in sizes.items()
    ]
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "w2", "b2"], ["y"]),
    ]
    rows = np.random.default_rng(1).standard_normal((_ROWS, 64)).astype(np.float32)
    return Workload("mlp", _saved("mlp", nodes, weights, (64,), (10,)), "x", "y", rows, (10,))


def image() -> Workload:
    """3x224x224 fp32 to its three means: 602 KB a request."""
    nodes = [helper.make_node("GlobalAveragePool", ["x"], ["p"]), helper.make_node("Flatten", ["p"], ["y"])]
    rows = np.random.default_rng(2).random((4, 3, 224, 224), dtype=np.float32)
    return Workload("image", _saved("image", nodes, [], (3, 224, 224), (3,)), "x", "y", rows, (3,))


def _saved(
    name: str,
    nodes: list[onnx.NodeProto],
    weights: list[onnx.TensorProto],
    into: tuple[int, ...],
    out: tuple[int, ...],
) -> Path:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *into])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", *out])
    graph = helper.make_graph(nodes, name, [x], [y], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
    MODELS.mkdir(parents=True, exist_ok=True)
    path = MODELS / f"{name}.onnx"
    onnx.save(model, path)
    return path
