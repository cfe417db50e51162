"""Why a request may not enter, as errors that say when to come back. Each raises, or finds nothing to refuse.

Their texts hold no figure that changes from one refusal to the next, so that what makes a status of them
may remember it.
"""

from __future__ import annotations

from headrace_common.errors import QueueFull
from headrace_router.core.accounts import Account
from headrace_router.domain import InferenceRequest
from headrace_router.lanes import Lane


def refuse_over_limit(account: Account, size_bytes: int, now: float) -> None:
    """The tenant's limits, then its limits for the model."""
    for limiter in (account.tenant_limit, account.model_limit):
        refusal = limiter.refusal(now, size_bytes)
        if refusal is not None:
            account.count(refusal.dimension)
            raise refusal


def refuse_full(lane: Lane, account: Account, now: float) -> None:
    """The revision's queue in this router, whoever fills it."""
    account.count("queue_full")
    text = f"the queue of model {lane.entry.model!r} is full; retry later"
    raise QueueFull(text, retry_after_s=_promise(lane, 0.0, now))


def refuse_late(lane: Lane, account: Account, request: InferenceRequest, now: float) -> None:
    """The queue's own model says that the answer would come after the deadline."""
    deadline = now + lane.timeout_s if request.deadline is None else request.deadline
    level = lane.queue.level_of(request.priority)
    late_s = lane.drain.late_by(
        lane.queue, level, request.tenant, request.rows, deadline, lane.outstanding, lane.most_rows, now
    )
    if late_s > 0.0:
        account.count("shed")
        text = f"model {lane.entry.model!r} is overloaded: the answer would come after the deadline; retry later"
        raise QueueFull(text, retry_after_s=_promise(lane, late_s, now))


def _promise(lane: Lane, earliest_s: float, now: float) -> float:
    pace = lane.drain.pace(lane.most_rows, now)
    return lane.comebacks.promise(now, earliest_s, pace, lane.accounts.values(), executed=True)
