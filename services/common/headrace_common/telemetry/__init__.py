"""OpenTelemetry, wired once per process: metrics and traces, Prometheus text and OTLP.

A request must cost next to nothing: count in plain integers and let `Telemetry.observe` and
`observe_histogram` read them at export; make spans only where `wants_span` says so.
"""

from headrace_common.telemetry.plain import HistogramReading
from headrace_common.telemetry.process import Attributes, Observations, Telemetry
from headrace_common.telemetry.w3c import sampled, traceparent_of

__all__ = ["Attributes", "HistogramReading", "Observations", "Telemetry", "sampled", "traceparent_of"]
