"""What has to be found by looking: deadlines that passed, callers that went away, starts that take too long."""

from __future__ import annotations

from headrace_common import errors
from headrace_router.books import expired
from headrace_router.core.waiting import Stage, Waiting
from headrace_router.lanes import Lane


def sweep_lane(lane: Lane, now: float, period_s: float, start_timeout_s: float) -> None:
    """Looks at all that is in hand at one lane.

    Args:
        period_s: a caller is asked after once its request is as old as this.
        start_timeout_s: a request waits this long for a first instance.
    """
    if lane.in_hand:
        _sweep_waiting(lane, now, period_s, start_timeout_s)
        _sweep_sent(lane, now, period_s)
        lane.queue.age(now)
        lane.compare_runners(now)
        lane.schedule()
    elif lane.accounts:
        for account in lane.accounts.values():
            account.oldest_wait_s = 0.0
    lane.tidy(now)


def _sweep_waiting(lane: Lane, now: float, period_s: float, start_timeout_s: float) -> None:
    for account in lane.accounts.values():
        account.oldest_wait_s = 0.0
    given_up_before = -1.0 if lane.without_since is None else now - start_timeout_s
    for item in list(lane.waiting()):
        if is_over(lane, item, now, period_s):
            continue
        if item.stage is not Stage.QUEUED:
            continue
        without_since = max(item.enqueued, lane.without_since or 0.0)
        if without_since <= given_up_before:
            text = (
                f"model {lane.entry.model!r}: no instance has become ready within {start_timeout_s:g} s; "
                "`headrace describe` tells what keeps it"
            )
            lane.fail(item, errors.Unavailable(text), "start_timeout")
        else:
            account = item.account
            account.oldest_wait_s = max(account.oldest_wait_s, now - item.enqueued)


def _sweep_sent(lane: Lane, now: float, period_s: float) -> None:
    for item in list(lane.sent()):
        is_over(lane, item, now, period_s)
    for runner in lane.runners.values():
        for bundle_id, sent in runner.outstanding.items():
            if all(item.answer.done() for item in sent.bundle.items):
                runner.cancel(bundle_id)


def is_over(lane: Lane, item: Waiting, now: float, period_s: float) -> bool:
    """Answers a request whose deadline has passed or whose caller has gone. Whether it has.

    Args:
        period_s: the caller of one that is younger than this is not asked after.
    """
    if item.deadline <= now:
        lane.fail(item, expired(item), "deadline")
        return True
    is_gone = item.request.is_gone
    if is_gone is not None and now - item.arrived >= period_s and is_gone():
        lane.fail(item, errors.Cancelled("the caller went away"), "cancelled")
        return True
    return False
