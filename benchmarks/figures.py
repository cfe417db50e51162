"""Statistics of a few repeated measurements, and of many latencies. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and extremes of repeated measurements."""

    median: float
    low: float
    high: float
    rounds: int


def spread(values: Sequence[float]) -> Spread:
    """Raises ValueError where there is no value."""
    if not values:
        raise ValueError("a spread needs at least one measurement")
    return Spread(median(values), min(values), max(values), len(values))


def median(values: Sequence[float]) -> float:
    """The middle one, or the mean of the middle two."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def quantile(ordered: Sequence[float], share: float) -> float:
    """Nearest rank: the smallest value that at least `share` of all do not exceed. `ordered` ascends, not empty."""
    rank = max(1, math.ceil(share * len(ordered)))
    return ordered[rank - 1]


def ratio(ours: Spread, peer: Spread) -> float:
    """Of medians. Infinite where the peer's is zero."""
    return ours.median / peer.median if peer.median else math.inf
