"""Requests that routers have refused of late: for which limit, whose that is, and how much was missing."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import ceil

from headrace_autoscaler.core.leased_limits import DIMENSIONS
from headrace_autoscaler.core.leases import LeaseBook, LimitStanding
from headrace_autoscaler.core.lending import Trees
from headrace_autoscaler.core.quota import Refusal

WINDOW_S = 60.0
"""What is of late."""
_BUCKETS = 12
_WIDTH_S = WINDOW_S / _BUCKETS
_TOGETHER_S = 1.0
"""What routers lack within this, they lack at once; after that it may have moved from one to the other."""
_LEAST_BYTES = 1 << 20
_BY_REASON = {each.name: each for each in DIMENSIONS}
OTHER_REASONS = ("budget", "queue_full", "blocked")
MOST_EXPLAINED = 8
"""Of one model. What remains is counted: a thousand sentences help nobody, and each costs a look at a whole cohort."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Requests of one tenant to one model that were refused for one reason.

    Attributes:
        reason: as routers name it: "concurrency", "requests_per_second", "queue_length", "queue_bytes", "queue_full",
            "budget", "blocked".
        count: within the last `WINDOW_S`.
        elsewhere: nothing was missing then either: it was lent to others, or at another router.
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
    elsewhere: bool = False


@dataclass(slots=True)
class _Bucket:
    began: float
    counts: dict[tuple[str, str, str], int] = field(default_factory=dict)
    needed: dict[tuple[str, str], int] = field(default_factory=dict)
    elsewhere: set[tuple[str, str]] = field(default_factory=set)


class RefusalLog:
    """Counts by tenant, model and reason. All times are monotonic seconds."""

    def __init__(self) -> None:
        self._buckets: deque[_Bucket] = deque()
        self._last: dict[tuple[str, str, str], int] = {}
        self._proven: dict[tuple[str, str], dict[str, tuple[float, int]]] = {}

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
            router: that refused.
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
                # Routers name no limit: of the two it was the one that leaves less at this router.
                key = min(found, key=lambda each: book.leaves(each, reason, router, now))
                needed, standing = self._needs(key, reason, router, queue_missing, book, now), found[key]
                bucket.needed[key, reason] = max(needed, bucket.needed.get((key, reason), 0))
                if needed <= max(standing.limit, standing.total):
                    bucket.elsewhere.add((key, reason))

    def refused(self, model: str, book: LeaseBook, now: float) -> tuple[Refused, ...]:
        """Of this model, those with most requests first; what is beyond `MOST_EXPLAINED` in a sum for each reason."""
        self._expire(now)
        book.allot()
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
        key, standing = max(found.items(), key=lambda each: self._short(each[0], reason, each[1]))
        missing = max(0, ceil(self._short(key, reason, standing) / each.scale)) * each.scale
        refusal = None
        if each.dimension is not None and missing:
            refusal = book.refusal(key, tenant, model, each.dimension, missing, trees)
        elsewhere = not missing and any((key, reason) in bucket.elsewhere for bucket in self._buckets)
        return Refused(tenant, model, reason, count, key, standing, missing, refusal, elsewhere=elsewhere)

    def _short(self, key: str, reason: str, standing: LimitStanding) -> int:
        return max((bucket.needed.get((key, reason), 0) for bucket in self._buckets), default=0) - standing.total

    def _needs(self, key: str, reason: str, router: str, queue_missing: int, book: LeaseBook, now: float) -> int:
        """What all routers need together. Of bytes nobody knows: twice as many are proposed.

        Who refuses for want of concurrency or of a rate needs one more than it had, whatever was in hand when it
        reported. What the others had does not count: that may move to it.
        """
        if reason == "queue_bytes":
            was = self._had(key, reason, "", _total(key, reason, book))
            return was + max(was, _LEAST_BYTES)
        if reason == "queue_length":
            return self._had(key, reason, "", _total(key, reason, book)) + max(1, queue_missing)
        proven = self._proven.setdefault((key, reason), {})
        proven[router] = (now, self._had(key, reason, router, book.obeys(key, reason, router, now)) + 1)
        recent = {name: units for name, (at, units) in proven.items() if now - at <= _TOGETHER_S}
        standing = book.standing(key, reason, recent)
        return standing.wanted if standing is not None else 0

    def _had(self, key: str, reason: str, router: str, now_has: int) -> int:
        """What has been raised since the last report reaches routers after it."""
        had = min(now_has, self._last.get((key, reason, router), now_has))
        self._last[key, reason, router] = now_has
        return had

    def _open(self, now: float) -> _Bucket:
        self._expire(now)
        if not self._buckets or now - self._buckets[-1].began >= _WIDTH_S:
            self._buckets.append(_Bucket(now))
        return self._buckets[-1]

    def _expire(self, now: float) -> None:
        while self._buckets and now - self._buckets[0].began >= WINDOW_S:
            self._buckets.popleft()
        if not self._buckets:
            self._last.clear()
            self._proven.clear()


def _summed(model: str, rest: Iterable[tuple[tuple[str, str], int]]) -> list[Refused]:
    by_reason: dict[str, list[int]] = {}
    for (_, reason), count in rest:
        by_reason.setdefault(reason, []).append(count)
    return [Refused("", model, reason, sum(counts), others=len(counts)) for reason, counts in by_reason.items()]


def _total(key: str, reason: str, book: LeaseBook) -> int:
    standing = book.standing(key, reason)
    return 0 if standing is None else standing.total


def _standings(tenant: str, model: str, reason: str, book: LeaseBook) -> dict[str, LimitStanding]:
    """Of the limits that a request is refused by, by key; the tenant's before the model's."""
    keys = (tenant, f"{tenant}/{model}") if reason in _BY_REASON else ()
    return {key: standing for key in keys if (standing := book.standing(key, reason)) is not None}
