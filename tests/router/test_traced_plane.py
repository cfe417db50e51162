"""Spans of requests that are submitted, and answered where the submitter said."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from headrace_common.errors import Cancelled, QueueFull
from headrace_router.domain import InferenceRequest, InferenceResult, RevisionEntry
from headrace_router.traces import TracedPlane

SAMPLED, UNSAMPLED = (f"00-{'a' * 32}-{'b' * 16}-0{flag}" for flag in (1, 0))


class Bench:
    """A traced plane over one that keeps what it is given; `spans` are those that have ended."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        tracer = provider.get_tracer("test")
        telemetry: Any = SimpleNamespace(
            wants_span=lambda traceparent: traceparent == SAMPLED,
            start_span=lambda name, _parent, kind, attributes: tracer.start_span(name, None, kind, attributes),
        )
        self.error: Exception | None = None
        self.submitted: list[tuple[InferenceRequest, Any]] = []
        self.plane = TracedPlane(self, telemetry)  # type: ignore[arg-type]

    def submit(self, request: InferenceRequest, answer: Any) -> None:
        if self.error is not None:
            raise self.error
        self.submitted.append((request, answer))

    @property
    def spans(self) -> list[tuple[str, str | None]]:
        return [(span.name, span.status.description) for span in self.exporter.get_finished_spans()]


class Answer:
    """What was set on it."""

    outcome: object = None

    def done(self) -> bool:
        return self.outcome is not None

    def set_result(self, result: InferenceResult) -> None:
        self.outcome = result

    def set_exception(self, exception: BaseException) -> None:
        self.outcome = exception


def request_with(entry: RevisionEntry, traceparent: str) -> InferenceRequest:
    return InferenceRequest(entry, "acme", [], (), 1, 0.0, traceparent=traceparent)


def test_a_span_ends_with_the_answer(entry: RevisionEntry) -> None:
    bench, answers = Bench(), [Answer(), Answer()]
    for answer in answers:
        bench.plane.submit(request_with(entry, SAMPLED), answer)
    (request, first), (_, second) = bench.submitted
    assert request.traceparent not in ("", SAMPLED)  # The runner's span is below ours.
    assert (bench.spans, first.done()) == ([], False)
    result, error = InferenceResult([]), Cancelled("gone")
    first.set_result(result)
    second.set_exception(error)
    assert [answer.outcome for answer in answers] == [result, error]
    assert bench.spans == [("infer", None), ("infer", "Cancelled")]


def test_a_refusal_ends_its_span_and_sets_no_answer(entry: RevisionEntry) -> None:
    bench, answer = Bench(), Answer()
    bench.error = QueueFull("full", retry_after_s=1)
    with pytest.raises(QueueFull):
        bench.plane.submit(request_with(entry, SAMPLED), answer)
    assert (bench.spans, answer.done()) == ([("infer", "QueueFull")], False)


def test_what_is_not_sampled_goes_on_as_it_is_and_without_a_trace(entry: RevisionEntry) -> None:
    bench, answer = Bench(), Answer()
    bench.plane.submit(request_with(entry, UNSAMPLED), answer)
    ((request, given),) = bench.submitted
    assert (request.traceparent, given is answer, bench.spans) == ("", True, [])
