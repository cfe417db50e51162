"""Cuts the next bundle from a queue.

Work-conserving: with a free slot, what waits is sent now, whatever its size, unless the model's
configuration asks to linger. A bundle ends at the model's maximum batch, at a number of bytes, and at
the size whose predicted completion at its runner still meets the earliest deadline in it. What has missed
its deadline, or is known to miss it even alone at any runner, is dropped before it costs anything; what this
runner would make late and another would not is left for that one.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from math import inf

from headrace_router.core.dispatch import is_suspect
from headrace_router.core.pace import Predictor
from headrace_router.core.padding import padded_group
from headrace_router.core.queue import Queue, Verdict
from headrace_router.core.waiting import Waiting
from headrace_router.domain import InferenceRequest, RevisionEntry

MOST_LEFT = 64
"""So many requests are left for another runner before the search for one that this runner can serve ends."""


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """Where a bundle ends, besides the model's own maximum."""

    max_bundle_bytes: int
    max_attempts: int


@dataclass(slots=True)
class Bundle:
    """Requests to be executed as one batch.

    Attributes:
        outputs: what anybody in it wants; empty: all.
        deadline: the earliest in it, monotonic seconds; infinity without one.
        suspect: executed alone on its runner, because it may be what kills runners.
    """

    items: list[Waiting]
    rows: int
    outputs: tuple[str, ...]
    deadline: float
    attempt: int = 0
    suspect: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """What to send now, if anything.

    Attributes:
        wait_until: nothing to send before then (monotonic seconds), because the model lingers.
        expired: left the queue because their deadline has passed or cannot be met.
        left: what waits is for another runner, which can do it in time.
    """

    bundle: Bundle | None
    wait_until: float | None
    expired: list[Waiting]
    left: bool = False


def cut(
    queue: Queue,
    entry: RevisionEntry,
    now: float,
    pace: Predictor,
    limits: BatchLimits,
    *,
    soonest: Predictor | None = None,
    suspect: bool = False,
    most: int = 0,
) -> Decision:
    """The next bundle.

    Args:
        pace: of the runner that it is for.
        soonest: of the best of all runners; None: there is no other.
        suspect: whether a suspect bundle may be given; without it one is left where it is.
        most: requests that the runner may still be sent; 0: as many as fit.
    """
    expired: list[Waiting] = []
    left = False
    while (returned := queue.returned()) and (suspect or not is_suspect(returned[0], limits.max_attempts)):
        if most and len(returned) > most:
            queue.split_returned(most)
        judge = _Judge(now, pace, soonest, limits, expired, _most_rows(entry))
        if items := queue.take_returned(judge):
            return Decision(_bundle(items, judge, limits), None, expired)
        if judge.left:
            left = True
            break
    while (head := queue.head()) is not None:
        group, max_rows, wait_until = _next_group(queue, entry, head, now, pace, limits)
        if wait_until is not None:
            return Decision(None, wait_until, expired)
        judge = (_Counting if most else _Judge)(now, pace, soonest, limits, expired, max_rows)
        if isinstance(judge, _Counting):
            judge.most = most
        if items := queue.take(group, judge):
            return Decision(_bundle(items, judge, limits), None, expired)
        if judge.left:
            return Decision(None, None, expired, True)
    return Decision(None, None, expired, left)


def _most_rows(entry: RevisionEntry) -> int:
    return entry.max_batch_size if entry.batchable else 1


def waiting_suspect(queue: Queue, max_attempts: int) -> bool:
    """A suspect bundle is next among what came back."""
    returned = queue.returned()
    return bool(returned) and is_suspect(returned[0], max_attempts)


def has_one_group(entry: RevisionEntry) -> bool:
    """Whether all valid requests of a revision may share bundles: nothing in its signature is free."""
    return all(not spec.optional and -1 not in spec.shape[1:] for spec in entry.inputs)


def group_of(request: InferenceRequest) -> tuple[tuple[str, str, tuple[int, ...]], ...]:
    """Requests of equal groups have the same inputs, of the same datatypes and non-batch shapes, or of shapes
    that may be padded to one."""
    padding = request.revision.batching.padding
    if padding:
        return padded_group(request, dict(padding))
    return tuple((tensor.name, tensor.datatype, tensor.shape[1:]) for tensor in request.inputs)


