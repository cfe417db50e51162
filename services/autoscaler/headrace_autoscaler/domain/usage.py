"""The books: what was used, by hour, tenant, model and shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class UsageKey:
    """Hour: seconds since the epoch of its start."""

    hour: int
    tenant: str
    model: str
    shape: str
    capacity_class: str


@dataclass(frozen=True, slots=True)
class Usage:
    """Increments or sums, by context. Money in micro-units.

    Attributes:
        cost_micros: all of it; what network, storage, cache and management leave is the instances'.
        network_bytes: tensor bytes of answered requests, in and out.
    """

    instance_seconds: float = 0.0
    busy_seconds: float = 0.0
    requests: int = 0
    cold_starts: int = 0
    cost_micros: int = 0
    network_bytes: int = 0
    storage_byte_seconds: int = 0
    cache_byte_seconds: int = 0
    network_micros: int = 0
    storage_micros: int = 0
    cache_micros: int = 0
    management_micros: int = 0


@dataclass(frozen=True, slots=True)
class UsageRow:
    key: UsageKey
    usage: Usage
    currency: str = field(default="USD")


@dataclass(frozen=True, slots=True)
class Posting:
    """One write of the books.

    Attributes:
        epoch, serial: who posts, and its how manyth; the same posting twice is booked once.
        booked_until_us: with it, everything that ran is booked until then; microseconds since the epoch, by the clock
            as it was: where that was set back, earlier than in the posting before.
    """

    epoch: int
    serial: int
    increments: Mapping[UsageKey, Usage]
    booked_until_us: int
