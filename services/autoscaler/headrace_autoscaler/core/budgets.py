"""Budgets of money per calendar hour and month (UTC): what is spent, what is set aside, and what follows.

A budget reserves ahead: for what runs, one tick; for what no drain ends (stored files), the rest of its period.
It is spent when not even one more tick fits. From then on it is spent until its period ends or its amount changes,
although draining gives back what was set aside: otherwise the last cents would start and stop instances in turns.
So money spent <= budget + one tick + the drain.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import IntEnum, StrEnum
from functools import lru_cache

from headrace_autoscaler.core.ledger import HOUR_US
from headrace_autoscaler.domain import Limits, UsageKey
from headrace_common.quantities import format_micros

TICK_US = 10**6
"""How far ahead is reserved, and how often the books are written and budgets reviewed at the latest."""
_SECOND_US = 10**6
_WARN_PERCENT = 80


class Period(StrEnum):
    HOUR = "hour"
    MONTH = "month"


class BudgetState(IntEnum):
    OK = 0
    WARNED = 1
    SPENT = 2


@dataclass(frozen=True, slots=True)
class Budget:
    """Model: empty for the tenant's own."""

    tenant: str
    model: str
    period: Period
    micros: int

    @property
    def key(self) -> str:
        return budget_key(self.tenant, self.model)


@dataclass(frozen=True, slots=True)
class Burn:
    """Money that goes by, micro-units per hour.

    Attributes:
        running: of what runs and a drain would end.
        standing: of what no drain ends.
        least: of the cheapest instance that could be started; 0: there is nothing to start.
    """

    running: int = 0
    standing: int = 0
    least: int = 0

    def __add__(self, other: Burn) -> Burn:
        least = min(self.least, other.least) or max(self.least, other.least)
        return Burn(self.running + other.running, self.standing + other.standing, least)


@dataclass(frozen=True, slots=True)
class Standing:
    """How a budget stands. `returns_at`: seconds since the epoch when its period ends."""

    budget: Budget
    spent_micros: int
    reserved_micros: int
    state: BudgetState
    returns_at: int
    currency: str

    @property
    def free_micros(self) -> int:
        return max(0, self.budget.micros - self.spent_micros - self.reserved_micros)

    @property
    def subject(self) -> str:
        """As refusals name it: "tenant:a", "tenant:a/model:m"."""
        model = self.budget.model
        return f"tenant:{self.budget.tenant}/model:{model}" if model else f"tenant:{self.budget.tenant}"

    @property
    def amount(self) -> str:
        money = f"{format_micros(self.budget.micros)} {self.currency}".rstrip()
        return f"{money} per {self.budget.period}"

    @property
    def fact(self) -> str:
        """Why nothing starts; the same text for as long as the budget is spent, or is short."""
        whose = f"tenant '{self.budget.tenant}'"
        if self.budget.model:
            whose = f"model '{self.budget.model}' of {whose}"
        verb = (
            "has spent its" if self.state is BudgetState.SPENT else "has too little left for one more instance of its"
        )
        return f"{whose} {verb} {self.amount}"

    @property
    def reason(self) -> str:
        """The same, and until when, and what helps."""
        when = datetime.fromtimestamp(self.returns_at, UTC)
        at = f"{when:%H:%M}" if self.budget.period is Period.HOUR else f"{when:%Y-%m-%d %H:%M}"
        return (
            f"{self.fact}; it may start instances again at {at} UTC, or once the budget is raised "
            f"(`headrace tenant describe {self.budget.tenant}` shows it)"
        )


Standings = Mapping[str, tuple[Standing, ...]]
"""By `budget_key`."""


def budget_key(tenant: str, model: str = "") -> str:
    return f"{tenant}/{model}" if model else tenant


def budgets_of(tenant: str, model: str, limits: Limits) -> list[Budget]:
    found = ((Period.HOUR, limits.budget_micros_per_hour), (Period.MONTH, limits.budget_micros_per_month))
    return [Budget(tenant, model, period, micros) for period, micros in found if micros is not None]


def binding(standings: Iterable[Standing]) -> Standing | None:
    """The one that counts: the worst, of equal ones the one that is back last; None: there is no budget."""
    return max(standings, key=lambda each: (each.state, each.returns_at), default=None)


