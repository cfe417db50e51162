"""What is measured, as plain data for telemetry and for demand reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from headrace_common.histogram import ROWS_BOUNDS, SECONDS_BOUNDS, Histogram
from headrace_router.core.accounts import Totals


@dataclass(frozen=True, slots=True)
class ColdStart:
    """A start from zero, as far as the router saw it. Seconds."""

    instance_id: str
    model: str
    revision: int
    load_s: float
    warm_s: float
    first_answer_s: float
    total_s: float


class Measures:
    """Histograms over all revisions, recorded once per bundle."""

    def __init__(self) -> None:
        self.queue_seconds = Histogram(SECONDS_BOUNDS)
        self.compute_seconds = Histogram(SECONDS_BOUNDS)
        self.batch_size = Histogram(ROWS_BOUNDS)

    def bundle(self, rows: int, requests: int, mean_queue_s: float, compute_s: float) -> None:
        self.queue_seconds.record(mean_queue_s, requests)
        self.compute_seconds.record(compute_s)
        self.batch_size.record(float(rows))


class CacheUse:
    """Memory that cached answers took, by model: bytes times seconds, as of the last look.

    Attributes:
        sizes: bytes by model now.
    """

    def __init__(self, now: float) -> None:
        self.sizes: Callable[[], Mapping[str, int]] = dict
        self._at = now
        self._byte_seconds: dict[str, float] = {}

    def measure(self, now: float) -> None:
        """Counts what is held for the time since the last look."""
        passed_s, self._at = now - self._at, now
        for model, size_bytes in self.sizes().items():
            self._byte_seconds[model] = self._byte_seconds.get(model, 0.0) + size_bytes * passed_s

    def whole(self) -> dict[str, int]:
        """Whole byte-seconds that were not committed."""
        return {model: int(count) for model, count in self._byte_seconds.items() if count >= 1}

    def commit(self, taken: Mapping[str, int]) -> None:
        for model, count in taken.items():
            left = self._byte_seconds.pop(model) - count
            if left > 0:
                self._byte_seconds[model] = left


@dataclass(slots=True)
class Use:
    """One tenant's use of one model.

    Attributes:
        outcomes: why requests were refused or failed, by reason; answered ones are `totals.completed`.
    """

    tenant: str
    model: str
    totals: Totals = field(default_factory=Totals)
    outcomes: dict[str, int] = field(default_factory=dict)
    queued: int = 0
    in_flight: int = 0
    service_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Counters:
    """A reading of everything.

    Attributes:
        runner_slots: model -> (free, outstanding).
    """

    uses: list[Use]
    measures: Measures
    runner_slots: dict[str, tuple[int, int]]
