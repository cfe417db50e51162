"""Budgets on the virtual clock: the ledger books instances, the budgets are reviewed every second, as the mesh does.

Of what serving costs only instances are booked here: no network, storage, cache or management share, and no standby,
which is nobody's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from headrace_autoscaler.core.budgets import (
    TICK_US,
    Budgets,
    BudgetState,
    Burn,
    Standing,
    Tally,
    binding,
    budgets_of,
)
from headrace_autoscaler.core.ledger import HOUR_US, Account, Ledger
from headrace_autoscaler.core.rates import FREE
from headrace_autoscaler.domain import Tenant

REVIEW_S = TICK_US / 1e6
_CURRENCY = ""


class Purse:
    """Of all tenants that have a budget. Seconds from the run's begin.

    Args:
        began: moment of second 0, seconds since the epoch: budgets are of calendar hours and months.
    """

    def __init__(self, tenants: Sequence[Tenant], micros_per_hour: int, began: float) -> None:
        self._budgets = [each for tenant in tenants for each in budgets_of(tenant.name, "", tenant.nominal)]
        self.tenants = frozenset(each.tenant for each in self._budgets)
        self._micros_per_hour = micros_per_hour
        self._began = began
        self._tally = Tally()
        self._ledger = Ledger(FREE, self._tally.add)
        self._judge = Budgets(_CURRENCY)
        self._running: Counter[str] = Counter()
        self._booked_until_us: dict[str, int] = {}
        self._left: dict[str, int] = {}
        self._standings: dict[str, Standing] = {}
        self.review(0.0)

    def refusal(self, tenant: str) -> str:
        """Why the tenant may start nothing now; empty: it may, and a tick of the new instance is set aside."""
        standing = self._standings.get(tenant)
        if standing is None:
            return ""
        tick = -(-self._micros_per_hour * TICK_US // HOUR_US)
        if standing.state is BudgetState.SPENT or self._left[tenant] < tick:
            return standing.fact
        self._left[tenant] -= tick
        return ""

    def started(self, tenant: str, now: float) -> None:
        if tenant in self.tenants:
            self._book(tenant, now)
            self._running[tenant] += 1

    def gone(self, tenant: str, now: float) -> None:
        if tenant in self.tenants:
            self._book(tenant, now)
            self._running[tenant] -= 1

    def review(self, now: float) -> None:
        now_us = self._us(now)
        burns = {}
        for tenant in self.tenants:
            self._book(tenant, now)
            burns[tenant] = Burn(running=self._running[tenant] * self._micros_per_hour, least=self._micros_per_hour)
        self._ledger.take()
        self._tally.forget_before(now_us // 10**6)
        standings = self._judge.review(self._budgets, burns, self._tally, now_us)
        self._standings = {tenant: found for tenant, each in standings.items() if (found := binding(each))}
        self._left = {tenant: min(one.free_micros for one in each) for tenant, each in standings.items()}

    def spent(self, tenant: str) -> bool:
        """As of the last review."""
        return self._standings[tenant].state is BudgetState.SPENT

    def reason(self, tenant: str) -> str:
        return self._standings[tenant].fact

    def _book(self, tenant: str, now: float) -> None:
        until_us = self._us(now)
        since_us = self._booked_until_us.get(tenant, until_us)
        if self._running[tenant]:
            account = Account(tenant, "", micros_per_hour=self._running[tenant] * self._micros_per_hour)
            self._ledger.book_time(account, since_us, until_us)
        self._booked_until_us[tenant] = until_us

    def _us(self, now: float) -> int:
        return round((self._began + now) * 1e6)