@lru_cache(maxsize=64)
def began(period: Period, at_s: int) -> int:
    """When the period began that this moment is in; seconds since the epoch."""
    at = datetime.fromtimestamp(at_s, UTC).replace(minute=0, second=0, microsecond=0)
    return int((at if period is Period.HOUR else at.replace(day=1, hour=0)).timestamp())


@lru_cache(maxsize=64)
def ends(period: Period, began_s: int) -> int:
    if period is Period.HOUR:
        return began_s + 3600
    some_day_of_the_next = datetime.fromtimestamp(began_s, UTC) + timedelta(days=32)
    return int(some_day_of_the_next.replace(day=1).timestamp())


class Tally:
    """Money by tenant and by its models, in the hours and months that are still of interest."""

    def __init__(self) -> None:
        self._sums: dict[tuple[Period, int], dict[str, int]] = {}

    def open(self, period: Period, began_s: int, spent: Mapping[tuple[str, str], int]) -> None:
        """What the store says was spent in a period, by (tenant, model)."""
        for (tenant, model), micros in spent.items():
            self._add(period, began_s, tenant, model, micros)

    def add(self, key: UsageKey, micros: int) -> None:
        for period in Period:
            self._add(period, began(period, key.hour), key.tenant, key.model, micros)

    def spent(self, key: str, period: Period, began_s: int) -> int:
        return self._sums.get((period, began_s), {}).get(key, 0)

    def forget_before(self, now_s: int) -> None:
        """Periods that are over for long."""
        self._sums = {key: sums for key, sums in self._sums.items() if ends(*key) > now_s - 3600}

    def _add(self, period: Period, began_s: int, tenant: str, model: str, micros: int) -> None:
        sums = self._sums.setdefault((period, began_s), {})
        for key in {budget_key(tenant), budget_key(tenant, model)}:
            sums[key] = sums.get(key, 0) + micros


class Budgets:
    """Which budgets are spent, from one review to the next."""

    def __init__(self, currency: str) -> None:
        self._currency = currency
        self._spent: dict[tuple[str, Period], tuple[int, int, int]] = {}

    def review(
        self, budgets: Iterable[Budget], burns: Mapping[str, Burn], tally: Tally, now_us: int
    ) -> dict[str, tuple[Standing, ...]]:
        """How every budget stands.

        Args:
            burns: by `budget_key`; nobody burns what is not named.
        """
        standings: dict[str, tuple[Standing, ...]] = {}
        spent: dict[tuple[str, Period], tuple[int, int, int]] = {}
        for budget in budgets:
            begun = began(budget.period, now_us // _SECOND_US)
            burn = burns.get(budget.key, Burn())
            standing = self._judge(budget, burn, tally, begun, now_us)
            if standing.state is BudgetState.SPENT:
                spent[budget.key, budget.period] = (begun, budget.micros, burn.standing)
            standings[budget.key] = (*standings.get(budget.key, ()), standing)
        self._spent = spent
        return standings

    def _judge(self, budget: Budget, burn: Burn, tally: Tally, begun: int, now_us: int) -> Standing:
        until = ends(budget.period, begun)
        spent = tally.spent(budget.key, budget.period, begun)
        kept = _cost(burn.standing, max(0, until * _SECOND_US - now_us))
        reserved = kept + _cost(burn.running, TICK_US)
        least = kept + _cost(max(burn.running, burn.least), TICK_US)
        # What drains gives back starts nothing anew; files that were deleted may.
        was_begun, was_micros, was_standing = self._spent.get((budget.key, budget.period), (0, 0, 0))
        latched = (was_begun, was_micros) == (begun, budget.micros) and burn.standing >= was_standing
        if latched or spent + least >= budget.micros:
            state = BudgetState.SPENT
        elif spent * 100 >= budget.micros * _WARN_PERCENT:
            state = BudgetState.WARNED
        else:
            state = BudgetState.OK
        return Standing(budget, spent, reserved, state, until, self._currency)


def _cost(micros_per_hour: int, duration_us: int) -> int:
    """Rounded up."""
    return -(-micros_per_hour * duration_us // HOUR_US)
