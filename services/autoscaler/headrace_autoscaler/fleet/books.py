"""Books instances' time, routers' counts and stored files, and posts them to the store.

How long something ran is measured by the monotonic clock; the wall clock, as it is when that is booked, says which
hour it belongs to. So a wall clock that is set books nothing twice and nothing negative, and an hour that comes
twice holds what ran in both.

A posting says with what it adds until when everything that ran is booked, by the wall clock of that moment. Whoever
comes after a kill books what it finds from there, or from its own start where that was later: nothing twice, and
nothing lost but what the dead one had counted since its last posting. Likewise where the dead one lives on: it learns
at its next posting that it was replaced, and ends.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from headrace_autoscaler.core.budgets import Period, Tally, began
from headrace_autoscaler.core.ledger import Account, Ledger
from headrace_autoscaler.core.pricing import LocalPrices
from headrace_autoscaler.core.rates import Rates
from headrace_autoscaler.domain import Model, Posting, Resources
from headrace_autoscaler.fleet.reports import CacheEntry, DemandEntry
from headrace_autoscaler.fleet.runners import Assignment, Runner
from headrace_autoscaler.ports import Store
from headrace_common.clock import Clock
from headrace_common.errors import FailedPrecondition
from headrace_common.identity import OPERATOR
from headrace_common.logs import get_logger

JOB_SHAPE = "optimize"
"""Under which jobs are booked."""

UsageSink = Callable[[Posting], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Opening:
    """What the store says when an autoscaler begins.

    Attributes:
        booked_until_us: until then whatever ran is booked; None: nothing ever was.
        spent: micro-units by (tenant, model) in the hour and the month that run.
    """

    booked_until_us: int | None = None
    spent: Mapping[tuple[Period, int], Mapping[tuple[str, str], int]] = field(default_factory=dict)

    @classmethod
    def read(cls, store: Store, now_s: float) -> Opening:
        periods = [(period, began(period, int(now_s))) for period in Period]
        return cls(store.booked_until_us(), {(period, start): store.spent(start) for period, start in periods})


class Books:
    """
    Args:
        replaced: called when a later autoscaler keeps the books; it books whatever ran on from where they end.

    Attributes:
        tally: money in the hour and the month that run, all of it that is booked.
    """

    def __init__(
        self, prices: LocalPrices, rates: Rates, sink: UsageSink, clock: Clock, epoch: int, opening: Opening,
        replaced: Callable[[], None],
    ) -> None:  # fmt: skip
        self._prices = prices
        self._sink = sink
        self._clock = clock
        self._epoch = epoch
        self._replaced = replaced
        self._closed = False
        self._opening = opening
        self.tally = Tally()
        for (period, start), spent in opening.spent.items():
            self.tally.open(period, start, spent)
        self._ledger = Ledger(rates, self.tally.add)
        self._stored_until_us = self._booked_from_us(opening.booked_until_us)
        self._serial = 0
        self._unsure: Posting | None = None
        self._log = get_logger()

    def now_us(self) -> int:
        """Wall-clock microseconds since the epoch: which hour and month it is."""
        return int(self._clock.wall() * 1e6)

    def mark_us(self) -> int:
        """Monotonic microseconds: from when something is to be booked that starts now."""
        return int(self._clock.monotonic() * 1e6)

    def adopted_from_us(self, started_at: float | None) -> int:
        """From when an instance is to be booked that an earlier autoscaler has started; as `mark_us`.

        Args:
            started_at: its own start, seconds since the epoch; None: not known.
        """
        booked_us, own_us = self._opening.booked_until_us, None if started_at is None else int(started_at * 1e6)
        return self._booked_from_us(max((each for each in (booked_us, own_us) if each is not None), default=None))

    def departed(self, assignment: Assignment | None, started_at: float | None, ended_at: float) -> None:
        """Books what an instance ran on for after the books' end, and until its own, where nobody saw that.

        Args:
            started_at, ended_at: seconds since the epoch; None: not known.
        """
        booked_us, own_us = self._opening.booked_until_us, None if started_at is None else int(started_at * 1e6)
        known = [moment for moment in (booked_us, own_us) if moment is not None]
        end_us = min(int(ended_at * 1e6), self.now_us())
        if known and max(known) < end_us:
            self._ledger.book_time(self._account(assignment), max(known), end_us)

    def settle(self, runner: Runner) -> None:
        """Books a runner's time until now to whoever holds it now. Call it before that changes.

        One that was found waits until it has said whom it serves.
        """
        if runner.unheard:
            return
        mark_us, now_us = self.mark_us(), self.now_us()
        passed_us = mark_us - runner.booked_until_us
        self._ledger.book_time(self._account(runner.assignment), now_us - passed_us, now_us)
        runner.booked_until_us = mark_us

    def job(self, tenant: str, model: str, resources: Resources, since_us: int) -> int:
        """Books a job's time since a moment of `mark_us`; returns until when it is booked."""
        mark_us, now_us = self.mark_us(), self.now_us()
        account = replace(self._shaped(tenant, model, resources), shape=JOB_SHAPE)
        self._ledger.book_time(account, now_us - (mark_us - since_us), now_us)
        return mark_us

    def requests(self, entry: DemandEntry, resources: Resources) -> None:
        """Requests, their busy time and their bytes are the caller's, the instance's time its owner's."""
        account = self._shaped(entry.tenant, entry.model, resources)
        busy_us = entry.counts.service_time_us
        self._ledger.book_requests(account, self.now_us(), entry.answered, busy_us, entry.network_bytes)

    def cache(self, entry: CacheEntry, owner: str) -> None:
        self._ledger.book_cache(Account(owner, entry.model), self.now_us(), entry.byte_seconds)

    def cold_start(self, assignment: Assignment) -> None:
        self._ledger.book_cold_start(self._account(assignment), self.now_us())

    async def flush(self, runners: Iterable[Runner], models: Iterable[Model]) -> bool:
        """Writes what has come together; whether it is. What cannot be written now is written later, and never once
        somebody else keeps the books."""
        if self._closed:
            return False
        # First, because it takes time, in which others settle too: what is taken below ends where it says.
        if not await self._post_unsure():
            return False
        for runner in runners:
            self.settle(runner)
        mark_us, now_us = self.mark_us(), self.now_us()
        for model in models:
            if size_bytes := stored_bytes(model):
                account = Account(model.spec.tenant, model.spec.name)
                since_us = now_us - (mark_us - self._stored_until_us)
                self._ledger.book_storage(account, size_bytes, since_us, now_us)
        self._stored_until_us = mark_us
        self.tally.forget_before(now_us // 10**6)
        increments = self._ledger.take()
        if increments:
            self._serial += 1
            self._unsure = Posting(self._epoch, self._serial, increments, now_us)
        return await self._post_unsure()

    async def _post_unsure(self) -> bool:
        """Posts what may or may not have been written, which the store can tell. Whether nothing is left."""
        if self._unsure is not None:
            try:
                await self._sink(self._unsure)
            except FailedPrecondition as error:
                self._log.error("replaced", reason=str(error))
                self._closed = True
                self._replaced()
                return False
            except Exception as error:  # noqa: BLE001 - whatever it is, the increments must not be lost
                self._log.error("usage not written", error=repr(error))
                return False
            self._unsure = None
        return True

    def _booked_from_us(self, wall_us: int | None) -> int:
        """The monotonic moment of a wall-clock one of the past. None, and one that is still to come because the clock
        was set back: now, as nobody can say how long it has been."""
        return self.mark_us() - (0 if wall_us is None else max(0, self.now_us() - wall_us))

    def _account(self, assignment: Assignment | None) -> Account:
        if assignment is None:
            return self._shaped(OPERATOR, "", Resources())
        return self._shaped(assignment.tenant, assignment.model, assignment.resources)

    def _shaped(self, tenant: str, model: str, resources: Resources) -> Account:
        shape = self._prices.shape(resources)
        return Account(tenant, model, shape.name, shape.capacity_class, shape.micros_per_hour)


def stored_bytes(model: Model) -> int:
    """Of all its revisions; what several of them share counts once."""
    files = {(revision.artifact, file.path): file.size_bytes for revision in model.revisions for file in revision.files}
    return sum(files.values())
