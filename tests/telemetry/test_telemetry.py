"""Metrics and traces of a process, as Prometheus and an exporter see them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from prometheus_client.parser import text_string_to_metric_families

from headrace_common.config import TelemetryConfig
from headrace_common.telemetry import HistogramReading, Telemetry, sampled, traceparent_of

TRACE = "0af7651916cd43dd8448eb211c80319c"
KEPT = f"00-{TRACE}-b7ad6b7169203331-01"
DROPPED = f"00-{TRACE}-b7ad6b7169203331-00"


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def telemetry(spans: InMemorySpanExporter) -> Iterator[Telemetry]:
    started = Telemetry.start("router-0", TelemetryConfig(), span_exporter=spans)
    yield started
    started.shutdown()


def series(telemetry: Telemetry) -> dict[tuple[str, str], float]:
    """(name, model) -> value, of all series of the last scrape that have a model."""
    return {
        (sample.name, sample.labels["model"]): sample.value
        for family in text_string_to_metric_families(telemetry.scrape().decode())
        for sample in family.samples
        if "model" in sample.labels and "le" not in sample.labels
    }


def test_counter_is_read_at_each_scrape(telemetry: Telemetry) -> None:
    counts = {"ocr": 3}
    telemetry.observe("headrace_requests", "Requests.", "1", lambda: ((n, {"model": m}) for m, n in counts.items()))
    assert series(telemetry) == {("headrace_requests_total", "ocr"): 3}
    counts.update(ocr=5, asr=1)
    assert series(telemetry) == {("headrace_requests_total", "ocr"): 5, ("headrace_requests_total", "asr"): 1}


def test_gauge_may_fall_and_its_series_may_end(telemetry: Telemetry) -> None:
    levels = {"ocr": 7, "asr": 1}
    telemetry.observe(
        "headrace_queued", "Waiting.", "", lambda: [(n, {"model": m}) for m, n in levels.items()], kind="gauge"
    )
    assert series(telemetry)["headrace_queued", "ocr"] == 7
    levels["ocr"] = 2
    del levels["asr"]
    assert series(telemetry) == {("headrace_queued", "ocr"): 2}


def test_every_series_names_its_process(telemetry: Telemetry) -> None:
    telemetry.observe("headrace_requests", "Requests.", "1", lambda: [(1, {})])
    text = telemetry.scrape().decode()
    assert 'headrace_requests_total{service_instance_id="router-0"} 1.0' in text
    assert 'service_name="headrace-router"' in text


def test_histogram_kept_by_the_process_is_cumulative_on_the_wire(telemetry: Telemetry) -> None:
    reading = HistogramReading(bounds=(0.1, 1.0), counts=[2, 3, 4], total=12.5, attributes={"model": "ocr"})
    telemetry.observe("headrace_requests", "Requests.", "1", lambda: [(9, {"model": "ocr"})])
    telemetry.observe_histogram("headrace_queue", "Queue.", "s", lambda: [reading])
    buckets = {
        sample.labels["le"]: sample.value
        for family in text_string_to_metric_families(telemetry.scrape().decode())
        for sample in family.samples
        if sample.name == "headrace_queue_seconds_bucket"
    }
    assert buckets == {"0.1": 2, "1.0": 5, "+Inf": 9}
    assert series(telemetry)["headrace_queue_seconds_sum", "ocr"] == 12.5


def test_recorded_histogram_has_its_bounds(telemetry: Telemetry) -> None:
    telemetry.histogram("headrace_compute", "Compute.", "s", [1.0, 0.1]).record(0.5, {"model": "ocr"})
    text = telemetry.scrape().decode()
    assert 'le="0.1",model="ocr",service_instance_id="router-0"} 0.0' in text
    assert 'le="1.0",model="ocr",service_instance_id="router-0"} 1.0' in text


def test_reading_while_a_dict_grows_is_repeated(telemetry: Telemetry) -> None:
    counts = {"ocr": 1}
    passes: list[int] = []

    def read() -> Iterator[tuple[int, dict[str, str]]]:
        passes.append(1)
        for model, count in counts.items():
            if len(passes) == 1:
                counts["asr"] = 2
            yield count, {"model": model}

    telemetry.observe("headrace_requests", "Requests.", "1", read)
    assert len(series(telemetry)) == 2
    assert len(passes) == 2


def test_more_series_than_the_sdk_keeps_by_default_are_exported(telemetry: Telemetry) -> None:
    telemetry.observe("headrace_requests", "R.", "1", lambda: [(1, {"model": f"m{n}"}) for n in range(3000)])
    assert len(series(telemetry)) == 3000


def test_two_processes_in_one_interpreter_do_not_meet() -> None:
    first = Telemetry.start("router-0", TelemetryConfig())
    second = Telemetry.start("router-1", TelemetryConfig())
    first.observe("headrace_requests", "Requests.", "1", lambda: [(1, {"model": "ocr"})])
    assert series(first)
    assert not series(second)
    first.shutdown()
    second.shutdown()


@pytest.mark.parametrize(
    ("traceparent", "kept"),
    [(KEPT, True), (DROPPED, False), (KEPT[:-1] + "3", True), (KEPT[:-1] + "2", False), ("", False), ("00-", False)],
    ids=["kept", "dropped", "other flag too", "other flag only", "none", "cut off"],
)
def test_sampled_reads_the_flag(traceparent: str, kept: bool) -> None:
    assert sampled(traceparent) is kept


def test_span_hangs_below_the_callers_and_is_handed_on(telemetry: Telemetry, spans: InMemorySpanExporter) -> None:
    assert telemetry.wants_span(KEPT)
    span = telemetry.start_span("infer", KEPT, SpanKind.SERVER, {"model": "ocr"})
    handed_on = traceparent_of(span)
    span.end()
    telemetry.shutdown()
    (exported,) = spans.get_finished_spans()
    assert f"{exported.context.trace_id:032x}" == TRACE
    assert handed_on == f"00-{TRACE}-{exported.context.span_id:016x}-01"
    assert sampled(handed_on)


def test_span_that_is_not_kept_is_not_handed_on(telemetry: Telemetry, spans: InMemorySpanExporter) -> None:
    assert not telemetry.wants_span(DROPPED)
    span = telemetry.start_span("infer", DROPPED)
    assert traceparent_of(span) == ""
    span.end()
    telemetry.shutdown()
    assert spans.get_finished_spans() == ()


@pytest.mark.parametrize(("ratio", "wants"), [(0.0, False), (0.5, True)])
def test_traces_begin_here_only_if_a_share_is_configured(
    spans: InMemorySpanExporter, ratio: float, wants: bool
) -> None:
    telemetry = Telemetry.start("router-0", TelemetryConfig(), ratio, spans)
    assert telemetry.wants_span("") is wants
    telemetry.shutdown()


def test_without_an_exporter_no_span_is_wanted() -> None:
    telemetry = Telemetry.start("router-0", TelemetryConfig(), 1.0)
    assert not telemetry.wants_span(KEPT)
    telemetry.shutdown()
