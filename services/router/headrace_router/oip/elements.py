"""Tensor data between its forms: raw bytes, typed `contents`, lists of Python values.

The raw form is little-endian and row-major; a BYTES element is its 4-byte length, then its content.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from headrace_common.errors import InvalidArgument
from headrace_router.domain import Buffer
from headrace_router.oip.datatypes import LENGTH_BYTES, Datatype

_BRIEF_CHARS = 40
_LENGTH = struct.Struct("<I")
# struct beats numpy by what making an array costs, and loses where there are many elements.
_PACKED_BY_STRUCT = 512
_CODES = {
    "BOOL": "?",
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "FP32": "f",
    "FP64": "d",
}
"""Of what JSON can carry."""
_JSON_TYPES: dict[str, tuple[frozenset[type], str]] = {
    "b": (frozenset({bool}), "true or false"),
    "i": (frozenset({int}), "integers"),
    "u": (frozenset({int}), "integers"),
    "f": (frozenset({int, float}), "numbers"),
}


def join_elements(elements: Iterable[bytes]) -> bytes:
    """BYTES elements to their raw form."""
    pack = _LENGTH.pack
    return b"".join([part for element in elements for part in (pack(len(element)), element)])


def split_elements(data: Buffer, where: str) -> list[bytes]:
    """BYTES elements of a raw form that `count_elements` accepted."""
    spans = _spans(data, len(data), where)
    return [bytes(data[start:stop]) for start, stop in spans]


def count_elements(data: Buffer, expected: int, where: str) -> None:
    """Raises InvalidArgument unless `data` is exactly `expected` BYTES elements."""
    if len(data) < expected * LENGTH_BYTES:
        raise InvalidArgument(
            f"{where}: {expected} BYTES elements take at least {expected * LENGTH_BYTES} bytes, {LENGTH_BYTES} for "
            f"each length; got {len(data)}"
        )
    found = len(_spans(data, expected, where))
    if found != expected:
        came = "more" if found > expected else str(found)
        raise InvalidArgument(f"{where}: expected {expected} BYTES elements; got {came}")


def _spans(data: Buffer, most: int, where: str) -> list[tuple[int, int]]:
    """Where elements begin and end; stops once there are more than `most`."""
    unpack, end, at = _LENGTH.unpack_from, len(data), 0
    spans: list[tuple[int, int]] = []
    while at < end and len(spans) <= most:
        start = at + LENGTH_BYTES
        if start > end:
            raise InvalidArgument(f"{where}: element {len(spans)} is cut off inside its {LENGTH_BYTES}-byte length")
        at = start + unpack(data, at)[0]
        if at > end:
            raise InvalidArgument(
                f"{where}: element {len(spans)} says that it has {at - start} bytes; only {end - start} are left"
            )
        spans.append((start, at))
    return spans


def check_bools(data: Buffer, where: str) -> None:
    """Raises InvalidArgument where a BOOL element is neither 0 nor 1: engines read such bytes as they like."""
    elements = np.frombuffer(data, np.uint8)
    if elements.size and int(elements.max()) > 1:
        index = int(np.argmax(elements > 1))
        raise InvalidArgument(f"{where}: a BOOL element is the byte 0 or 1; element {index} is {elements[index]}")


def pack_contents(datatype: Datatype, values: Sequence[Any], where: str) -> bytes:
    """The elements of the right `contents` field to the raw form, in one pass.

    Raises:
        InvalidArgument: an element does not fit INT8, INT16, UINT8 or UINT16.
    """
    if datatype.dtype is None or datatype.carrier is None:
        return join_elements(values)
    carried = np.fromiter(values, datatype.carrier, count=len(values))
    if datatype.size < datatype.carrier.itemsize:
        _check_range(carried, datatype, where)
        carried = carried.astype(datatype.dtype)
    return carried.tobytes()


def pack_json(datatype: Datatype, values: list[Any], kinds: set[type], where: str) -> bytes:
    """A flat list of JSON values to the raw form.

    Args:
        kinds: the types among `values`.

    Raises:
        InvalidArgument: a value is of another type or out of range; names the first.
    """
    if not values:
        return b""
    if datatype.dtype is None:
        _check_types(values, kinds, frozenset({str}), "strings", datatype, where)
        return join_elements([value.encode() for value in values])
    kind = datatype.dtype.kind
    types, expected = _JSON_TYPES[kind]
    _check_types(values, kinds, types, expected, datatype, where)
    if len(values) <= _PACKED_BY_STRUCT and (few := _pack_few(datatype, values)) is not None:
        return few
    if kind in "iu":
        return _pack_integers(datatype, datatype.dtype, values, where)
    with np.errstate(over="ignore"):
        packed = np.array(values, datatype.dtype)
    if kind == "f" and not np.isfinite(packed).all():
        index = int(np.argmin(np.isfinite(packed)))
        raise InvalidArgument(f"{where}: element {index}, {values[index]!r}, is out of the range of {datatype.name}")
    return packed.tobytes()


def _pack_few(datatype: Datatype, values: list[Any]) -> bytes | None:
    """None where a value is out of range: which one it is takes longer to find."""
    try:
        return struct.pack(f"<{len(values)}{_CODES[datatype.name]}", *values)
    except (struct.error, OverflowError):
        return None


def _pack_integers(datatype: Datatype, dtype: np.dtype[np.generic], values: list[Any], where: str) -> bytes:
    limits = np.iinfo(str(dtype))
    low, high = min(values), max(values)
    if low < limits.min or high > limits.max:
        bad = low if low < limits.min else high
        raise _out_of_range(datatype, values.index(bad), bad, where)
    return np.array(values, dtype).tobytes()


def _check_types(
    values: list[Any], kinds: set[type], types: frozenset[type], expected: str, datatype: Datatype, where: str
) -> None:
    if kinds <= types:
        return
    index = next(index for index, value in enumerate(values) if type(value) not in types)
    raise InvalidArgument(
        f"{where}: 'data' of {datatype.name} holds {expected}; element {index} is {brief(values[index])}"
    )


def _check_range(carried: np.ndarray[Any, Any], datatype: Datatype, where: str) -> None:
    limits = np.iinfo(str(datatype.dtype))
    outside = (carried < limits.min) | (carried > limits.max)
    if outside.any():
        index = int(np.argmax(outside))
        raise _out_of_range(datatype, index, int(carried[index]), where)


def _out_of_range(datatype: Datatype, index: int, value: int, where: str) -> InvalidArgument:
    limits = np.iinfo(str(datatype.dtype))
    return InvalidArgument(f"{where}: {datatype.name} holds {limits.min} to {limits.max}; element {index} is {value}")


def brief(value: object) -> str:
    """A value in an error message: never the whole of something large, and no recursion into something deep."""
    if isinstance(value, list | dict):
        return "an array" if isinstance(value, list) else "an object"
    if isinstance(value, str) and len(value) > _BRIEF_CHARS:
        return repr(value[:_BRIEF_CHARS]) + "..."
    return repr(value)
