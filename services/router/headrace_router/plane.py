"""The data plane: admission, queues, bundles, runners, tied together.

`submit` is the hot path; `infer` adds one future per request. It makes no task, takes no lock and writes no log
line; one flush per lane and round of the event loop sends what came together, and the answers are set
where the result is read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from headrace.control.v1 import control_pb2
from headrace_common import errors
from headrace_common.clock import Clock
from headrace_common.config import ProcessContext
from headrace_router import demand
from headrace_router.catalogue import LiveCatalogue
from headrace_router.control import ControlClient, Report
from headrace_router.core.accounts import Account, RevisionStatistics
from headrace_router.core.admission import LATE_BUDGET_S, SOONEST_RETRY_S
from headrace_router.core.batching import BatchLimits
from headrace_router.core.sequences import SequenceBook
from headrace_router.core.waiting import Answer, Stage, Waiting
from headrace_router.domain import InferenceRequest, InferenceResult, RevisionEntry, SpentBudget
from headrace_router.fleet import Fleet
from headrace_router.lanes import Lane
from headrace_router.limits import LimitBook, may_be_sent
from headrace_router.measures import CacheUse, ColdStart, Counters, Measures
from headrace_router.refusals import refuse_full, refuse_late, refuse_over_limit
from headrace_router.stateful import StatefulLane
from headrace_router.sweep import sweep_lane
from headrace_router.transport import Transports

STOPPING = "this router is stopping; retry, another one answers"


class Plane:
    """Implements `ports.DataPlane`. Between `start` and `stop` it obeys the autoscaler.

    Attributes:
        catalogue: implements `ports.Catalogue`.
        measures: histograms over all revisions.
        transports: how bundles and results passed.
        cache_use: what of this process's memory cached answers take.
        sequences: what the state of stateful models takes.
    """

    def __init__(self, context: ProcessContext, clock: Clock) -> None:
        config = context.mesh.router
        self.catalogue = LiveCatalogue()
        self.measures = Measures()
        self._config = config
        self._clock = clock
        self._now: Callable[[], float] = clock.monotonic
        self._max_queue_bytes = config.max_queue_bytes
        self._batch_limits = BatchLimits(config.max_bundle_bytes, config.max_attempts)
        self._lanes: dict[tuple[str, int], Lane] = {}
        self._limits = LimitBook()
        self.sequences = SequenceBook(config.max_sequences, config.max_sequence_bytes, config.max_all_sequence_bytes)
        self.transports = Transports(Path(config.shared_memory_dir), config.shared_memory_bytes)
        self._fleet = Fleet(context.process, clock, self._lane_of, config.drain_timeout_s, self.transports)
        self._control = ControlClient(context.autoscaler_target, context.process, config.demand_period_s, self)
        self.cache_use = CacheUse(clock.monotonic())
        self._cold_starts: list[ColdStart] = []
        self._stopping = False
        self._emptied = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._reported_at = clock.monotonic()

    @property
    def in_hand(self) -> int:
        """Requests admitted and not yet answered."""
        return sum(lane.in_hand for lane in self._lanes.values())

    @property
    def stopping(self) -> bool:
        """What is new is refused."""
        return self._stopping

    @property
    def limits(self) -> LimitBook:
        """Whom it admits."""
        return self._limits

    @property
    def connected(self) -> bool:
        """There is a stream to an autoscaler that is obeyed."""
        return self._control.connected

    async def start(self) -> None:
        """Begins to obey the autoscaler. Does not wait for it: see `catalogue.ready`."""
        self._tasks = [
            asyncio.create_task(self._control.run(), name="control"),
            asyncio.create_task(self._sweep_on(), name="sweep"),
        ]

    async def stop(self) -> None:
        """Answers what is left with Unavailable and closes every connection. `drain` comes before."""
        self._stopping = True
        for lane in self._lanes.values():
            for item in [*lane.waiting(), *lane.sent()]:
                lane.fail(item, errors.Unavailable(STOPPING), "unavailable")
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._fleet.stop()

    async def drain(self, timeout_s: float | None) -> int:
        """Refuses what is new and waits until nothing is in hand (None: for ever). How many it gave up on."""
        self._stopping = True
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self.in_hand:
                    self._emptied.clear()
                    await self._emptied.wait()
        return self.in_hand

    async def infer(self, request: InferenceRequest) -> InferenceResult:
        """See `ports.DataPlane.infer`."""
        answer: asyncio.Future[InferenceResult] = asyncio.get_running_loop().create_future()
        item = self.submit(request, answer)
        try:
            return await answer
        except asyncio.CancelledError:
            # While it is in hand its lane is there.
            if item.stage is not Stage.DONE:
                lane = self._lanes[request.revision.key]
                lane.fail(item, errors.Cancelled("the caller went away"), "cancelled")
            raise

    def submit(self, request: InferenceRequest, answer: Answer) -> Waiting:
        """See `ports.DataPlane.submit`."""
        now = self._now()
        entry = request.revision
        lane = self._lanes.get((entry.model, entry.revision)) or self._open_lane(entry)
        account = lane.accounts.get(request.tenant) or self._limits.open(lane, request.tenant)
        totals = account.totals
        totals.arrivals += 1
        totals.rows += request.rows
        tenant_limit, model_limit, queue = account.tenant_limit, account.model_limit, lane.queue
        size_bytes = request.size_bytes
        if self._stopping or lane.closed_for:
            self._refuse_closed(lane, account)
        hold = False
        if not (tenant_limit.open and model_limit.open):
            if not (tenant_limit.admits(now, size_bytes) and model_limit.admits(now, size_bytes)):
                refuse_over_limit(account, size_bytes, now)
            hold = tenant_limit.holds or model_limit.holds
            if hold and (
                lane.held.count >= lane.most_queued or lane.held.size_bytes + size_bytes > self._max_queue_bytes
            ):
                refuse_full(lane, account, now)
        if queue.count:
            if queue.count >= lane.most_queued or queue.size_bytes + size_bytes > self._max_queue_bytes:
                refuse_full(lane, account, now)
            if request.deadline is not None or lane.timeout_s:
                refuse_late(lane, account, request, now)
        if tenant_limit.open:
            tenant_limit.in_hand += 1
        else:
            tenant_limit.enter(now)
        if model_limit.open:
            model_limit.in_hand += 1
        else:
            model_limit.enter(now)
        return lane.enter(request, answer, account, now, hold=hold)

    def place(self, request: InferenceRequest) -> tuple[Lane, Account]:
        """Where a request belongs and who pays for it, whether or not it is executed. Raises NotFound."""
        entry = request.revision
        lane = self._lanes.get((entry.model, entry.revision)) or self._open_lane(entry)
        return lane, lane.accounts.get(request.tenant) or self._limits.open(lane, request.tenant)

    def statistics(self, entry: RevisionEntry) -> RevisionStatistics:
        """See `ports.DataPlane.statistics`."""
        lane = self._lanes.get(entry.key)
        return lane.statistics if lane is not None else RevisionStatistics()

    def counters(self) -> Counters:
        """A reading of all counts, for telemetry."""
        slots: dict[str, tuple[int, int]] = {}
        for (model, _), lane in list(self._lanes.items()):
            free, outstanding = slots.get(model, (0, 0))
            for runner in list(lane.runners.values()):
                free += runner.free_slots if runner.accepting else 0
                outstanding += len(runner.outstanding)
            slots[model] = (free, outstanding)
        return Counters(self._limits.uses(), self.measures, slots)

    def open_sequences(self) -> dict[str, int]:
        """By stateful model, for telemetry."""
        found: dict[str, int] = {}
        for (model, _), lane in list(self._lanes.items()):
            if isinstance(lane, StatefulLane):
                found[model] = found.get(model, 0) + len(lane.table)
        return found

    # --- what the control stream asks (control.ControlUser) ---

    def apply(self, update: control_pb2.StateUpdate, read_at: float) -> None:
        """As one step: catalogue, then leases, then placements. A lease runs from when it was read, however long what
        comes before it takes."""
        self.catalogue.apply(update)
        for lane in self._lanes.values():
            self._describe(lane)
        now = self._now()
        hold = self._limits.apply(update, self._lanes.values(), now, self._clock.wall(), now - read_at)
        for lane in self._lanes.values():
            if hold or lane.held.count:
                lane.hold_back(lambda item: may_be_sent(item.account))
        self._fleet.apply(update)

    def excess(self) -> list[control_pb2.Excess]:
        """What was let in under larger leases, and is not answered yet."""
        return self._limits.excess(self._now())

    def demand(self) -> Report:
        """What came since the last report that was committed."""
        now = self._now()
        self._limits.fold(self._lanes.values())
        self.cache_use.measure(now)
        report = demand.build(now - self._reported_at, self._limits, self._fleet, self._cold_starts, self.cache_use)

        def commit() -> None:
            self._reported_at = now
            report.commit()

        return Report(report.message, commit)

    # --- what lanes tell (lanes.LaneUser) ---

    def first_demand(self, lane: Lane) -> None:
        self._control.urgent()

    def lane_emptied(self, lane: Lane) -> None:
        self._emptied.set()

    def cold_start_done(self, report: ColdStart) -> None:
        self._cold_starts.append(report)
        # The standby pool's refill waits for this, so that it takes no CPU from a first answer.
        self._control.urgent()

    # --- inside ---

    def _refuse_closed(self, lane: Lane, account: Account) -> None:
        if self._stopping or lane.closed_for is None:
            account.count("unavailable")
            raise errors.Unavailable(STOPPING)
        budget = lane.entry.budget
        if budget is not None and self._clock.wall() >= budget.returns_at + LATE_BUDGET_S:
            # The autoscaler is away. Nothing starts without it, so that what runs may answer.
            lane.closed_for = None
            return
        raise lane.refusal(account)

    def _open_lane(self, entry: RevisionEntry) -> Lane:
        lane = self._lane_of(entry.model, entry.revision)
        if lane is None:
            raise errors.NotFound(f"model {entry.model!r} has no version {entry.version!r} any more")
        return lane

    def _lane_of(self, model: str, revision: int) -> Lane | None:
        lane = self._lanes.get((model, revision))
        if lane is None:
            entry = self.catalogue.entry(model, revision)
            if entry is None or entry.loading:
                return None
            lane = self._make_lane(entry)
            self._lanes[entry.key] = lane
            self._describe(lane)
        return lane

    def _make_lane(self, entry: RevisionEntry) -> Lane:
        if entry.sequences is None:
            return Lane(entry, self._batch_limits, self._clock, self, self.measures)
        parts = self._batch_limits, self._clock, self, self.measures
        return StatefulLane(entry, entry.sequences, *parts, self.sequences, self._max_queue_bytes)

    def _describe(self, lane: Lane) -> None:
        """Brings a lane up to what the catalogue says of its revision, with all that follows."""
        old = lane.entry
        entry = self.catalogue.entry(old.model, old.revision)
        if entry is None:
            lane.close(lambda: errors.NotFound(f"model {old.model!r} version {old.version!r} was removed"), "not_found")
            return
        lane.set_entry(entry)
        lane.most_queued = min(
            self._config.max_queue_length, entry.batching.max_queue_size or self._config.max_queue_length
        )
        if entry.blocked_reason:
            text = f"model {entry.model!r} cannot be served now: {entry.blocked_reason}"
            lane.close(lambda: errors.Unavailable(text), "blocked")
        elif entry.budget is not None:
            # What waits was admitted while there was money.
            lane.closed_for = partial(_unpaid, entry.budget, self._clock)
        else:
            lane.closed_for = None

    def waits_for_money(self, request: InferenceRequest) -> bool:
        """A budget of who asks is spent, and its requests wait for the next one. Raises NotFound."""
        return not may_be_sent(self.place(request)[1])

    async def _sweep_on(self) -> None:
        while True:
            await asyncio.sleep(self._config.sweep_period_s)
            self.sweep()

    def sweep(self) -> None:
        """Expires, withdraws and forgets what is due. Called every `sweep_period_s`."""
        now = self._now()
        for key, lane in list(self._lanes.items()):
            sweep_lane(lane, now, self._config.sweep_period_s, self._config.start_timeout_s)
            if not lane.in_hand and not lane.runners and self.catalogue.entry(*key) is None:
                lane.end()
                self._limits.close(lane)
                del self._lanes[key]


def _unpaid(budget: SpentBudget, clock: Clock) -> errors.QuotaExceeded:
    return errors.QuotaExceeded(
        f"{budget.subject} is over its limit of budget: {budget.reason}",
        subject=budget.subject,
        dimension="budget",
        retry_after_s=max(SOONEST_RETRY_S, budget.returns_at - clock.wall()),
    )
