"""The books are exact, however often they are cut."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace_autoscaler.core.ledger import Account, Ledger
from headrace_autoscaler.core.pricing import LocalPrices
from headrace_autoscaler.core.rates import FREE
from headrace_autoscaler.domain import Resources, Usage, UsageKey

HOUR_US = 3600 * 10**6
START_US = 486_111 * HOUR_US
ACCOUNT = Account("acme", "m", "small", "on_demand", 42_500)


def test_an_hour_costs_its_price_and_is_booked_to_its_hour() -> None:
    ledger = Ledger(FREE)
    ledger.book_time(ACCOUNT, START_US, START_US + HOUR_US)
    key = UsageKey(START_US // 10**6, "acme", "m", "small", "on_demand")
    assert ledger.take() == {key: Usage(instance_seconds=3600.0, cost_micros=42_500)}
    assert ledger.take() == {}


def test_time_across_an_hours_end_is_split() -> None:
    ledger = Ledger(FREE)
    ledger.book_time(ACCOUNT, START_US - 2_000_000, START_US + 3_000_000)
    booked = {key.hour: usage.instance_seconds for key, usage in ledger.take().items()}
    assert booked == {START_US // 10**6 - 3600: 2.0, START_US // 10**6: 3.0}


@given(
    micros_per_hour=st.integers(0, 10**9),
    cuts=st.lists(st.tuples(st.integers(0, 5 * 10**6), st.booleans()), min_size=1, max_size=60),
)
def test_sums_do_not_depend_on_how_time_is_cut(micros_per_hour: int, cuts: list[tuple[int, bool]]) -> None:
    account = Account("acme", "m", "small", "on_demand", micros_per_hour)
    ledger, at, cost, booked_us = Ledger(FREE), START_US - 30_000_000, 0, 0
    begin = at
    for duration, flush in cuts:
        ledger.book_time(account, at, at + duration)
        at += duration
        if flush:
            for usage in ledger.take().values():
                cost += usage.cost_micros
                booked_us += round(usage.instance_seconds * 1e6)
    for usage in ledger.take().values():
        cost += usage.cost_micros
        booked_us += round(usage.instance_seconds * 1e6)
    assert booked_us == at - begin
    assert cost == micros_per_hour * (at - begin) // HOUR_US


@given(st.lists(st.integers(0, 10**7), min_size=1, max_size=20))
def test_what_could_not_be_written_is_written_later(durations: list[int]) -> None:
    failing, steady, at = Ledger(FREE), Ledger(FREE), START_US
    for duration in durations:
        for ledger in (failing, steady):
            ledger.book_time(ACCOUNT, at, at + duration)
            ledger.book_requests(ACCOUNT, at, 3, duration)
            ledger.book_cold_start(ACCOUNT, at)
        at += duration
        failing.give_back(failing.take())
    assert failing.take() == steady.take()


def test_a_shape_is_named_by_what_it_holds_and_priced_by_its_cpus() -> None:
    prices = LocalPrices.parse("0.0425", "USD")
    shape = prices.shape(Resources(500, 2 << 30))
    assert (shape.name, shape.micros_per_hour) == ("local-0.5cpu-2Gi", 21_250)
