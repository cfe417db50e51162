"""What the runner counts. Plain integers, written by one thread at a time; read at export."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from opentelemetry.trace import SpanKind

from headrace.runner.v1 import runner_pb2 as pb
from headrace_common.clock import Clock
from headrace_common.histogram import SECONDS_BOUNDS, Histogram
from headrace_common.telemetry import Attributes, HistogramReading, Observations, Telemetry
from headrace_runner.core.lifecycle import Holding
from headrace_runner.process import resident_bytes


class Measures:
    """Counters, histograms and spans of one runner."""

    def __init__(self, telemetry: Telemetry, clock: Clock) -> None:
        self._telemetry = telemetry
        self._clock = clock
        self._started = clock.monotonic()
        self._labels: dict[str, str] = {}
        self.bundles = self.rows = self.requests = self.failed_bundles = 0
        self.compute_us = self.wait_us = 0
        self._compute = Histogram(SECONDS_BOUNDS)
        self._wait = Histogram(SECONDS_BOUNDS)
        self._register()

    def serve(self, holding: Holding) -> None:
        """From here on, what is counted is this model's."""
        self._labels = {
            "tenant": holding.tenant,
            "model": holding.model,
            "version": holding.version,
            "revision": str(holding.revision),
        }

    def executed(self, bundle: pb.Bundle, rows: int, result: pb.BundleResult, begun: float) -> None:
        """Counts one bundle that reached the engine. `rows`: of all of it; `begun`: monotonic seconds."""
        self.bundles += 1
        self.requests += len(bundle.rows)
        self.rows += rows
        compute_us, wait_us = result.compute_us, result.wait_us
        self.compute_us += compute_us
        self.wait_us += wait_us
        self.failed_bundles += result.HasField("error")
        self._compute.record(compute_us / 1e6)
        self._wait.record(wait_us / 1e6)
        if bundle.traceparents:
            self._trace(bundle, result, begun)

    def loaded(self, traceparent: str, begun: float, phases_s: Mapping[str, float]) -> None:
        """Records a load, as a span too if what caused it is traced."""
        if not self._telemetry.wants_span(traceparent):
            return
        start_ns = self._wall_ns(begun)
        span = self._telemetry.start_span(
            "runner.load",
            traceparent,
            attributes={**self._labels, **{f"phase.{name}_s": seconds for name, seconds in phases_s.items()}},
            start_unix_ns=start_ns,
        )
        span.end(self._wall_ns(self._clock.monotonic()))

    def stats(self) -> pb.GetStatsResponse:
        response = pb.GetStatsResponse(
            bundles=self.bundles,
            rows=self.rows,
            requests=self.requests,
            failed_bundles=self.failed_bundles,
            compute_us=self.compute_us,
            wait_us=self.wait_us,
            resident_bytes=resident_bytes(),
        )
        response.uptime.FromNanoseconds(round(self.uptime_s * 1e9))
        return response

    @property
    def uptime_s(self) -> float:
        return self._clock.monotonic() - self._started

    def _trace(self, bundle: pb.Bundle, result: pb.BundleResult, begun: float) -> None:
        """One span per sampled request, below the router's."""
        start_ns = self._wall_ns(begun)
        for index, traceparent in bundle.traceparents.items():
            if not self._telemetry.wants_span(traceparent):
                continue
            attributes: Attributes = {
                **self._labels,
                "batch.rows": sum(bundle.rows),
                "batch.requests": len(bundle.rows),
                "request.index": index,
                "attempt": bundle.attempt,
                "wait_us": result.wait_us,
            }
            span = self._telemetry.start_span(
                "engine.execute", traceparent, SpanKind.SERVER, attributes, start_unix_ns=start_ns
            )
            span.end(start_ns + result.compute_us * 1000)

    def _wall_ns(self, monotonic: float) -> int:
        return round((self._clock.wall() - (self._clock.monotonic() - monotonic)) * 1e9)

    def _register(self) -> None:
        observe, observe_histogram = self._telemetry.observe, self._telemetry.observe_histogram
        observe("headrace_runner_bundles", "Bundles executed.", "", self._reads("bundles"))
        observe("headrace_runner_requests", "Requests in executed bundles.", "", self._reads("requests"))
        observe("headrace_runner_rows", "Rows in executed bundles.", "", self._reads("rows"))
        observe("headrace_runner_failed_bundles", "Bundles that failed.", "", self._reads("failed_bundles"))
        observe(
            "headrace_runner_resident", "Resident memory.", "By", lambda: [(resident_bytes(), self._labels)], "gauge"
        )
        observe_histogram("headrace_runner_compute", "Engine time of a bundle.", "s", self._shows(self._compute))
        observe_histogram(
            "headrace_runner_wait", "From a bundle's receipt to the engine.", "s", self._shows(self._wait)
        )

    def _reads(self, counter: str) -> Callable[[], Observations]:
        def read() -> Observations:
            return [(getattr(self, counter), self._labels)]

        return read

    def _shows(self, histogram: Histogram) -> Callable[[], list[HistogramReading]]:
        return lambda: [HistogramReading(histogram.bounds, histogram.counts, histogram.total, self._labels)]
