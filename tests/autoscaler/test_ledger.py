"""The books are exact, however often they are cut."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from headrace_autoscaler.core.ledger import Account, Ledger
from headrace_autoscaler.core.pricing import LocalPrices
from headrace_autoscaler.core.rates import FREE, HOURS_PER_MONTH, Rates
from headrace_autoscaler.domain import Resources, Usage, UsageKey
from headrace_autoscaler.shape_catalog import load_catalog

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


RATES = Rates(10_000, 100_000, 5_000, 50_000)
GIB = 1 << 30
KEPT = Account("acme", "m")


def test_what_serving_costs_beside_instances_is_booked_by_its_rates() -> None:
    ledger = Ledger(RATES)
    ledger.book_requests(ACCOUNT, START_US, 2, 1_000_000, 3 * GIB)
    ledger.book_cache(KEPT, START_US, 2 * GIB * 3600)
    month = HOURS_PER_MONTH * HOUR_US
    ledger.book_storage(KEPT, GIB, START_US, START_US + month)
    booked = ledger.take()
    network = booked[UsageKey(START_US // 10**6, "acme", "m", "small", "on_demand")]
    assert network == Usage(
        0.0, 1.0, 2, 0, 31_500, network_bytes=3 * GIB, network_micros=30_000, management_micros=1_500
    )
    kept = [usage for key, usage in booked.items() if not key.shape]
    assert len(kept) == HOURS_PER_MONTH
    assert sum(usage.storage_byte_seconds for usage in kept) == GIB * HOURS_PER_MONTH * 3600
    assert sum(usage.storage_micros for usage in kept) == 100_000
    assert sum(usage.cache_micros for usage in kept) == 10_000
    assert sum(usage.management_micros for usage in kept) == 5_500


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["time", "storage", "requests", "cache"]), st.integers(0, 10**7), st.integers(0, 1 << 34)
        ),
        min_size=1,
        max_size=40,
    ),
    st.integers(0, 10**6),
)
def test_every_part_is_exact_however_it_is_cut(bookings: list[tuple[str, int, int]], share_ppm: int) -> None:
    """Against one division at the end, of exact fractions."""
    rates = Rates(10_007, 100_003, 5_009, share_ppm)
    paid: list[int] = []
    ledger = Ledger(rates, lambda _, micros: paid.append(micros))
    owed = dict.fromkeys(("time", "storage", "requests", "cache"), Fraction(0))
    sums: Counter[str] = Counter()
    at = START_US - 20_000_000
    for what, duration, size in bookings:
        if what == "time":
            ledger.book_time(ACCOUNT, at, at + duration)
            owed[what] += Fraction(ACCOUNT.micros_per_hour * duration, HOUR_US)
        elif what == "storage":
            ledger.book_storage(KEPT, size, at, at + duration)
            owed[what] += Fraction(
                size * duration * rates.storage_micros_per_gib_month, GIB * HOURS_PER_MONTH * HOUR_US
            )
        elif what == "requests":
            ledger.book_requests(ACCOUNT, at, 1, 0, size)
            owed[what] += Fraction(size * rates.network_micros_per_gib, GIB)
        else:
            ledger.book_cache(KEPT, at, size)
            owed[what] += Fraction(size * rates.cache_micros_per_gib_hour, GIB * 3600)
        at += duration
        if duration % 3 == 0:
            _add(sums, ledger)
    _add(sums, ledger)
    assert sums["storage_micros"] == int(owed["storage"])
    assert sums["network_micros"] == int(owed["requests"])
    assert sums["cache_micros"] == int(owed["cache"])
    parts = sums["storage_micros"] + sums["network_micros"] + sums["cache_micros"] + sums["management_micros"]
    assert sums["cost_micros"] - parts == int(owed["time"])
    # Two accounts carry what is left of their shares: two micro-units at most.
    shares = (sums["cost_micros"] - sums["management_micros"]) * share_ppm / 10**6
    assert shares - 2 < sums["management_micros"] <= shares
    assert sum(paid) == sums["cost_micros"]


def _add(sums: Counter[str], ledger: Ledger) -> None:
    for usage in ledger.take().values():
        sums.update({name: getattr(usage, name) for name in Usage.__dataclass_fields__ if name.endswith("_micros")})


def test_an_operators_file_replaces_the_rates_that_it_names(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('currency = "EUR"\n[rates]\nnetwork_per_gib = "0.09"\n')
    assert load_catalog(file).rates == Rates(90_000)
    assert load_catalog().rates == Rates(), "the shipped catalogue's are the default ones"


def test_a_shape_is_named_by_what_it_holds_and_priced_by_its_cpus() -> None:
    prices = LocalPrices.parse("0.0425", "USD")
    shape = prices.shape(Resources(500, 2 << 30))
    assert (shape.name, shape.micros_per_hour) == ("local-0.5cpu-2Gi", 21_250)
