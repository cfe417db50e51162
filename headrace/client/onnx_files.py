"""Which other files an ONNX model needs, without the onnx package.

ONNX keeps large weights beside the model and names them in each tensor's `external_data`
(onnx.proto, TensorProto field 13, key "location"). This walks the protobuf wire format along the
fields that lead to tensors, and touches no tensor's data.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from headrace.errors import InvalidArgument

# Message -> field number -> message, out of onnx.proto.
_FIELDS: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Function": {7: "Node", 11: "Attribute"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {13: "Entry"},
}
_KEY, _VALUE = 1, 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_DEPTH = 64


class _Broken(Exception):
    """Not protobuf. The mesh will say so with the engine's own reason."""


def external_files(model: Path) -> tuple[str, ...]:
    """Names of the files that hold the model's external data, sorted; empty if it is no ONNX at all.

    Raises:
        InvalidArgument: a name that leads out of the model's own directory.
    """
    if model.stat().st_size == 0:
        return ()
    found: set[str] = set()
    with model.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            found.update(_locations(data, 0, len(data), "Model", 0))
        except _Broken:
            return ()
    for location in found:
        parts = Path(location).parts
        if not parts or Path(location).is_absolute() or ".." in parts:
            raise InvalidArgument(f"{model}: names external data outside its own directory: {location!r}")
    return tuple(sorted(found))


def _locations(data: mmap.mmap, start: int, end: int, kind: str, depth: int) -> Iterator[str]:
    if depth > _MAX_DEPTH:
        raise _Broken
    children = _FIELDS[kind]
    for number, begin, stop in _fields(data, start, end):
        child = children.get(number)
        if child == "Entry":
            key, value = _entry(data, begin, stop)
            if key == b"location":
                yield value.decode(errors="replace")
        elif child is not None:
            yield from _locations(data, begin, stop, child, depth + 1)


def _entry(data: mmap.mmap, start: int, end: int) -> tuple[bytes, bytes]:
    values = {number: data[begin:stop] for number, begin, stop in _fields(data, start, end)}
    return values.get(_KEY, b""), values.get(_VALUE, b"")


def _fields(data: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number and extent of each length-delimited field; other wire types are stepped over."""
    at = start
    while at < end:
        tag, at = _varint(data, at, end)
        wire_type = tag & 7
        if wire_type == _VARINT:
            _, at = _varint(data, at, end)
        elif wire_type == _FIXED64:
            at += 8
        elif wire_type == _FIXED32:
            at += 4
        elif wire_type == _BYTES:
            size, at = _varint(data, at, end)
            if at + size > end:
                raise _Broken
            yield tag >> 3, at, at + size
            at += size
        else:
            raise _Broken
    if at != end:
        raise _Broken


def _varint(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise _Broken
