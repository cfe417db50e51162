"""What serving costs beside instances: network, stored models, cached answers, and a share for management."""

from __future__ import annotations

from dataclasses import dataclass

GIB = 1 << 30
HOURS_PER_MONTH = 30 * 24
"""A price per month is that of 30 days, whatever the calendar says."""
_PPM = 10**6


@dataclass(frozen=True, slots=True)
class Rates:
    """Money in micro-units.

    Attributes:
        network_micros_per_gib: of tensor bytes of answered requests, in and out.
        storage_micros_per_gib_month: of a model's files.
        cache_micros_per_gib_hour: of routers' memory that cached answers take.
        management_ppm: on top of everything else that is booked, in parts per million.
    """

    network_micros_per_gib: int = 10_000
    storage_micros_per_gib_month: int = 100_000
    cache_micros_per_gib_hour: int = 5_000
    management_ppm: int = 50_000

    def managed(self, micros: int) -> int:
        """An amount with its management share, rounded up."""
        return micros + -(-micros * self.management_ppm // _PPM)


DEFAULT_RATES = Rates()
FREE = Rates(0, 0, 0, 0)
