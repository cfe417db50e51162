"""numpy arrays to and from the raw form of Open Inference tensors.

Raw form: row-major, little-endian; an element of BYTES is a 4-byte little-endian length and then
the bytes. BF16, which numpy lacks, is read as float32 (exact) and written from float32 or from any
dtype named "bfloat16".
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from headrace.errors import Internal, InvalidArgument

Array: TypeAlias = npt.NDArray[Any]

DATATYPES: Mapping[str, np.dtype[Any]] = MappingProxyType(
    {
        "BOOL": np.dtype("?"),
        "UINT8": np.dtype("<u1"),
        "UINT16": np.dtype("<u2"),
        "UINT32": np.dtype("<u4"),
        "UINT64": np.dtype("<u8"),
        "INT8": np.dtype("<i1"),
        "INT16": np.dtype("<i2"),
        "INT32": np.dtype("<i4"),
        "INT64": np.dtype("<i8"),
        "FP16": np.dtype("<f2"),
        "FP32": np.dtype("<f4"),
        "FP64": np.dtype("<f8"),
    }
)
"""Open Inference datatypes that numpy has, little-endian. BYTES is an object array of bytes."""

_NAMES = {dtype: name for name, dtype in DATATYPES.items()}


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor in raw form, for a datatype that the caller wants to name itself.

    Attributes:
        datatype: Open Inference datatype.
        shape: with the batch dimension where the model has one.
        data: raw form.
    """

    datatype: str
    shape: tuple[int, ...]
    data: bytes


TensorLike: TypeAlias = "Array | Tensor | Sequence[Any]"


def encode(name: str, value: TensorLike, datatype: str = "") -> Tensor:
    """An input in raw form.

    Args:
        name: for errors.
        value: array, `Tensor`, or (nested) list; strings and bytes become BYTES.
        datatype: the datatype to encode as, if not the value's own. Only BF16 from floats and
            BYTES need it; it converts nothing else.

    Raises:
        InvalidArgument: a dtype that the protocol does not have, or a ragged list.
    """
    if isinstance(value, Tensor):
        return value
    array = _as_array(name, value)
    if array.dtype.kind in "OUS":
        return Tensor("BYTES", array.shape, _encode_bytes(name, array))
    if array.dtype.name == "bfloat16":
        return Tensor("BF16", array.shape, array.view(np.uint16).astype("<u2").tobytes())
    if datatype == "BF16" and array.dtype.kind == "f":
        return Tensor("BF16", array.shape, _to_bf16(array))
    little_endian = array.dtype.newbyteorder("<")
    found = _NAMES.get(little_endian)
    if found is None:
        raise InvalidArgument(
            f"input {name!r}: numpy dtype {array.dtype} has no Open Inference datatype; expected one of "
            f"{', '.join(DATATYPES)} or strings"
        )
    return Tensor(found, array.shape, array.astype(little_endian, copy=False).tobytes())


def decode(name: str, tensor: Tensor) -> Array:
    """An output as an array, read-only and without a copy where the datatype allows.

    BYTES: an object array of `bytes`. BF16: float32.

    Raises:
        Internal: the bytes do not make up the shape; the server is at fault.
    """
    count = math.prod(tensor.shape)
    if tensor.datatype == "BYTES":
        return _decode_bytes(name, tensor, count)
    if tensor.datatype == "BF16":
        halves = _decode_fixed(name, tensor, np.dtype("<u2"), count)
        return (halves.astype(np.uint32) << 16).view(np.float32)
    dtype = DATATYPES.get(tensor.datatype)
    if dtype is None:
        raise Internal(f"output {name!r}: the mesh answered an unknown datatype {tensor.datatype!r}")
    return _decode_fixed(name, tensor, dtype, count)


def _as_array(name: str, value: Array | Sequence[Any]) -> Array:
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, (str, bytes)) or _first_leaf(value, (str, bytes)):
        # As objects: numpy's own fixed-width strings drop trailing zero bytes.
        return np.array(value, dtype=object)
    try:
        return np.array(value)
    except (ValueError, TypeError, OverflowError) as error:
        raise InvalidArgument(f"input {name!r}: a list that is no array: {error}") from None


def _first_leaf(value: Any, kinds: tuple[type, ...]) -> bool:
    while isinstance(value, (list, tuple)) and value:
        value = value[0]
    return isinstance(value, kinds)


def _encode_bytes(name: str, array: Array) -> bytes:
    parts: list[bytes] = []
    for element in array.flat:
        if isinstance(element, str):
            data = element.encode()
        elif isinstance(element, (bytes, bytearray)):
            data = bytes(element)
        else:
            raise InvalidArgument(
                f"input {name!r}: expected strings or bytes of equal nesting; got {type(element).__name__}"
            )
        parts.append(struct.pack("<I", len(data)))
        parts.append(data)
    return b"".join(parts)


def _decode_bytes(name: str, tensor: Tensor, count: int) -> Array:
    elements = np.empty(count, dtype=object)
    offset = 0
    for index in range(count):
        start = offset + 4
        if start > len(tensor.data):
            raise _wrong_size(name, tensor)
        offset = start + int.from_bytes(tensor.data[offset:start], "little")
        elements[index] = tensor.data[start:offset]
    if offset != len(tensor.data):
        raise _wrong_size(name, tensor)
    return elements.reshape(tensor.shape)


def _decode_fixed(name: str, tensor: Tensor, dtype: np.dtype[Any], count: int) -> Array:
    if len(tensor.data) != count * dtype.itemsize:
        raise _wrong_size(name, tensor)
    return np.frombuffer(tensor.data, dtype=dtype).reshape(tensor.shape)


def _wrong_size(name: str, tensor: Tensor) -> Internal:
    return Internal(
        f"output {name!r}: the mesh answered {len(tensor.data)} bytes, which are no {tensor.datatype} tensor "
        f"of shape {list(tensor.shape)}"
    )


def _to_bf16(array: Array) -> bytes:
    """Rounds to the nearest, ties to even, as hardware does; NaN stays NaN."""
    bits = np.ascontiguousarray(array, dtype="<f4").view("<u4").reshape(array.shape)
    rounded = (bits.astype(np.uint64) + 0x7FFF + ((bits >> 16) & 1)) >> 16
    quiet_nan = (bits >> 16) | 0x40
    return np.where(np.isnan(array), quiet_nan, rounded).astype("<u2").tobytes()
