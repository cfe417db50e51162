"""Inputs made up to try a model: valid for as many models as can be, and the same every time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace_runner.core.signature import EngineTensor
from headrace_runner.tensors import DTYPES

Inputs = dict[str, NDArray[Any]]

SIZES = (4, 1, 64)
"""Tried in turn for dimensions that may have any size."""

_SEED = 20_110
_WIDE, _BYTE, _BINARY = 256, 128, 2
_WORDS = np.array([b"a", b"b", b"cc", b"42"], dtype=object)


def zeros(tensors: Sequence[EngineTensor], rows: int | None, size: int) -> Inputs:
    """Zeros and empty strings. `rows` None: the first dimension is like the others."""
    return {tensor.name: _zeros(tensor.datatype, _shape(tensor, rows, size)) for tensor in tensors}


def varied(tensors: Sequence[EngineTensor], rows: int | None, size: int) -> Inputs:
    """Pseudo-random: integers up to 255 (127 in a byte), floats in [0, 1).

    The widest range comes first because narrow ones are the worst test of a model of bytes or words:
    rows that look alike leave it near-zero variances, whose normalisation blows rounding up.
    """
    return _random(tensors, rows, size, _WIDE)


def binary(tensors: Sequence[EngineTensor], rows: int | None, size: int) -> Inputs:
    """Pseudo-random: integers are 0 or 1, which are indices nearly everywhere; floats in [0, 1)."""
    return _random(tensors, rows, size, _BINARY)


def row(inputs: Mapping[str, NDArray[Any]], index: int) -> Inputs:
    """One row of a batch, as a batch of one."""
    return {name: array[index : index + 1] for name, array in inputs.items()}


def _shape(tensor: EngineTensor, rows: int | None, size: int) -> tuple[int, ...]:
    if rows is None:
        return tuple(dim if isinstance(dim, int) else size for dim in tensor.dims)
    batch = tensor.dims[0]
    # A later dimension of the batch's name is as long as the batch.
    return (rows, *(dim if isinstance(dim, int) else rows if dim and dim == batch else size for dim in tensor.dims[1:]))


def _zeros(datatype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    dtype = DTYPES[datatype]
    return np.full(shape, b"", dtype=object) if dtype.hasobject else np.zeros(shape, dtype)


def _random(tensors: Sequence[EngineTensor], rows: int | None, size: int, integers_below: int) -> Inputs:
    generator = np.random.default_rng(_SEED)
    return {
        tensor.name: _random_array(generator, tensor.datatype, _shape(tensor, rows, size), integers_below)
        for tensor in tensors
    }


def _random_array(
    generator: np.random.Generator, datatype: str, shape: tuple[int, ...], integers_below: int
) -> NDArray[Any]:
    dtype = DTYPES[datatype]
    if datatype == "BYTES":
        return _WORDS[generator.integers(0, len(_WORDS), shape)].reshape(shape)
    if datatype == "BF16":
        bits = generator.random(shape, np.float32).view(np.uint32) >> 16
        return bits.astype(dtype)
    if dtype.kind == "f":
        return generator.random(shape).astype(dtype)
    top = integers_below if dtype.kind in "iu" and dtype.itemsize > 1 else min(integers_below, _BYTE)
    return generator.integers(0, _BINARY if dtype.kind == "b" else top, shape).astype(dtype)
