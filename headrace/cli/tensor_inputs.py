"""`-i TENSOR=...`: reads it, and converts it to what the model's metadata says the tensor is.

A conversion never changes a value in a way that the user would not expect: floating point is
rounded to the model's precision, everything else must fit exactly.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from headrace.client.tensors import DATATYPES, Array, Tensor, encode
from headrace.errors import InvalidArgument
from headrace.oip import inference_pb2

_NPY = b"\x93NUMPY"


def read_inputs(arguments: Sequence[str]) -> dict[str, Any]:
    """Input values by tensor name: arrays from .npy, (nested) lists and scalars from JSON.

    Raises:
        InvalidArgument: an argument is not TENSOR=@file.npy, TENSOR=@file.json or TENSOR=JSON.
    """
    values: dict[str, Any] = {}
    for argument in arguments:
        name, equals, text = argument.partition("=")
        if not equals or not name or not text:
            raise InvalidArgument(f"-i: expected TENSOR=@file.npy, TENSOR=@file.json or TENSOR=JSON; got {argument!r}")
        if name in values:
            raise InvalidArgument(f"-i: input {name!r} is given twice")
        values[name] = _read_file(name, Path(text[1:])) if text.startswith("@") else _read_json(name, text, "")
    return values


def conform(values: dict[str, Any], metadata: inference_pb2.ModelMetadataResponse) -> dict[str, Tensor]:
    """The inputs in raw form, as the model wants them.

    Raises:
        InvalidArgument: an unknown tensor, or values that its datatype cannot hold.
    """
    wanted = {tensor.name: tensor.datatype for tensor in metadata.inputs}
    unknown = sorted(set(values) - set(wanted))
    if unknown:
        raise InvalidArgument(
            f"model {metadata.name!r} has no input {unknown[0]!r}; its inputs are: "
            + ", ".join(f"{name} ({datatype})" for name, datatype in wanted.items())
        )
    return {name: _convert(name, value, wanted[name]) for name, value in values.items()}


def _read_file(name: str, path: Path) -> Any:
    try:
        if path.suffix == ".npy":
            _check_npy(name, path)
            return np.load(path, allow_pickle=False)
        if path.suffix == ".json":
            return _read_json(name, path.read_text(), f" in {path}")
    except (OSError, ValueError, EOFError) as error:
        raise InvalidArgument(f"input {name!r}: {path} cannot be read: {error}") from None
    raise InvalidArgument(f"input {name!r}: expected a file ending in .npy or .json; got {path}")


def _check_npy(name: str, path: Path) -> None:
    """numpy takes everything else for a pickle, and says so."""
    with path.open("rb") as file:
        if file.read(len(_NPY)) != _NPY:
            raise InvalidArgument(f"input {name!r}: {path} is not a .npy file")


def _read_json(name: str, text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise InvalidArgument(f"input {name!r}: not a tensor{where}: lists in lists without end") from None
    except ValueError as error:
        raise InvalidArgument(
            f"input {name!r}: not JSON{where}: {error}; a file is written @file.npy or @file.json"
        ) from None


def _convert(name: str, value: Any, datatype: str) -> Tensor:
    if datatype == "BYTES":
        return encode(name, _text_array(name, value))
    array = _number_array(name, value, datatype)
    if datatype == "BF16":
        return encode(name, _fit(name, array, np.dtype(np.float32), datatype), "BF16")
    target = DATATYPES.get(datatype)
    if target is None:
        raise InvalidArgument(f"input {name!r}: the model wants {datatype}, which this command line cannot make")
    return encode(name, _fit(name, array, target, datatype))


def _text_array(name: str, value: Any) -> Array:
    array: Array = value if isinstance(value, np.ndarray) else np.array(value, dtype=object)
    if array.dtype.kind not in "US" and not all(isinstance(element, (str, bytes)) for element in array.flat):
        raise InvalidArgument(f"input {name!r}: the model wants BYTES; expected strings of equal nesting")
    return array


def _number_array(name: str, value: Any, datatype: str) -> Array:
    try:
        array = np.asarray(value)
    except (ValueError, OverflowError):
        raise InvalidArgument(f"input {name!r}: the nested lists are not of equal lengths") from None
    if array.size == 0 and array.dtype.kind == "f":
        return array
    if array.dtype.kind not in "biuf":
        raise InvalidArgument(f"input {name!r}: the model wants {datatype}; expected numbers, not text or null")
    return array


def _fit(name: str, array: Array, target: np.dtype[Any], datatype: str) -> Array:
    with np.errstate(invalid="ignore", over="ignore"):
        converted = array.astype(target)
    if target.kind == "f":
        exact = np.isfinite(converted) | ~np.isfinite(array)
    else:
        exact = np.isin(array, (0, 1)) if target.kind == "b" else _same_values(array, converted)
    if not np.all(exact):
        offender = array[~exact].flat[0]
        raise InvalidArgument(f"input {name!r}: the model wants {datatype}, which cannot hold {offender}")
    return converted


def _same_values(array: Array, converted: Array) -> Any:
    """Element by element, without numpy's own promotion of int64 with uint64 to inexact float64."""
    if array.dtype.kind in "iu" and converted.dtype.kind in "iu":
        return (converted.astype(array.dtype) == array) & ((array < 0) == (converted < 0))
    return np.isfinite(array) & (converted.astype(np.float64) == array)
