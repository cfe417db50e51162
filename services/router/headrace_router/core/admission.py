"""Who may enter: concurrency, rate, queue and budget, from leased limits, in memory.

The autoscaler leases each router its share of every limit. A lease that is not renewed falls back to
its floor, the part that no other router can have.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from math import inf

from headrace_common.errors import QueueFull, QuotaExceeded

BURST_S = 1.0
"""A bucket holds this many seconds of its rate: what may come at once after a silence."""
DEFAULT_RETRY_S = 0.1
"""Advice to come back, where there is nothing to compute it from."""


class Budget(IntEnum):
    """State of a budget. REFUSE: new requests are refused; QUEUE: they wait, unsent."""

    WITHIN = 0
    REFUSE = 1
    QUEUE = 2


@dataclass(frozen=True, slots=True)
class Limits:
    """None: no limit."""

    concurrency: int | None = None
    requests_per_second: float | None = None
    queue_length: int | None = None
    queue_bytes: int | None = None

    def or_else(self, other: Limits) -> Limits:
        """These limits, and the other's where these say nothing."""
        return Limits(
            other.concurrency if self.concurrency is None else self.concurrency,
            other.requests_per_second if self.requests_per_second is None else self.requests_per_second,
            other.queue_length if self.queue_length is None else self.queue_length,
            other.queue_bytes if self.queue_bytes is None else self.queue_bytes,
        )


@dataclass(frozen=True, slots=True)
class Lease:
    """A share of a tenant's limits, or of its limits for one model.

    Attributes:
        floor: holds when the lease has expired; where it says nothing the lease's limits stay.
        ttl_s: from receipt; None: does not expire.
        weight: share of a shared queue.
    """

    limits: Limits
    floor: Limits = Limits()
    ttl_s: float | None = None
    budget: Budget = Budget.WITHIN
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Queued:
    """What of a limit's subject is queued."""

    length: int
    size_bytes: int


