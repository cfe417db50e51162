"""Who may enter: concurrency, rate, queue and budget, from leased limits, in memory.

The autoscaler leases each router its share of every limit. A lease that is not renewed falls back to
its floor, the part that no other router can have.

Admitting is a few comparisons and makes no object: rates are kept as GCRA (the virtual scheduling form of
the token bucket, ITU-T I.371), whose whole state is the moment at which the bucket would be full again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum
from math import inf
from typing import Protocol

from headrace_common.errors import QuotaExceeded
from headrace_router.core.comebacks import Comebacks, Totals

LATE_BUDGET_S = 5.0
"""A spent budget is believed for so long after its period has ended: somebody should have told of the new one."""
SOONEST_RETRY_S = 1.0
"""Of a budget that returns any moment: routers hear of it a little later."""
BURST_S = 1.0
"""A bucket holds this many seconds of its rate: what may come at once after a silence."""
_UNLIMITED = 1 << 62
_ROUNDING_S = 1e-9
"""Sums of intervals may come out a little above their product."""


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
        budget_reason: for people: what of the budget is spent.
        budget_returns_s: when it is whole again, seconds from receipt; None: not known.
    """

    limits: Limits
    floor: Limits = Limits()
    ttl_s: float | None = None
    budget: Budget = Budget.WITHIN
    weight: float = 1.0
    budget_reason: str = ""
    budget_returns_s: float | None = None


class Occupant(Protocol):
    """What a limiter looks at of those who are admitted under it: what of theirs waits, and their counts."""

    queued: int
    queued_bytes: int

    @property
    def totals(self) -> Totals: ...


