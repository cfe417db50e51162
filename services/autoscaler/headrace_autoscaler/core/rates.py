"""What serving costs beside instances: network, stored models, cached answers, and a share for management."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from headrace_common.errors import InvalidArgument
from headrace_common.quantities import parse_micros

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


FREE = Rates(0, 0, 0, 0)


def parse_rates(table: Mapping[str, object]) -> Rates:
    """The table [rates] of a catalogue; a key that it lacks has its default.

    Raises:
        InvalidArgument: names the key, what it expects, and what came.
    """
    default = Rates()
    known = ("network_per_gib", "storage_per_gib_month", "cache_per_gib_hour", "management_share")
    for key in table:
        if key not in known:
            raise InvalidArgument(f"rates.{key}: is no rate; there are {', '.join(known)}")

    def micros(key: str, otherwise: int) -> int:
        return parse_micros(str(table[key]), f"rates.{key}") if key in table else otherwise

    return Rates(
        network_micros_per_gib=micros("network_per_gib", default.network_micros_per_gib),
        storage_micros_per_gib_month=micros("storage_per_gib_month", default.storage_micros_per_gib_month),
        cache_micros_per_gib_hour=micros("cache_per_gib_hour", default.cache_micros_per_gib_hour),
        management_ppm=_share(table["management_share"]) if "management_share" in table else default.management_ppm,
    )


def _share(value: object) -> int:
    try:
        share = Decimal(str(value))
    except InvalidOperation:
        share = Decimal(-1)
    if not (share.is_finite() and 0 <= share <= 10):
        raise InvalidArgument(f"rates.management_share: expected a share from 0 to 10 such as 0.05; got {value!r}")
    return int(share * _PPM)
