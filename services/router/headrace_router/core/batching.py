"""Cuts the next bundle from a queue.

Work-conserving: with a free slot, what waits is sent now, whatever its size, unless the model's
configuration asks to linger. A bundle ends at the model's maximum batch, at a number of bytes, and at
the size whose predicted time still meets the earliest deadline in it. What has missed its deadline,
or is known to miss it even alone, is dropped before it costs anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from headrace_router.core.dispatch import is_suspect
from headrace_router.core.latency import LatencyModel
from headrace_router.core.queue import Queue, Verdict
from headrace_router.core.waiting import Waiting
from headrace_router.domain import InferenceRequest, RevisionEntry


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
    """

    bundle: Bundle | None
    wait_until: float | None
    expired: list[Waiting]


def cut(
    queue: Queue,
    entry: RevisionEntry,
    now: float,
    latency: LatencyModel,
    limits: BatchLimits,
    *,
    suspect: bool = False,
    most: int = 0,
) -> Decision:
    """The next bundle.

    Args:
        most: requests that the runner may still be sent; 0: as many as fit.
        suspect: whether a suspect bundle may be given; without it one is left where it is.
    """
    expired: list[Waiting] = []
    while True:
        returned = queue.returned()
        if returned and (suspect or not is_suspect(returned[0], limits.max_attempts)):
            judge = _Judge(entry, now, latency, limits, expired)
            if most and len(returned) > most:
                queue.split_returned(most)
            items = queue.take_returned(judge.expiry_only)
        else:
            head = queue.head()
            if head is None:
                return Decision(None, None, expired)
            max_rows, wait_until = _linger(queue, entry, head, now, latency)
            if wait_until is not None:
                return Decision(None, wait_until, expired)
            judge = (_Counting if most else _Judge)(entry, now, latency, limits, expired, max_rows)
            judge.most = most
            items = queue.take(head.group, judge)
        if items:
            return Decision(_bundle(items, judge, limits), None, expired)


def waiting_suspect(queue: Queue, max_attempts: int) -> bool:
    """A suspect bundle is next among what came back."""
    returned = queue.returned()
    return bool(returned) and is_suspect(returned[0], max_attempts)


def has_one_group(entry: RevisionEntry) -> bool:
    """Whether all valid requests of a revision may share bundles: nothing in its signature is free."""
    return all(not spec.optional and -1 not in spec.shape[1:] for spec in entry.inputs)


def group_of(request: InferenceRequest) -> tuple[tuple[str, str, tuple[int, ...]], ...]:
    """Requests of equal groups have the same inputs, of the same datatypes and non-batch shapes."""
    return tuple((tensor.name, tensor.datatype, tensor.shape[1:]) for tensor in request.inputs)


class _Judge:
    """Decides request by request; called by the queue in its order."""

    __slots__ = ("bytes", "deadline", "entry", "expired", "latency", "max_bytes", "max_rows", "most", "now", "rows")
    most: int

    def __init__(
        self,
        entry: RevisionEntry,
        now: float,
        latency: LatencyModel,
        limits: BatchLimits,
        expired: list[Waiting],
        max_rows: int = 1,
    ) -> None:
        self.entry = entry
        self.now = now
        self.latency = latency
        self.max_rows = max_rows
        self.max_bytes = limits.max_bundle_bytes
        self.expired = expired
        self.rows = 0
        self.bytes = 0
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
            needed_s = self.latency.predict(rows, self.now)
            if needed_s is not None and self.now + needed_s > deadline:
                return Verdict.STOP if self.rows else self._drop(item)
            self.deadline = deadline
        self.rows = rows
        self.bytes = size
        return Verdict.TAKE

    def expiry_only(self, item: Waiting) -> Verdict:
        if item.deadline <= self.now:
            return self._drop(item)
        self.rows += item.rows
        self.deadline = min(self.deadline, item.deadline)
        return Verdict.TAKE

    def _drop(self, item: Waiting) -> Verdict:
        self.expired.append(item)
        return Verdict.DROP


class _Counting(_Judge):
    """Ends the bundle after a number of requests, too."""

    __slots__ = ()

    def __call__(self, item: Waiting) -> Verdict:
        if self.rows and self.most <= 0:
            return Verdict.STOP
        verdict = super().__call__(item)
        if verdict is Verdict.TAKE:
            self.most -= 1
        return verdict


def _linger(
    queue: Queue, entry: RevisionEntry, head: Waiting, now: float, latency: LatencyModel
) -> tuple[int, float | None]:
    """Most rows to take now, or until when to wait for more.

    As Triton's dynamic batcher: the largest preferred size that can be filled is sent at once; else
    the oldest request waits for max_queue_delay at most, and then goes with what there is. Nothing
    waits whose deadline is in danger by it.
    """
    batching = entry.batching
    most = entry.max_batch_size if entry.batchable else 1
    if most <= 1 or not (batching.max_queue_delay_s or batching.preferred_batch_sizes):
        return most, None
    rows, oldest = queue.survey(head.group, most)
    if rows >= most:
        return most, None
    preferred = [size for size in batching.preferred_batch_sizes if head.rows <= size <= rows]
    if preferred:
        return max(preferred), None
    until = oldest + batching.max_queue_delay_s
    in_danger = head.deadline <= until + (latency.predict(most, now) or 0.0)
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
