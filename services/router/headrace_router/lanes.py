"""One revision's lane: its queue, the runners that serve it, and the way of every request through it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterator
from math import inf
from typing import Protocol

from headrace.runner.v1 import runner_pb2
from headrace_common import errors
from headrace_common.clock import Clock
from headrace_router.books import Books, cold_start, expired
from headrace_router.bundles import split_outputs
from headrace_router.core import band, dispatch
from headrace_router.core.accounts import Account, RevisionStatistics
from headrace_router.core.batching import BatchLimits, Bundle, cut, group_of, has_one_group, waiting_suspect
from headrace_router.core.comebacks import Comebacks
from headrace_router.core.efficiency import EfficientSize
from headrace_router.core.holding import Holding
from headrace_router.core.latency import LatencyModel
from headrace_router.core.pace import Soonest
from headrace_router.core.queue import Queue
from headrace_router.core.shedding import Drain
from headrace_router.core.waiting import Answer, Stage, Waiting
from headrace_router.domain import InferenceRequest, RevisionEntry, TensorData
from headrace_router.incidents import Incidents
from headrace_router.measures import ColdStart, Measures
from headrace_router.returns import Returns
from headrace_router.runners import Runner, Sent

_ONE_GROUP = ()
TICK_S = 0.001
"""The event loop's timers are rounded up to whole ones of these."""
POLLED_S = 0.002
"""A linger that is no longer than this does not wait for its last tick by a timer."""
_Code = runner_pb2.BundleErrorCode


class LaneUser(Protocol):
    """What a lane tells the plane."""

    def first_demand(self, lane: Lane) -> None:
        """The first request came while no runner could take it."""
        ...

    def lane_emptied(self, lane: Lane) -> None: ...

    def cold_start_done(self, report: ColdStart) -> None: ...


