"""A span around every traced inference, whichever protocol it came by."""

from __future__ import annotations

from collections.abc import Awaitable

from opentelemetry.trace import Span, SpanKind, StatusCode

from headrace_common.telemetry import Telemetry, sampled, traceparent_of
from headrace_router.core.waiting import Answer
from headrace_router.domain import InferenceRequest, InferenceResult, RevisionEntry
from headrace_router.ports import DataPlane, Statistics


class TracedPlane:
    """A `ports.DataPlane` over another one.

    The caller's flag decides (W3C trace context): its sampled trace gets a span, and the runner's span
    below that; its unsampled one gets none. Traces of our own begin as `router.trace_sample_ratio` says.
    """

    def __init__(self, plane: DataPlane, telemetry: Telemetry) -> None:
        self._plane = plane
        self._wants_span = telemetry.wants_span
        self._telemetry = telemetry

    def infer(self, request: InferenceRequest) -> Awaitable[InferenceResult]:
        """See `ports.DataPlane.infer`. Adds no coroutine of its own to what is not traced."""
        traceparent = request.traceparent
        if self._wants_span(traceparent):
            return self._infer_traced(request)
        if traceparent and not sampled(traceparent):
            request.traceparent = ""
        return self._plane.infer(request)

    def submit(self, request: InferenceRequest, answer: Answer) -> object:
        """See `ports.DataPlane.submit`."""
        traceparent = request.traceparent
        if self._wants_span(traceparent):
            answer = _TracedAnswer(answer, self._start_span(request))
        elif traceparent and not sampled(traceparent):
            request.traceparent = ""
        try:
            return self._plane.submit(request, answer)
        except BaseException as error:
            if isinstance(answer, _TracedAnswer):
                answer.end_span(error)
            raise

    def statistics(self, entry: RevisionEntry) -> Statistics:
        return self._plane.statistics(entry)

    async def _infer_traced(self, request: InferenceRequest) -> InferenceResult:
        span = self._start_span(request)
        try:
            return await self._plane.infer(request)
        except BaseException as error:
            span.set_status(StatusCode.ERROR, type(error).__name__)
            raise
        finally:
            span.end()

    def _start_span(self, request: InferenceRequest) -> Span:
        entry = request.revision
        attributes = {
            "headrace.tenant": request.tenant,
            "headrace.model": entry.model,
            "headrace.version": entry.version,
        }
        span = self._telemetry.start_span("infer", request.traceparent, SpanKind.SERVER, attributes)
        request.traceparent = traceparent_of(span)
        return span


class _TracedAnswer:
    """Ends a span when the answer is set."""

    def __init__(self, answer: Answer, span: Span) -> None:
        self._answer = answer
        self._span = span
        self.done = answer.done

    def set_result(self, result: InferenceResult, /) -> None:
        self._span.end()
        self._answer.set_result(result)

    def set_exception(self, exception: BaseException, /) -> None:
        self.end_span(exception)
        self._answer.set_exception(exception)

    def end_span(self, error: BaseException) -> None:
        self._span.set_status(StatusCode.ERROR, type(error).__name__)
        self._span.end()
