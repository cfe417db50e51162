"""Whether what a model is asked for fits it, in front of libraries that do not say so, or say it in many ways."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from headrace_runner.core.signature import EngineTensor
from headrace_runner.engines.base import InputRefused
from headrace_runner.tensors import DTYPES

Inputs = Mapping[str, NDArray[Any]]


def check_inputs(tensors: Sequence[EngineTensor], inputs: Inputs) -> None:
    """Names, datatypes, and the shapes as far as they are fixed. Raises InputRefused."""
    check_datatypes({tensor.name: tensor.datatype for tensor in tensors}, inputs)
    for tensor in tensors:
        shape = inputs[tensor.name].shape
        fixed = zip(tensor.dims, shape, strict=False)
        if len(shape) != len(tensor.dims) or any(isinstance(dim, int) and dim != size for dim, size in fixed):
            expected = [dim if isinstance(dim, int) else -1 for dim in tensor.dims]
            raise InputRefused(f"input {tensor.name!r}: expected {expected}; {list(shape)} came")


def check_datatypes(datatypes: Mapping[str, str], inputs: Inputs) -> None:
    """Args:
        datatypes: of the inputs, by name.

    Raises:
        InputRefused: one is missing, unknown, or of another datatype.
    """
    for name, array in inputs.items():
        datatype = datatypes.get(name)
        if datatype is None:
            raise InputRefused(f"there is no input {name!r}; expected {_list(datatypes)}")
        if array.dtype != DTYPES[datatype]:
            raise InputRefused(f"input {name!r}: expected {datatype}; {array.dtype} came")
    if len(inputs) < len(datatypes):
        raise InputRefused(f"input {min(datatypes.keys() - inputs.keys())!r} is missing")


def check_outputs(wanted: Iterable[str], known: Collection[str]) -> None:
    """Raises InputRefused where an output is wanted that the model does not have."""
    for name in wanted:
        if name not in known:
            raise InputRefused(f"there is no output {name!r}; expected {_list(known)}")


def _list(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))
