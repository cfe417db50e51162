"""ONNX models of the suite, for the engines that take them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tests.conformance.engines.kits import CRASH, HANG, HOG, Tensors

ONNX = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BF16": TensorProto.BFLOAT16,
    "BYTES": TensorProto.STRING,
}
_LONGEST = 2**63 - 1
_GIB = 1 << 30


def model(
    nodes: Sequence[onnx.NodeProto], inputs: Tensors, outputs: Tensors, weights: dict[str, NDArray[Any]] | None = None
) -> onnx.ModelProto:
    """Opset 17."""
    initializers = [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()]
    graph = helper.make_graph(nodes, "g", values(inputs), values(outputs), initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def values(tensors: Tensors) -> list[onnx.ValueInfoProto]:
    return [helper.make_tensor_value_info(name, ONNX[datatype], shape) for name, datatype, shape in tensors]


def identity(inputs: Tensors, outputs: Tensors) -> bytes:
    nodes = [helper.make_node("Identity", [into[0]], [out[0]]) for into, out in zip(inputs, outputs, strict=False)]
    return model(nodes, inputs, outputs).SerializeToString()


def doubled(datatype: str) -> bytes:
    add = helper.make_node("Add", ["x", "x"], ["y"])
    return model([add], [("x", datatype, ["N"])], [("y", datatype, ["N"])]).SerializeToString()


def dense(w: NDArray[np.float32], b: NDArray[np.float32]) -> bytes:
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["h"]), helper.make_node("Relu", ["h"], ["y"])]
    into, out = ("x", "FP32", ["N", w.shape[0]]), ("y", "FP32", ["N", w.shape[1]])
    return model(nodes, [into], [out], {"w": w, "b": b}).SerializeToString()


def sized() -> bytes:
    fill = helper.make_node("ConstantOfShape", ["n"], ["y"])
    return model([fill], [("n", "INT64", [1])], [("y", "FP32", ["A"])]).SerializeToString()


def holding(size: int) -> bytes:
    """y = the sum of x [N, 1] and as many floats as take `size` bytes."""
    add, total = helper.make_node("Mul", ["x", "table"], ["m"]), helper.make_node("ReduceMax", ["m"], ["y"], axes=[1])
    table = {"table": np.arange(size // 4, dtype=np.float32)}
    return model([add, total], [("x", "FP32", ["N", 1])], [("y", "FP32", ["N", 1])], table).SerializeToString()


def crash() -> bytes:
    """The least int64 modulo -1 does not fit its type: the processor traps (SIGFPE)."""
    nodes = [
        helper.make_node("Sub", ["largest", "poison"], ["over"]),
        helper.make_node("Mul", ["over", "ten"], ["wide"]),
        helper.make_node("Cast", ["wide"], ["count"], to=TensorProto.INT64),
        helper.make_node("Sub", ["count", "one"], ["divisor"]),
        helper.make_node("Mod", ["least", "divisor"], ["rest"]),
        helper.make_node("Cast", ["rest"], ["rest_f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["rest_f", "zero"], ["nothing"]),
    ]
    weights = {
        "poison": np.float32(CRASH),
        "ten": np.float32(10),
        "zero": np.float32(0),
        "one": np.int64(1),
        "least": np.int64(-(2**63)),
    }
    return _trouble(nodes, weights)


def hang() -> bytes:
    """A loop of 2**63 - 1 turns."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["on"], ["on_out"]), helper.make_node("Neg", ["v"], ["v_out"])],
        "body",
        values([("i", "INT64", []), ("on", "BOOL", []), ("v", "FP32", [])]),
        values([("on_out", "BOOL", []), ("v_out", "FP32", [])]),
    )
    nodes = [
        helper.make_node("Equal", ["largest", "poison"], ["ill"]),
        helper.make_node("Cast", ["ill"], ["ill_i"], to=TensorProto.INT64),
        helper.make_node("Mul", ["ill_i", "longest"], ["turns"]),
        helper.make_node("Loop", ["turns", "", "zero"], ["nothing"], body=body),
    ]
    return _trouble(nodes, {"poison": np.float32(HANG), "longest": np.int64(_LONGEST), "zero": np.float32(0)})


def hog() -> bytes:
    """8 GiB of zeros."""
    nodes = [
        helper.make_node("Equal", ["largest", "poison"], ["ill"]),
        helper.make_node("Cast", ["ill"], ["ill_i"], to=TensorProto.INT64),
        helper.make_node("Mul", ["ill_i", "floats"], ["shape"]),
        helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
        helper.make_node("ReduceSum", ["zeros"], ["nothing"], keepdims=0),
    ]
    return _trouble(nodes, {"poison": np.float32(HOG), "floats": np.array([8 * _GIB // 4])})


TROUBLES = {CRASH: crash, HANG: hang, HOG: hog}


def _trouble(nodes: list[onnx.NodeProto], weights: dict[str, Any]) -> bytes:
    """y = x + nothing, where `nothing` comes of `largest`, the largest of x."""
    around = [
        helper.make_node("ReduceMax", ["x"], ["largest"], keepdims=0),
        *nodes,
        helper.make_node("Add", ["x", "nothing"], ["y"]),
    ]
    tensors = {name: np.asarray(value) for name, value in weights.items()}
    return model(around, [("x", "FP32", ["N", 2])], [("y", "FP32", ["N", 2])], tensors).SerializeToString()


def crash_at_load() -> bytes:
    """One-hot vectors without a depth: an assertion of its C++ library aborts ONNX Runtime (1.31), which folds them."""
    one_hot = helper.make_node("OneHot", ["ids", "depth", "values"], ["y"])
    weights = {"ids": np.zeros(3, np.int64), "depth": np.zeros(0, np.int64), "values": np.zeros(0, np.float32)}
    return model([one_hot], [("x", "FP32", ["N", 2])], [("y", "FP32", [3, "D"])], weights).SerializeToString()


def hang_at_load() -> bytes:
    """A split into 2**31 parts, of which ONNX's inference of shapes looks at each."""
    split = helper.make_node("Split", ["x"], ["y", "z"], num_outputs=1 << 31)
    made = model([split], [("x", "FP32", [4])], [("y", "FP32", ["D"])])
    made.opset_import[0].version = 21
    return made.SerializeToString()
