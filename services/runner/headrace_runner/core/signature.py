"""What goes into a model and comes out, and whether its first dimension can be a batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

MOST_DIMENSIONS = 32
"""As many have numpy's arrays."""
MOST_ELEMENTS = 1 << 40
"""Of a row; more have no machine's memory."""

Dimension = int | str
"""A size, or the name that the model's author gave to a size that may vary ("" without a name)."""


@dataclass(frozen=True, slots=True)
class EngineTensor:
    """A tensor as an engine describes it. Datatype is the Open Inference name."""

    name: str
    datatype: str
    dims: tuple[Dimension, ...]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor as the mesh describes it: -1 is any size; the batch dimension is in the shape."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    optional: bool = False

    def accepts(self, shape: Sequence[int]) -> bool:
        return len(shape) == len(self.shape) and all(
            size >= 0 and expected in (-1, size) for size, expected in zip(shape, self.shape, strict=True)
        )


@dataclass(frozen=True, slots=True)
class Signature:
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batchable: bool


def open_dims(shape: Sequence[int]) -> tuple[Dimension, ...]:
    """Sizes below zero are those that vary, without a name."""
    return tuple("" if size < 0 else size for size in shape)


def make_signature(inputs: Sequence[EngineTensor], outputs: Sequence[EngineTensor], batchable: bool) -> Signature:
    return Signature(_specs(inputs), _specs(outputs), batchable)


def impossible_tensor(inputs: Sequence[EngineTensor], outputs: Sequence[EngineTensor]) -> str | None:
    """What no array can hold, whatever the sizes that vary are; None: all can be held."""
    for kind, tensors in (("input", inputs), ("output", outputs)):
        for tensor in tensors:
            if len(tensor.dims) > MOST_DIMENSIONS:
                return f"{kind} {tensor.name!r} has {len(tensor.dims)} dimensions; at most {MOST_DIMENSIONS} are served"
            if math.prod(dim for dim in tensor.dims if isinstance(dim, int)) > MOST_ELEMENTS:
                return f"{kind} {tensor.name!r} is declared larger than any memory"
    return None


def fixed_batch_reason(inputs: Sequence[EngineTensor], outputs: Sequence[EngineTensor]) -> str | None:
    """Why the first dimensions rule batching out; None if all of them are symbolic.

    Exporters give the batch dimension of inputs and outputs different names, so names say nothing.
    """
    if not inputs:
        return "it has no inputs"
    for kind, tensors in (("input", inputs), ("output", outputs)):
        for tensor in tensors:
            if not tensor.dims:
                return f"{kind} {tensor.name!r} has no dimensions"
            if isinstance(tensor.dims[0], int):
                return f"the first dimension of {kind} {tensor.name!r} is fixed at {tensor.dims[0]}"
    return None


def mismatch(expected: Signature, found: Signature) -> str | None:
    """The first difference between a known signature and the file's, for people; None if they agree."""
    for kind, known, actual in (
        ("input", expected.inputs, found.inputs),
        ("output", expected.outputs, found.outputs),
    ):
        if [spec.name for spec in known] != [spec.name for spec in actual]:
            return f"{kind}s are {_names(actual)}, expected {_names(known)}"
        for want, have in zip(known, actual, strict=True):
            # A file may leave an output's rank open; the first load has then learnt it from a run.
            open_rank = kind == "output" and not have.shape
            if want.datatype != have.datatype or (want.shape != have.shape and not open_rank):
                return f"{kind} {want.name!r} is {_type(have)}, expected {_type(want)}"
    return None


def _specs(tensors: Sequence[EngineTensor]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(tensor.name, tensor.datatype, tuple(dim if isinstance(dim, int) else -1 for dim in tensor.dims))
        for tensor in tensors
    )


def _names(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(repr(spec.name) for spec in specs) or "none"


def _type(spec: TensorSpec) -> str:
    return f"{spec.datatype} {list(spec.shape)}"