class Limiter:
    """One lease's state: what is in hand and what the bucket holds. Without a lease it only counts.

    Attributes:
        open: nothing is limited: everybody may enter, and `in_hand` is all that has to be kept.
    """

    __slots__ = ("_expires", "_limits", "_stamp", "_tokens", "in_hand", "lease", "open", "subject")

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self.in_hand = 0
        self.lease: Lease | None = None
        self.open = True
        self._limits = Limits()
        self._expires = inf
        self._tokens = 0.0
        self._stamp = 0.0

    @property
    def weight(self) -> float:
        return self.lease.weight if self.lease else 1.0

    @property
    def budget(self) -> Budget:
        return self.lease.budget if self.lease else Budget.WITHIN

    def set_lease(self, lease: Lease | None, now: float) -> None:
        """A renewal keeps what the bucket holds, so that leases cannot be used to refill it."""
        rate_was = self._limits.requests_per_second
        self._fill(now)
        self.lease = lease
        self._limits = lease.limits if lease else Limits()
        self._expires = inf if lease is None or lease.ttl_s is None else now + lease.ttl_s
        # An expired lease keeps the limits of its floor: a floor that limits is never open.
        self.open = lease is None or (lease.limits, lease.floor, lease.budget) == (Limits(), Limits(), Budget.WITHIN)
        rate = self._limits.requests_per_second
        if rate is not None:
            self._tokens = _burst(rate) if rate_was is None else min(self._tokens, _burst(rate))
        self._stamp = now

    def refusal(
        self, now: float, size_bytes: int, queued: Iterable[Queued], expected_s: float | None
    ) -> Refusal | None:
        """Why one more request of this size may not enter; None: it may. Takes nothing."""
        if self.lease is None:
            return None
        if now >= self._expires:
            self._expire(now)
        if self.lease.budget is Budget.REFUSE:
            return Refusal("budget", "its budget is spent", None)
        limits = self._limits
        if limits.concurrency is not None and self.in_hand >= limits.concurrency:
            retry_after_s = (expected_s or DEFAULT_RETRY_S) if limits.concurrency else None
            return Refusal("concurrency", f"{limits.concurrency} requests at once are in hand", retry_after_s)
        if limits.queue_length is not None or limits.queue_bytes is not None:
            refusal = _queue_refusal(limits, size_bytes, queued, expected_s)
            if refusal is not None:
                return refusal
        return self._rate_refusal(now)

    def enter(self) -> None:
        """Books an admitted request."""
        self.in_hand += 1
        if self._limits.requests_per_second is not None:
            self._tokens -= 1.0

    def rate_refusal(self, now: float) -> Refusal | None:
        """Why one more request may not come, whatever it costs; None: it may. Takes nothing."""
        if now >= self._expires:
            self._expire(now)
        return self._rate_refusal(now)

    def spend_rate(self) -> None:
        """Books a request that nobody has to execute."""
        if self._limits.requests_per_second is not None:
            self._tokens -= 1.0

    def _rate_refusal(self, now: float) -> Refusal | None:
        rate = self._limits.requests_per_second
        if rate is None:
            return None
        self._fill(now)
        if self._tokens >= 1.0:
            return None
        next_s = (1.0 - self._tokens) / rate if rate > 0 else None
        return Refusal("requests_per_second", f"{rate:g} requests per second are used up", next_s)

    def _fill(self, now: float) -> None:
        rate = self._limits.requests_per_second
        if rate is not None:
            self._tokens = min(_burst(rate), self._tokens + max(0.0, now - self._stamp) * rate)
        self._stamp = now

    def _expire(self, now: float) -> None:
        lease = self.lease
        if lease is not None:
            self._fill(now)
            self._limits = lease.floor.or_else(lease.limits)
            self._expires = inf
            rate = self._limits.requests_per_second
            if rate is not None:
                self._tokens = min(self._tokens, _burst(rate))


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why not, and when a retry can succeed (None: time alone does not help)."""

    dimension: str
    reason: str
    retry_after_s: float | None

    def error(self, subject: str) -> QuotaExceeded:
        advice = "" if self.retry_after_s is None else f"; retry in {self.retry_after_s:.3f} s"
        return QuotaExceeded(
            f"{subject} is over its limit of {self.dimension}: {self.reason}{advice}",
            subject=subject,
            dimension=self.dimension,
            retry_after_s=self.retry_after_s,
        )


@dataclass(frozen=True, slots=True)
class QueueBound:
    """How much may wait for one revision in this router, whoever sent it."""

    length: int
    size_bytes: int

    def refusal(self, model: str, length: int, size_bytes: int, expected_s: float | None) -> QueueFull | None:
        """`size_bytes` is what would be queued, with the request that asks."""
        if length >= self.length:
            what = f"{length} requests wait"
        elif length and size_bytes > self.size_bytes:
            what = f"over {self.size_bytes} bytes would wait"
        else:
            return None
        retry_after_s = max(DEFAULT_RETRY_S, (expected_s or 0.0) * min(length, 100))
        return QueueFull(f"the queue of model {model!r} is full: {what}; retry later", retry_after_s=retry_after_s)


def _burst(rate: float) -> float:
    """At least one request at once, unless the rate is zero: that is none at all."""
    return max(1.0, rate * BURST_S) if rate > 0 else 0.0


def _queue_refusal(
    limits: Limits, size_bytes: int, queued: Iterable[Queued], expected_s: float | None
) -> Refusal | None:
    length = total_bytes = 0
    for part in queued:
        length += part.length
        total_bytes += part.size_bytes
    retry_after_s = expected_s or DEFAULT_RETRY_S
    if limits.queue_length is not None and length >= limits.queue_length:
        return Refusal("queue_length", f"{length} of its requests wait", retry_after_s)
    if limits.queue_bytes is not None and total_bytes + size_bytes > limits.queue_bytes:
        retry = retry_after_s if total_bytes else None
        return Refusal("queue_bytes", f"{total_bytes} bytes of its requests wait", retry)
    return None
