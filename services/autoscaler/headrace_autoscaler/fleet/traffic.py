"""What came for each model: what a plan of its capacity starts from."""

from __future__ import annotations

from dataclasses import dataclass

from headrace_autoscaler.domain import TrafficView
from headrace_autoscaler.fleet.reports import Report

_MINUTE_S = 60.0


@dataclass(slots=True)
class _Counted:
    """Attributes:
    minute_began: of the minute that is being counted; monotonic seconds, like `first`.
    busiest: requests in the busiest minute that is over.
    """

    first: float
    minute_began: float
    in_minute: int = 0
    busiest: int = 0
    arrivals: int = 0
    answered: int = 0
    cache_hits: int = 0
    rows: int = 0
    bundles: int = 0
    execution_us: int = 0


class TrafficBook:
    """Counts since the autoscaler's start."""

    def __init__(self) -> None:
        self._models: dict[str, _Counted] = {}

    def apply(self, report: Report, now: float) -> None:
        for entry in report.entries:
            # Those that found the cache are no arrivals for instances, but they are for us.
            arrivals = entry.counts.arrivals + entry.cache_hits
            if not arrivals and not entry.answered:
                continue
            counted = self._models.get(entry.model)
            if counted is None:
                counted = self._models[entry.model] = _Counted(now, now)
            _turn(counted, now)
            counted.in_minute += arrivals
            counted.arrivals += arrivals
            counted.answered += entry.answered
            counted.cache_hits += entry.cache_hits
            counted.rows += entry.counts.rows
            counted.bundles += entry.counts.bundles
            counted.execution_us += entry.counts.service_time_us

    def view(self, model: str, now: float) -> TrafficView:
        counted = self._models.get(model)
        if counted is None:
            return TrafficView()
        _turn(counted, now)
        since_s = max(1.0, now - counted.first)
        this_minute = counted.in_minute / min(_MINUTE_S, since_s)
        return TrafficView(
            requests=counted.answered,
            cache_hits=counted.cache_hits,
            mean_rate=counted.arrivals / since_s,
            busiest_rate=max(counted.busiest / _MINUTE_S, this_minute),
            mean_batch=counted.rows / counted.bundles if counted.bundles else 0.0,
            mean_execution_s=counted.execution_us / counted.bundles / 1e6 if counted.bundles else 0.0,
        )

    def keep_only(self, models: set[str]) -> None:
        for model in [model for model in self._models if model not in models]:
            del self._models[model]


def _turn(counted: _Counted, now: float) -> None:
    """Ends the minute that is over."""
    if now - counted.minute_began >= _MINUTE_S:
        counted.busiest = max(counted.busiest, counted.in_minute)
        counted.in_minute = 0
        counted.minute_began = now - (now - counted.minute_began) % _MINUTE_S
