"""The samples: arrays from an .npz file, checked against the model's inputs. Nothing is ever unpickled."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace_common.errors import InvalidArgument, LimitExceeded
from headrace_common.quantities import format_bytes
from headrace_runner.core.signature import EngineTensor
from headrace_runner.optimizer.core.comparing import unique_rows
from headrace_runner.tensors import DTYPES

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""As numpy writes; others are unpacked without a bound."""
_UNSUPPORTED = ("BYTES", "BF16")
_UNREADABLE = (
    OSError, TypeError, ArithmeticError, EOFError, SyntaxError, RuntimeError, MemoryError, zipfile.BadZipFile,
    zlib.error, tokenize.TokenError,
)  # fmt: skip
"""What zipfile raises, and numpy, which parses headers as Python and makes arrays as large as they say."""


@dataclass(frozen=True, slots=True)
class Samples:
    """Attributes:
    inputs: by the model's names, [count, ...] each.
    labels: [count, ...]; None where answers are compared with the original's.
    repeated: rows of the file that were left out because they equal earlier ones.
    """

    inputs: Mapping[str, NDArray[Any]]
    labels: NDArray[Any] | None
    repeated: int

    @property
    def count(self) -> int:
        return len(next(iter(self.inputs.values())))

    def rows(self, places: NDArray[np.intp]) -> dict[str, NDArray[Any]]:
        return {name: array[places] for name, array in self.inputs.items()}


def read_samples(path: Path, tensors: Sequence[EngineTensor], labels: str | None, max_bytes: int = 0) -> Samples:
    """Args:
        tensors: the model's inputs.
        labels: name of the array with the right answers.
        max_bytes: of all arrays, unpacked; 0: any number.

    Raises:
        InvalidArgument: names the file and the array, what was expected and what is there.
        LimitExceeded: they are too large.
    """
    arrays = _arrays(path, max_bytes)
    if labels is not None and labels not in arrays:
        raise InvalidArgument(f"--labels {labels}: {path} has no such array; it has {_list(arrays)}")
    expected = {tensor.name for tensor in tensors}
    answers = arrays.pop(labels) if labels is not None and labels not in expected else None
    if labels is not None and answers is None:
        raise InvalidArgument(f"--labels {labels}: is an input of the model; expected an array with its right answers")
    if set(arrays) != expected:
        hint = "; name the right answers with --labels" if len(arrays) > len(expected) else ""
        raise InvalidArgument(f"{path}: has {_list(arrays)}; expected the model's inputs: {_list(expected)}{hint}")
    for tensor in tensors:
        _check(path, tensor, arrays[tensor.name])
    counts = {name: len(array) for name, array in arrays.items()}
    if answers is not None:
        counts[str(labels)] = len(answers) if answers.ndim else 0
    if len(set(counts.values())) > 1:
        rows = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise InvalidArgument(f"{path}: expected as many rows in each array; found {rows}")
    if answers is not None:
        _check_labels(path, str(labels), answers)
    places = unique_rows(arrays)
    # A copy of all of them is made only where there is something to leave out.
    kept = arrays if len(places) == max(counts.values()) else {name: array[places] for name, array in arrays.items()}
    return Samples(kept, None if answers is None else answers[places], max(counts.values()) - len(places))


def _arrays(path: Path, max_bytes: int) -> dict[str, NDArray[Any]]:
    try:
        # Object arrays are pickles, which run code when they are read.
        archive = np.load(path, allow_pickle=False)
    except OSError as error:
        raise InvalidArgument(f"--samples {path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, EOFError, zipfile.BadZipFile):
        archive = None
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise InvalidArgument(f"--samples {path}: expected an .npz file, as numpy.savez writes it")
    with archive:
        _check_size(path, archive.zip.infolist() if archive.zip else (), max_bytes)
        return {name: _array(path, archive, name) for name in archive.files}


def _check_size(path: Path, members: Sequence[zipfile.ZipInfo], max_bytes: int) -> None:
    """What is read of a member ends at the size that its directory gives, in pieces by these methods alone."""
    if any(each.compress_type not in _METHODS for each in members):
        raise InvalidArgument(f"--samples {path}: expected an .npz file, as numpy.savez writes it")
    size = sum(each.file_size for each in members)
    if max_bytes and size > max_bytes:
        raise LimitExceeded(
            f"samples: {format_bytes(size)} when unpacked, over the limit of {format_bytes(max_bytes)} "
            "(--max-samples); bring fewer"
        )


def _array(path: Path, archive: Any, name: str) -> NDArray[Any]:
    try:
        array = archive[name]
    except ValueError as error:
        if "allow_pickle" in str(error):
            raise InvalidArgument(
                f"--samples {path}: array {name!r} holds Python objects, which are never unpickled here; "
                "expected numbers: give it a dtype such as float32"
            ) from None
        raise InvalidArgument(f"--samples {path}: array {name!r} cannot be read: {error}") from None
    except _UNREADABLE as error:
        raise InvalidArgument(f"--samples {path}: array {name!r} cannot be read: {error}") from None
    if not isinstance(array, np.ndarray):
        raise InvalidArgument(f"--samples {path}: {name!r} is not an array")
    return array


def _check(path: Path, tensor: EngineTensor, array: NDArray[Any]) -> None:
    what = f"{path}: array {tensor.name!r}"
    if tensor.datatype in _UNSUPPORTED:
        raise InvalidArgument(f"{what}: the model takes {tensor.datatype} there, which cannot be optimised by samples")
    dtype = DTYPES[tensor.datatype]
    if array.dtype != dtype:
        raise InvalidArgument(f"{what} is {array.dtype}; expected {dtype}: convert it with .astype('{dtype}')")
    fits = array.ndim == len(tensor.dims) and all(
        not isinstance(dim, int) or dim == size for dim, size in zip(tensor.dims[1:], array.shape[1:], strict=True)
    )
    if array.ndim == 0 or not fits:
        shape = ["samples", *(dim if isinstance(dim, int) else dim or "any" for dim in tensor.dims[1:])]
        raise InvalidArgument(f"{what} has the shape {list(array.shape)}; expected [{', '.join(map(str, shape))}]")
    if not len(array):
        raise InvalidArgument(f"{what} has no rows")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InvalidArgument(f"{what} has NaN or infinity in it; expected finite numbers")


def _check_labels(path: Path, name: str, labels: NDArray[Any]) -> None:
    """The right answers are numbers of classes or of things counted: no answer equals what is neither."""
    if labels.dtype.kind == "f":
        wrong = (~np.isfinite(labels) | (labels != np.floor(labels))).reshape(len(labels), -1).any(axis=1)
        if wrong.any():
            raise InvalidArgument(
                f"{path}: labels {name!r} are NaN or no whole numbers in {int(wrong.sum()):,} of {len(labels):,} rows; "
                "expected the number of the right class"
            )


def _list(names: Any) -> str:
    return ", ".join(sorted(map(repr, names))) or "none"