class Lane:
    """See the module. All methods are called in the event loop and none awaits.

    Attributes:
        in_hand: requests admitted and not yet answered.
        outstanding: bundles at runners.
        most_queued: more than so many do not wait.
        timeout_s: of requests that set no deadline; 0: they have none.
        drain, comebacks: tell who would be late, and those who are refused when to return.
        closed_for: makes the error that new requests are refused with; None: it is open.
        closed_as: what that counts as, unless it is a budget.
        asked_at: when the first request came that found no runner; None while there is one.
        without_since: since when there is no runner that takes bundles; None while there is one.
    """

    def __init__(
        self, entry: RevisionEntry, limits: BatchLimits, clock: Clock, user: LaneUser, measures: Measures
    ) -> None:
        self._worth = EfficientSize(max(1, entry.max_batch_size))
        self.set_entry(entry)
        self.queue = Queue(entry.batching.priority_levels, entry.batching.default_priority_level or 1)
        self.latency = LatencyModel()
        self.accounts: dict[str, Account] = {}
        self.runners: dict[str, Runner] = {}
        self._soonest = Soonest(self.runners.values())
        self.held = Holding()
        self.in_hand = self.outstanding = 0
        self.most_queued = 1 << 62
        self.drain = Drain()
        self.comebacks = Comebacks()
        self.closed_for: Callable[[], errors.HeadraceError] | None = None
        self.closed_as = "unavailable"
        self.asked_at: float | None = None
        self.without_since: float | None = clock.monotonic()
        self._limits = limits
        self._clock = clock
        self._now = clock.monotonic
        self._user = user
        self._books = Books(clock, measures)
        self._incidents = Incidents(entry.model, entry.revision)
        self._returns = Returns(self.queue, entry.model, limits.max_attempts, self._incidents, self.fail)
        self._loop = asyncio.get_running_loop()
        self._flush_due = False
        self._linger: asyncio.TimerHandle | None = None
        self._linger_until = 0.0

    @property
    def most_rows(self) -> int:
        """Of a bundle, with requests as they wait now."""
        most = self._worth.usual if self.entry.batchable else 1
        queue = self.queue
        if self.entry.instance_concurrency:
            most = min(most, max(1, int(self.entry.instance_concurrency * self.drain.rows_per_request)))
        if most > 1 and queue.size_bytes * most > self._limits.max_bundle_bytes * queue.count:
            most = max(1, self._limits.max_bundle_bytes * queue.count // queue.size_bytes)
        return most

    @property
    def backlog_from(self) -> int:
        """So many that wait fill every slot at once: one, unless the model lingers."""
        batching = self.entry.batching
        return self.most_rows if batching.max_queue_delay_s or batching.preferred_batch_sizes else 1

    @property
    def statistics(self) -> RevisionStatistics:
        return self._books.statistics

    def set_entry(self, entry: RevisionEntry) -> None:
        """The catalogue describes the revision anew: its signature came, or it is blocked."""
        if max(1, entry.max_batch_size) != self._worth.most:
            self._worth = EfficientSize(max(1, entry.max_batch_size))
        self.entry = self._result_entry = entry
        self.timeout_s = entry.batching.default_timeout_s
        self._one_group = not entry.batchable or has_one_group(entry)
        self._padding = dict(entry.batching.padding)

    def enter(self, request: InferenceRequest, answer: Answer, account: Account, now: float, *, hold: bool) -> Waiting:
        """Takes an admitted request in hand. Its answer is set on `answer`."""
        group: Hashable = _ONE_GROUP if self._one_group else group_of(request, self._padding)
        level = self.queue.level_of(request.priority)
        item = Waiting(request, answer, account, group, level, now)
        if self.timeout_s and request.deadline is None:
            item.deadline = now + self.timeout_s
        self.in_hand += 1
        account.queued += 1
        account.queued_bytes += item.size_bytes
        if hold:
            self.held.add((item,))
            return item
        self.queue.push(item)
        self.schedule()
        if self.without_since is not None and self.asked_at is None:
            self._ask(now)
        return item

    def _ask(self, now: float) -> None:
        self.asked_at = now
        self._user.first_demand(self)

    def hold_back(self, may_go: Callable[[Waiting], bool]) -> None:
        """Holds what waits for a budget that is spent, and queues what was held where one is there again."""
        if self.held.count:
            self._release_held(may_go)
        self.held.add(self.queue.hold_back(may_go))
        if not self.queue.count:
            self.asked_at = None

    def refusal(self, account: Account) -> errors.HeadraceError:
        """Why a closed lane takes nothing, counted."""
        error = self.closed_for() if self.closed_for else errors.Unavailable("the lane is closed")
        account.count("budget" if isinstance(error, errors.QuotaExceeded) else self.closed_as)
        return error

    def _release_held(self, may_go: Callable[[Waiting], bool]) -> None:
        now = self._now()
        for item in self.held.release(may_go, now):
            self.queue.push(item)
        if self.queue.count and self.without_since is not None and self.asked_at is None:
            self._ask(now)
        self.schedule()

    def schedule(self) -> None:
        """One flush per round of the event loop: what arrives together goes together."""
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Sends as long as something waits and somebody is free."""
        self._flush_due = False
        now = self._now()
        passed: list[Runner] = []
        while self.queue.count:
            suspect_waits = waiting_suspect(self.queue, self._limits.max_attempts)
            at_once = self.entry.instance_concurrency
            runners = self._with_room(at_once) if at_once else self.runners.values()
            runner, suspect = dispatch.pick(runners, suspect_waits=suspect_waits, passed=passed)
            if runner is None:
                return
            most = at_once - runner.requests if at_once else 0
            soonest = self._soonest if len(self.runners) > 1 else None
            decision = cut(
                self.queue,
                self.entry,
                now,
                runner.pace,
                self._limits,
                soonest=soonest,
                suspect=suspect,
                most=most,
                worth=self._worth.cut_at(),
            )
            for item in decision.expired:
                self._unqueue(item)
                self._fail(item, expired(item), "deadline")
            if decision.expired and self.queue.count:
                self.drain.heed(late=True, outstanding=self.outstanding + 1)
            if decision.left:
                passed.append(runner)
                continue
            if decision.bundle is None:
                if decision.expired:
                    continue  # What is next now may be suspect, and for another runner.
                if decision.wait_until is not None:
                    self._flush_at(decision.wait_until, now)
                return
            self._send(runner, decision.bundle, now)

    def _with_room(self, at_once: int) -> list[Runner]:
        return [runner for runner in self.runners.values() if runner.requests < at_once]

    def _send(self, runner: Runner, bundle: Bundle, now: float) -> None:
        for item in bundle.items:
            self._unqueue(item)
            item.account.in_flight += 1
        try:
            runner.send(bundle, now)
            self.outstanding += 1
            runner.pace.sent(bundle.rows, now)
            runner.watch.sent(now)
        except Exception as error:  # noqa: BLE001 - its requests get an answer, and the queue goes on
            self._incidents.log("bundle cannot be sent", repr(error))
            for item in bundle.items:
                self.fail(item, errors.EngineFailed(repr(error)), "engine_failed")

    def _unqueue(self, item: Waiting) -> None:
        account = item.account
        account.queued -= 1
        account.queued_bytes -= item.size_bytes

    def _flush_at(self, when: float, now: float) -> None:
        """Sends what lingers, then. A short linger is ended by looking: the loop's timers come up to a tick late."""
        left_s = when - now
        if self.entry.batching.max_queue_delay_s <= POLLED_S:
            left_s -= TICK_S
            if left_s <= 0:
                self.schedule()
                return
        if self._linger is not None:
            if self._linger_until == when:
                return
            self._linger.cancel()
        self._linger_until = when
        self._linger = self._loop.call_later(left_s, self._linger_over)

    def _linger_over(self) -> None:
        self._linger = None
        self.schedule()

    def add_runner(self, runner: Runner) -> None:
        self.runners[runner.placement.instance_id] = runner
        self.latency.seed(runner.placement.profile, self._now())
        self._worth.seed(runner.placement.profile)

    def runner_ended(self, runner: Runner) -> None:
        if self.runners.get(runner.placement.instance_id) is runner:
            del self.runners[runner.placement.instance_id]
        self.runner_changed(runner)

    def runner_changed(self, runner: Runner) -> None:
        self.compare_runners(self._now())
        if any(known.accepting for known in self.runners.values()):
            if self.without_since is not None:
                runner.began_at = self.asked_at
                self.without_since = self.asked_at = None
        elif self.without_since is None:
            self.without_since = self._now()
            if self.queue.count:
                self._ask(self.without_since)
        if self.queue.count:
            self.schedule()

    def compare_runners(self, now: float) -> None:
        """Gives those less that are slower than the others. For now and then, and when there are fewer."""
        band.review(self.runners.values(), now)

    def bundle_done(self, runner: Runner, sent: Sent, result: runner_pb2.BundleResult) -> None:
        self.outstanding -= 1
        if result.HasField("error"):
            self._bundle_failed(runner, sent.bundle, result.error.code, result.error.detail)
        else:
            try:
                outputs = split_outputs(result.outputs, sent.bundle, self._result_entry, sent.read)
            except Exception as error:  # noqa: BLE001 - whatever a runner sends, its requests get an answer
                self._bundle_failed(runner, sent.bundle, _Code.BUNDLE_ERROR_CODE_ENGINE_FAILED, repr(error))
            else:
                self._answer(runner, sent, outputs, result.compute_us / 1e6)
        if self.queue.count:
            self.schedule()

    def _answer(self, runner: Runner, sent: Sent, outputs: list[list[TensorData]], compute_s: float) -> None:
        bundle = sent.bundle
        now = self._now()
        runner.pace.answered(bundle.rows, compute_s, now)
        self._worth.observe(bundle.rows, compute_s)
        self.drain.done(bundle.rows, len(bundle.items), now, waiting=self.queue.count >= self.backlog_from)
        if bundle.deadline != inf:
            self.drain.heed(late=now > bundle.deadline, outstanding=self.outstanding + 1)
        answered = self._books.answer(bundle, sent.at, outputs, compute_s, self.entry.slo_s)
        if answered:
            self._left(answered)
        if runner.start_unreported:
            runner.start_unreported = False
            self._user.cold_start_done(cold_start(runner, self._now()))

    def bundles_lost(self, runner: Runner, lost: list[Sent]) -> None:
        self.outstanding -= len(lost)
        self.drain.lost()
        runner.pace.lost()
        for sent in lost:
            self._returns.lost(sent.bundle)
        self.runner_changed(runner)

    def _bundle_failed(self, runner: Runner, bundle: Bundle, code: int, detail: str) -> None:
        now = self._now()
        runner.pace.ended(bundle.rows, now)
        if code == _Code.BUNDLE_ERROR_CODE_WRONG_MODEL:
            runner.reject()
        self._returns.failed(bundle, code, detail, runner.placement.instance_id, now)

    def fail(self, item: Waiting, error: errors.HeadraceError, outcome: str) -> None:
        """Answers a request in hand with an error, wherever it is; once."""
        if item.stage is Stage.DONE:
            return
        if item.stage is Stage.SENT:
            item.account.in_flight -= 1
        else:
            self._unqueue(item)
            if item.stage is Stage.QUEUED:
                self.queue.withdraw(item)
            else:
                self.held.left(item)
        self._fail(item, error, outcome)

    def _fail(self, item: Waiting, error: errors.HeadraceError, outcome: str) -> None:
        """Answers a request that nothing counts any more."""
        self._books.fail(item, error, outcome)
        self._left(1)

    def _left(self, count: int) -> None:
        self.in_hand -= count
        if not self.in_hand:
            self._user.lane_emptied(self)

    def waiting(self) -> Iterator[Waiting]:
        """All that is not sent, held ones too, in no order."""
        yield from self.queue
        yield from self.held

    def sent(self) -> Iterator[Waiting]:
        for runner in self.runners.values():
            for sent in runner.outstanding.values():
                yield from (item for item in sent.bundle.items if item.stage is Stage.SENT)

    def tidy(self, now: float) -> None:
        """Forgets what nobody needs any more. For now and then."""
        self.held.tidy()
        self.queue.tidy()

    def end(self) -> None:
        """The revision is gone, and nothing is in hand: the lane is given up."""

    def close(self, error: Callable[[], errors.HeadraceError], outcome: str) -> None:
        """Refuses what is new and what waits. What was sent is answered."""
        self.closed_for, self.closed_as = error, outcome
        for item in list(self.waiting()):
            self.fail(item, error(), outcome)
