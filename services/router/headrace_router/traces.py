"""A span around every traced inference, whichever protocol it came by."""

from __future__ import annotations

from collections.abc import Awaitable

from opentelemetry.trace import SpanKind, StatusCode

from headrace_common.telemetry import Telemetry, sampled, traceparent_of
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

    def statistics(self, entry: RevisionEntry) -> Statistics:
        return self._plane.statistics(entry)

    async def _infer_traced(self, request: InferenceRequest) -> InferenceResult:
        entry = request.revision
        attributes = {
            "headrace.tenant": request.tenant,
            "headrace.model": entry.model,
            "headrace.version": entry.version,
        }
        span = self._telemetry.start_span("infer", request.traceparent, SpanKind.SERVER, attributes)
        request.traceparent = traceparent_of(span)
        try:
            return await self._plane.infer(request)
        except BaseException as error:
            span.set_status(StatusCode.ERROR, type(error).__name__)
            raise
        finally:
            span.end()
