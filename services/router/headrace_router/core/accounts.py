"""What is counted: plain integers and floats, added to in passing and read by whoever reports.

Everything here only rises, except levels (`queued`, `in_flight`); a report is the difference of two
readings, so that nothing is lost when one of them does not arrive.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from headrace_router.core.admission import Limiter


@dataclass(slots=True)
class Totals:
    """Sums of one tenant's use of one model since the start.

    Attributes:
        cache_hits: answered from the response cache. They are arrivals, and completed, too.
        coalesced: answered with what an equal request got; likewise.
        spared_rows: of both.
    """

    arrivals: int = 0
    rows: int = 0
    completed: int = 0
    failed: int = 0
    within_slo: int = 0
    bundles: int = 0
    input_bytes: int = 0
    output_bytes: int = 0
    service_s: float = 0.0
    queue_s: float = 0.0
    cache_hits: int = 0
    coalesced: int = 0
    cache_misses: int = 0
    spared_rows: int = 0

    @property
    def spared(self) -> int:
        """Requests that were answered without an execution of their own."""
        return self.cache_hits + self.coalesced

    def add(self, other: Totals) -> None:
        for name in TOTAL_NAMES:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def minus(self, other: Totals) -> Totals:
        return Totals(*(getattr(self, name) - getattr(other, name) for name in TOTAL_NAMES))


TOTAL_NAMES = tuple(part.name for part in fields(Totals))


@dataclass(slots=True)
class Account:
    """One tenant's use of one revision.

    Attributes:
        tenant_limit, model_limit: what admission asks.
        outcomes: why requests were not answered with a result: reason -> count.
        queued: its requests that are admitted and not sent; `held` of them wait for a budget, or for the step before.
        oldest_wait_s: of those that wait for an instance, at the last sweep.
        following: its requests that wait for the answer of an equal one.
    """

    tenant: str
    model: str
    revision: int
    tenant_limit: Limiter
    model_limit: Limiter
    totals: Totals = field(default_factory=Totals)
    outcomes: dict[str, int] = field(default_factory=dict)
    queued: int = 0
    queued_bytes: int = 0
    in_flight: int = 0
    held: int = 0
    following: int = 0
    oldest_wait_s: float = 0.0
    reported: Totals = field(default_factory=Totals)
    reported_outcomes: dict[str, int] = field(default_factory=dict)

    @property
    def idle(self) -> bool:
        """Nothing in hand and nothing unreported: it may be forgotten."""
        return (
            not self.queued
            and not self.in_flight
            and not self.following
            and self.totals == self.reported
            and self.outcomes == self.reported_outcomes
        )

    def count(self, outcome: str) -> None:
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1


@dataclass(slots=True)
class RevisionStatistics:
    """See `ports.Statistics`."""

    requests: int = 0
    failures: int = 0
    rows: int = 0
    bundles: int = 0
    request_ns: int = 0
    failure_ns: int = 0
    queue_ns: int = 0
    compute_ns: int = 0
    last_inference_unix_ms: int = 0
    cache_hits: int = 0
    cache_hit_ns: int = 0
    coalesced: int = 0
    coalesced_ns: int = 0
    cache_misses: int = 0
    cache_miss_ns: int = 0
    batches: dict[int, tuple[int, int]] = field(default_factory=dict)

    def add_bundle(self, requests: int, rows: int, request_s: float, queue_s: float, compute_s: float) -> None:
        """Adds an executed bundle: sums over its answered requests, and its engine time."""
        compute_ns = int(compute_s * 1e9)
        self.requests += requests
        self.rows += rows
        self.bundles += 1
        self.request_ns += int(request_s * 1e9)
        self.queue_ns += int(queue_s * 1e9)
        self.compute_ns += compute_ns * requests
        bundles, spent_ns = self.batches.get(rows, (0, 0))
        self.batches[rows] = (bundles + 1, spent_ns + compute_ns)
