"""What counts as the same answer, and which samples do what."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]

_SEED = 20_260
_MOST_CALIBRATION = 256
_CALIBRATION_SHARE = 4


class Comparison(StrEnum):
    """AUTO: ARGMAX for floats of shape [rows, 2 or more], CLOSE for other floats; integers must be equal always."""

    AUTO = "auto"
    ARGMAX = "argmax"
    CLOSE = "close"


@dataclass(frozen=True, slots=True)
class Answers:
    """One output over all samples.

    Attributes:
        values: [rows, ...]: the place of the largest score where that is what is compared, the output itself elsewhere.
        finite: [rows]: no NaN or infinity in the row's output.
        classes: among how many scores the largest was looked for; 0: the output itself is compared.
    """

    values: NDArray[Any]
    finite: NDArray[np.bool_]
    classes: int = 0


def answers(output: NDArray[Any], comparison: Comparison) -> Answers:
    """Args:
    output: [rows, ...].
    """
    rows = len(output)
    if output.dtype.kind != "f":
        return Answers(output, np.ones(rows, np.bool_))
    finite = np.isfinite(output).reshape(rows, -1).all(axis=1)
    chosen = comparison is Comparison.ARGMAX or (comparison is Comparison.AUTO and output.ndim == 2)
    if chosen and output.ndim > 1 and output.shape[-1] > 1:
        return Answers(output.argmax(axis=-1), finite, output.shape[-1])
    return Answers(output, finite)


def agreeing(reference: Mapping[str, Answers], found: Mapping[str, Answers], tolerance: float) -> NDArray[np.bool_]:
    """Rows in which every output is the same.

    Args:
        tolerance: how far apart floats may be, as a share of the range that the reference's output has over all rows.

    Returns:
        [rows].
    """
    same = [_same(each.values, found[name].values, tolerance) for name, each in reference.items()]
    return np.asarray(np.logical_and.reduce(same))


def broken(reference: Mapping[str, Answers], found: Mapping[str, Answers]) -> dict[str, int]:
    """Outputs with NaN or infinity where the reference has none, and in how many rows."""
    counts = {name: int((each.finite & ~found[name].finite).sum()) for name, each in reference.items()}
    return {name: count for name, count in counts.items() if count}


def unique_rows(inputs: Arrays) -> NDArray[np.intp]:
    """Places of the rows that equal no earlier one. A sample that comes twice tells nothing new, and must not be in
    both halves of a split.
    """
    first: dict[bytes, int] = {}
    count = len(next(iter(inputs.values())))
    for row in range(count):
        digest = hashlib.sha256()
        for name in sorted(inputs):
            digest.update(np.ascontiguousarray(inputs[name][row]).tobytes())
        first.setdefault(digest.digest(), row)
    return np.array(sorted(first.values()), np.intp)


def split(count: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows to calibrate by, and rows to measure with: disjoint, the same every time, and all of them.

    A quarter calibrates, 256 at the most: more change the ranges little, and are missed where they count.
    """
    order = np.random.default_rng(_SEED).permutation(count)
    calibrating = calibration_count(count)
    return np.sort(order[:calibrating]), np.sort(order[calibrating:])


def calibration_count(count: int) -> int:
    return min(_MOST_CALIBRATION, max(1, count // _CALIBRATION_SHARE))


def samples_for(measuring: int) -> int:
    """Least number of samples of which at least `measuring` are left to measure with."""
    by_share = -(-measuring * _CALIBRATION_SHARE // (_CALIBRATION_SHARE - 1))
    total = min(by_share, measuring + _MOST_CALIBRATION)
    while total - calibration_count(total) < measuring:
        total += 1
    while total > 1 and total - 1 - calibration_count(total - 1) >= measuring:
        total -= 1
    return total


def _same(reference: NDArray[Any], found: NDArray[Any], tolerance: float) -> NDArray[np.bool_]:
    rows = len(reference)
    if reference.shape != found.shape:
        return np.zeros(rows, np.bool_)
    if reference.dtype.kind != "f":
        return np.asarray((reference == found).reshape(rows, -1).all(axis=1))
    known = reference[np.isfinite(reference)]
    allowed = tolerance * float(known.max() - known.min()) if known.size else 0.0
    with np.errstate(invalid="ignore"):
        near = np.abs(found.astype(np.float64) - reference) <= allowed
    both_nan = np.isnan(reference) & np.isnan(found)
    return np.asarray((near | (reference == found) | both_nan).reshape(rows, -1).all(axis=1))
