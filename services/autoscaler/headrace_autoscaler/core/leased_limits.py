"""Which limits are leased to routers, and in what units."""

from __future__ import annotations

from dataclasses import dataclass

from headrace_autoscaler.core.quota import Dimension
from headrace_autoscaler.domain import Limits
from headrace_common.quantities import MAX

DUST = 1e-6
"""Of a unit: what floating point leaves."""


@dataclass(frozen=True, slots=True)
class LeasedLimit:
    """One field of `Limits` that is leased.

    Attributes:
        by: the want that it is lent by.
        dimension: of the quota tree; None: it is not borrowed.
        scale: units in one of the field.
    """

    name: str
    by: str
    dimension: Dimension | None = None
    scale: int = 1

    def units(self, amount: float) -> int:
        return min(MAX, int(amount * self.scale + DUST)) if self.scale > 1 else min(MAX, int(amount))

    def amount(self, units: int) -> float:
        return units / self.scale if self.scale > 1 else units


DIMENSIONS = (
    LeasedLimit("concurrency", "in_hand", Dimension.CONCURRENCY),
    LeasedLimit("requests_per_second", "rate", Dimension.REQUEST_RATE, 1000),
    LeasedLimit("queue_length", "in_hand"),
    LeasedLimit("queue_bytes", "in_hand"),
)
BY_NAME = {each.name: each for each in DIMENSIONS}
BY_DIMENSION = {each.dimension: each for each in DIMENSIONS if each.dimension is not None}


def is_limited(limits: Limits) -> bool:
    """Something of it is leased."""
    return any(getattr(limits, dimension.name) is not None for dimension in DIMENSIONS)
