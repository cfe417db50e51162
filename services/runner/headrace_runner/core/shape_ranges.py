"""Optimisation profiles: between which sizes a compiled model's inputs may vary, and at which it is to be fastest.

TensorRT wants, for each input with a dimension that varies, a smallest, an optimal and a largest shape
(IOptimizationProfile::setDimensions: equal ranks, min <= opt <= max in every dimension).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from headrace_common.errors import InvalidArgument
from headrace_runner.core.signature import EngineTensor

T = TypeVar("T")
Shape = tuple[int, ...]
MOST = 2**31 - 1
"""Of one dimension, in TensorRT's profiles."""
DEFAULT_BATCH = "1:64"
"""Up to what the mesh batches without being told (`runner.max_batch_size`)."""
_SHAPE = re.compile(r"[0-9]+(?:x[0-9]+)*")


@dataclass(frozen=True, slots=True)
class ShapeRange:
    """The shapes that one input may have, all of one rank."""

    smallest: Shape
    optimal: Shape
    largest: Shape

    def __post_init__(self) -> None:
        if not len(self.smallest) == len(self.optimal) == len(self.largest):
            raise InvalidArgument(f"the shapes of a range have unlike ranks: {self}")
        sizes = zip(self.smallest, self.optimal, self.largest, strict=True)
        if not all(1 <= low <= best <= high <= MOST for low, best, high in sizes):
            raise InvalidArgument(f"a range of shapes grows from left to right, from 1 to {MOST}; got {self}")

    def __str__(self) -> str:
        parts = (self.smallest,) if self.smallest == self.largest else (self.smallest, self.optimal, self.largest)
        return ":".join("x".join(map(str, shape)) for shape in parts)

    @property
    def shape(self) -> Shape:
        """With -1 where it varies, as model metadata has it."""
        pairs = zip(self.smallest, self.largest, strict=True)
        return tuple(low if low == high else -1 for low, high in pairs)

    def refusal(self, shape: Sequence[int]) -> str:
        """Why this shape cannot be executed; "" if it can."""
        if len(shape) != len(self.smallest):
            return f"it has {len(shape)} dimensions; the plan was built for {len(self.smallest)}"
        for axis, (size, low, high) in enumerate(zip(shape, self.smallest, self.largest, strict=True)):
            if not low <= size <= high:
                built_for = str(low) if low == high else f"{low} to {high}"
                return f"dimension {axis} is {size}; the plan was built for {built_for}"
        return ""


Profile = Mapping[str, ShapeRange]
"""By input."""


def parse_batch(text: str) -> tuple[int, int, int]:
    """ "8", "1:64" or "1:16:64" to smallest, optimal, largest. A full batch is the optimum where none is named.

    Raises:
        InvalidArgument
    """
    words = text.split(":")
    if not 1 <= len(words) <= 3 or not all(word.isascii() and word.isdigit() for word in words):
        raise InvalidArgument(f"--batch: expected rows such as 8, 1:64 or 1:16:64; got {text!r}")
    low, best, high = _three([int(word) for word in words])
    if not 1 <= low <= best <= high <= MOST:
        raise InvalidArgument(f"--batch: expected rows that grow from left to right, from 1; got {text!r}")
    return low, best, high


def parse_shape(text: str) -> tuple[str, ShapeRange]:
    """ "x=1x3x224x224", "x=MIN:MAX" or "x=MIN:OPT:MAX" to the input's name and its range.

    Raises:
        InvalidArgument
    """
    # The name of an input may hold anything, also "=" and ":".
    name, _, shapes = text.rpartition("=")
    words = shapes.split(":")
    if not name or not 1 <= len(words) <= 3 or not all(_SHAPE.fullmatch(word) for word in words):
        raise InvalidArgument(
            f"--shape: expected INPUT=SHAPE, INPUT=MIN:MAX or INPUT=MIN:OPT:MAX with shapes such as 1x3x224x224; "
            f"got {text!r}"
        )
    try:
        return name, ShapeRange(*_three([tuple(map(int, word.split("x"))) for word in words]))
    except InvalidArgument as error:
        raise InvalidArgument(f"--shape {text}: {error.message}") from None


def make_profile(
    inputs: Sequence[EngineTensor], batch: tuple[int, int, int], shapes: Mapping[str, ShapeRange]
) -> dict[str, ShapeRange]:
    """The range of every input.

    Args:
        inputs: of the model.
        batch: for the first dimension, where it varies and `shapes` does not say.
        shapes: by input; what is named there is taken whole.

    Raises:
        InvalidArgument: names the input and the flag that helps.
    """
    known = {tensor.name: tensor for tensor in inputs}
    for name in shapes:
        if name not in known:
            raise InvalidArgument(f"--shape: the model has no input {name!r}; it has: {', '.join(known) or 'none'}")
    return {
        tensor.name: _checked(tensor, shapes[tensor.name]) if tensor.name in shapes else _of_batch(tensor, batch)
        for tensor in inputs
    }


def _three(values: Sequence[T]) -> tuple[T, T, T]:
    return values[0], values[1] if len(values) == 3 else values[-1], values[-1]


def _of_batch(tensor: EngineTensor, batch: tuple[int, int, int]) -> ShapeRange:
    for axis, dim in enumerate(tensor.dims):
        if axis and isinstance(dim, str):
            pattern = "x".join(str(batch[0] if i == 0 and isinstance(d, str) else d) for i, d in enumerate(tensor.dims))
            raise InvalidArgument(
                f"input {tensor.name!r}: dimension {axis} ({dim or 'without a name'}) may have any size, and nothing "
                f"says which; add --shape {tensor.name}=MIN:OPT:MAX, three shapes of the form {pattern}"
            )
    low, best, high = (tuple(rows if isinstance(dim, str) else dim for dim in tensor.dims) for rows in batch)
    return ShapeRange(low, best, high)


def _checked(tensor: EngineTensor, asked: ShapeRange) -> ShapeRange:
    if len(asked.smallest) != len(tensor.dims):
        raise InvalidArgument(
            f"--shape {tensor.name}={asked}: expected {len(tensor.dims)} dimensions, as the model has: {_show(tensor)}"
        )
    for axis, dim in enumerate(tensor.dims):
        if isinstance(dim, int) and not asked.smallest[axis] == asked.largest[axis] == dim:
            raise InvalidArgument(
                f"--shape {tensor.name}={asked}: dimension {axis} is fixed at {dim} in the model: {_show(tensor)}"
            )
    return asked


def _show(tensor: EngineTensor) -> str:
    return "x".join(str(dim or "?") for dim in tensor.dims)
