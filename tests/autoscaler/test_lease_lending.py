"""What tenants of a cohort have of concurrency and rates on the live path."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace_autoscaler.core.lease_pool import HEADROOM
from headrace_autoscaler.core.leases import LeaseBook, Want
from headrace_autoscaler.core.quota.allotments import Member, allot
from headrace_autoscaler.domain import Limits, Tenant
from tests.autoscaler.lease_books import book_of, parts_of, set_tenants, settle, tenant, units
from tests.autoscaler.lease_mesh import TTL_S

# --- who has what ---


CASES = {
    "what nobody wants stays with its owners": ([tenant("a", 10), tenant("b", 20)], {}, (10, 20)),
    "what is idle is lent, but for the floor": ([tenant("a", 10), tenant("b", 20)], {"a": 90}, (20, 10)),
    "up to the borrowing limit": (
        [tenant("a", 10, borrowing_limit=Limits(concurrency=4)), tenant("b", 20)], {"a": 90}, (14, 16)),
    "down to the lending limit": (
        [tenant("a", 10), tenant("b", 20, lending_limit=Limits(concurrency=3))], {"a": 90}, (13, 17)),
    "no more than is wanted": ([tenant("a", 10), tenant("b", 20)], {"a": 12}, (15, 15)),
    "what its owner wants is not lent": ([tenant("a", 10), tenant("b", 20)], {"a": 90, "b": 12}, (15, 15)),
    "everybody has its own before anybody borrows": ([tenant("a", 10), tenant("b", 20)], {"a": 90, "b": 90}, (10, 20)),
    "by weight": (
        [tenant("a", 0, weight=2.0), tenant("b", 0), tenant("z", 60)], {"a": 90, "b": 90}, (20, 10, 30)),
    "who is in no cohort neither lends nor borrows": (
        [replace(tenant("a", 10), cohort=""), tenant("b", 20)], {"a": 90}, (10, 20)),
    "a tenant without a limit neither": ([tenant("a", None), tenant("b", 20), tenant("z", 10)],
                                         {"a": 90, "z": 90}, (None, 10, 20)),
}  # fmt: skip


@pytest.mark.parametrize(("tenants", "in_hand", "parts"), CASES.values(), ids=CASES.keys())
def test_who_has_what(tenants: list[Tenant], in_hand: dict[str, float], parts: tuple[int | None, ...]) -> None:
    book = book_of(tenants)
    book.want("router-0", {key: Want(in_hand=wanted) for key, wanted in in_hand.items()})
    assert tuple(each.concurrency for each in settle(book).values()) == parts


def test_rates_are_lent_like_concurrency_and_queues_are_not() -> None:
    own = Limits(concurrency=10, requests_per_second=10.0, queue_length=10, queue_bytes=1000)
    tenants = [Tenant(name, own, cohort="c") for name in "ab"]
    book = book_of(tenants)
    book.want("router-0", {"a": Want(rate=100.0, in_hand=100.0)})
    settle(book)
    _, shares = book.issue("router-0", ["a", "b"], 0.0, 0.0)
    assert shares["a"].limits == replace(own, concurrency=15, requests_per_second=15.0)
    assert shares["b"].limits == replace(own, concurrency=5, requests_per_second=5.0)
    assert (shares["a"].floor.concurrency, shares["b"].floor.concurrency) == (5, 5)


def test_what_a_lender_asks_for_comes_back_as_soon_as_the_borrower_has_said_that_it_gave_way() -> None:
    book = book_of([tenant("a", 10), tenant("b", 20)], routers=2)
    book.want("router-0", {"a": Want(in_hand=90.0)})
    assert [each.concurrency for each in settle(book).values()] == [20, 10]
    book.want("router-1", {"b": Want(in_hand=90.0)})
    assert set(book.moves(["router-0"], 1.0)["router-0"]) == {"a"}, "what is borrowed shrinks first"
    serial, shares = book.issue("router-0", ["a"], 1.0, 1.0)
    assert shares["a"].limits.concurrency == 8, "and 2 at the other router"
    assert book.moves(["router-1"], 1.0)["router-1"] == [], "it may not have been heard"
    book.applied("router-0", serial)
    assert book.moves(["router-1"], 1.0)["router-1"] == ["b"]
    assert settle(book, 1.0)["b"].concurrency == 20


def test_what_is_little_to_a_large_borrower_and_all_to_a_small_lender_comes_back() -> None:
    book = book_of([tenant("large", 1000), tenant("small", 10)])
    book.want("router-0", {"large": Want(in_hand=9000.0)})
    assert settle(book)["large"].concurrency == 1005
    book.want("router-0", {"large": Want(in_hand=9000.0), "small": Want(in_hand=10.0)})
    assert book.moves(["router-0"], 1.0) == {"router-0": ["large"]}
    assert settle(book, 1.0)["small"].concurrency == 10
    book.want("router-0", {"large": Want(in_hand=9000.0), "small": Want(in_hand=6.0)})
    assert book.moves(["router-0"], 2.0) == {"router-0": ["small"]}, "what grows may wait until it is worth a message"


@pytest.mark.parametrize(("limit", "kept"), [(1, 1), (2, 1), (3, 3)])
def test_a_limit_that_is_too_small_for_floors_is_not_lent_whole(limit: int, kept: int) -> None:
    book = book_of([tenant("a", 2), tenant("b", limit)], routers=3)
    book.want("router-0", {"a": Want(in_hand=9.0)})
    assert settle(book)["b"].concurrency == kept


def test_a_new_autoscaler_takes_all_to_be_lent_until_routers_have_spoken() -> None:
    book = book_of([tenant("a", 10), tenant("b", 20)], held_until=TTL_S)
    serial, shares = book.issue("router-0", ["a", "b"], 0.0, 0.0)
    assert [each.limits.concurrency for each in shares.values()] == [5, 10], "floors"
    assert book.applied("router-0", serial)
    assert book.moves(["router-0"], 0.0)["router-0"]
    assert [each.concurrency for each in settle(book).values()] == [10, 20]


@pytest.mark.parametrize("how", ["lifted", "deleted"])
def test_what_a_silent_router_obeys_of_a_limit_that_comes_back_is_not_lent_again(how: str) -> None:
    book = book_of([replace(tenant("b", 10), cohort="")], routers=2)
    book.want("router-0", {"b": Want(in_hand=90.0)})
    settle(book, 100.0)
    assert parts_of(book, "router-0", 100.0) == {"b": 8}
    book.set_limits({"b": Limits()} if how == "lifted" else {})
    book.set_limits({"b": Limits(concurrency=10)})
    book.want("router-0", {})
    book.want("router-1", {"b": Want(in_hand=90.0)})
    assert parts_of(book, "router-1", 101.0) == {"b": 2}
    parts_of(book, "router-0", 101.0)
    assert parts_of(book, "router-1", 101.0) == {"b": 8}


def test_who_moves_to_another_cohort_takes_its_own_along_and_leaves_what_it_borrowed() -> None:
    mover, lender, other = tenant("t", 10), tenant("x", 60), replace(tenant("y", 40), cohort="d")
    there = replace(tenant("z", 0), cohort="d")
    book = book_of([mover, lender, other, there])
    book.want("router-0", {"t": Want(in_hand=90.0), "y": Want(in_hand=32.0)})
    assert settle(book, 100.0)["t"].concurrency == 40
    moved = [replace(mover, cohort="d"), lender, other, there]
    set_tenants(book, moved)
    serial, shares = book.issue("router-0", ["t", "x", "y", "z"], 101.0, 101.0)
    parts = {key: share.limits.concurrency for key, share in shares.items()}
    assert parts == {"t": 10, "x": 30, "y": 40, "z": 0}, "what it had borrowed may be obeyed still, and is no one's"
    book.applied("router-0", serial)
    assert book.moves(["router-0"], 101.0) == {"router-0": ["x"]}
    assert settle(book, 101.0)["x"].concurrency == 60


@pytest.mark.parametrize(("heard", "silent"), [("router-0", "router-1"), ("router-1", "router-0")])
def test_what_one_router_gives_back_of_who_moved_is_not_taken_for_what_the_other_obeys(heard: str, silent: str) -> None:
    mover, lender = tenant("t", 10), tenant("x", 20)
    book = book_of([mover, lender], routers=2)
    for router in book.routers:
        book.want(router, {"t": Want(in_hand=12.0)})
    assert settle(book, 100.0)["t"].concurrency == 20
    moved = [replace(mover, cohort="d"), lender]
    set_tenants(book, moved)
    book.want(heard, {"t": Want(in_hand=40.0), "x": Want(in_hand=40.0)})
    book.want(silent, {})
    for _ in range(3):
        parts = parts_of(book, heard, 101.0)
    # The other obeys what it was sent before: 10 of t, 5 of x.
    assert sum(part or 0 for part in parts.values()) <= 30 - 15
    assert sum(part or 0 for part in parts_of(book, heard, 100.0 + TTL_S).values()) > 15, "once that has run out"


LEAVERS: dict[str, Callable[[Tenant], Tenant | None]] = {
    "it leaves its cohort": lambda lender: replace(lender, cohort=""),
    "it moves to another": lambda lender: replace(lender, cohort="d"),
    "it is deleted, and comes back alone": lambda lender: None,
    "it lends nothing any more": lambda lender: replace(lender, lending_limit=Limits(concurrency=0)),
}


@pytest.mark.parametrize("change", LEAVERS.values(), ids=LEAVERS.keys())
@pytest.mark.parametrize("how", ["said", "run out"])
def test_a_lender_that_leaves_has_its_own_once_the_borrowers_routers_obey_less(
    change: Callable[[Tenant], Tenant | None], how: str
) -> None:
    borrower, lender = tenant("a", 10), tenant("b", 20)
    book = book_of([borrower, lender], routers=2)
    book.want("router-0", {"a": Want(in_hand=90.0)})
    assert settle(book, 100.0)["a"].concurrency == 20
    changed = change(lender)
    if changed is None:
        set_tenants(book, [borrower])
        changed = replace(lender, cohort="")
    set_tenants(book, [borrower, changed])
    book.want("router-1", {"b": Want(in_hand=90.0)})
    for _ in range(2):
        parts = parts_of(book, "router-1", 101.0)
    # The other router obeys 18 of a and 5 of b still.
    assert parts == {"a": 2, "b": 5}
    if how == "said":
        parts_of(book, "router-0", 101.0)
        assert book.moves(["router-1"], 101.0) == {"router-1": ["b"]}
    assert parts_of(book, "router-1", 101.0 if how == "said" else 100.0 + TTL_S)["b"] == 15


def test_what_is_out_is_not_lent_in_the_cohort_that_the_lender_joins() -> None:
    lender, borrower, other = tenant("b", 20), tenant("a", 10), replace(tenant("y", 4), cohort="d")
    book = book_of([borrower, lender, other], routers=2)
    book.want("router-0", {"a": Want(in_hand=90.0)})
    settle(book, 100.0)
    set_tenants(book, [borrower, replace(lender, cohort="d"), other])
    book.want("router-1", {"y": Want(in_hand=90.0)})
    for _ in range(2):
        parts = parts_of(book, "router-1", 101.0)
    assert parts["y"] == 2, "and 2 at the other router"
    parts_of(book, "router-0", 101.0)
    assert parts_of(book, "router-1", 101.0)["y"] == 13


def test_a_lender_that_comes_back_to_its_cohort_is_owed_nothing_beside_what_is_lent_there() -> None:
    borrower, lender = tenant("a", 10), tenant("b", 20)
    book = book_of([borrower, lender])
    book.want("router-0", {"a": Want(in_hand=90.0)})
    had = settle(book, 100.0)
    set_tenants(book, [borrower, replace(lender, cohort="d")])
    set_tenants(book, [borrower, lender])
    assert settle(book, 100.0) == had


def test_what_a_cut_left_over_is_not_granted_again_where_the_tenant_moves_and_has_more() -> None:
    book = book_of([replace(tenant("a", 28), cohort="d")], routers=2)
    book.want("router-1", {"a": Want(in_hand=90.0)})
    assert settle(book)["a"].concurrency == 28
    for nominal, cohort in ((13, "d"), (13, "c"), (26, "c")):
        set_tenants(book, [replace(tenant("a", nominal), cohort=cohort)])
    book.want("router-1", {})
    book.want("router-0", {"a": Want(in_hand=90.0)})
    assert parts_of(book, "router-0", 1.0) == {"a": 6}, "its floor: the other obeys 21 still"
    assert parts_of(book, "router-0", TTL_S) == {"a": 19}, "and 7 from then on"


def test_a_lender_waits_for_what_borrowers_have_in_hand() -> None:
    book = book_of([tenant("a", 10), tenant("b", 20)])
    book.want("router-0", {"a": Want(in_hand=90.0)})
    assert settle(book)["a"].concurrency == 20
    book.want("router-0", {"a": Want(in_hand=90.0), "b": Want(in_hand=90.0)})
    serial, shares = book.issue("router-0", ["a"], 0.0, 0.0)
    assert shares["a"].limits.concurrency == 10
    book.holds("router-0", {"a": Limits(concurrency=17)}, 0.0)
    book.applied("router-0", serial)
    assert parts_of(book, "router-0", 0.0) == {"a": 10, "b": 13}, "of 30 there are 17 in hand"
    book.holds("router-0", {"a": Limits(concurrency=12)}, 1.0)
    assert book.moves(["router-0"], 1.0) == {"router-0": ["b"]}
    assert parts_of(book, "router-0", 1.0)["b"] == 18
    book.holds("router-0", {}, 2.0)
    assert parts_of(book, "router-0", 2.0)["b"] == 20


def test_what_a_silent_router_has_in_hand_is_believed_for_as_long_as_a_lease() -> None:
    book = LeaseBook(2, TTL_S, 0.0)
    book.set_limits({"a": Limits(concurrency=20)})
    book.want("router-0", {"a": Want(in_hand=90.0)})
    settle(book)
    book.want("router-0", {})
    book.want("router-1", {"a": Want(in_hand=90.0)})
    serial, _ = book.issue("router-0", ["a"], 0.0, 0.0)
    book.holds("router-0", {"a": Limits(concurrency=15)}, 0.0)
    book.applied("router-0", serial)
    assert parts_of(book, "router-1", TTL_S - 0.1) == {"a": 5}
    assert parts_of(book, "router-1", TTL_S) == {"a": 15}


def test_a_new_autoscaler_that_first_knew_a_smaller_limit_waits_for_leases_under_the_old_one() -> None:
    book = LeaseBook(2, TTL_S, TTL_S)
    book.set_limits({"a": Limits(concurrency=0)})
    book.set_limits({"a": Limits(concurrency=1)})
    book.want("router-1", {"a": Want(in_hand=9.0)})
    assert parts_of(book, "router-1", 1.0) == {"a": 0}, "router-0 may have it"
    assert parts_of(book, "router-1", TTL_S) == {"a": 1}


# --- against an oracle ---


def oracle(members: list[Member]) -> dict[str, int]:
    """Unit by unit: its own; then a unit to whoever has the lowest share, of what others neither want nor keep."""
    has = {each.name: min(each.nominal, max(each.kept, each.wanted)) for each in members}
    borrowed = dict.fromkeys(has, 0)
    spare = sum(each.nominal for each in members) - sum(has.values())
    while spare:
        asking = [
            each
            for each in members
            if has[each.name] + borrowed[each.name] < min(each.wanted, each.wanted if each.most is None else each.most)
        ]
        if not asking:
            break
        first = min(asking, key=lambda each: (borrowed[each.name] / Fraction(each.weight), each.name))
        borrowed[first.name] += 1
        spare -= 1
    return borrowed


@st.composite
def members(draw: st.DrawFn) -> list[Member]:
    found = []
    for name in "abcde"[: draw(st.integers(1, 5))]:
        nominal = draw(units)
        borrowing = draw(st.none() | units)
        kept, wanted = draw(st.integers(0, nominal)), draw(units) * draw(st.sampled_from([1, 3]))
        most = None if borrowing is None else nominal + borrowing
        found.append(Member(name, nominal, kept, most, wanted, draw(st.sampled_from([0.5, 1.0, 2.0, 3.0]))))
    return found


@settings(max_examples=300, deadline=None)
@given(members(), st.data())
def test_what_is_needed_is_lent_first_and_as_if_nobody_wanted_more(cohort: list[Member], data: st.DataObject) -> None:
    eager = [replace(each, needed=data.draw(st.integers(0, each.wanted))) for each in cohort]
    found = allot(eager)
    assert sum(found.values()) == sum(each.nominal for each in cohort)
    lent = {each.name: max(0, found[each.name] - each.nominal) for each in eager}
    assert all(lent[each.name] <= each.borrows for each in eager)
    if any(lent[each.name] < each.lacks for each in eager):
        assert all(lent[each.name] <= each.lacks for each in eager), "nothing is left to have at hand"


@settings(max_examples=500, deadline=None)
@given(members())
def test_what_is_lent_is_what_unit_by_unit_would_be(cohort: list[Member]) -> None:
    found, borrowed = allot(cohort), oracle(cohort)
    total = sum(each.nominal for each in cohort)
    assert sum(found.values()) == total
    lent = {each.name: max(0, found[each.name] - each.nominal) for each in cohort}
    assert sum(lent.values()) == sum(borrowed.values())
    for each in cohort:
        assert found[each.name] >= each.own, "nobody goes without its own"
        assert each.most is None or found[each.name] <= max(each.nominal, each.most)
    by_name = {each.name: each for each in cohort}
    for one in lent:
        for other in lent:
            hungry = lent[other] < by_name[other].borrows
            if lent[one] and hungry:
                most, least = Fraction(lent[one] - 1), Fraction(lent[other] + 1)
                assert most / Fraction(by_name[one].weight) <= least / Fraction(by_name[other].weight)
    if all(each.weight == 1.0 for each in cohort):
        assert sorted(lent.values()) == sorted(borrowed.values())


def test_nobody_borrows_headroom_of_what_another_one_needs() -> None:
    book = book_of([tenant("a", 14), tenant("b", 17, weight=2.0), tenant("c", 17, lending_limit=Limits(concurrency=3))])
    book.want("router-0", {"a": Want(in_hand=17.0), "b": Want(in_hand=17.0)})
    assert [each.concurrency for each in settle(book).values()] == [17, 17, 14]
    book.want("router-0", {"a": Want(in_hand=16.0), "b": Want(in_hand=17.0)})
    assert [each.concurrency for each in settle(book, 1.0).values()] == [16, 18, 14]


def test_headroom_is_borrowed_too() -> None:
    book = book_of([tenant("a", 8), tenant("b", 40)])
    book.want("router-0", {"a": Want(in_hand=16.0)})
    assert settle(book)["a"].concurrency == 16 * HEADROOM
