"""A process's providers, readers and exporters."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

from opentelemetry import trace
from opentelemetry.metrics import CallbackOptions, Histogram, Observation
from opentelemetry.sdk.metrics import (
    Histogram as SdkHistogram,
)
from opentelemetry.sdk.metrics import (
    MeterProvider,
    ObservableCounter,
    ObservableGauge,
)
from opentelemetry.sdk.metrics.export import MetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from prometheus_client import CollectorRegistry, generate_latest

from headrace_common.config import TelemetryConfig
from headrace_common.telemetry.plain import (
    HistogramReading,
    PeriodicReader,
    PlainHistograms,
    PrometheusReader,
    snapshot,
)
from headrace_common.telemetry.w3c import sampled

Attributes = Mapping[str, str | int | float | bool]
Observations = Iterable[tuple[int | float, Attributes]]

_SCOPE = "headrace"
_INSTANCE = "service.instance.id"
# Series per metric: one per tenant and model is what we promise to export (10,000 models).
_SERIES = 100_000
_SHUTDOWN_S = 2.0
_PROPAGATOR = TraceContextTextMapPropagator()


class Telemetry:
    """A process's instruments. Make it with `start`, end it with `shutdown`."""

    def __init__(
        self,
        meters: MeterProvider,
        traces: TracerProvider,
        registry: CollectorRegistry,
        plain: PlainHistograms,
        traced_share: float,
    ) -> None:
        """
        Args:
            traced_share: of the traces begun here; below 0: no spans are exported.
        """
        self._meters = meters
        self._traces = traces
        self._registry = registry
        self._plain = plain
        self._traced_share = traced_share
        self._scraping = threading.Lock()
        self._meter = meters.get_meter(_SCOPE)
        self.tracer = traces.get_tracer(_SCOPE)

    @classmethod
    def start(
        cls,
        process: str,
        config: TelemetryConfig,
        trace_sample_ratio: float = 0.0,
        span_exporter: SpanExporter | None = None,
    ) -> Telemetry:
        """Wires the SDK. Sets no global provider.

        Args:
            process: as in `ProcessContext.process`: "router-0", "autoscaler". Its role becomes
                service.name ("headrace-router"), it itself service.instance.id.
            config: where OTLP goes, if anywhere.
            trace_sample_ratio: share of traces begun here that are kept; a caller's flag counts anyway.
            span_exporter: takes spans besides OTLP.
        """
        role = process.partition("-")[0]
        resource = Resource.create({"service.name": f"headrace-{role}", _INSTANCE: process})
        registry = CollectorRegistry(auto_describe=False)
        plain = PlainHistograms(_SCOPE)
        readers = [_prometheus_reader(plain, registry)]
        span_exporters = [] if span_exporter is None else [span_exporter]
        if config.otlp_endpoint:
            metric_reader, otlp_spans = _otlp(plain, config.otlp_endpoint)
            readers.append(metric_reader)
            span_exporters.append(otlp_spans)
        traces = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(trace_sample_ratio)), resource=resource, shutdown_on_exit=False
        )
        for exporter in span_exporters:
            traces.add_span_processor(BatchSpanProcessor(exporter))
        meters = MeterProvider(metric_readers=readers, resource=resource, shutdown_on_exit=False)
        return cls(meters, traces, registry, plain, trace_sample_ratio if span_exporters else -1.0)

    def observe(
        self,
        name: str,
        description: str,
        unit: str,
        callback: Callable[[], Observations],
        kind: Literal["counter", "gauge"] = "counter",
    ) -> None:
        """Registers an instrument that is read at export and costs nothing in between.

        Args:
            name: as in Prometheus, without unit and "_total", which are appended there.
            description: one sentence.
            unit: UCUM: "1", "s", "By"; "" for Prometheus names without a unit.
            callback: yields (value, attributes); may be called from another thread, so it reads plain
                numbers and takes no lock.
            kind: a counter only rises.
        """

        def read(_options: CallbackOptions) -> list[Observation]:
            return [Observation(value, attributes) for value, attributes in snapshot(callback)]

        create = self._meter.create_observable_counter if kind == "counter" else self._meter.create_observable_gauge
        create(name, callbacks=[read], unit=unit, description=description)

    def observe_histogram(
        self, name: str, description: str, unit: str, callback: Callable[[], Iterable[HistogramReading]]
    ) -> None:
        """Registers a histogram that the process keeps itself. Arguments are as those of `observe`."""
        self._plain.add(name, description, unit, callback)

    def histogram(self, name: str, description: str, unit: str, bounds: Iterable[float]) -> Histogram:
        """A histogram with the given upper bounds. Record once per bundle, not per request."""
        return self._meter.create_histogram(
            name, unit=unit, description=description, explicit_bucket_boundaries_advisory=sorted(bounds)
        )

    def scrape(self) -> bytes:
        """All metrics in Prometheus text format. Each series is labelled with the process."""
        with self._scraping:  # The reader below hands over between collecting and writing in a queue of its own.
            return generate_latest(self._registry)

    def wants_span(self, traceparent: str) -> bool:
        """Whether a span for this call can be kept. Cheap: no parsing where nothing is exported."""
        if self._traced_share < 0:
            return False
        return sampled(traceparent) if traceparent else self._traced_share > 0

    def start_span(
        self,
        name: str,
        traceparent: str = "",
        kind: trace.SpanKind = trace.SpanKind.INTERNAL,
        attributes: Attributes | None = None,
        start_unix_ns: int | None = None,
    ) -> trace.Span:
        """A span below the caller's; the one who started it ends it."""
        context = _PROPAGATOR.extract({"traceparent": traceparent}) if traceparent else None
        return self.tracer.start_span(
            name, context=context, kind=kind, attributes=dict(attributes or {}), start_time=start_unix_ns
        )

    def shutdown(self) -> None:
        """Exports what is left; gives up after two seconds where no collector answers."""
        # In threads, because the SDK's own limits do not bound the retries of its exporters.
        ending = [threading.Thread(target=end, daemon=True) for end in (self._traces.shutdown, self._meters.shutdown)]
        for thread in ending:
            thread.start()
        give_up = time.monotonic() + _SHUTDOWN_S
        for thread in ending:
            thread.join(max(0.0, give_up - time.monotonic()))


def _prometheus_reader(plain: PlainHistograms, registry: CollectorRegistry) -> MetricReader:
    return PrometheusReader(
        plain,
        scope_info_enabled=False,
        resource_attribute_filter=lambda key: key == _INSTANCE,
        registry=registry,
        cardinality_limits={ObservableCounter: _SERIES, ObservableGauge: _SERIES, SdkHistogram: _SERIES},
    )


def _otlp(plain: PlainHistograms, endpoint: str) -> tuple[MetricReader, SpanExporter]:
    # Imported here: they take a tenth of a second, which processes without OTLP need not spend.
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    insecure = not endpoint.startswith("https://")
    reader = PeriodicReader(plain, OTLPMetricExporter(endpoint=endpoint, insecure=insecure))
    return reader, OTLPSpanExporter(endpoint=endpoint, insecure=insecure)
