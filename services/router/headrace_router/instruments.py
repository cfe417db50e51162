"""The router's metrics: readings of what the plane counts anyway."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from headrace_common.clock import Clock
from headrace_common.histogram import Histogram
from headrace_common.telemetry import HistogramReading, Observations, Telemetry
from headrace_router.cache import CachedPlane
from headrace_router.cache.store import StoreCounts
from headrace_router.core.accounts import Totals
from headrace_router.measures import Counters, Use
from headrace_router.plane import Plane
from headrace_router.transport import Transports

# All instruments of one scrape are answered from one reading.
_READING_AGE_S = 0.2

_TOTALS: tuple[tuple[str, str, str, Callable[[Totals], float]], ...] = (
    ("headrace_request_arrivals", "Requests that came, refused ones too.", "1", lambda totals: totals.arrivals),
    ("headrace_request_rows", "Rows (batch entries) of the requests that came.", "1", lambda totals: totals.rows),
    ("headrace_request_within_slo", "Answered within the model's SLO.", "1", lambda totals: totals.within_slo),
    ("headrace_bundles", "Bundles executed, booked to their first request's tenant.", "1", lambda t: t.bundles),
    ("headrace_input", "Tensor bytes of answered requests.", "By", lambda totals: totals.input_bytes),
    ("headrace_output", "Tensor bytes sent.", "By", lambda totals: totals.output_bytes),
    ("headrace_request_service", "Engine time of answered requests, by rows.", "s", lambda totals: totals.service_s),
    ("headrace_cache_hits", "Answered from the response cache.", "1", lambda totals: totals.cache_hits),
    ("headrace_cache_coalesced", "Answered with what an equal request got.", "1", lambda totals: totals.coalesced),
    ("headrace_cache_misses", "Looked up in vain.", "1", lambda totals: totals.cache_misses),
    ("headrace_request_queue", "Time that answered requests waited in the queue.", "s", lambda totals: totals.queue_s),
)

_STORE: tuple[tuple[str, str, Callable[[StoreCounts], int]], ...] = (
    ("headrace_cache_stored", "Answers that the cache took.", lambda counts: counts.stored),
    ("headrace_cache_too_large", "Answers that were too large for it.", lambda counts: counts.too_large),
    ("headrace_cache_evictions", "Answers that made room for others.", lambda counts: counts.evictions),
    ("headrace_cache_errors", "Lookups and writes that failed, and damaged values.", lambda counts: counts.errors),
    ("headrace_cache_skipped", "Lookups and writes that were not tried.", lambda counts: counts.skipped),
)


def register(telemetry: Telemetry, plane: Plane, clock: Clock) -> None:
    """Makes the plane's counts visible."""
    readings = _Readings(plane, clock)
    for name, description, unit, read in _TOTALS:
        telemetry.observe(name, description, unit, readings.of_totals(read))
    telemetry.observe("headrace_in_hand_requests", "Not yet answered.", "", lambda: [(plane.in_hand, {})], "gauge")
    telemetry.observe(
        "headrace_autoscaler_connected",
        "1 while there is a stream to an autoscaler.",
        "",
        lambda: [(int(plane.connected), {})],
        "gauge",
    )
    telemetry.observe("headrace_requests", "Requests that ended, by outcome.", "1", readings.outcomes)
    telemetry.observe(
        "headrace_queued_requests", "Requests that wait.", "", readings.of_uses(lambda use: use.queued), kind="gauge"
    )
    telemetry.observe(
        "headrace_in_flight_requests",
        "Requests at runners.",
        "",
        readings.of_uses(lambda use: use.in_flight),
        kind="gauge",
    )
    telemetry.observe("headrace_runner_slots", "Bundles that runners hold or could take.", "", readings.slots, "gauge")
    telemetry.observe(
        "headrace_bundle_transports",
        "Bundles to runners and results from them, by how their tensors passed.",
        "1",
        lambda: _by_transport(plane.transports),
    )
    telemetry.observe(
        "headrace_open_sequences",
        "Sequences of stateful models.",
        "",
        lambda: [(count, {"model": model}) for model, count in plane.open_sequences().items()],
        "gauge",
    )
    telemetry.observe(
        "headrace_sequence_state",
        "State of open sequences.",
        "By",
        lambda: [(size, {"tenant": tenant}) for tenant, size in list(plane.sequences.bytes_of.items())],
        "gauge",
    )
    for name, description, unit, pick in (
        ("headrace_queue", "Time in the queue.", "s", lambda counters: counters.measures.queue_seconds),
        ("headrace_compute", "Time of bundles in the engine.", "s", lambda counters: counters.measures.compute_seconds),
        ("headrace_batch_rows", "Rows per bundle.", "", lambda counters: counters.measures.batch_size),
    ):
        telemetry.observe_histogram(name, description, unit, readings.of_histogram(pick))


def _by_transport(transports: Transports) -> Observations:
    for direction, counts in (("bundle", transports.bundles), ("result", transports.results)):
        for transport, count in counts.items():
            yield count, {"direction": direction, "transport": transport}


def register_cache(telemetry: Telemetry, cached: CachedPlane) -> None:
    """Makes visible how the response cache does, whoever uses it."""

    def of(read: Callable[[StoreCounts], int]) -> Callable[[], Observations]:
        return lambda: [(read(cached.counts()), {})]

    telemetry.observe("headrace_cache_entries", "Answers kept.", "", of(lambda counts: counts.entries), "gauge")
    telemetry.observe("headrace_cache_size", "Bytes kept.", "By", of(lambda counts: counts.size_bytes), "gauge")
    telemetry.observe(
        "headrace_cache_following_requests", "Wait for an equal one.", "", lambda: [(cached.waiting, {})], "gauge"
    )
    for name, description, read in _STORE:
        telemetry.observe(name, description, "1", of(read))


class _Readings:
    def __init__(self, plane: Plane, clock: Clock) -> None:
        self._plane = plane
        self._clock = clock
        self._read_at = float("-inf")
        self._counters = plane.counters()

    def now(self) -> Counters:
        now = self._clock.monotonic()
        if now - self._read_at > _READING_AGE_S:
            self._read_at = now
            self._counters = self._plane.counters()
        return self._counters

    def of_totals(self, read: Callable[[Totals], float]) -> Callable[[], Observations]:
        return self.of_uses(lambda use: read(use.totals))

    def of_uses(self, read: Callable[[Use], float]) -> Callable[[], Observations]:
        return lambda: [(read(use), {"tenant": use.tenant, "model": use.model}) for use in self.now().uses]

    def of_histogram(self, pick: Callable[[Counters], Histogram]) -> Callable[[], Iterable[HistogramReading]]:
        def read() -> list[HistogramReading]:
            histogram = pick(self.now())
            return [HistogramReading(histogram.bounds, histogram.counts, histogram.total, {})]

        return read

    def outcomes(self) -> Observations:
        for use in self.now().uses:
            labels = {"tenant": use.tenant, "model": use.model}
            yield use.totals.completed, {**labels, "outcome": "ok"}
            for outcome, count in use.outcomes.items():
                yield count, {**labels, "outcome": outcome}

    def slots(self) -> Observations:
        for model, (free, outstanding) in self.now().runner_slots.items():
            yield free, {"model": model, "state": "free"}
            yield outstanding, {"model": model, "state": "taken"}
