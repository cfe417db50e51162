"""Samples held against a model's signature by their headers alone, before a job is queued. Nothing is unpickled, and
no array is read."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import numpy as np

from headrace_autoscaler.domain import Signature, TensorSpec
from headrace_common.errors import InvalidArgument

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


def check_samples(path: Path, signature: Signature, labels: str) -> None:
    """
    Args:
        labels: name of the array with right answers; empty: there is none.

    Raises:
        InvalidArgument: the file is none, or does not fit; says what was expected and what is there.
    """
    headers = _headers(path)
    inputs = {tensor.name: tensor for tensor in signature.inputs}
    if labels and labels not in headers:
        raise InvalidArgument(f"samples: labels {labels!r}: there is no such array; there are {_names(headers)}")
    arrays = {name: header for name, header in headers.items() if not labels or name != labels or name in inputs}
    if set(arrays) != set(inputs):
        hint = "" if labels or set(inputs) - set(arrays) else "; name the right answers as labels"
        raise InvalidArgument(f"samples: have {_names(arrays)}; expected the model's inputs: {_names(inputs)}{hint}")
    for name, tensor in inputs.items():
        _check(tensor, *arrays[name])
    counts = {name: shape[0] if shape else 0 for name, (shape, _) in headers.items()}
    if len(set(counts.values())) > 1:
        rows = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
        raise InvalidArgument(f"samples: expected as many rows in each array; found {rows}")


def _headers(path: Path) -> dict[str, _Header]:
    try:
        with zipfile.ZipFile(path) as archive:
            headers = {}
            for name in archive.namelist():
                with archive.open(name) as content:
                    headers[name.removesuffix(_SUFFIX)] = _header(content)
            return headers
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, NotImplementedError, RuntimeError):
        raise InvalidArgument("samples: expected an .npz file, as numpy.savez writes it") from None


def _header(content: IO[bytes]) -> _Header:
    """The format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html."""
    version = np.lib.format.read_magic(content)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(content)
    else:
        shape, _, dtype = np.lib.format.read_array_header_2_0(content)
    return shape, dtype.name


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
