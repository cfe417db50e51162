"""What requests count against that are not executed, or not yet.

| request | counts against |
| --- | --- |
| answered from the cache | the rates alone: it holds nothing, and nobody works for it |
| being looked up | nothing yet; but the router does not end before it is answered |
| follows an equal one | all of its tenant's limits, as any other: it is in hand until it is answered |
| takes over from a leader that was not answered | nothing more: it was admitted when it came |
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from math import inf

from headrace_common import errors
from headrace_router.cache.store import Answer, size_of
from headrace_router.core.accounts import Account
from headrace_router.domain import InferenceRequest, InferenceResult
from headrace_router.lanes import Lane
from headrace_router.limits import may_be_sent
from headrace_router.plane import STOPPING, Plane
from headrace_router.refusals import refuse_full, refuse_over_limit

_OUTCOMES: tuple[tuple[type[BaseException], str], ...] = (
    (errors.DeadlineExceeded, "deadline"),
    (errors.Cancelled, "cancelled"),
    (asyncio.CancelledError, "cancelled"),
    (errors.InvalidArgument, "invalid_input"),
    (errors.NotFound, "not_found"),
    (errors.Unavailable, "unavailable"),
    (errors.QueueFull, "out_of_memory"),
)


@dataclass(slots=True, eq=False)
class Follower:
    """A request that waits for the answer of an equal one.

    Attributes:
        turn: gets the answer; or None, and it leads now.
        deadline: monotonic seconds; infinity without one.
    """

    request: InferenceRequest
    lane: Lane
    account: Account
    arrived: float
    deadline: float
    turn: asyncio.Future[Answer | None]
    leads: bool = False

    @property
    def waits(self) -> bool:
        return not self.turn.done()


class Doorway:
    """Admits requests of models that have a response cache, and books those that are not executed.

    Attributes:
        waiting, waiting_bytes: followers at this router.
    """

    def __init__(self, plane: Plane, most_waiting: int, most_bytes: int) -> None:
        self.waiting = 0
        self.waiting_bytes = 0
        self._plane = plane
        self._most_waiting = most_waiting
        self._most_bytes = most_bytes

    def check_rate(self, request: InferenceRequest, now: float) -> tuple[Lane, Account]:
        """Where the request belongs, if it may come at all; takes nothing.

        Raises:
            QuotaExceeded: a rate is used up.
            Unavailable: the router is stopping.
            NotFound: the revision is gone.
        """
        lane, account = self._plane.place(request)
        error: errors.HeadraceError | None = None
        if self._plane.stopping:
            account.count("unavailable")
            error = errors.Unavailable(STOPPING)
        elif not (account.tenant_limit.open and account.model_limit.open):
            error = _rate_refusal(account, now)
        if error is not None:
            _arrive(account, request)
            raise error
        return lane, account

    def hold(self, lane: Lane) -> None:
        """Something of this lane is in hand, until `release`."""
        lane.in_hand += 1

    def release(self, lane: Lane) -> None:
        lane.in_hand -= 1
        if not lane.in_hand:
            self._plane.lane_emptied(lane)

    def hit(
        self, lane: Lane, account: Account, request: InferenceRequest, answer: Answer, arrived: float, now: float
    ) -> InferenceResult:
        """Answers from the cache what `check_rate` has let in just now."""
        account.tenant_limit.spend_rate(now)
        account.model_limit.spend_rate(now)
        account.totals.cache_hits += 1
        statistics = lane.statistics
        statistics.cache_hits += 1
        statistics.cache_hit_ns += int((now - arrived) * 1e9)
        return _answered(lane, account, request, answer, now - arrived)

    def miss(self, request: InferenceRequest, lookup_s: float) -> None:
        """Counts a request that was looked up in vain and will be executed. Raises NotFound."""
        lane, account = self._plane.place(request)
        _count_miss(lane, account, lookup_s)

    def follow(self, request: InferenceRequest, arrived: float, now: float) -> Follower:
        """Admits a request that will wait for an equal one.

        Raises:
            QuotaExceeded, Unavailable, NotFound: as a request that is executed would be refused.
            QueueFull: too many wait already.
        """
        lane, account = self._plane.place(request)
        try:
            self._check_follower(lane, account, request, now)
        except errors.HeadraceError:
            _arrive(account, request)
            raise
        account.tenant_limit.enter(now)
        account.model_limit.enter(now)
        account.following += 1
        lane.in_hand += 1
        self.waiting += 1
        self.waiting_bytes += request.size_bytes
        timeout_s = lane.entry.batching.default_timeout_s
        deadline = request.deadline or (arrived + timeout_s if timeout_s else inf)
        return Follower(request, lane, account, arrived, deadline, asyncio.get_running_loop().create_future())

    def answered(self, follower: Follower, answer: Answer, now: float) -> InferenceResult:
        """The leader's answer is the follower's."""
        lane, account = follower.lane, follower.account
        self._let_go(follower)
        self._leave(follower)
        account.totals.coalesced += 1
        took_s = now - follower.arrived
        lane.statistics.coalesced += 1
        lane.statistics.coalesced_ns += int(took_s * 1e9)
        return _answered(lane, account, follower.request, answer, took_s)

    def failed(self, follower: Follower, error: BaseException, now: float) -> None:
        """A follower goes without an answer."""
        lane, account = follower.lane, follower.account
        self._let_go(follower)
        self._leave(follower)
        _arrive(account, follower.request)
        account.totals.failed += 1
        account.count(next((name for kind, name in _OUTCOMES if isinstance(error, kind)), "engine_failed"))
        lane.statistics.failures += 1
        lane.statistics.failure_ns += int((now - follower.arrived) * 1e9)

    async def take_over(self, follower: Follower) -> InferenceResult:
        """Executes a follower's request, as of when it arrived. It is admitted already."""
        lane, account, request = follower.lane, follower.account, follower.request
        self._let_go(follower)
        _count_miss(lane, account, 0.0)
        _arrive(account, request)
        if lane.closed_for is not None:
            self._leave(follower)
            account.totals.failed += 1
            raise lane.refusal(account)
        answer: asyncio.Future[InferenceResult] = asyncio.get_running_loop().create_future()
        item = lane.enter(request, answer, account, follower.arrived, hold=not may_be_sent(account))
        lane.in_hand -= 1
        try:
            return await answer
        except asyncio.CancelledError:
            lane.fail(item, errors.Cancelled("the caller went away"), "cancelled")
            raise

    def _check_follower(self, lane: Lane, account: Account, request: InferenceRequest, now: float) -> None:
        if self._plane.stopping:
            account.count("unavailable")
            raise errors.Unavailable(STOPPING)
        if lane.closed_for is not None:
            raise lane.refusal(account)
        refuse_over_limit(account, request.size_bytes, now)
        would_wait = self.waiting_bytes + request.size_bytes
        if self.waiting >= self._most_waiting or (self.waiting and would_wait > self._most_bytes):
            refuse_full(lane, account, now)

    def _let_go(self, follower: Follower) -> None:
        """It follows no more; its lane still counts it in hand."""
        follower.account.following -= 1
        self.waiting -= 1
        self.waiting_bytes -= follower.request.size_bytes

    def _leave(self, follower: Follower) -> None:
        """It is not in hand any more."""
        lane, account = follower.lane, follower.account
        account.tenant_limit.in_hand -= 1
        account.model_limit.in_hand -= 1
        self.release(lane)


def _rate_refusal(account: Account, now: float) -> errors.HeadraceError | None:
    for limiter in (account.tenant_limit, account.model_limit):
        refusal = None if limiter.open else limiter.rate_refusal(now)
        if refusal is not None:
            account.count(refusal.dimension)
            return refusal
    return None


def _arrive(account: Account, request: InferenceRequest) -> None:
    totals = account.totals
    totals.arrivals += 1
    totals.rows += request.rows


def _count_miss(lane: Lane, account: Account, lookup_s: float) -> None:
    account.totals.cache_misses += 1
    lane.statistics.cache_misses += 1
    lane.statistics.cache_miss_ns += int(lookup_s * 1e9)


def _answered(
    lane: Lane, account: Account, request: InferenceRequest, answer: Answer, took_s: float
) -> InferenceResult:
    _arrive(account, request)
    totals = account.totals
    totals.completed += 1
    totals.spared_rows += request.rows
    totals.input_bytes += request.size_bytes
    totals.output_bytes += size_of(answer)
    slo_s = lane.entry.slo_s
    if slo_s is None or took_s <= slo_s:
        totals.within_slo += 1
    return InferenceResult(answer)
