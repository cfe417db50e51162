"""What an ONNX file says about itself: its inputs and outputs, and what its weights are held in.

Field numbers are those of onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto). No tensor's content is
read, so that a model of any size takes milliseconds, and no library need be imported.
"""

from __future__ import annotations

from dataclasses import dataclass

from headrace_runner.core.protobuf import Field, Malformed, fields
from headrace_runner.core.signature import Dimension, EngineTensor

_MODEL_GRAPH = 7
_GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT = 5, 11, 12
_VALUE_NAME, _VALUE_TYPE, _TYPE_TENSOR = 1, 2, 1
_TENSOR_TYPE_ELEMENT, _TENSOR_TYPE_SHAPE, _SHAPE_DIM, _DIM_VALUE, _DIM_NAME = 1, 2, 1, 1, 2
_TENSOR_DIMS, _TENSOR_ELEMENT, _TENSOR_NAME = 1, 2, 8

_DATATYPES = {
    1: "FP32",
    2: "UINT8",
    3: "INT8",
    4: "UINT16",
    5: "INT16",
    6: "INT32",
    7: "INT64",
    8: "BYTES",
    9: "BOOL",
    10: "FP16",
    11: "FP64",
    12: "UINT32",
    13: "UINT64",
    16: "BF16",
}
"""TensorProto.DataType to Open Inference names."""
_WEIGHTS = {
    1: "fp32",
    2: "uint8",
    3: "int8",
    10: "fp16",
    11: "fp64",
    16: "bf16",
    17: "fp8",
    18: "fp8",
    19: "fp8",
    20: "fp8",
    21: "uint4",
    22: "int4",
    23: "fp4",
}
"""The types that weights have; integers of 32 and 64 bits are shapes and indices."""


@dataclass(frozen=True, slots=True)
class OnnxGraph:
    """
    Attributes:
        inputs, outputs: as the file declares them, without those that have a default in it.
        precision: the types of its weights, the one that most tensors have first: "fp32", "int8+fp32". Without
            weights: those of its inputs and outputs.
    """

    inputs: tuple[EngineTensor, ...]
    outputs: tuple[EngineTensor, ...]
    precision: str


def read_graph(model: bytes | memoryview) -> OnnxGraph:
    """Raises Malformed: the file is not an ONNX model, or says nothing of the shape of an input."""
    graphs = [item.content for item in fields(memoryview(model)) if item.number == _MODEL_GRAPH and item.is_message]
    if not graphs:
        raise Malformed("it has no graph")
    parts = [item for item in fields(graphs[-1]) if item.is_message]
    weights = [_weight(item) for item in parts if item.number == _GRAPH_INITIALIZER]
    constants = {name for name, _, _ in weights}
    inputs = tuple(_value(item) for item in parts if item.number == _GRAPH_INPUT)
    outputs = tuple(_value(item) for item in parts if item.number == _GRAPH_OUTPUT)
    inputs = tuple(tensor for tensor in inputs if tensor.name not in constants)
    kinds = [kind for _, kind, rank in weights if kind and rank]
    kinds = kinds or [tensor.datatype.lower() for tensor in (*inputs, *outputs)]
    return OnnxGraph(inputs, outputs, "+".join(sorted(set(kinds), key=lambda kind: (-kinds.count(kind), kind))))


def _weight(tensor: Field) -> tuple[str, str, int]:
    """Name, type and number of dimensions."""
    name, kind, rank = "", "", 0
    for item in fields(tensor.content):
        if item.number == _TENSOR_NAME:
            name = _text(item)
        elif item.number == _TENSOR_ELEMENT:
            kind = _WEIGHTS.get(item.value, "")
        elif item.number == _TENSOR_DIMS:
            rank = 1
    return name, kind, rank


def _value(value: Field) -> EngineTensor:
    name, kind, dims = "", "", None
    for item in fields(value.content):
        if item.number == _VALUE_NAME:
            name = _text(item)
        elif item.number == _VALUE_TYPE:
            kind, dims = _tensor_type(item)
    if not kind:
        raise Malformed(f"{name!r} is not a tensor of a type that can be served")
    # Outputs may leave it to inference; an input without dimensions at all is a scalar.
    return EngineTensor(name, kind, dims or ())


def _tensor_type(value_type: Field) -> tuple[str, tuple[Dimension, ...]]:
    kind = ""
    dims: tuple[Dimension, ...] = ()
    tensors = [item for item in fields(value_type.content) if item.number == _TYPE_TENSOR and item.is_message]
    for item in fields(tensors[-1].content) if tensors else ():
        if item.number == _TENSOR_TYPE_ELEMENT:
            kind = _DATATYPES.get(item.value, "")
        elif item.number == _TENSOR_TYPE_SHAPE:
            dims = tuple(_dimension(dim) for dim in fields(item.content) if dim.number == _SHAPE_DIM)
    return kind, dims


def _dimension(dim: Field) -> Dimension:
    for item in fields(dim.content):
        if item.number == _DIM_VALUE:
            # Some exporters write -1, two's complement in 64 bits, for a size that varies.
            return item.value if item.value < 1 << 63 else ""
        if item.number == _DIM_NAME:
            return _text(item)
    return ""


def _text(item: Field) -> str:
    return bytes(item.content).decode(errors="replace")
