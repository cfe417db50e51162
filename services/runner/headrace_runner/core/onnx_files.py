"""Which other files an ONNX model reads: a walk over its protobuf that touches no tensor's content.

Field numbers are those of onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto). Nothing is
unpickled, executed or copied.
"""

from __future__ import annotations

from collections.abc import Iterator

from headrace_runner.core.protobuf import Malformed, fields

__all__ = ["COMPILED", "Malformed", "calls", "external_locations", "is_inside"]

COMPILED = b"EPContext"
"""The operator that is what an execution provider compiled: it names a file, or holds machine code."""

_MODEL, _GRAPH, _NODE, _ATTRIBUTE, _TENSOR, _SPARSE, _TRAINING, _FUNCTION = (
    "ModelProto",
    "GraphProto",
    "NodeProto",
    "AttributeProto",
    "TensorProto",
    "SparseTensorProto",
    "TrainingInfoProto",
    "FunctionProto",
)

_CHILDREN: dict[str, dict[int, str]] = {
    _MODEL: {7: _GRAPH, 20: _TRAINING, 25: _FUNCTION},
    _GRAPH: {1: _NODE, 5: _TENSOR, 15: _SPARSE},
    _NODE: {5: _ATTRIBUTE},
    _ATTRIBUTE: {5: _TENSOR, 6: _GRAPH, 10: _TENSOR, 11: _GRAPH, 22: _SPARSE, 23: _SPARSE},
    _SPARSE: {1: _TENSOR, 2: _TENSOR},
    _TRAINING: {1: _GRAPH, 2: _GRAPH},
    _FUNCTION: {7: _NODE, 11: _ATTRIBUTE},
    _TENSOR: {},
}
_NODE_OPERATOR = 4
_TENSOR_EXTERNAL_DATA, _TENSOR_DATA_LOCATION, _EXTERNAL = 13, 14, 1
_ENUM_BITS = (1 << 32) - 1
"""Protobuf drops the others."""
_ENTRY_KEY, _ENTRY_VALUE = 1, 2


def external_locations(model: bytes | memoryview) -> frozenset[str]:
    """The locations of a model's external tensor data, as written: paths relative to the model's folder.

    Raises:
        Malformed: the file is not a protobuf of this form.
    """
    found: set[str] = set()
    for kind, content in _parts(model):
        if kind == _TENSOR:
            found.update(_tensor_locations(content))
    return frozenset(found)


def calls(model: bytes | memoryview, operator: bytes) -> bool:
    """Whether a node of the model, of its functions or of the graphs in its graph is this operator.

    Raises:
        Malformed: the file is not a protobuf of this form.
    """
    return any(
        item.number == _NODE_OPERATOR and item.content == operator
        for kind, content in _parts(model)
        if kind == _NODE
        for item in fields(content)
    )


def is_inside(path: str) -> bool:
    """Whether a path, by its text alone, stays in the folder that it is relative to."""
    parts = path.split("/")
    return bool(path) and not path.startswith("/") and ".." not in parts and "\\" not in path and "\0" not in path


def _parts(model: bytes | memoryview) -> Iterator[tuple[str, memoryview]]:
    """All messages in it that can hold a tensor, and the tensors, each with its kind."""
    waiting: list[tuple[str, memoryview]] = [(_MODEL, memoryview(model))]
    while waiting:
        kind, content = waiting.pop()
        yield kind, content
        if children := _CHILDREN[kind]:
            for item in fields(content):
                child = children.get(item.number)
                if child is not None and item.is_message:
                    waiting.append((child, item.content))


def _tensor_locations(tensor: memoryview) -> set[str]:
    locations: set[str] = set()
    external = False
    for item in fields(tensor):
        if item.number == _TENSOR_DATA_LOCATION and not item.is_message:
            external = external or item.value & _ENUM_BITS == _EXTERNAL
        elif item.number == _TENSOR_EXTERNAL_DATA and item.is_message:
            locations.update(_entry_locations(item.content))
    if not external:
        return set()
    if not locations:
        raise Malformed("a tensor is said to be in another file and none is named")
    return locations


def _entry_locations(entry: memoryview) -> set[str]:
    # Protobuf keeps the last value of a field written twice; taking all of them can only refuse more.
    items = list(fields(entry))
    keys = {bytes(item.content) for item in items if item.number == _ENTRY_KEY}
    if b"location" not in keys:
        return set()
    try:
        return {bytes(item.content).decode() for item in items if item.number == _ENTRY_VALUE}
    except UnicodeDecodeError:
        raise Malformed("the location of external data is not UTF-8") from None
