"""How limits are divided among routers, and that nobody ever has more of them than there is."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize

from headrace_autoscaler.core.leases import LeaseBook, Share, Want
from headrace_autoscaler.core.wants import Use, WantMeter
from headrace_autoscaler.domain import Limits
from tests.autoscaler.lease_mesh import TTL_S, LeaseMesh

KEY = "acme"
PERIOD_S = 100.0
"""Of a report; so long that what was before it is forgotten."""


def book_of(limits: Limits, routers: int, held_until: float = 0.0) -> LeaseBook:
    book = LeaseBook(routers, TTL_S, held_until)
    book.set_limits({KEY: limits})
    return book


def issue(book: LeaseBook, router: str, now: float = 0.0, *, heard: bool = True) -> Share:
    serial, shares = book.issue(router, [KEY], now, now)
    if heard:
        book.applied(router, serial)
    return shares[KEY]


@pytest.mark.parametrize(
    ("limit", "routers", "floor"),
    [
        pytest.param(10, 1, 10, id="a single router has all, for ever"),
        pytest.param(10, 2, 2, id="half of an equal part"),
        pytest.param(4, 4, 1, id="at least one where there is one for each"),
        pytest.param(3, 4, 0, id="fewer than routers: none has a claim"),
        pytest.param(0, 2, 0, id="nothing at all"),
    ],
)
def test_floors(limit: int, routers: int, floor: int) -> None:
    share = issue(book_of(Limits(concurrency=limit), routers), "router-0")
    assert share.floor.concurrency == floor


def test_without_demand_parts_are_equal_and_use_up_the_limit() -> None:
    book = book_of(Limits(concurrency=5, requests_per_second=9.0, queue_length=7, queue_bytes=1001), 2)
    for _ in range(2):
        shares = [issue(book, f"router-{number}").limits for number in range(2)]
    assert shares == [Limits(None, None, None, None, 3, 4.5, 4, 501), Limits(None, None, None, None, 2, 4.5, 3, 500)]


def test_what_is_not_limited_is_not_leased() -> None:
    share = issue(book_of(Limits(cpu_millicores=5), 2), "router-0")
    assert not share.limited
    assert share == Share(Limits(), Limits())


def test_parts_go_where_they_are_needed_once_the_other_router_has_given_way() -> None:
    book = book_of(Limits(concurrency=20), 2)
    for _ in range(2):
        before = [issue(book, f"router-{number}").limits.concurrency for number in range(2)]
    assert before == [10, 10]
    book.want("router-0", {KEY: Want(in_hand=100.0)})
    assert book.moves(["router-0", "router-1"], 0.0) == {"router-0": [], "router-1": [KEY]}
    assert issue(book, "router-0").limits.concurrency == 10, "router-1 does not know yet"
    assert issue(book, "router-1", heard=False).limits.concurrency == 5, "the floor stays"
    assert issue(book, "router-0", 9.9).limits.concurrency == 10, "router-1 may not have heard of it"
    assert issue(book, "router-0", 10.1).limits.concurrency == 15, "its old lease has run out by now"


def test_what_a_router_gives_back_moves_on_whenever_that_is_heard() -> None:
    book = book_of(Limits(concurrency=20), 2, held_until=TTL_S)
    serials = {router: book.issue(router, [KEY], 0.0, 0.0)[0] for router in book.routers}
    assert book.moves(book.routers, 0.0) == {"router-0": [], "router-1": []}, "either may obey more from before"
    book.applied("router-1", serials["router-1"])
    assert book.moves(book.routers, 0.0) == {"router-0": [KEY], "router-1": []}


def test_the_floor_of_a_router_that_is_away_is_not_lent() -> None:
    book = book_of(Limits(concurrency=20), 2, held_until=10.0)
    assert issue(book, "router-0", 0.0).limits.concurrency == 5, "router-1 may have all else from before"
    book.want("router-0", {KEY: Want(in_hand=100.0)})
    assert issue(book, "router-0", 10.0).limits.concurrency == 15


def test_a_router_beyond_those_configured_gets_nothing_of_a_limit() -> None:
    assert issue(book_of(Limits(concurrency=20), 2), "router-7").limits.concurrency == 0


def test_a_limit_that_is_cut_takes_effect_as_routers_hear_of_it() -> None:
    book = book_of(Limits(concurrency=20), 2)
    for _ in range(2):
        for number in range(2):
            issue(book, f"router-{number}")
    book.set_limits({KEY: Limits(concurrency=4)})
    first = [issue(book, f"router-{number}").limits.concurrency for number in range(2)]
    second = [issue(book, f"router-{number}").limits.concurrency for number in range(2)]
    assert first == [1, 2], "router-1 may still be obeying its ten when router-0 is told"
    assert second == [2, 2]


@pytest.mark.parametrize(
    ("use", "in_hand"),
    [
        (Use("t", "m", 100, 0, 4, hits=90), 4.0),
        (Use("t", "m", 900, 324, 0, hits=576, over_rate=324), 0.0),
        (Use("t", "m", 200, 100, 5, hits=50, over_rate=100), 10.0),
        (Use("t", "m", 1000, 50, 10, hits=900), 20.0),
        (Use("t", "m", 30, 30, 0), 30.0),
        (Use("t", "m", 10, 40, 6, hits=10), 46.0),
        (Use("t", "m", 0, 5, 1), 6.0),
    ],
    ids=[
        "hits hold nothing",
        "nor would they, had their rate been larger",
        "of those over the rate some would have been hits",
        "who is refused for what is in hand was no hit",
        "nobody came in",
        "those who failed came earlier",
        "nobody came at all",
    ],
)
def test_hits_need_rate_and_nothing_else(use: Use, in_hand: float) -> None:
    want = WantMeter(0.0).report([use], PERIOD_S, complete=True)["t"]
    assert (want.rate * PERIOD_S, want.in_hand) == pytest.approx((use.arrivals, in_hand))


def test_needs_rise_at_once_and_fade() -> None:
    meter = WantMeter(0.0)
    busy = Use("acme", "m", arrivals=100, refused=50, in_hand=10)
    wants = meter.report([busy, Use("acme", "n", 0, 0, 5)], 1.0, complete=False)
    assert wants["acme"].in_hand == 25.0, "twice the ten, had nobody been refused"
    assert wants["acme/m"].in_hand == 20.0
    assert 0.0 < wants["acme"].rate < 100.0
    assert meter.report([], 1.5, complete=False) == wants, "an urgent report speaks only of what it names"
    fading = [meter.report([], 2.0 + second, complete=True).get("acme", Want()).in_hand for second in range(30)]
    assert fading == sorted(fading, reverse=True)
    assert fading[-1] == 0.0


def test_a_rate_within_its_own_is_needed_at_once_and_what_lies_above_after_a_while() -> None:
    meter, quarter = WantMeter(0.0), [Use("acme", "m", 25, 0, 0)]
    own = {"acme": 60.0}

    def rate(period_s: float, now: float) -> float:
        return meter.report(quarter, now, complete=True, period_s=period_s, own=lambda key: own.get(key, 0.0))[
            "acme"
        ].rate

    assert rate(0.25, 0.25) == 60.0
    rates = [rate(0.25, 0.25 * (tick + 2)) for tick in range(40)]
    assert rates == sorted(rates)
    assert rates[-1] == pytest.approx(100.0, rel=0.02)
    burst = [rate(0.25, 20.0 + 0.001 * tick) for tick in range(40)]
    assert max(burst) <= 100.0, "reports that are handled late are still of the time that they say"


def test_a_very_short_report_says_little_of_a_rate() -> None:
    meter = WantMeter(0.0)
    wants = meter.report([Use("acme", "m", 5, 5, 0)], 0.01, complete=False, period_s=0.01, own=lambda _: 1000.0)
    assert wants["acme"].rate < 5.0


# --- whatever is late, lost or dead ---


class Mesh(LeaseMesh):
    """One tenant."""

    @initialize(
        processes=st.integers(1, 3),
        concurrency=st.integers(0, 20),
        rate=st.floats(0.0, 50.0),
        queue_bytes=st.integers(0, 10_000),
    )
    def begin(self, processes: int, concurrency: int, rate: float, queue_bytes: int) -> None:
        limits = Limits(concurrency=concurrency, requests_per_second=rate, queue_bytes=queue_bytes)
        self.set_up(processes, {KEY: limits})


TestMesh = Mesh.TestCase
TestMesh.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_in_quiet_times_all_of_a_limit_is_lent() -> None:
    mesh = Mesh()
    mesh.begin(3, 20, 9.0, 1000)
    mesh.all_goes_well_for_a_while("router-2", 0)
    parts = [mesh.routers[f"router-{number}"].obeys(KEY, "concurrency", mesh.now) for number in range(3)]
    assert (sum(parts), max(parts)) == (20, parts[2])
    assert parts[2] == 14


@pytest.mark.parametrize("seed", range(20))
def test_in_a_long_life_nobody_has_more_than_there_is(seed: int) -> None:
    """The same machine, deeper than a search for short examples goes."""
    random = Random(seed)
    mesh = Mesh()
    mesh.begin(random.choice([2, 3]), random.choice([5, 20]), 9.0, 1000)
    names = list(mesh.routers)

    def some() -> str:
        return random.choice(names)

    steps = (
        (6, lambda: mesh.time_passes(random.choice([0.1, 1.0, 3.0, 9.0, 11.0]))),
        (10, lambda: mesh.the_autoscaler_writes(some())),
        (10, lambda: mesh.the_autoscaler_writes_of_one(some(), 0)),
        (20, lambda: mesh.the_router_reads(some())),
        (20, lambda: mesh.the_autoscaler_reads(some())),
        (1, lambda: mesh.demand_moves_while_requests_are_in_hand(some(), 0, some(), 0)),
        (10, lambda: mesh.the_router_reports(some())),
        (10, lambda: mesh.requests_come(some(), 0, random.choice([1, 20]))),
        (5, lambda: mesh.requests_are_answered(some(), 0, random.choice([1, 20]))),
        (10, lambda: mesh.demand_is_reported(some(), 0, random.choice([0.0, 100.0]), random.choice([0.0, 40.0]))),
        (3, lambda: mesh.connects(some())),
        (1, lambda: mesh.connects_and_is_heard_late(some(), 12.0)),
        (1, lambda: mesh.the_autoscaler_gives_the_stream_up(some())),
        (0.3, lambda: mesh.the_router_is_replaced(some())),
        (0.2, mesh.the_autoscaler_is_replaced),
        (1, lambda: mesh.all_goes_well_for_a_while(some(), 0)),
    )
    weights, moves = [weight for weight, _ in steps], [move for _, move in steps]
    for move in random.choices(moves, weights, k=2000):
        move()
        mesh.nobody_has_more_than_there_is()
