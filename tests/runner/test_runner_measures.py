"""What a bundle leaves in metrics and traces."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from headrace.runner.v1 import runner_pb2 as pb
from headrace_common.clock import FakeClock, SystemClock
from headrace_common.config import TelemetryConfig
from headrace_common.telemetry import Telemetry
from headrace_runner.core.lifecycle import Holding
from headrace_runner.domain import LoadPlan, ModelFile
from headrace_runner.engines.registry import import_engines
from headrace_runner.execution import Executor, Job
from headrace_runner.loading import load
from headrace_runner.measures import Measures
from tests.runner.harness import bundle, fake_model

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = f"00-{TRACE}-{PARENT}-01"
UNSAMPLED = f"00-{TRACE}-{PARENT}-00"
HELD = Holding("i-1", "acme", "echo", 3, "1")


class Bench:
    """An executor whose spans are kept."""

    def __init__(self, models: Path) -> None:
        self.clock = FakeClock()
        self.spans = InMemorySpanExporter()
        self.telemetry = Telemetry.start("runner-1", TelemetryConfig(), span_exporter=self.spans)
        self.measures = Measures(self.telemetry, self.clock)
        self.measures.serve(HELD)
        path = fake_model(models, fail_on=13)
        file = ModelFile(path.name, hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size)
        plan = LoadPlan(models, (file,), path.name, "fake")
        self.executor = Executor(
            load(plan, import_engines(True), SystemClock()), self.clock, self.measures, lambda: None
        )

    def execute(self, request: pb.ExecuteRequest, waited_s: float = 0.0) -> pb.BundleResult:
        job = Job(1, request.bundle, self.clock.monotonic(), lambda _job, _result: None)
        self.clock.advance(waited_s)
        return self.executor.execute(job).result


@pytest.fixture
def bench(models: Path) -> Iterator[Bench]:
    made = Bench(models)
    yield made
    made.telemetry.shutdown()


def test_each_sampled_request_gets_a_span_below_its_caller(bench: Bench) -> None:
    bench.execute(bundle(1, rows=(1, 2, 1), traceparents={0: SAMPLED, 1: UNSAMPLED, 2: SAMPLED}), waited_s=0.25)
    bench.telemetry.shutdown()
    spans = bench.spans.get_finished_spans()
    assert [span.name for span in spans] == ["engine.execute"] * 2
    for span in spans:
        assert span.context is not None
        assert span.parent is not None
        assert f"{span.context.trace_id:032x}" == TRACE
        assert f"{span.parent.span_id:016x}" == PARENT
    assert [dict(span.attributes or {})["request.index"] for span in spans] == [0, 2]
    attributes = dict(spans[0].attributes or {})
    assert (attributes["batch.rows"], attributes["wait_us"], attributes["tenant"]) == (4, 250_000, "acme")


def test_a_traced_load_is_a_span_with_its_phases(bench: Bench) -> None:
    begun = bench.clock.monotonic()
    bench.clock.advance(2)
    bench.measures.loaded(SAMPLED, begun, {"verify": 0.5, "session": 1.5})
    bench.telemetry.shutdown()
    (span,) = bench.spans.get_finished_spans()
    assert span.start_time is not None
    assert span.end_time is not None
    assert span.end_time - span.start_time == pytest.approx(2e9, abs=1e6)
    assert dict(span.attributes or {})["phase.session_s"] == 1.5


def test_metrics_are_the_models_and_the_tenants(bench: Bench) -> None:
    bench.execute(bundle(1, rows=(1, 2)), waited_s=0.02)
    bench.execute(bundle(2, fill=13))
    lines = bench.telemetry.scrape().decode().splitlines()

    def value(name: str) -> float:
        (line,) = [line for line in lines if line.startswith(name + "{")]
        assert 'tenant="acme"' in line
        assert 'model="echo"' in line
        return float(line.split()[-1])

    assert value("headrace_runner_bundles_total") == 2
    assert value("headrace_runner_requests_total") == 3
    assert value("headrace_runner_rows_total") == 4
    assert value("headrace_runner_failed_bundles_total") == 1
    assert value("headrace_runner_wait_seconds_count") == 2
    assert value("headrace_runner_wait_seconds_sum") == pytest.approx(0.02)


def test_a_bundle_that_expired_reaches_no_engine(bench: Bench) -> None:
    result = bench.execute(bundle(1, time_left_us=1000), waited_s=0.002)
    assert result.error.code == pb.BUNDLE_ERROR_CODE_DROPPED
    assert bench.measures.bundles == 0


def test_the_answer_says_how_long_it_waited(bench: Bench) -> None:
    result = bench.execute(bundle(1, rows=(2,), time_left_us=10_000), waited_s=0.004)
    assert result.wait_us == pytest.approx(4000, abs=1)
    assert np.frombuffer(result.outputs[0].data, np.float32).tolist() == [0.5] * 4
