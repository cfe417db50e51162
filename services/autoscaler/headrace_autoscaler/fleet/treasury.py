"""Budgets at work: every pass reviews them, and says what may start, what drains, and what routers are told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from headrace_autoscaler.core.budgets import (
    Budget,
    Budgets,
    BudgetState,
    Burn,
    Standing,
    Standings,
    binding,
    budget_key,
    budgets_of,
)
from headrace_autoscaler.core.plans import Holding, Key, Want
from headrace_autoscaler.core.pricing import LocalPrices
from headrace_autoscaler.core.rates import GIB, HOURS_PER_MONTH, Rates
from headrace_autoscaler.core.rationing import ration, standing_over
from headrace_autoscaler.domain import Model, Resources, Tenant
from headrace_autoscaler.fleet.announcements import Announcements, BudgetNotice, BudgetNotices
from headrace_autoscaler.fleet.books import Books, stored_bytes
from headrace_autoscaler.fleet.demand_book import DemandBook
from headrace_autoscaler.fleet.runners import Registry, RunnerState
from headrace_common.logs import get_logger


@dataclass(slots=True)
class _Closing:
    """A model whose requests are refused. Mark: of the state that told the routers; None: not told yet."""

    since: float
    mark: int | None = None


class Treasury:
    """Times are monotonic seconds.

    Args:
        answer_s: what was admitted before a budget was spent has this long to be answered, its instances' drain
            included.

    Attributes:
        standings: of the last review.
    """

    def __init__(
        self, books: Books, prices: LocalPrices, rates: Rates, registry: Registry, demand: DemandBook,
        announcements: Announcements, answer_s: float,
    ) -> None:  # fmt: skip
        self._books = books
        self._prices = prices
        self._rates = rates
        self._registry = registry
        self._demand = demand
        self._announcements = announcements
        self._answer_s = answer_s
        self._budgets = Budgets(prices.currency)
        self._states: dict[tuple[str, str], BudgetState] = {}
        self._closing: dict[str, _Closing] = {}
        self._queues: frozenset[str] = frozenset()
        self._now = 0.0
        self.standings: Standings = {}

    def review(self, models: Iterable[Model], tenants: Iterable[Tenant], now: float) -> None:
        """Every budget anew, after what has been running is booked."""
        models, tenants = tuple(models), tuple(tenants)
        self._now = now
        budgets = [each for tenant in tenants for each in budgets_of(tenant.name, "", tenant.nominal)]
        budgets += [each for model in models for each in _budgets_of_model(model)]
        if budgets:
            for runner in self._registry:
                self._books.settle(runner)
        self._queues = frozenset(tenant.name for tenant in tenants if not tenant.refuse_at_budget)
        burns = self._burns(models, {budget.tenant for budget in budgets})
        self.standings = self._budgets.review(budgets, burns, self._books.tally, self._books.now_us())
        self._log_changes()
        refused = {model.spec.name for model in models if self._refuses(model.spec.tenant, model.spec.name)}
        self._closing = {name: self._closing.get(name, _Closing(now)) for name in refused}

    def over(self, tenant: str, model: str) -> Standing | None:
        """The spent budget that keeps a model from starting anything; None: there is none."""
        standing = standing_over(self.standings, tenant, model)
        return standing if standing is not None and standing.state is BudgetState.SPENT else None

    def over_reason(self, tenant: str, model: str) -> str:
        """The sentence about it; empty: there is none."""
        standing = self.over(tenant, model)
        return "" if standing is None else standing.reason

    def ration(self, wants: tuple[Want, ...], holdings: tuple[Holding, ...]) -> tuple[Want, ...]:
        """See `core.rationing`."""
        return ration(wants, holdings, self.standings, self._price, self._may_drain) if self.standings else wants

    def notices(self, wants: Iterable[Want], blocked: Mapping[Key, str]) -> BudgetNotices:
        """What routers are to know, of leases and of models."""
        leases = {}
        for key, standings in self.standings.items():
            standing = binding(standings)
            if standing is not None and standing.state is not BudgetState.OK:
                leases[key] = _notice(standing, self._word(standing))
        models = {}
        for want in wants:
            standing = standing_over(self.standings, want.tenant, want.model)
            closed = want.model in self._closing or (want.unpaid is not None and want.key in blocked)
            if standing is not None and closed and want.tenant not in self._queues:
                notice = _notice(standing, "refuse")
                models[want.model] = BudgetNotice(
                    notice.state, notice.subject, want.held_back or notice.reason, notice.returns_at
                )
        return BudgetNotices(leases, models)

    def drain_s(self, model: str) -> float:
        """How long an instance of it may take to drain: one whose requests are refused has been draining since then."""
        closing = self._closing.get(model)
        return self._answer_s if closing is None else max(0.0, self._answer_s - (self._now - closing.since))

    def announced(self, mark: int) -> None:
        """Routers have been told, in the state of this mark."""
        for closing in self._closing.values():
            closing.mark = mark if closing.mark is None else closing.mark

    def _refuses(self, tenant: str, model: str) -> bool:
        return tenant not in self._queues and self.over(tenant, model) is not None

    def _may_drain(self, want: Want) -> bool:
        """Nothing that was admitted waits for an answer, as far as routers have said since they refuse; or it has had
        its time. Of who may wait for the next period, all that is not sent does."""
        closing = self._closing.get(want.model)
        if closing is None or self._now - closing.since >= self._answer_s:
            return True
        queued, in_flight, _ = self._demand.sums(want.model)
        told = closing.mark is not None and self._announcements.heard_since(closing.mark)
        return told and not queued and not in_flight

    def _burns(self, models: Iterable[Model], of_interest: set[str]) -> dict[str, Burn]:
        burns: dict[str, Burn] = {}

        def add(tenant: str, model: str, burn: Burn) -> None:
            for key in (budget_key(tenant), budget_key(tenant, model)):
                burns[key] = burns.get(key, Burn()) + burn

        for model in models:
            if model.spec.tenant in of_interest:
                stored = stored_bytes(model) * self._rates.storage_micros_per_gib_month
                standing = self._rates.managed(-(-stored // (GIB * HOURS_PER_MONTH)))
                least = self._price(model.spec.resources)
                add(model.spec.tenant, model.spec.name, Burn(standing=standing, least=least))
        for runner in self._registry:
            held = runner.assignment
            if held is not None and held.tenant in of_interest and runner.state is not RunnerState.GONE:
                add(held.tenant, held.model, Burn(running=self._price(held.resources)))
        return burns

    def _price(self, resources: Resources) -> int:
        return self._rates.managed(self._prices.shape(resources).micros_per_hour)

    def _word(self, standing: Standing) -> str:
        if standing.state is not BudgetState.SPENT:
            return "warning"
        return "queue" if standing.budget.tenant in self._queues else "refuse"

    def _log_changes(self) -> None:
        states = {(key, each.budget.period): each for key, group in self.standings.items() for each in group}
        for (key, period), standing in states.items():
            before = self._states.get((key, period), BudgetState.OK)
            if standing.state is not before:
                log = get_logger().info if standing.state < before else get_logger().warning
                log(
                    "budget",
                    tenant=standing.budget.tenant,
                    model=standing.budget.model,
                    state=standing.state.name.lower(),
                    period=str(period),
                    budget_micros=standing.budget.micros,
                    spent_micros=standing.spent_micros,
                    reserved_micros=standing.reserved_micros,
                )
        self._states = {key: standing.state for key, standing in states.items()}


def _budgets_of_model(model: Model) -> list[Budget]:
    return budgets_of(model.spec.tenant, model.spec.name, model.spec.limits)


def _notice(standing: Standing, word: str) -> BudgetNotice:
    return BudgetNotice(word, standing.subject, standing.reason, standing.returns_at)
