"""Who used what, and what it cost: exact accumulation between two writes to the store.

Time is integer microseconds and money integer micro-units. What a booking leaves over below one
micro-unit is carried to the next one of the same key, so sums are exact however often it is cut.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from headrace_autoscaler.domain import Usage, UsageKey

_HOUR_S = 3600
_HOUR_US = _HOUR_S * 10**6


@dataclass(frozen=True, slots=True)
class Account:
    """Whom an instance's time is booked to. Price in micro-units per hour."""

    tenant: str
    model: str
    shape: str
    capacity_class: str
    micros_per_hour: int


@dataclass(slots=True)
class _Entry:
    instance_us: int = 0
    busy_us: int = 0
    requests: int = 0
    cold_starts: int = 0
    cost_micros: int = 0


class Ledger:
    """Increments since the last `take`."""

    def __init__(self) -> None:
        self._entries: dict[UsageKey, _Entry] = {}
        self._carried: dict[tuple[str, str, str, str], int] = {}

    def book_time(self, account: Account, start_us: int, end_us: int) -> None:
        """Instance time from start to end, wall-clock microseconds since the epoch; split by hour."""
        at = start_us
        while at < end_us:
            hour = at // _HOUR_US
            until = min(end_us, (hour + 1) * _HOUR_US)
            self._book(account, hour * _HOUR_S, until - at)
            at = until

    def book_requests(self, account: Account, wall_s: float, requests: int, busy_us: int) -> None:
        if requests or busy_us:
            entry = self._entry(account, int(wall_s) // _HOUR_S * _HOUR_S)
            entry.requests += requests
            entry.busy_us += busy_us

    def book_cold_start(self, account: Account, wall_s: float) -> None:
        self._entry(account, int(wall_s) // _HOUR_S * _HOUR_S).cold_starts += 1

    def take(self) -> dict[UsageKey, Usage]:
        """The increments, which are no longer held here."""
        taken, self._entries = self._entries, {}
        return {
            key: Usage(e.instance_us / 1e6, e.busy_us / 1e6, e.requests, e.cold_starts, e.cost_micros)
            for key, e in taken.items()
        }

    def give_back(self, increments: Mapping[UsageKey, Usage]) -> None:
        """Increments that could not be written are held again."""
        for key, usage in increments.items():
            entry = self._entries.setdefault(key, _Entry())
            entry.instance_us += round(usage.instance_seconds * 1e6)
            entry.busy_us += round(usage.busy_seconds * 1e6)
            entry.requests += usage.requests
            entry.cold_starts += usage.cold_starts
            entry.cost_micros += usage.cost_micros

    def _book(self, account: Account, hour: int, duration_us: int) -> None:
        entry = self._entry(account, hour)
        entry.instance_us += duration_us
        key = (account.tenant, account.model, account.shape, account.capacity_class)
        owed = self._carried.get(key, 0) + account.micros_per_hour * duration_us
        micros, rest = divmod(owed, _HOUR_US)
        entry.cost_micros += micros
        if rest:
            self._carried[key] = rest
        else:
            self._carried.pop(key, None)

    def _entry(self, account: Account, hour: int) -> _Entry:
        key = UsageKey(hour, account.tenant, account.model, account.shape, account.capacity_class)
        return self._entries.setdefault(key, _Entry())
