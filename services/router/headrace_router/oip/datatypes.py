"""The protocol's tensor datatypes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headrace_common.errors import InvalidArgument

LENGTH_BYTES = 4
"""Each BYTES element in raw form begins with its length: 4 bytes, little-endian."""


@dataclass(frozen=True, slots=True)
class Datatype:
    """One datatype.

    Attributes:
        size: bytes per element; 0 for BYTES, whose elements have lengths of their own.
        dtype: numpy's little-endian type; None for BYTES and for BF16, which numpy lacks.
        contents: the field of InferTensorContents that carries it; "": only the raw form can.
        carrier: numpy type of that field's elements; wider than `dtype` for the small integers.
        config: its number in Triton's model configuration (`DataType`).
    """

    name: str
    size: int
    dtype: np.dtype[np.generic] | None
    contents: str
    carrier: np.dtype[np.generic] | None
    config: int


def _numeric(name: str, dtype: str, contents: str, carrier: str, config: int) -> Datatype:
    kind = np.dtype(dtype)
    return Datatype(name, kind.itemsize, kind, contents, np.dtype(carrier) if carrier else None, config)


DATATYPES = {
    datatype.name: datatype
    for datatype in (
        _numeric("BOOL", "?", "bool_contents", "?", 1),
        _numeric("UINT8", "u1", "uint_contents", "<u4", 2),
        _numeric("UINT16", "<u2", "uint_contents", "<u4", 3),
        _numeric("UINT32", "<u4", "uint_contents", "<u4", 4),
        _numeric("UINT64", "<u8", "uint64_contents", "<u8", 5),
        _numeric("INT8", "i1", "int_contents", "<i4", 6),
        _numeric("INT16", "<i2", "int_contents", "<i4", 7),
        _numeric("INT32", "<i4", "int_contents", "<i4", 8),
        _numeric("INT64", "<i8", "int64_contents", "<i8", 9),
        _numeric("FP16", "<f2", "", "", 10),
        _numeric("FP32", "<f4", "fp32_contents", "<f4", 11),
        _numeric("FP64", "<f8", "fp64_contents", "<f8", 12),
        Datatype("BYTES", 0, None, "bytes_contents", None, 13),
        Datatype("BF16", 2, None, "", None, 14),
    )
}
RAW_ONLY = frozenset(name for name, datatype in DATATYPES.items() if not datatype.contents)


def datatype_named(name: str) -> Datatype:
    """Raises InvalidArgument for a datatype that the protocol does not have."""
    found = DATATYPES.get(name)
    if found is None:
        raise InvalidArgument(f"{name!r} is not a datatype; expected one of {', '.join(DATATYPES)}")
    return found
