"""Money that may be spent: when a budget is spent, what follows, and that it is never overrun by more than a tick and
the drain, whatever happens."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace_autoscaler.core.budgets import (
    Budget,
    Budgets,
    BudgetState,
    Burn,
    Period,
    Tally,
    began,
    budget_key,
    budgets_of,
    ends,
)
from headrace_autoscaler.core.ledger import HOUR_US, Account, Ledger
from headrace_autoscaler.core.plans import Holding, Want
from headrace_autoscaler.core.rates import FREE
from headrace_autoscaler.core.rationing import ration
from headrace_autoscaler.domain import Limits, ModelSpec, Resources, Tenant, UsageKey
from headrace_common.errors import QuotaExceeded
from tests.autoscaler.bookkeeping import OpenWorld, revision_of, serving

START_S = int(datetime(2026, 3, 31, 23, 0, tzinfo=UTC).timestamp())
START_US = START_S * 10**6
SECOND_US = 10**6
HOURLY = Budget("acme", "", Period.HOUR, 3_600_000)
"""A thousand micro-units a second."""
ONE = Burn(running=3_600_000, least=3_600_000)
"""An instance that costs as much."""
NOW_US = START_US + 60 * SECOND_US


def tally_of(spent: int, tenant: str = "acme", model: str = "m", hour: int = START_S) -> Tally:
    tally = Tally()
    tally.add(UsageKey(hour, tenant, model, "s", "c"), spent)
    return tally


@pytest.mark.parametrize(
    ("moment", "hour", "month"),
    [
        ("2026-03-31T23:59:59", "2026-03-31T23:00:00 2026-04-01T00:00:00", "2026-03-01T00:00:00 2026-04-01T00:00:00"),
        ("2026-12-31T23:00:00", "2026-12-31T23:00:00 2027-01-01T00:00:00", "2026-12-01T00:00:00 2027-01-01T00:00:00"),
        ("2028-02-29T12:30:00", "2028-02-29T12:00:00 2028-02-29T13:00:00", "2028-02-01T00:00:00 2028-03-01T00:00:00"),
    ],
)
def test_periods_are_calendar_hours_and_months(moment: str, hour: str, month: str) -> None:
    at = int(datetime.fromisoformat(f"{moment}+00:00").timestamp())
    for period, expected in ((Period.HOUR, hour), (Period.MONTH, month)):
        bounds = began(period, at), ends(period, began(period, at))
        assert " ".join(datetime.fromtimestamp(each, UTC).isoformat()[:19] for each in bounds) == expected


@pytest.mark.parametrize(
    ("spent", "burn", "state"),
    [
        pytest.param(0, ONE, BudgetState.OK, id="new"),
        pytest.param(2_879_999, ONE, BudgetState.OK, id="just below 80 %"),
        pytest.param(2_880_000, ONE, BudgetState.WARNED, id="80 %"),
        pytest.param(3_598_999, ONE, BudgetState.WARNED, id="one more tick fits"),
        pytest.param(3_599_000, ONE, BudgetState.SPENT, id="not even one more tick fits"),
        pytest.param(3_599_000, Burn(), BudgetState.WARNED, id="nothing runs and nothing could"),
        pytest.param(3_600_000, Burn(), BudgetState.SPENT, id="all of it"),
        pytest.param(0, Burn(running=3_600_000 * 3600), BudgetState.SPENT, id="so much runs that a tick is too much"),
        pytest.param(3_500_000, Burn(standing=100_000), BudgetState.WARNED, id="storage until the hour ends fits"),
        pytest.param(3_500_000, Burn(standing=110_000), BudgetState.SPENT, id="storage would not fit"),
    ],
)
def test_a_budget_is_spent_when_no_tick_is_left(spent: int, burn: Burn, state: BudgetState) -> None:
    [standing] = Budgets("USD").review([HOURLY], {"acme": burn}, tally_of(spent), NOW_US)["acme"]
    assert standing.state is state


def test_a_spent_budget_stays_spent_until_its_period_ends_or_it_changes() -> None:
    budgets, tally = Budgets("USD"), tally_of(3_599_500)

    def state(budget: Budget, burn: Burn, now_us: int) -> BudgetState:
        return budgets.review([budget], {"acme": burn}, tally, now_us)["acme"][0].state

    assert state(HOURLY, ONE, NOW_US) is BudgetState.SPENT
    assert state(HOURLY, Burn(), NOW_US + SECOND_US) is BudgetState.SPENT, "draining gives nothing back"
    assert state(replace(HOURLY, micros=7_200_000), Burn(), NOW_US) is BudgetState.OK
    assert state(HOURLY, ONE, NOW_US) is BudgetState.SPENT
    assert state(HOURLY, ONE, START_US + HOUR_US) is BudgetState.OK, "a new hour"


def test_a_budget_that_stored_files_had_used_up_is_back_when_they_are_deleted() -> None:
    budgets, tally = Budgets("USD"), tally_of(0)
    files = Burn(standing=100 * HOURLY.micros)

    def state(burn: Burn) -> BudgetState:
        return budgets.review([HOURLY], {"acme": burn}, tally, NOW_US)["acme"][0].state

    assert [state(files), state(Burn()), state(files)] == [BudgetState.SPENT, BudgetState.OK, BudgetState.SPENT]


def test_a_reason_names_the_budget_and_says_when_it_is_back() -> None:
    month = Budget("acme", "m", Period.MONTH, 300_000_000)
    standings = Budgets("EUR").review([HOURLY, month], {}, tally_of(300_000_000), NOW_US)
    assert standings["acme"][0].reason == (
        "tenant 'acme' has spent its 3.60 EUR per hour; it may start instances again at 00:00 UTC, or once the budget "
        "is raised (`headrace tenant describe acme` shows it)"
    )
    assert standings["acme/m"][0].reason.startswith(
        "model 'm' of tenant 'acme' has spent its 300.00 EUR per month; it may start instances again at "
        "2026-04-01 00:00 UTC"
    )
    assert standings["acme/m"][0].subject == "tenant:acme/model:m"


def want(model: str, desired: int, tenant: str = "acme") -> Want:
    return Want(model, 1, tenant, Resources(), desired)


def holding(model: str, number: int, **fields: Any) -> Holding:
    return Holding(f"{model}-{number}", model, 1, "acme", Resources(), True, False, 0.0, **fields)


def rationed(free: int, wants: list[Want], held: list[Holding], model_free: int | None = None) -> list[tuple[int, str]]:
    """Each instance costs 1000 micro-units a tick. (desired, reason) of each."""
    limits = {"acme": Budget("acme", "", Period.HOUR, 3_600_000)}
    spent = {budget_key("acme"): 3_600_000 - free}
    if model_free is not None:
        limits["acme/m"] = Budget("acme", "m", Period.HOUR, 3_600_000)
        spent["acme/m"] = 3_600_000 - model_free
    tally = Tally()
    for key, micros in spent.items():
        tenant, _, model = key.partition("/")
        tally.open(Period.HOUR, START_S, {(tenant, model): micros})
    if model_free is not None:
        tally = Tally()
        tally.open(
            Period.HOUR, START_S, {("acme", "m"): spent["acme/m"], ("acme", "x"): spent["acme"] - spent["acme/m"]}
        )
    standings = Budgets("USD").review(limits.values(), {}, tally, NOW_US)
    found = ration(wants, held, standings, lambda _: 3_600_000, lambda _: True)
    return [(each.desired, each.held_back) for each in found]


def test_what_starts_is_reserved_ahead_by_a_tick() -> None:
    short = "tenant 'acme' has too little left for one more instance of its 3.60 USD per hour"
    assert rationed(2_500, [want("m", 5)], []) == [(2, "")]
    assert rationed(2_500, [want("m", 5)], [holding("m", 1)]) == [(3, "")]
    [one, other] = rationed(1_500, [want("m", 1), want("n", 1)], [])
    assert one == (1, "")
    assert other[1].startswith(short)
    assert rationed(2_500, [want("m", 1)], [holding("m", 1)]) == [(1, "")], "what runs is not asked"
    assert rationed(0, [want("m", 1, tenant="other")], []) == [(1, "")]


def test_a_models_own_budget_binds_inside_its_tenants() -> None:
    [(desired, reason)] = rationed(10_000, [want("m", 3)], [], model_free=500)
    assert desired == 3
    assert reason.startswith("model 'm' of tenant 'acme' has too little left")
    assert rationed(10_000, [want("n", 3)], [], model_free=500) == [(3, "")]


def test_of_a_spent_budget_everything_drains_once_it_may() -> None:
    standings = Budgets("USD").review([HOURLY], {"acme": ONE}, tally_of(3_600_000), NOW_US)
    for may in (True, False):
        [found] = ration([want("m", 2)], [holding("m", 1)], standings, lambda _: 1, lambda _, may=may: may)
        [standing] = standings["acme"]
        assert (found.spent, found.unpaid, found.held_back) == (may, standing, standing.reason)


def test_budgets_are_per_tenant_and_per_model() -> None:
    limits = Limits(budget_micros_per_hour=1, budget_micros_per_month=2)
    assert [(each.key, each.period, each.micros) for each in budgets_of("a", "m", limits)] == [
        ("a/m", Period.HOUR, 1),
        ("a/m", Period.MONTH, 2),
    ]
    assert budgets_of("a", "", Limits()) == []


class Mint:
    """A world of one tenant in ticks: what runs is paid, budgets are reviewed at least once a tick, and what is told
    to drain takes `drain_ticks` more."""

    def __init__(self, budget: int, drain_ticks: int, price: int) -> None:
        self.budget = Budget("acme", "", Period.HOUR, budget)
        self.price, self.drain_ticks = price, drain_ticks
        self.account = Account("acme", "m", "s", "c", price)
        self.now_us = START_US
        self.stored: dict[UsageKey, int] = {}
        self.running: list[int] = []
        self.draining: list[tuple[int, int]] = []
        self.most_running = 0
        self.lived_us = 0
        self.posted_until = START_US
        self.restart()

    def restart(self) -> None:
        """A kill: what was booked in memory is gone, what ran goes on and is booked by whoever comes next."""
        self.tally, self.budgets = Tally(), Budgets("USD")
        for key, micros in self.stored.items():
            self.tally.add(key, micros)
        self.ledger = Ledger(FREE, self.tally.add)
        self.booked_until = self.posted_until

    def review(self, wanted: int) -> None:
        """Settle, post, review, ration, act: one pass."""
        for since in (*self.running, *(begun for begun, _ in self.draining)):
            self.ledger.book_time(self.account, max(since, self.booked_until), self.now_us)
        self.booked_until = self.now_us
        self.draining = [(begun, left) for begun, left in self.draining if left > 0]
        running = len(self.running) + len(self.draining)
        burn = Burn(running=running * self.price, least=self.price)
        standings = self.budgets.review([self.budget], {"acme": burn}, self.tally, self.now_us)
        held = [holding("m", number) for number, _ in enumerate(self.running)]
        [found] = ration([want("m", wanted)], held, standings, lambda _: self.price, lambda _: True)
        if found.spent:
            self.draining += [(begun, self.drain_ticks) for begun in self.running]
            self.running = []
        elif not found.held_back:
            self.running += [self.now_us] * max(0, found.desired - len(self.running))
        self.most_running = max(self.most_running, len(self.running) + len(self.draining))

    def post(self) -> None:
        for key, usage in self.ledger.take().items():
            self.stored[key] = self.stored.get(key, 0) + usage.cost_micros
        self.posted_until = self.booked_until

    def tick(self, micros: int) -> None:
        self.now_us += micros
        self.lived_us += micros * (len(self.running) + len(self.draining))
        self.draining = [(begun, left - 1) for begun, left in self.draining]


@settings(max_examples=400)
@given(
    budget=st.integers(0, 60_000),
    drain_ticks=st.integers(0, 3),
    price=st.sampled_from([3_600, 42_500, 3_600_000, 36_000_000]),
    steps=st.lists(
        st.tuples(
            st.integers(0, 4),
            st.integers(1, SECOND_US),
            st.sampled_from(["", "", "", "killed", "killed before it posts"]),
        ),
        min_size=1,
        max_size=120,
    ),
)
def test_no_budget_is_overrun_by_more_than_a_tick_and_the_drain(
    budget: int, drain_ticks: int, price: int, steps: list[tuple[int, int, str]]
) -> None:
    mint = Mint(budget, drain_ticks, price)
    for wanted, passed_us, event in steps:
        mint.review(wanted)
        if event != "killed before it posts":
            mint.post()
        if event:
            mint.restart()
        mint.tick(passed_us)
    mint.review(0)
    mint.post()
    assert mint.now_us < START_US + HOUR_US
    # One tick is reserved for whatever runs; then what drains does so for its ticks, one of them begun. What was
    # rounded away by a kill is below a micro-unit for each.
    most = budget + mint.most_running * price * (drain_ticks + 2) * SECOND_US // HOUR_US + 1
    spent = sum(mint.stored.values())
    assert spent <= most
    assert spent <= price * mint.lived_us // HOUR_US, "nothing is booked twice"
    if not any(event for *_, event in steps):
        assert spent == price * mint.lived_us // HOUR_US, "and nothing is lost"


# Budgets at work.

BROKE = Tenant("acme", nominal=Limits(budget_micros_per_hour=42_500 // 36))
"""A hundred seconds of one CPU."""


async def test_a_budget_warns_refuses_and_drains_once_what_waited_is_answered(open_world: OpenWorld) -> None:
    world = await serving(open_world, BROKE)
    world.pass_time(85)
    await world.until(lambda: world.announcements.budgets.leases)
    assert world.announcements.budgets.leases["acme"].state == "warning"
    assert world.announcements.budgets.models == {}
    world.pass_time(16)
    await world.until(lambda: world.announcements.budgets.models)
    assert world.announcements.budgets.leases["acme"].state == "refuse"
    assert "has spent its 0.00118 USD per hour" in world.announcements.budgets.models["m"].reason
    assert world.instances("m"), "a request waits for its answer"
    world.demand("m", tenant="acme")
    await world.until(lambda: not world.fleet.view("m").instances)
    assert world.announcements.blocked == {}, "what lacks only money is refused as a quota"
    world.demand("m", queued=1, tenant="acme")
    await world.until(lambda: "has spent its" in world.fleet.view("m").blocked_reason)
    world.pass_time(3600)
    await world.until(lambda: world.instances("m"))
    assert world.announcements.budgets.models == {}


async def test_what_is_never_answered_does_not_keep_an_instance(open_world: OpenWorld) -> None:
    world = await serving(open_world, BROKE, drain_timeout_s=7.0)
    world.pass_time(101)
    await world.until(lambda: world.announcements.budgets.models)
    assert world.instances("m")
    world.pass_time(8)
    await world.until(lambda: not world.fleet.view("m").instances)


@pytest.mark.parametrize(
    ("waits_s", "left_s"),
    [
        pytest.param(3.0, 4.0, id="answered after a while"),
        pytest.param(8.0, 0.0, id="never answered"),
    ],
)
async def test_answers_and_the_drain_after_them_take_one_drain_together(
    open_world: OpenWorld, waits_s: float, left_s: float
) -> None:
    """It is paid for all the while: two drains in a row would overrun the budget by both."""
    world = await serving(open_world, BROKE, drain_timeout_s=7.0)
    [instance] = world.instances("m")
    world.pass_time(101)
    await world.until(lambda: world.announcements.budgets.models)
    world.pass_time(waits_s)
    if left_s:
        world.demand("m", tenant="acme")
    await world.until(lambda: world.machine.graces)
    assert world.machine.graces == {instance: left_s}


async def test_a_runner_that_does_not_end_in_what_is_left_of_its_drain_is_killed(open_world: OpenWorld) -> None:
    world = await serving(open_world, BROKE, drain_timeout_s=60.0)
    world.pass_time(101)
    await world.until(lambda: world.announcements.budgets.models)
    world.machine.may_exit.clear()
    world.pass_time(61)
    await world.until(lambda: world.machine.unloads)
    world.pass_time(6)
    await world.until(lambda: not world.fleet.view("m").instances)
    world.machine.may_exit.set()


async def test_who_queues_drains_at_once_and_is_not_refused(open_world: OpenWorld) -> None:
    world = await serving(open_world, replace(BROKE, refuse_at_budget=False))
    world.pass_time(101)
    await world.until(lambda: not world.fleet.view("m").instances)
    assert list(world.machine.graces.values()) == [world.parts.config.drain_timeout_s]
    assert world.announcements.budgets.leases["acme"].state == "queue"
    assert world.announcements.budgets.models == {}
    assert world.announcements.blocked == {}


async def test_a_first_load_is_refused_too(open_world: OpenWorld) -> None:
    world = await serving(open_world, BROKE)
    world.pass_time(101)
    await world.until(lambda: world.announcements.budgets.models)
    with pytest.raises(QuotaExceeded, match="has spent its") as refusal:
        await world.fleet.verify(ModelSpec("new", tenant="acme"), revision_of("new"))
    assert (refusal.value.subject, refusal.value.dimension) == ("tenant:acme", "budget")
    assert 0 < refusal.value.retry_after_s <= 3600


async def test_budgets_are_reviewed_every_tick_though_nothing_happens(open_world: OpenWorld) -> None:
    """Nobody reports and no decision is due for a minute: the money goes by all the same."""
    world = await serving(open_world, BROKE, decision_period_s=60.0)
    world.answered("m")
    await world.until(lambda: world.standby() == 1)
    passes = world.announcements.mark
    world.demand("m", tenant="acme")
    await world.until(lambda: world.announcements.mark > passes)
    world.clock.advance(101)
    await world.until(lambda: world.announcements.budgets.leases)
    assert world.announcements.budgets.leases["acme"].state == "refuse"
    await world.until(lambda: not world.fleet.view("m").instances)


async def test_a_load_is_left_to_finish_when_its_money_is_spent(open_world: OpenWorld) -> None:
    """One that is killed while it loads would count as a load that failed, and be tried again with a pause."""
    world = await serving(open_world, replace(BROKE, refuse_at_budget=False))
    world.answered("m")
    await world.until(lambda: world.standby() == 1)
    world.machine.may_load.clear()
    world.catalogue.put(ModelSpec("m", tenant="acme", min_instances=2), revision_of("m"))
    world.fleet.catalogue_changed()
    await world.until(lambda: len(world.machine.loads) == 2)
    [ready], [loading] = world.instances("m"), world.instances("m", "loading")
    world.pass_time(101)
    await world.until(lambda: world.machine.unloads == [ready])
    world.fleet.decide_now()
    assert world.instances("m", "loading") == [loading]
    world.machine.may_load.set()
    await world.until(lambda: not world.fleet.view("m").instances)
    assert world.machine.unloads == [ready, loading], "then it drains as the others did"
    assert not world.fleet.placing.failures
