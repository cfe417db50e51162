"""Cuts the next bundle from a queue.

Work-conserving: with a free slot, what waits is sent now, whatever its size, unless the model's
configuration asks to linger. A bundle holds requests of one group, and which of them is said in `judging`.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass
from math import inf

from headrace_router.core.dispatch import is_suspect
from headrace_router.core.judging import CountingJudge, Judge
from headrace_router.core.pace import Guesser, Predictor
from headrace_router.core.padding import padded_group
from headrace_router.core.queue import Queue
from headrace_router.core.waiting import Waiting
from headrace_router.domain import InferenceRequest, RevisionEntry

MOST_GROUPS = 8
"""So many groups are tried where each leaves all of its requests to other runners."""


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
    pace: Guesser,
    limits: BatchLimits,
    *,
    soonest: Predictor | None = None,
    suspect: bool = False,
    most: int = 0,
    worth: int = 0,
) -> Decision:
    """The next bundle.

    Args:
        pace: of the runner that it is for.
        soonest: of the best of all runners; None: there is no other.
        suspect: whether a suspect bundle may be given; without it one is left where it is.
        most: requests that the runner may still be sent; 0: as many as fit.
        worth: rows past which a row costs more, for models that do not linger; 0: not known.
    """
    expired: list[Waiting] = []
    left = False
    while (returned := queue.returned()) and (suspect or not is_suspect(returned[0], limits.max_attempts)):
        if most and len(returned) > most:
            queue.split_returned(most)
        judge = Judge(now, pace, soonest, _most_rows(entry), limits.max_bundle_bytes, expired)
        if items := queue.take_returned(judge):
            return Decision(_bundle(items, judge, limits), None, expired)
        if judge.left:
            left = True
            break
    tried: set[Hashable] = set()
    while (head := _next_head(queue, tried)) is not None:
        group, max_rows, wait_until = _next_group(queue, entry, head, now, pace, limits, tried, most)
        if worth and not _lingers(entry):
            max_rows = min(max_rows, worth)
        if wait_until is not None:
            return Decision(None, wait_until, expired)
        judge = Judge(now, pace, soonest, max_rows, limits.max_bundle_bytes, expired, queue)
        if items := queue.take(group, CountingJudge(judge, most) if most else judge):
            return Decision(_bundle(items, judge, limits), None, expired)
        if judge.left:
            left = True
            tried.add(group)
    return Decision(None, None, expired, left)


def _next_head(queue: Queue, tried: Collection[Hashable]) -> Waiting | None:
    """The next request by right of a group that was not tried yet, of the first few groups."""
    if not tried:
        return queue.head()
    if len(tried) >= MOST_GROUPS:
        return None
    return next((head for head in queue.heads() if head.group not in tried), None)


def _most_rows(entry: RevisionEntry) -> int:
    return entry.max_batch_size if entry.batchable else 1


def _lingers(entry: RevisionEntry) -> bool:
    """Its configuration says which sizes to wait for."""
    return bool(entry.batching.max_queue_delay_s or entry.batching.preferred_batch_sizes)


def waiting_suspect(queue: Queue, max_attempts: int) -> bool:
    """A suspect bundle is next among what came back."""
    returned = queue.returned()
    return bool(returned) and is_suspect(returned[0], max_attempts)


def has_one_group(entry: RevisionEntry) -> bool:
    """Whether all valid requests of a revision may share bundles: nothing in its signature is free."""
    return all(not spec.optional and -1 not in spec.shape[1:] for spec in entry.inputs)


def group_of(
    request: InferenceRequest, padding: Mapping[str, float] | None = None
) -> tuple[tuple[str, str, tuple[int, ...]], ...]:
    """Requests of equal groups have the same inputs, of the same datatypes and non-batch shapes, or of shapes
    that may be padded to one.

    Args:
        padding: which of the revision's inputs may be.
    """
    if padding:
        return padded_group(request, padding)
    return tuple((tensor.name, tensor.datatype, tensor.shape[1:]) for tensor in request.inputs)


def _next_group(
    queue: Queue, entry: RevisionEntry, head: Waiting, now: float, pace: Guesser, limits: BatchLimits,
    tried: Collection[Hashable], most_requests: int,
) -> tuple[Hashable, int, float | None]:  # fmt: skip
    """The group of the next bundle and most rows to take, or until when all groups wait for more of theirs."""
    most = _most_rows(entry)
    if most <= 1 or not _lingers(entry):
        return head.group, most, None
    earliest = inf
    for first in queue.heads():
        if first.group in tried:
            continue
        rows, wait_until = _linger(queue, entry, first, now, pace, limits, most_requests)
        if wait_until is None:
            return first.group, rows, None
        earliest = min(earliest, wait_until)
    return head.group, 0, earliest


def _linger(
    queue: Queue, entry: RevisionEntry, head: Waiting, now: float, pace: Guesser, limits: BatchLimits,
    most_requests: int,
) -> tuple[int, float | None]:  # fmt: skip
    """Most rows to take now, or until when to wait for more.

    As Triton's dynamic batcher (its user guide, "Batchers"): the largest preferred size that can be filled is
    sent at once; else the oldest request waits for max_queue_delay at most, and then goes with what there is.
    Nothing waits whose deadline is in danger by it, or for company that its runner may not be sent.
    """
    batching = entry.batching
    most = _most_rows(entry)
    full, rows, oldest = queue.survey(head.group, most, limits.max_bundle_bytes, most_requests)
    if full:
        return most, None
    preferred = [size for size in batching.preferred_batch_sizes if head.rows <= size <= rows]
    if preferred:
        return max(preferred), None
    until = oldest + batching.max_queue_delay_s
    in_danger = head.deadline <= until + (pace.guess(most, now) or 0.0)
    return (most, None) if in_danger or now >= until else (most, until)


def _bundle(items: list[Waiting], judge: Judge, limits: BatchLimits) -> Bundle:
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