class _Judge:
    """Decides request by request; called by the queue in its order."""

    __slots__ = ("bytes", "deadline", "expired", "left", "max_bytes", "max_rows", "now", "pace", "rows", "soonest")

    def __init__(
        self,
        now: float,
        pace: Predictor,
        soonest: Predictor | None,
        limits: BatchLimits,
        expired: list[Waiting],
        max_rows: int,
    ) -> None:
        self.now = now
        self.pace = pace
        self.soonest = soonest
        self.max_rows = max_rows
        self.max_bytes = limits.max_bundle_bytes
        self.expired = expired
        self.rows = 0
        self.bytes = 0
        self.left = 0
        self.deadline = inf

    def __call__(self, item: Waiting) -> Verdict:
        rows = self.rows + item.rows
        size = self.bytes + item.size_bytes
        if self.rows and (rows > self.max_rows or size > self.max_bytes):
            return Verdict.STOP
        deadline = item.deadline if item.deadline < self.deadline else self.deadline
        if deadline != inf:
            if item.deadline <= self.now:
                return self._drop(item)
            needed_s = self.pace.predict(rows, self.now)
            if needed_s is not None and self.now + needed_s > deadline:
                return Verdict.STOP if self.rows else self._too_late_here(item)
            self.deadline = deadline
        self.rows = rows
        self.bytes = size
        return Verdict.TAKE

    def _too_late_here(self, item: Waiting) -> Verdict:
        if self.soonest is not None:
            needed_s = self.soonest.predict(item.rows, self.now)
            if needed_s is None or self.now + needed_s <= item.deadline:
                self.left += 1
                return Verdict.LEAVE if self.left <= MOST_LEFT else Verdict.STOP
        return self._drop(item)

    def _drop(self, item: Waiting) -> Verdict:
        self.expired.append(item)
        return Verdict.DROP


class _Counting(_Judge):
    """Ends the bundle after a number of requests, too."""

    __slots__ = ("most",)
    most: int

    def __call__(self, item: Waiting) -> Verdict:
        if self.rows and self.most <= 0:
            return Verdict.STOP
        verdict = super().__call__(item)
        if verdict is Verdict.TAKE:
            self.most -= 1
        return verdict


def _next_group(
    queue: Queue, entry: RevisionEntry, head: Waiting, now: float, pace: Predictor, limits: BatchLimits
) -> tuple[Hashable, int, float | None]:
    """The group of the next bundle and most rows to take, or until when all groups wait for more of theirs."""
    most = _most_rows(entry)
    batching = entry.batching
    if most <= 1 or not (batching.max_queue_delay_s or batching.preferred_batch_sizes):
        return head.group, most, None
    earliest = inf
    for first in queue.heads():
        rows, wait_until = _linger(queue, entry, first, now, pace, limits)
        if wait_until is None:
            return first.group, rows, None
        earliest = min(earliest, wait_until)
    return head.group, 0, earliest


def _linger(
    queue: Queue, entry: RevisionEntry, head: Waiting, now: float, pace: Predictor, limits: BatchLimits
) -> tuple[int, float | None]:
    """Most rows to take now, or until when to wait for more.

    As Triton's dynamic batcher (its user guide, "Batchers"): the largest preferred size that can be filled is
    sent at once; else the oldest request waits for max_queue_delay at most, and then goes with what there is.
    Nothing waits whose deadline is in danger by it.
    """
    batching = entry.batching
    most = _most_rows(entry)
    full, rows, oldest = queue.survey(head.group, most, limits.max_bundle_bytes)
    if full:
        return most, None
    preferred = [size for size in batching.preferred_batch_sizes if head.rows <= size <= rows]
    if preferred:
        return max(preferred), None
    until = oldest + batching.max_queue_delay_s
    in_danger = head.deadline <= until + (pace.predict(most, now) or 0.0)
    return (most, None) if in_danger or now >= until else (most, until)


def _bundle(items: list[Waiting], judge: _Judge, limits: BatchLimits) -> Bundle:
    first = items[0]
    return Bundle(
        items, judge.rows, _wanted(items), judge.deadline, first.attempts, is_suspect(first, limits.max_attempts)
    )


def _wanted(items: list[Waiting]) -> tuple[str, ...]:
    names: dict[str, None] = {}
    for item in items:
        outputs = item.request.outputs
        if not outputs:
            return ()
        names.update(dict.fromkeys(outputs))
    return tuple(names)
