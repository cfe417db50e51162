"""Histograms that the process keeps itself, as lists of integers, read only at export.

OpenTelemetry has observable counters and gauges, and no observable histogram: its own are recorded
value by value. So the readers add ours to what the SDK collected.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    PeriodicExportingMetricReader,
    ScopeMetrics,
)
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

_SNAPSHOT_TRIES = 8
T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True)
class HistogramReading:
    """One series.

    Attributes:
        bounds: upper bounds, rising.
        counts: values per bucket, not cumulative; one more than bounds, the last for what is above.
        total: sum of the values.
    """

    bounds: Sequence[float]
    counts: Sequence[int]
    total: float
    attributes: Mapping[str, str | int | float | bool]


class PlainHistograms:
    """What was given to `Telemetry.observe_histogram`."""

    def __init__(self, scope: str) -> None:
        self._scope = InstrumentationScope(scope)
        self._began_ns = time.time_ns()
        self._callbacks: list[tuple[str, str, str, Callable[[], Iterable[HistogramReading]]]] = []

    def add(self, name: str, description: str, unit: str, callback: Callable[[], Iterable[HistogramReading]]) -> None:
        self._callbacks.append((name, description, unit, callback))

    def added_to(self, collected: MetricsData) -> MetricsData:
        """`collected` and a reading of every histogram."""
        metrics = [metric for metric in map(self._metric, self._callbacks) if metric.data.data_points]
        if not metrics or not collected.resource_metrics:
            return collected
        first, *others = collected.resource_metrics
        extended = dataclasses.replace(first, scope_metrics=self._with(first.scope_metrics, metrics))
        return dataclasses.replace(collected, resource_metrics=[extended, *others])

    def _with(self, scopes: Sequence[ScopeMetrics], metrics: list[Metric]) -> list[ScopeMetrics]:
        """OTLP's encoder keeps one entry per scope, so ours join those that the SDK has under it."""
        same = [one for one in scopes if one.scope == self._scope]
        joined = [metric for one in same for metric in one.metrics]
        others = [one for one in scopes if one.scope != self._scope]
        return [*others, ScopeMetrics(scope=self._scope, metrics=[*joined, *metrics], schema_url="")]

    def _metric(self, registered: tuple[str, str, str, Callable[[], Iterable[HistogramReading]]]) -> Metric:
        name, description, unit, callback = registered
        now_ns = time.time_ns()
        points = [
            HistogramDataPoint(
                attributes=reading.attributes,
                start_time_unix_nano=self._began_ns,
                time_unix_nano=now_ns,
                count=sum(reading.counts),
                sum=reading.total,
                bucket_counts=tuple(reading.counts),
                explicit_bounds=tuple(reading.bounds),
                min=None,  # type: ignore[arg-type]  # Neither end is kept, and OTLP leaves out what is None.
                max=None,  # type: ignore[arg-type]
            )
            for reading in snapshot(callback)
        ]
        data = Histogram(data_points=points, aggregation_temporality=AggregationTemporality.CUMULATIVE)
        return Metric(name=name, description=description, unit=unit, data=data)


class PrometheusReader(PrometheusMetricReader):
    def __init__(self, plain: PlainHistograms, **options: Any) -> None:
        super().__init__(**options)
        self._plain = plain

    def _receive_metrics(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **options: Any) -> None:
        super()._receive_metrics(self._plain.added_to(metrics_data), timeout_millis, **options)


class PeriodicReader(PeriodicExportingMetricReader):
    def __init__(self, plain: PlainHistograms, exporter: Any) -> None:
        self._plain = plain
        super().__init__(exporter)

    def _receive_metrics(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **options: Any) -> None:
        super()._receive_metrics(self._plain.added_to(metrics_data), timeout_millis, **options)


def snapshot(callback: Callable[[], Iterable[T]]) -> list[T]:
    """Reads while the event loop goes on counting: a dict that grew meanwhile is read again."""
    for _ in range(_SNAPSHOT_TRIES):
        try:
            return list(callback())
        except RuntimeError as error:
            if "changed size" not in str(error):
                raise
    return []
