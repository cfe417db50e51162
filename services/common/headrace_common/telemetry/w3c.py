"""W3C trace context, as far as it is needed without the SDK."""

from __future__ import annotations

from opentelemetry.trace import Span

_LENGTH = 55
_FLAGS_SEPARATOR = 52
_LOW_FLAG_DIGIT = 54


def sampled(traceparent: str) -> bool:
    """Whether a traceparent says that its trace is kept: bit 0 of the flags.

    Looks at the flags only; whoever continues the trace parses the rest.
    """
    return (
        len(traceparent) >= _LENGTH
        and traceparent[_FLAGS_SEPARATOR] == "-"
        and traceparent[_LOW_FLAG_DIGIT] in "13579bdf"
    )


def traceparent_of(span: Span) -> str:
    """What to send along so that the callee's spans hang below `span`; "" if it is not kept."""
    context = span.get_span_context()
    if not (context.is_valid and context.trace_flags.sampled):
        return ""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-01"
