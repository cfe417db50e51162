"""Concurrency and rates that tenants of a cohort lend each other: the mesh's own leases on the virtual clock.

One router has all of every lease. It reports as often as a router of the mesh does, leases move as often as there, and
it hears of them and obeys at once. As there, a lender has its own back at the move after the one that took it from the
borrower. A lease is always renewed in time.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Mapping, Sequence

from headrace_autoscaler.core.leases import LeaseBook, Want
from headrace_autoscaler.core.quota import quota_of
from headrace_autoscaler.core.wants import Use, WantMeter
from headrace_autoscaler.domain import Limits, Tenant
from headrace_autoscaler.sim.door import OVER_RATE, Door
from headrace_autoscaler.sim.model_run import TICK, ModelRun, World

REPORT_S = 0.25
"""Between a router's demand reports, as by the default of `router.demand_period_s`."""
REPORTS_PER_MOVE = 2
MOVE_S = REPORT_S * REPORTS_PER_MOVE
_FIRST = -2
"""Number among the ticks of one moment: before budgets are reviewed and models asked."""


class Leasing:
    """Sets what doors admit by. Ticks while requests are still to come, and not while nothing is in hand or wanted.

    Args:
        tenants: see `lending`.
        model_of: of each request, index into `models`.
    """

    def __init__(
        self,
        tenants: Sequence[Tenant],
        doors: Mapping[str, Door],
        models: Sequence[ModelRun],
        model_of: Sequence[int],
        world: World,
    ) -> None:
        limits = {each.name: _of_requests(each.nominal) for each in tenants}
        self._own_rates = {name: each.requests_per_second or 0.0 for name, each in limits.items()}
        self._doors = doors
        self._models = {model.index: model for model in models if model.tenant in limits}
        self._model_of = model_of
        self._world = world
        self._book = LeaseBook(routers=1, ttl_s=math.inf, held_until=-math.inf)
        self._book.set_limits(limits, map(quota_of, tenants))
        self._router = self._book.routers[0]
        self._meter = WantMeter(0.0)
        self._busy: list[int] = []
        self._seen = 0
        self._place = 0

    def begin(self) -> None:
        """Nobody wants anything, so each has its own."""
        self._grant(list(self._own_rates), 0.0)
        self._set_tick(0)

    def tick(self, now: float) -> None:
        wants = self._report(now)
        quiet = False
        if self._place % REPORTS_PER_MOVE == 0:
            moving = self._book.moves((self._router,), now)[self._router]
            if moving:
                self._grant(moving, now)
            quiet = not moving and not wants
        self._set_tick(self._place + 1, quiet)

    def _report(self, now: float) -> Mapping[str, Want]:
        uses = self._uses(now)
        wants = self._meter.report(uses, now, complete=True, period_s=REPORT_S, own=self._own_rate)
        self._book.want(self._router, wants)
        return wants

    def _uses(self, now: float) -> list[Use]:
        """Since the report before. What is refused long after it came is in no report."""
        world, arrived, refused, over_rate = self._world, Counter[int](), Counter[int](), Counter[int]()
        while self._seen < len(world.arrivals) and world.arrivals[self._seen] <= now:
            model = self._model_of[self._seen]
            if model in self._models:
                arrived[model] += 1
                reason = world.refused.get(self._seen)
                refused[model] += reason is not None
                over_rate[model] += reason == OVER_RATE
            self._seen += 1
        self._busy = list(dict.fromkeys((*self._busy, *arrived)))
        uses = [
            Use(
                self._models[each].tenant,
                self._models[each].name,
                arrived[each],
                refused[each],
                self._models[each].in_hand,
                over_rate=over_rate[each],
            )
            for each in self._busy
        ]
        self._busy = [each for each in self._busy if self._models[each].in_hand]
        return uses

    def _own_rate(self, key: str) -> float:
        return self._own_rates.get(key, 0.0)

    def _grant(self, tenants: Sequence[str], now: float) -> None:
        serial, shares = self._book.issue(self._router, tenants, now, now)
        for tenant, share in shares.items():
            self._doors[tenant].obey(share.limits.concurrency, share.limits.requests_per_second, now)
        self._book.applied(self._router, serial)

    def _set_tick(self, place: int, quiet: bool = True) -> None:
        """The first report from this one on that has something to say."""
        arrivals = self._world.arrivals
        if self._seen == len(arrivals):
            return
        self._place = max(place, math.ceil(arrivals[self._seen] / REPORT_S)) if quiet else place
        heapq.heappush(self._world.events, (self._place * REPORT_S, TICK, _FIRST, self))


def lending(tenants: Sequence[Tenant]) -> list[Tenant]:
    """Those with limits of requests in a cohort in which more than one has the same such limit."""
    limited: Counter[tuple[str, str]] = Counter()
    for tenant in tenants:
        limited.update((tenant.cohort, name) for name in _names(tenant) if tenant.cohort)
    cohorts = {cohort for (cohort, _), count in limited.items() if count > 1}
    return [tenant for tenant in tenants if tenant.cohort in cohorts and _names(tenant)]


def _names(tenant: Tenant) -> list[str]:
    nominal = tenant.nominal
    return [name for name in ("concurrency", "requests_per_second") if getattr(nominal, name) is not None]


def _of_requests(limits: Limits) -> Limits:
    return Limits(concurrency=limits.concurrency, requests_per_second=limits.requests_per_second)
