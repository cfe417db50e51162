"""Whether rows of a batch are independent: tried out on the model, because a shape alone does not say it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace_runner import samples
from headrace_runner.core.signature import EngineTensor
from headrace_runner.engines.base import Coarse, EngineError, EngineLost, LoadedModel

# (relative, absolute): kernels differ by batch size in the last bits; coupled rows differ by far more.
_TOLERANCE = {"FP16": (1e-2, 1e-3), "BF16": (3e-2, 1e-2), "FP32": (1e-4, 1e-5), "FP64": (1e-7, 1e-9)}


@dataclass(frozen=True, slots=True)
class Probe:
    """What a probe found.

    Attributes:
        difference: why rows are not independent, or the model would not run; None if they are.
        size: that dimensions of any size had.
    """

    difference: str | None
    size: int
    with_zeros: bool = False


def probe_rows(model: LoadedModel) -> Probe:
    """Runs two different rows together and each alone, and compares every output.

    Rows of varied values first; then 0 and 1, and then zeros, where the engine refuses those.

    Raises:
        EngineLost: whatever else is tried fails as well, and says nothing about the model.
    """
    failure = ""
    for size in samples.SIZES:
        for make in (samples.varied, samples.binary, samples.zeros):
            batch = make(model.inputs, 2, size)
            try:
                difference = _compare(model, batch)
            except EngineLost:
                raise
            except EngineError as error:
                failure = failure or str(error)
                continue
            return Probe(difference, size, make is samples.zeros)
    return Probe(f"the engine fails on a batch of two rows: {failure}", samples.SIZES[0])


def workable_size(model: LoadedModel, rows: int | None) -> int | None:
    """A size for dimensions of any size at which the model runs zeros; None if there is none. Raises EngineLost."""
    for size in samples.SIZES:
        try:
            model.run(samples.zeros(model.inputs, rows, size))
        except EngineLost:
            raise
        except EngineError:
            continue
        return size
    return None


def _compare(model: LoadedModel, batch: samples.Inputs) -> str | None:
    together = model.run(batch)
    alone = [model.run(samples.row(batch, index)) for index in (0, 1)]
    tolerances = _TOLERANCE | ({"FP32": model.tolerance} if isinstance(model, Coarse) else {})
    for tensor in model.outputs:
        singles = [one[tensor.name] for one in alone]
        difference = _difference(tensor, together[tensor.name], singles, tolerances)
        if difference:
            return difference
    return None


def _difference(
    tensor: EngineTensor, both: NDArray[Any], singles: list[NDArray[Any]], tolerances: Mapping[str, tuple[float, float]]
) -> str | None:
    what = f"output {tensor.name!r}"
    if both.ndim == 0 or both.shape[0] != 2 or any(one.ndim == 0 or one.shape[0] != 1 for one in singles):
        shapes = f"{list(both.shape)} for two rows and {list(singles[0].shape)} for one"
        return f"{what} does not have a row for each row of the input: {shapes}"
    if any(one.shape[1:] != both.shape[1:] for one in singles):
        return f"{what} has another shape in a batch of two rows than alone"
    if not _equal(tensor.datatype, both, np.concatenate(singles), tolerances):
        return f"{what} of two rows together differs from the rows alone"
    return None


def _equal(
    datatype: str, left: NDArray[Any], right: NDArray[Any], tolerances: Mapping[str, tuple[float, float]]
) -> bool:
    if datatype not in tolerances:
        return bool((left == right).all())
    relative, absolute = tolerances[datatype]
    as_float: Callable[[NDArray[Any]], NDArray[Any]] = _from_bf16 if datatype == "BF16" else _as_is
    return bool(np.allclose(as_float(left), as_float(right), rtol=relative, atol=absolute, equal_nan=True))


def _as_is(array: NDArray[Any]) -> NDArray[Any]:
    return array


def _from_bf16(bits: NDArray[Any]) -> NDArray[Any]:
    return (bits.astype(np.uint32) << 16).view(np.float32)
