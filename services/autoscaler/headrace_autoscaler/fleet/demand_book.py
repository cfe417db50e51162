"""Demand windows of all revisions, fed by the routers' reports."""

from __future__ import annotations

from dataclasses import dataclass

from headrace_autoscaler.core.demand import Counts, DemandWindow, Level
from headrace_autoscaler.core.plans import Key
from headrace_autoscaler.fleet.reports import Report
from headrace_autoscaler.fleet.traffic import TrafficBook

_USUAL_PERIOD_S = 0.25
_LATE_S = 1.0


@dataclass(slots=True)
class RouterTotals:
    """One router's sums since it connected, and its levels at the last report."""

    requests: int = 0
    refused: int = 0
    queued: int = 0
    in_flight: int = 0


class DemandBook:
    """One window per revision; levels by router."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._windows: dict[Key, DemandWindow] = {}
        self._levels: dict[str, dict[Key, Level]] = {}
        self._held: dict[str, dict[tuple[str, str], int]] = {}
        self._routers: dict[str, RouterTotals] = {}
        self._requests: dict[str, int] = {}
        self.traffic = TrafficBook()

    def window(self, key: Key) -> DemandWindow | None:
        return self._windows.get(key)

    def rows_per_request(self, key: Key, now: float) -> float:
        """At least 1."""
        window = self._windows.get(key)
        return 1.0 if window is None else window.observe(now).rows_per_request

    def rows_per_s(self, key: Key, now: float) -> float:
        """That arrive; 0: nobody has reported on it."""
        window = self._windows.get(key)
        seen = None if window is None else window.observe(now)
        return 0.0 if seen is None else (seen.arrival_rate or 0.0) * seen.rows_per_request

    def apply(self, report: Report, now: float) -> None:
        """Callers of one revision are summed; a complete report takes back the levels it leaves out."""
        self.traffic.apply(report, now)
        counts: dict[Key, Counts] = {}
        levels: dict[Key, Level] = {}
        for entry in report.entries:
            counts[entry.key] = counts.get(entry.key, Counts()) + entry.counts
            self._requests[entry.model] = self._requests.get(entry.model, 0) + entry.answered
            held = levels.get(entry.key, Level())
            levels[entry.key] = Level(
                held.queued + entry.level.queued,
                held.in_flight + entry.level.in_flight,
                max(held.oldest_wait_s, entry.level.oldest_wait_s),
                held.held + entry.held,
            )
        for key, sums in counts.items():
            self._open(key).count(_of_late(sums, report.period_s), now)
        self._set_levels(report, levels, now)
        self._set_held(report)
        self._total(report)

    def router_gone(self, router: str) -> None:
        for key in self._levels.pop(router, {}):
            if (window := self._windows.get(key)) is not None:
                window.forget(router)
        self._routers.pop(router, None)
        self._held.pop(router, None)

    def held(self, model: str) -> dict[str, int]:
        """Requests of it that wait for money, or for the step before them, by who sent them."""
        found: dict[str, int] = {}
        for counts in self._held.values():
            for (tenant, of), count in counts.items():
                if of == model:
                    found[tenant] = found.get(tenant, 0) + count
        return found

    def inherit(self, old: Key, new: Key) -> None:
        """A new current revision faces the demand that its predecessor had."""
        window = self._windows.get(old)
        if window is not None and new not in self._windows:
            self._open(new).inherit(window)

    def keep_only(self, keys: set[Key]) -> None:
        for key in [key for key in self._windows if key not in keys]:
            del self._windows[key]
        models = {model for model, _ in keys}
        for model in [model for model in self._requests if model not in models]:
            del self._requests[model]
        self.traffic.keep_only(models)

    def sums(self, model: str) -> tuple[int, int, int]:
        """Queued, in flight, and answered since the autoscaler's start."""
        levels = [level for held in self._levels.values() for key, level in held.items() if key[0] == model]
        queued = sum(level.queued + level.held for level in levels)
        in_flight = sum(level.in_flight for level in levels)
        return queued, in_flight, self._requests.get(model, 0)

    def totals(self, router: str) -> RouterTotals:
        return self._routers.get(router, RouterTotals())

    def _open(self, key: Key) -> DemandWindow:
        if key not in self._windows:
            self._windows[key] = DemandWindow(self._window_s)
        return self._windows[key]

    def _set_levels(self, report: Report, levels: dict[Key, Level], now: float) -> None:
        held = self._levels.setdefault(report.router, {})
        gone = () if report.urgent else [key for key in held if key not in levels]
        for key in gone:
            levels[key] = Level()
        for key, level in levels.items():
            self._open(key).set_level(report.router, level, now)
            if level == Level():
                held.pop(key, None)
            else:
                held[key] = level

    def _set_held(self, report: Report) -> None:
        before = self._held.setdefault(report.router, {})
        if not report.urgent:
            before.clear()
        now: dict[tuple[str, str], int] = {}
        for entry in report.entries:
            now[entry.tenant, entry.model] = now.get((entry.tenant, entry.model), 0) + entry.held
        before.update(now)
        for key in [key for key, count in before.items() if not count]:
            del before[key]

    def _total(self, report: Report) -> None:
        totals = self._routers.setdefault(report.router, RouterTotals())
        totals.requests += sum(entry.answered for entry in report.entries)
        totals.refused += sum(entry.refused for entry in report.entries)
        held = self._levels[report.router].values()
        totals.queued = sum(level.queued for level in held)
        totals.in_flight = sum(level.in_flight for level in held)


def _of_late(counts: Counts, period_s: float) -> Counts:
    """What a router has counted while nobody heard it is not what comes now: as much as in one usual period."""
    return counts.share(_USUAL_PERIOD_S / period_s) if period_s > _LATE_S else counts
