"""Metrics and traces on the wire of OTLP, at a collector in this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.metrics.v1 import metrics_pb2
from opentelemetry.trace import SpanKind

from headrace_common.config import TelemetryConfig
from headrace_common.telemetry import HistogramReading, Telemetry

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"


@dataclass
class Collector(metrics_service_pb2_grpc.MetricsServiceServicer, trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps what it gets. `url` is where it listens."""

    url: str = ""
    resource_metrics: list[metrics_pb2.ResourceMetrics] = field(default_factory=list)
    resource_spans: list[Any] = field(default_factory=list)

    def Export(self, request: Any, context: Any) -> Any:
        if isinstance(request, trace_service_pb2.ExportTraceServiceRequest):
            self.resource_spans.extend(request.resource_spans)
            return trace_service_pb2.ExportTraceServiceResponse()
        self.resource_metrics.extend(request.resource_metrics)
        return metrics_service_pb2.ExportMetricsServiceResponse()

    def metric(self, name: str) -> metrics_pb2.Metric:
        found = [
            metric
            for resource in self.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
        ]
        return found[-1]


@pytest.fixture
def collector() -> Iterator[Collector]:
    collecting = Collector()
    with ThreadPoolExecutor(2) as threads:
        server = grpc.server(threads)
        metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(collecting, server)
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collecting, server)
        collecting.url = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        try:
            yield collecting
        finally:
            server.stop(None).wait()


def plain(attributes: Any) -> dict[str, str]:
    return {one.key: one.value.string_value for one in attributes if isinstance(one, common_pb2.KeyValue)}


def start(url: str) -> Telemetry:
    telemetry = Telemetry.start("router-0", TelemetryConfig(otlp_endpoint=url))
    telemetry.observe("headrace_requests", "Requests.", "1", lambda: [(3, {"model": "ocr"})])
    reading = HistogramReading(bounds=(0.1, 1.0), counts=[2, 3, 4], total=12.5, attributes={"model": "ocr"})
    telemetry.observe_histogram("headrace_queue", "Queue.", "s", lambda: [reading])
    return telemetry


@pytest.mark.parametrize("form", [str, lambda url: url.removeprefix("http://")], ids=["URL", "HOST:PORT"])
def test_a_stop_exports_every_count_so_far(collector: Collector, form: Callable[[str], str]) -> None:
    start(form(collector.url)).shutdown()
    about = plain(collector.resource_metrics[-1].resource.attributes)
    assert (about["service.name"], about["service.instance.id"]) == ("headrace-router", "router-0")
    counter = collector.metric("headrace_requests").sum
    assert counter.is_monotonic
    assert counter.aggregation_temporality == metrics_pb2.AGGREGATION_TEMPORALITY_CUMULATIVE
    [point] = counter.data_points
    assert (point.as_int, plain(point.attributes)) == (3, {"model": "ocr"})


def test_a_histogram_kept_by_the_process_says_nothing_that_it_does_not_know(collector: Collector) -> None:
    start(collector.url).shutdown()
    metric = collector.metric("headrace_queue")
    assert (metric.unit, metric.description) == ("s", "Queue.")
    [point] = metric.histogram.data_points
    assert (point.count, point.sum, list(point.bucket_counts)) == (9, 12.5, [2, 3, 4])
    assert list(point.explicit_bounds) == [0.1, 1.0]
    assert not point.HasField("min")
    assert not point.HasField("max")


def test_a_callers_trace_goes_on(collector: Collector) -> None:
    telemetry = start(collector.url)
    assert telemetry.wants_span(f"00-{TRACE}-{CALLER}-01")
    telemetry.start_span("infer", f"00-{TRACE}-{CALLER}-01", SpanKind.SERVER, {"model": "ocr"}).end()
    telemetry.shutdown()
    [resource] = collector.resource_spans
    assert plain(resource.resource.attributes)["service.instance.id"] == "router-0"
    [span] = resource.scope_spans[0].spans
    assert (span.trace_id.hex(), span.parent_span_id.hex(), span.name) == (TRACE, CALLER, "infer")
    assert plain(span.attributes) == {"model": "ocr"}


def test_a_collector_that_is_not_there_does_not_hold_up_the_stop() -> None:
    telemetry = start("http://127.0.0.1:1")
    telemetry.start_span("infer", f"00-{TRACE}-{CALLER}-01").end()
    began = time.monotonic()
    telemetry.shutdown()
    assert time.monotonic() - began < 4
    assert not [thread for thread in threading.enumerate() if "Otlp" in thread.name and not thread.daemon]
