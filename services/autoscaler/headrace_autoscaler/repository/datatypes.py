"""Names of tensor element types: config.pbtxt's against the Open Inference Protocol's."""

from __future__ import annotations

from headrace.oip import model_config_pb2 as pb

_NAMES: dict[int, str] = {
    value: "BYTES" if name == "TYPE_STRING" else name.removeprefix("TYPE_")
    for name, value in pb.DataType.items()
    if value != pb.TYPE_INVALID
}

ELEMENT_BYTES = {
    "BOOL": 1,
    "UINT8": 1,
    "UINT16": 2,
    "UINT32": 4,
    "UINT64": 8,
    "INT8": 1,
    "INT16": 2,
    "INT32": 4,
    "INT64": 8,
    "FP16": 2,
    "BF16": 2,
    "FP32": 4,
    "FP64": 8,
    "BYTES": 4,
}
"""Bytes of one element in raw form; of an empty one for BYTES."""


def datatype_of(data_type: int) -> str:
    """TYPE_FP32 to "FP32"; empty for TYPE_INVALID and for a number that is no type."""
    return _NAMES.get(data_type, "")
