"""Samples held against a model's signature by their headers alone, before a job is queued. Nothing is unpickled, and
no array is read: a file may say of itself that it is of any size, so it is read in small pieces."""

from __future__ import annotations

import io
import math
import os
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from headrace_autoscaler.domain import Signature, TensorSpec
from headrace_common.errors import InvalidArgument, LimitExceeded
from headrace_common.quantities import format_bytes

_DTYPES = {
    "BOOL": "bool",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
}
_SUFFIX = ".npy"
_Header = tuple[tuple[int, ...], str]
"""Shape and dtype."""
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""As numpy writes; others are unpacked without a bound."""
_UNREADABLE = (
    OSError, ValueError, TypeError, EOFError, SyntaxError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error,
    tokenize.TokenError,
)  # fmt: skip
"""What zipfile raises, and numpy, which parses headers as Python."""
_MOST_AT_ONCE = 1 << 20
_HEADER_BYTES = 1 << 16


class _Bounded(io.FileIO):
    """Refuses to read much at once: an archive's directory takes several times its size in memory."""

    def read(self, size: int | None = -1) -> bytes:
        left = os.fstat(self.fileno()).st_size - self.tell()
        if left > _MOST_AT_ONCE and not 0 <= (-1 if size is None else size) <= _MOST_AT_ONCE:
            raise zipfile.BadZipFile("a directory of more than a mebibyte")
        return super().read(size) or b""


def check_samples(path: Path, signature: Signature, labels: str, max_bytes: int) -> None:
    """
    Args:
        labels: name of the array with right answers; empty: there is none.
        max_bytes: of all arrays, unpacked.

    Raises:
        InvalidArgument: the file is none, or does not fit; says what was expected and what is there.
        LimitExceeded: it is too large.
    """
    inputs = {tensor.name: tensor for tensor in signature.inputs}
    if single := [name for name, tensor in inputs.items() if not tensor.shape]:
        raise InvalidArgument(
            f"samples: the model's input {single[0]!r} is a single value and has no row per sample; make it a constant "
            "of the model"
        )
    headers = _headers(path, max_bytes)
    if labels:
        _check_labels(labels, headers, inputs)
    arrays = {name: header for name, header in headers.items() if not labels or name != labels}
    if set(arrays) != set(inputs):
        hint = "" if labels or set(inputs) - set(arrays) else "; name the right answers as labels"
        raise InvalidArgument(f"samples: have {_names(arrays)}; expected the model's inputs: {_names(inputs)}{hint}")
    for name, tensor in inputs.items():
        _check(tensor, *arrays[name])
    counts = {name: shape[0] if shape else 0 for name, (shape, _) in headers.items()}
    if len(set(counts.values())) > 1:
        rows = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
        raise InvalidArgument(f"samples: expected as many rows in each array; found {rows}")


def _headers(path: Path, max_bytes: int) -> dict[str, _Header]:
    try:
        with _Bounded(path) as file, zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            # What is read of a member ends at the size that is written here.
            if (size := sum(each.file_size for each in members)) > max_bytes:
                raise LimitExceeded(
                    f"samples: {format_bytes(size)} when unpacked, over the limit of {format_bytes(max_bytes)} "
                    "(configuration key autoscaler.max_samples_bytes); bring fewer"
                )
            return {each.filename.removesuffix(_SUFFIX): _header(archive, each) for each in members}
    except _UNREADABLE:
        raise InvalidArgument("samples: expected an .npz file, as numpy.savez writes it") from None


def _header(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> _Header:
    """The format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html."""
    if member.compress_type not in _METHODS:
        raise zipfile.BadZipFile("packed by another method")
    with archive.open(member) as packed:
        content = io.BytesIO(packed.read(_HEADER_BYTES))
    version = np.lib.format.read_magic(content)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(content)
    else:
        shape, _, dtype = np.lib.format.read_array_header_2_0(content)
    if any(isinstance(size, bool) or size < 0 for size in shape):
        raise ValueError(shape)
    if not dtype.hasobject and math.prod(shape) * dtype.itemsize > member.file_size:
        raise EOFError(shape)
    return shape, dtype.name


def _check_labels(labels: str, headers: Mapping[str, _Header], inputs: Mapping[str, TensorSpec]) -> None:
    what = f"samples: labels {labels!r}"
    if labels not in headers:
        raise InvalidArgument(f"{what}: there is no such array; there are {_names(headers)}")
    if labels in inputs:
        raise InvalidArgument(f"{what}: is an input of the model; expected an array with its right answers")
    if headers[labels][1] == "object":
        raise InvalidArgument(f"{what}: holds Python objects, which are never unpickled here; expected numbers")


def _check(tensor: TensorSpec, shape: tuple[int, ...], dtype: str) -> None:
    what = f"samples: array {tensor.name!r}"
    expected = _DTYPES.get(tensor.datatype)
    if expected is None:
        raise InvalidArgument(f"{what}: the model takes {tensor.datatype} there, which cannot be optimised by samples")
    if dtype != expected:
        raise InvalidArgument(f"{what} is {dtype}; expected {expected}: convert it with .astype('{expected}')")
    fits = len(shape) == len(tensor.shape) and all(
        wanted in (-1, found) for wanted, found in zip(tensor.shape[1:], shape[1:], strict=True)
    )
    if not shape or not fits:
        wanted = ["samples", *("any" if size == -1 else str(size) for size in tensor.shape[1:])]
        raise InvalidArgument(f"{what} has the shape {list(shape)}; expected [{', '.join(wanted)}]")
    if not shape[0]:
        raise InvalidArgument(f"{what} has no rows")


def _names(arrays: Mapping[str, object]) -> str:
    return ", ".join(sorted(map(repr, arrays))) or "none"
