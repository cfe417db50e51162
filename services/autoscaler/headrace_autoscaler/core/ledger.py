"""Who used what, and what it cost: exact accumulation between two writes to the store.

Time is integer microseconds and money integer micro-units. What a booking leaves over below one
micro-unit (or one byte-second) is carried to the next one of the same account, so sums are exact however often
it is cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from headrace_autoscaler.core.rates import GIB, HOURS_PER_MONTH, Rates
from headrace_autoscaler.domain import Usage, UsageKey

_SECOND_US = 10**6
_HOUR_S = 3600
HOUR_US = _HOUR_S * _SECOND_US
_PPM = 10**6

Paid = Callable[[UsageKey, int], None]
"""Hears of every amount, in micro-units, when it is booked."""


@dataclass(frozen=True, slots=True)
class Account:
    """Whom use is booked to. Price in micro-units per hour of an instance.

    What is used without an instance has neither shape nor class.
    """

    tenant: str
    model: str
    shape: str = ""
    capacity_class: str = ""
    micros_per_hour: int = 0


@dataclass(slots=True)
class _Entry:
    instance_us: int = 0
    busy_us: int = 0
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


def _unheard(_key: UsageKey, _micros: int) -> None: ...


class Ledger:
    """Increments since the last `take`. Times are wall-clock microseconds since the epoch."""

    def __init__(self, rates: Rates, paid: Paid = _unheard) -> None:
        self._rates = rates
        self._paid = paid
        self._entries: dict[UsageKey, _Entry] = {}
        self._carried: dict[tuple[str, str, str, str, str], int] = {}

    def book_time(self, account: Account, start_us: int, end_us: int) -> None:
        """An instance's time from start to end; split by hour."""
        for hour, spent_us in _hours(start_us, end_us):
            self._entry(account, hour).instance_us += spent_us
            self._charge(account, hour, "instance", account.micros_per_hour * spent_us, HOUR_US)

    def book_storage(self, account: Account, size_bytes: int, start_us: int, end_us: int) -> None:
        """A model's files, kept from start to end."""
        per_month = self._rates.storage_micros_per_gib_month
        for hour, kept_us in _hours(start_us, end_us):
            byte_us = size_bytes * kept_us
            self._entry(account, hour).storage_byte_seconds += self._whole(account, "stored", byte_us, _SECOND_US)
            micros = self._charge(account, hour, "storage", per_month * byte_us, GIB * HOURS_PER_MONTH * HOUR_US)
            self._entry(account, hour).storage_micros += micros

    def book_requests(self, account: Account, at_us: int, requests: int, busy_us: int, network_bytes: int = 0) -> None:
        """Answered requests, the engines' time for them, and the bytes of their tensors."""
        if requests or busy_us or network_bytes:
            hour = _hour_of(at_us)
            entry = self._entry(account, hour)
            entry.requests += requests
            entry.busy_us += busy_us
            entry.network_bytes += network_bytes
            per_gib = self._rates.network_micros_per_gib
            entry.network_micros += self._charge(account, hour, "network", per_gib * network_bytes, GIB)

    def book_cache(self, account: Account, at_us: int, byte_seconds: int) -> None:
        """Memory of routers that a model's cached answers took."""
        if byte_seconds:
            hour = _hour_of(at_us)
            entry = self._entry(account, hour)
            entry.cache_byte_seconds += byte_seconds
            per_hour = self._rates.cache_micros_per_gib_hour
            entry.cache_micros += self._charge(account, hour, "cache", per_hour * byte_seconds, GIB * _HOUR_S)

    def book_cold_start(self, account: Account, at_us: int) -> None:
        self._entry(account, _hour_of(at_us)).cold_starts += 1

    def take(self) -> dict[UsageKey, Usage]:
        """The increments, which are no longer held here."""
        taken, self._entries = self._entries, {}
        return {key: _usage(entry) for key, entry in taken.items()}

    def _charge(self, account: Account, hour: int, item: str, owed: int, per: int) -> int:
        """Books what `owed` / `per` comes to, and the management share on it. The amount without that share."""
        micros = self._whole(account, item, owed, per)
        if not micros:
            return 0
        share = self._whole(account, "management", micros * self._rates.management_ppm, _PPM)
        entry = self._entry(account, hour)
        entry.management_micros += share
        entry.cost_micros += micros + share
        self._paid(_key(account, hour), micros + share)
        return micros

    def _whole(self, account: Account, item: str, amount: int, per: int) -> int:
        """Whole units of `per`, with what earlier ones have left over."""
        key = (account.tenant, account.model, account.shape, account.capacity_class, item)
        whole, rest = divmod(self._carried.get(key, 0) + amount, per)
        if rest:
            self._carried[key] = rest
        else:
            self._carried.pop(key, None)
        return whole

    def _entry(self, account: Account, hour: int) -> _Entry:
        return self._entries.setdefault(_key(account, hour), _Entry())


def _key(account: Account, hour: int) -> UsageKey:
    return UsageKey(hour, account.tenant, account.model, account.shape, account.capacity_class)


def _hour_of(at_us: int) -> int:
    return at_us // HOUR_US * _HOUR_S


def _hours(start_us: int, end_us: int) -> Iterator[tuple[int, int]]:
    """(hour, microseconds of it) from start to end."""
    at = start_us
    while at < end_us:
        hour = at // HOUR_US
        until = min(end_us, (hour + 1) * HOUR_US)
        yield hour * _HOUR_S, until - at
        at = until


def _usage(entry: _Entry) -> Usage:
    return Usage(
        instance_seconds=entry.instance_us / _SECOND_US,
        busy_seconds=entry.busy_us / _SECOND_US,
        requests=entry.requests,
        cold_starts=entry.cold_starts,
        cost_micros=entry.cost_micros,
        network_bytes=entry.network_bytes,
        storage_byte_seconds=entry.storage_byte_seconds,
        cache_byte_seconds=entry.cache_byte_seconds,
        network_micros=entry.network_micros,
        storage_micros=entry.storage_micros,
        cache_micros=entry.cache_micros,
        management_micros=entry.management_micros,
    )
