"""Demand on one revision over a sliding window, summed over routers."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import astuple, dataclass

_BUCKETS = 20
_SHORTEST_S = 1.0
"""A window younger than this counts as this long, so that a first burst is no absurd rate."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Increments since a router's last report."""

    arrivals: int = 0
    rows: int = 0
    completed: int = 0
    bundles: int = 0
    service_time_us: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.arrivals + other.arrivals,
            self.rows + other.rows,
            self.completed + other.completed,
            self.bundles + other.bundles,
            self.service_time_us + other.service_time_us,
        )

    def share(self, part: float) -> Counts:
        """So much of them, from 0 to 1, rounded up: something stays something."""
        return Counts(*(math.ceil(count * part) for count in astuple(self)))

    def __sub__(self, other: Counts) -> Counts:
        return Counts(
            self.arrivals - other.arrivals,
            self.rows - other.rows,
            self.completed - other.completed,
            self.bundles - other.bundles,
            self.service_time_us - other.service_time_us,
        )


@dataclass(frozen=True, slots=True)
class Level:
    """What one router holds right now. `held` waits for a budget, and needs no instance."""

    queued: int = 0
    in_flight: int = 0
    oldest_wait_s: float = 0.0
    held: int = 0


@dataclass(frozen=True, slots=True)
class Demand:
    """What the window says at one moment.

    Attributes:
        arrival_rate: requests per second; None: no router has ever reported on this revision.
        service_time_s: engine seconds per request as it was batched; None: not measured yet.
        rows_per_request: at least 1.
        rows_per_bundle: mean batch that was formed; 0: nothing was executed in the window.
        idle_s: since something arrived, waited or was executed; None: never.
        oldest_wait_s: age of the oldest request that waits.
    """

    arrival_rate: float | None = None
    service_time_s: float | None = None
    rows_per_request: float = 1.0
    rows_per_bundle: float = 0.0
    queued: int = 0
    in_flight: int = 0
    idle_s: float | None = None
    oldest_wait_s: float = 0.0

    @property
    def present(self) -> bool:
        """Somebody waits for an answer."""
        return self.queued > 0 or self.in_flight > 0


class DemandWindow:
    """Counts in buckets, levels by router. All times are monotonic seconds."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._width_s = window_s / _BUCKETS
        self._buckets: deque[tuple[float, Counts]] = deque()
        self._sum = Counts()
        self._total = Counts()
        self._arrived_at: float | None = None
        self._levels: dict[str, Level] = {}
        self._first_at: float | None = None
        self._active_at: float | None = None
        self._service_time_s: float | None = None

    def count(self, counts: Counts, now: float) -> None:
        if self._first_at is None:
            self._first_at = now
        if counts == Counts():
            return
        self._active_at = now
        self._total += counts
        if counts.arrivals:
            self._arrived_at = now
        if self._buckets and now - self._buckets[-1][0] < self._width_s:
            started, held = self._buckets[-1]
            self._buckets[-1] = (started, held + counts)
        else:
            self._buckets.append((now, counts))
        self._sum += counts

    @property
    def total(self) -> Counts:
        """Of all reports on this revision; what it inherited does not count."""
        return self._total

    @property
    def arrived_at(self) -> float | None:
        return self._arrived_at

    def set_level(self, router: str, level: Level, now: float) -> None:
        if level.queued or level.in_flight:
            self._active_at = now
            self._levels[router] = level
        elif self._levels.pop(router, None) is not None:
            self._active_at = now

    def forget(self, router: str) -> None:
        self._levels.pop(router, None)

    def observe(self, now: float) -> Demand:
        self._expire(now)
        self._measure()
        queued = sum(level.queued for level in self._levels.values())
        in_flight = sum(level.in_flight for level in self._levels.values())
        idle_s = None if self._active_at is None else now - self._active_at
        return Demand(
            arrival_rate=None if self._first_at is None else self._sum.arrivals / self._length(now),
            service_time_s=self._service_time_s,
            rows_per_request=max(1.0, self._sum.rows / self._sum.arrivals) if self._sum.arrivals else 1.0,
            rows_per_bundle=self._sum.rows / self._sum.bundles if self._sum.bundles else 0.0,
            queued=queued,
            in_flight=in_flight,
            idle_s=0.0 if queued or in_flight else idle_s,
            oldest_wait_s=max((level.oldest_wait_s for level in self._levels.values()), default=0.0),
        )

    def inherit(self, other: DemandWindow) -> None:
        """Takes over another revision's counts: a new revision faces the demand of the one it replaces."""
        self._buckets = deque(other._buckets)
        self._sum = other._sum
        self._first_at = other._first_at
        self._active_at = other._active_at

    def _length(self, now: float) -> float:
        age = now - (self._first_at if self._first_at is not None else now)
        return max(_SHORTEST_S, min(self._window_s, age))

    def _expire(self, now: float) -> None:
        while self._buckets and now - self._buckets[0][0] > self._window_s:
            self._sum -= self._buckets.popleft()[1]

    def _measure(self) -> None:
        """Remembers the last service time seen: it does not become unknown when demand pauses."""
        if self._sum.completed and self._sum.service_time_us:
            self._service_time_s = self._sum.service_time_us / self._sum.completed / 1e6
