"""Books instances' time and routers' counts, and hands them to the store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping

from headrace_autoscaler.core.ledger import Account, Ledger
from headrace_autoscaler.core.pricing import LocalPrices
from headrace_autoscaler.domain import Resources, Usage, UsageKey
from headrace_autoscaler.fleet.reports import DemandEntry
from headrace_autoscaler.fleet.runners import Assignment, Runner
from headrace_common.clock import Clock
from headrace_common.identity import OPERATOR
from headrace_common.logs import get_logger

UsageSink = Callable[[Mapping[UsageKey, Usage]], Awaitable[None]]


class Books:
    """Time advances with the monotonic clock from one wall-clock reading, so that a corrected clock books
    nothing twice."""

    def __init__(self, prices: LocalPrices, sink: UsageSink, clock: Clock) -> None:
        self._prices = prices
        self._sink = sink
        self._clock = clock
        self._ledger = Ledger()
        self._base_s = clock.wall() - clock.monotonic()
        self._log = get_logger()

    def now_us(self) -> int:
        return int((self._base_s + self._clock.monotonic()) * 1e6)

    def settle(self, runner: Runner) -> None:
        """Books a runner's time until now to whoever holds it now. Call it before that changes."""
        now_us = self.now_us()
        self._ledger.book_time(self._account(runner.assignment), runner.booked_until_us, now_us)
        runner.booked_until_us = max(runner.booked_until_us, now_us)

    def requests(self, entry: DemandEntry, resources: Resources) -> None:
        """Requests and busy time are the caller's, the instance's time its owner's."""
        account = self._shaped(entry.tenant, entry.model, resources)
        self._ledger.book_requests(account, self._clock.wall(), entry.answered, entry.counts.service_time_us)

    def cold_start(self, assignment: Assignment) -> None:
        self._ledger.book_cold_start(self._account(assignment), self._clock.wall())

    async def flush(self, runners: Iterable[Runner]) -> None:
        """Writes what has come together. What cannot be written now is written later."""
        for runner in runners:
            self.settle(runner)
        increments = self._ledger.take()
        if not increments:
            return
        try:
            await self._sink(increments)
        except Exception as error:  # noqa: BLE001 - whatever it is, the increments must not be lost
            self._ledger.give_back(increments)
            self._log.error("usage not written", error=repr(error))

    def _account(self, assignment: Assignment | None) -> Account:
        if assignment is None:
            return self._shaped(OPERATOR, "", Resources())
        return self._shaped(assignment.tenant, assignment.model, assignment.resources)

    def _shaped(self, tenant: str, model: str, resources: Resources) -> Account:
        shape = self._prices.shape(resources)
        return Account(tenant, model, shape.name, shape.capacity_class, shape.micros_per_hour)