class Limiter:
    """One lease's state: what is in hand and what the bucket holds. Without a lease it only counts.

    Attributes:
        open: nothing is limited: everybody may enter, and `in_hand` is all that has to be kept.
        holds: the budget is spent, and what is admitted waits unsent.
        occupants: who is admitted under it; kept by whoever opens and closes them.
    """

    __slots__ = (
        "_bounds_queue",
        "_budget_returns",
        "_budget_until",
        "_comebacks",
        "_concurrency",
        "_expires",
        "_full_at",
        "_interval_s",
        "_limits",
        "_slack_s",
        "_texts",
        "holds",
        "in_hand",
        "lease",
        "occupants",
        "open",
        "subject",
    )

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self.in_hand = 0
        self.lease: Lease | None = None
        self.open = True
        self.holds = False
        self.occupants: list[Occupant] = []
        self._expires = inf
        self._budget_returns: float | None = None
        self._budget_until = inf
        # When the bucket is full again; admitted is who comes no more than the slack before that.
        self._full_at = -inf
        self._comebacks = Comebacks()
        self._obey(Limits())

    @property
    def weight(self) -> float:
        return self.lease.weight if self.lease else 1.0

    def set_lease(self, lease: Lease | None, now: float) -> None:
        """A renewal keeps what the bucket holds, so that leases cannot be used to refill it."""
        self.lease = lease
        self._expires = inf if lease is None or lease.ttl_s is None else now + lease.ttl_s
        self._change(lease.limits if lease else Limits(), now)
        # An expired lease keeps the limits of its floor: a floor that limits is never open.
        self.open = lease is None or (lease.limits, lease.floor, lease.budget) == (Limits(), Limits(), Budget.WITHIN)
        self.holds = lease is not None and lease.budget is Budget.QUEUE
        returns_s = lease.budget_returns_s if lease else None
        self._budget_returns = None if returns_s is None else now + returns_s
        spent = lease is not None and lease.budget is not Budget.WITHIN
        self._budget_until = now + returns_s + LATE_BUDGET_S if spent and returns_s is not None else inf

    def admits(self, now: float, size_bytes: int) -> bool:
        """Whether one more request of this size may enter. Takes nothing: see `enter` and `refusal`."""
        if now >= self._expires:
            self._expire(now)
        if now >= self._budget_until:
            self._forget_budget()
        if self.in_hand >= self._concurrency or self._full_at > now + self._slack_s:
            return False
        return not self._bounds_queue or self._queue_shortage(size_bytes) is None

    def enter(self, now: float) -> None:
        """Books an admitted request."""
        self.in_hand += 1
        interval_s = self._interval_s
        if interval_s:
            full_at = self._full_at
            self._full_at = (full_at if full_at > now else now) + interval_s

    def rate_refusal(self, now: float) -> QuotaExceeded | None:
        """Why one more request may not come, however little it costs; None: it may. Takes nothing."""
        if now >= self._expires:
            self._expire(now)
        if now >= self._budget_until:
            self._forget_budget()
        if self.lease is not None and self.lease.budget is Budget.REFUSE:
            return self._budget_error(now)
        rate = self._limits.requests_per_second
        if rate is None or (rate and self._full_at <= now + self._slack_s):
            return None
        next_s = self._full_at - self._slack_s - now
        return self._error("requests_per_second", self._promise(now, next_s, rate) if rate else None)

    def spend_rate(self, now: float) -> None:
        """Books a request that nobody has to execute."""
        if self._interval_s:
            self._full_at = max(self._full_at, now) + self._interval_s

    def refusal(self, now: float, size_bytes: int) -> QuotaExceeded | None:
        """Why one more request of this size may not enter, and when a retry can succeed; None: it may."""
        if self.admits(now, size_bytes):
            return None
        limits = self._limits
        if self.lease is not None and self.lease.budget is Budget.REFUSE:
            return self._budget_error(now)
        if limits.concurrency is not None and self.in_hand >= limits.concurrency:
            helps = limits.concurrency > 0
            return self._error("concurrency", self._promise(now, 0.0, None) if helps else None)
        shortage = self._queue_shortage(size_bytes)
        if shortage is not None:
            helps = any(occupant.queued for occupant in self.occupants)
            return self._error(shortage, self._promise(now, 0.0, None) if helps else None)
        rate = limits.requests_per_second
        helps = bool(rate)
        next_s = self._full_at - self._slack_s - now
        return self._error("requests_per_second", self._promise(now, next_s, rate) if helps else None)

    def excess(self, now: float) -> Limits | None:
        """What is in hand of each limit that it is beyond; None: of none."""
        if now >= self._expires:
            self._expire(now)
        limits, found = self._limits, Limits()
        if limits.concurrency is not None and self.in_hand > limits.concurrency:
            found = Limits(concurrency=self.in_hand)
        if self._bounds_queue:
            length, size_bytes = self._queue()
            over_length = limits.queue_length is not None and length > limits.queue_length
            over_bytes = limits.queue_bytes is not None and size_bytes > limits.queue_bytes
            found = replace(
                found, queue_length=length if over_length else None, queue_bytes=size_bytes if over_bytes else None
            )
        return None if found == Limits() else found

    def _promise(self, now: float, earliest_s: float, pace: float | None) -> float:
        return self._comebacks.promise(now, earliest_s, pace, self.occupants)

    def _budget_error(self, now: float) -> QuotaExceeded:
        returns = self._budget_returns
        return self._error("budget", None if returns is None else max(SOONEST_RETRY_S, returns - now))

    def _error(self, dimension: str, retry_after_s: float | None) -> QuotaExceeded:
        """The text is the same as long as the lease is: what turns it into a status may remember it."""
        text = self._texts.get(dimension)
        if text is None:
            reason = self._reason(dimension)
            text = self._texts[dimension] = f"{self.subject} is over its limit of {dimension}: {reason}"
        return QuotaExceeded(text, subject=self.subject, dimension=dimension, retry_after_s=retry_after_s)

    def _reason(self, dimension: str) -> str:
        limits = self._limits
        match dimension:
            case "budget":
                return self.lease.budget_reason if self.lease and self.lease.budget_reason else "its budget is spent"
            case "concurrency":
                return f"{limits.concurrency} requests at once are in hand"
            case "queue_length":
                return f"{limits.queue_length} of its requests wait"
            case "queue_bytes":
                return f"with this one over {limits.queue_bytes} bytes of its requests would wait"
            case _:
                return f"{limits.requests_per_second:g} requests per second are used up"

    def _queue_shortage(self, size_bytes: int) -> str | None:
        if not self._bounds_queue:
            return None
        length, total_bytes = self._queue()
        limits = self._limits
        if limits.queue_length is not None and length >= limits.queue_length:
            return "queue_length"
        if limits.queue_bytes is not None and total_bytes + size_bytes > limits.queue_bytes:
            return "queue_bytes"
        return None

    def _queue(self) -> tuple[int, int]:
        """Requests that wait, and their bytes."""
        length = total_bytes = 0
        for occupant in self.occupants:
            length += occupant.queued
            total_bytes += occupant.queued_bytes
        return length, total_bytes

    def _change(self, limits: Limits, now: float) -> None:
        """New limits; the bucket keeps what it holds, as far as its new size lets it."""
        interval_was, slack_was = self._interval_s, self._slack_s
        lacking = (max(0.0, self._full_at - now) / interval_was) if interval_was else 0.0
        held = slack_was / interval_was + 1.0 - lacking if interval_was else inf
        if self._limits.requests_per_second == 0:
            held = 0.0
        self._obey(limits)
        interval_s = self._interval_s
        if interval_s:
            size = self._slack_s / interval_s + 1.0
            self._full_at = now + (size - min(held, size)) * interval_s
        else:
            self._full_at = -inf

    def _obey(self, limits: Limits) -> None:
        self._limits = limits
        self._texts: dict[str, str] = {}
        rate = limits.requests_per_second
        self._interval_s = 1.0 / rate if rate else 0.0
        self._slack_s = max(0.0, BURST_S - self._interval_s) + _ROUNDING_S if rate else 0.0
        self._bounds_queue = limits.queue_length is not None or limits.queue_bytes is not None
        self._concurrency = _UNLIMITED if limits.concurrency is None else limits.concurrency
        if rate == 0 or (self.lease is not None and self.lease.budget is Budget.REFUSE):
            self._concurrency = -1

    def _forget_budget(self) -> None:
        """Its period is over, and nobody has told how the next one stands: the autoscaler is away, without which
        nothing starts. What runs may answer."""
        self._budget_until, self.holds = inf, False
        if self.lease is not None:
            self.lease = replace(self.lease, budget=Budget.WITHIN)
            self._obey(self._limits)

    def _expire(self, now: float) -> None:
        lease = self.lease
        if lease is not None:
            self._expires = inf
            self._change(lease.floor.or_else(lease.limits), now)
