"""Requests that routers have refused of late: for which limit, whose that is, and how much was missing."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import ceil

from headrace_autoscaler.core.leases import DIMENSIONS, LeaseBook, LimitStanding
from headrace_autoscaler.core.lending import Trees
from headrace_autoscaler.core.quota import Refusal

WINDOW_S = 60.0
"""What is of late."""
_BUCKETS = 12
_WIDTH_S = WINDOW_S / _BUCKETS
_LEAST_BYTES = 1 << 20
_BY_REASON = {each.name: each for each in DIMENSIONS}
OTHER_REASONS = ("budget", "queue_full")
MOST_EXPLAINED = 8
"""Of one model. What remains is counted: a thousand sentences help nobody, and each costs a look at a whole cohort."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Requests of one tenant to one model that were refused for one reason.

    Attributes:
        reason: as routers name it: "concurrency", "requests_per_second", "queue_length", "queue_bytes", "queue_full",
            "budget".
        count: within the last `WINDOW_S`.
        others: not of `tenant`, which is empty, but of so many tenants, whose limits have not been looked at.
        key: whose limit binds, "tenant" or "tenant/model"; empty: no lease's.
        standing: of that limit. None: it is not leased, or not any more.
        missing: what was needed at worst and is more than there is now, in its smallest unit, rates in whole ones. 0:
            there is enough by now.
        refusal: what stands against so much more, by the quota tree. None: nothing of it, or it is not counted there.
    """

    tenant: str
    model: str
    reason: str
    count: int
    key: str = ""
    standing: LimitStanding | None = None
    missing: int = 0
    refusal: Refusal | None = None
    others: int = 0


@dataclass(slots=True)
class _Bucket:
    began: float
    counts: dict[tuple[str, str, str], int] = field(default_factory=dict)
    needed: dict[tuple[str, str], int] = field(default_factory=dict)


class RefusalLog:
    """Counts by tenant, model and reason. All times are monotonic seconds."""

    def __init__(self) -> None:
        self._buckets: deque[_Bucket] = deque()
        self._totals: dict[tuple[str, str], int] = {}

    def note(
        self,
        router: str,
        tenant: str,
        model: str,
        refusals: Mapping[str, int],
        queue_missing: int,
        book: LeaseBook,
        now: float,
    ) -> None:
        """
        Args:
            refusals: counts by reason.
            queue_missing: so many more would wait, had the queue been longer.
            book: to which the report is known already.
        """
        bucket = self._open(now)
        for reason, count in refusals.items():
            if reason not in _BY_REASON and reason not in OTHER_REASONS:
                continue
            at = (tenant, model, reason)
            bucket.counts[at] = bucket.counts.get(at, 0) + count
            found = _standings(tenant, model, reason, book)
            if found:
                key, standing = max(found.items(), key=lambda each: each[1].wanted - each[1].total)
                needed = self._needs(key, reason, standing, queue_missing)
                bucket.needed[key, reason] = max(needed, bucket.needed.get((key, reason), 0))

    def refused(self, model: str, book: LeaseBook, now: float) -> tuple[Refused, ...]:
        """Of this model, those with most requests first; what is beyond `MOST_EXPLAINED` in a sum for each reason."""
        self._expire(now)
        counts: dict[tuple[str, str], int] = {}
        for bucket in self._buckets:
            for (tenant, of, reason), count in bucket.counts.items():
                if of == model:
                    counts[tenant, reason] = counts.get((tenant, reason), 0) + count
        ordered = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
        trees: Trees = {}
        found = [
            self._judge(tenant, model, reason, count, book, trees)
            for (tenant, reason), count in ordered[:MOST_EXPLAINED]
        ]
        return (*found, *_summed(model, ordered[MOST_EXPLAINED:]))

    def _judge(self, tenant: str, model: str, reason: str, count: int, book: LeaseBook, trees: Trees) -> Refused:
        each = _BY_REASON.get(reason)
        found = _standings(tenant, model, reason, book)
        if each is None or not found:
            return Refused(tenant, model, reason, count)
        # Where both were short, the one that is short of more.
        key, standing = max(found.items(), key=lambda each: self._needed(each[0], reason) - each[1].total)
        short = self._needed(key, reason) - standing.total
        missing = max(0, ceil(short / each.scale)) * each.scale
        refusal = None
        if each.dimension is not None and missing:
            refusal = book.refusal(key, tenant, model, each.dimension, missing, trees)
        return Refused(tenant, model, reason, count, key, standing, missing, refusal)

    def _needed(self, key: str, reason: str) -> int:
        return max((bucket.needed.get((key, reason), 0) for bucket in self._buckets), default=0)

    def _needs(self, key: str, reason: str, standing: LimitStanding, queue_missing: int) -> int:
        """At least one more than there was: a request was refused. Of bytes nobody knows: twice as many are proposed.

        What has been raised since the last report reaches routers after it.
        """
        was = min(standing.total, self._totals.get((key, reason), standing.total))
        self._totals[key, reason] = standing.total
        if reason == "queue_length":
            return was + max(1, queue_missing)
        if reason == "queue_bytes":
            return was + max(was, _LEAST_BYTES)
        return max(was + 1, standing.wanted)

    def _open(self, now: float) -> _Bucket:
        self._expire(now)
        if not self._buckets or now - self._buckets[-1].began >= _WIDTH_S:
            self._buckets.append(_Bucket(now))
        return self._buckets[-1]

    def _expire(self, now: float) -> None:
        while self._buckets and now - self._buckets[0].began >= WINDOW_S:
            self._buckets.popleft()
        if not self._buckets:
            self._totals.clear()


def _summed(model: str, rest: Iterable[tuple[tuple[str, str], int]]) -> list[Refused]:
    by_reason: dict[str, list[int]] = {}
    for (_, reason), count in rest:
        by_reason.setdefault(reason, []).append(count)
    return [Refused("", model, reason, sum(counts), others=len(counts)) for reason, counts in by_reason.items()]


def _standings(tenant: str, model: str, reason: str, book: LeaseBook) -> dict[str, LimitStanding]:
    """Of the limits that a request is refused by, by key; the tenant's before the model's."""
    keys = (tenant, f"{tenant}/{model}") if reason in _BY_REASON else ()
    return {key: standing for key in keys if (standing := book.standing(key, reason)) is not None}
