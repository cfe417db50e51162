"""Tensors between the wire's bytes and numpy.

The wire form is the protocol's raw one: little-endian, row-major; BYTES elements as a 4-byte length and
their bytes. In numpy BYTES is an object array of `bytes`, and BF16 travels as its bits in uint16, because
numpy has no such type.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace_runner.engines.base import InputRefused

Array = NDArray[Any]
Buffer = bytes | bytearray | memoryview

DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BF16": np.dtype("<u2"),
    "BYTES": np.dtype(object),
}

_LENGTH = struct.Struct("<I")


def decode(name: str, datatype: str, shape: Sequence[int], data: Buffer) -> Array:
    """A view of `data` (no copy, read-only) as an array; BYTES is decoded element by element.

    Raises:
        InputRefused: names the tensor, the bytes that its shape takes and those that came.
    """
    dtype = DTYPES.get(datatype)
    if dtype is None:
        raise InputRefused(f"input {name!r}: there is no datatype {datatype!r}")
    count = math.prod(shape)
    if dtype.hasobject:
        return _decode_bytes(name, shape, count, data)
    expected = count * dtype.itemsize
    if len(data) != expected:
        raise InputRefused(f"input {name!r}: {datatype} {list(shape)} takes {expected} bytes; {len(data)} bytes came")
    return np.frombuffer(data, dtype).reshape(shape)


def encode(array: Array, datatype: str, with_row_ends: bool) -> tuple[bytes | memoryview, tuple[int, ...]]:
    """An array as raw bytes (a view where it holds them so), and where each row ends in them.

    Row ends are given for BYTES with `with_row_ends`, else empty.
    """
    dtype = DTYPES[datatype]
    if not dtype.hasobject:
        return np.ascontiguousarray(array, dtype).reshape(-1).view(np.uint8).data, ()
    pieces = [_with_length(element) for element in array.reshape(-1)]
    if not with_row_ends:
        return b"".join(pieces), ()
    per_row = math.prod(array.shape[1:])
    ends = (0, *accumulate(len(piece) for piece in pieces))
    return b"".join(pieces), tuple(ends[(row + 1) * per_row] for row in range(array.shape[0]))


def _with_length(element: bytes | str) -> bytes:
    raw = element.encode() if isinstance(element, str) else element
    return _LENGTH.pack(len(raw)) + raw


def _decode_bytes(name: str, shape: Sequence[int], count: int, data: Buffer) -> Array:
    # Each element takes at least its length: refuse before room is made for what cannot have come.
    if count * _LENGTH.size > len(data):
        raise InputRefused(
            f"input {name!r}: BYTES {list(shape)} has {count} elements, which {len(data)} bytes cannot hold"
        )
    elements = np.empty(count, dtype=object)
    position = 0
    for index in range(count):
        start = position + _LENGTH.size
        if start > len(data):
            raise InputRefused(f"input {name!r}: ends inside the length of element {index} of {count}")
        position = start + _LENGTH.unpack_from(data, start - _LENGTH.size)[0]
        if position > len(data):
            raise InputRefused(f"input {name!r}: element {index} ends {position - len(data)} bytes after the data")
        elements[index] = bytes(data[start:position])
    if position != len(data):
        raise InputRefused(f"input {name!r}: {len(data) - position} bytes are left after {count} elements")
    return elements.reshape(shape)
