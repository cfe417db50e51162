"""That a cohort never has more of concurrency and rates than there is, whatever is late, lost or dead."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from headrace_autoscaler.core.leased_limits import DIMENSIONS
from headrace_autoscaler.core.leases import Want
from headrace_autoscaler.core.promises import promised_to_tenant
from headrace_autoscaler.core.quota import TenantQuota, quota_of
from headrace_autoscaler.domain import Limits, Tenant
from tests.autoscaler.lease_books import LENT, book_of, settle, units
from tests.autoscaler.lease_mesh import REPLACED, TTL_S, LeaseMesh

tenants_of = st.lists(
    st.tuples(units, st.none() | st.integers(0, 10), st.none() | st.integers(0, 10), st.sampled_from([1.0, 2.0])),
    min_size=2,
    max_size=4,
)
Drawn = list[tuple[int, int | None, int | None, float]]


def tenants(drawn: Drawn) -> list[Tenant]:
    def both(count: int | None) -> Limits:
        return Limits() if count is None else Limits(concurrency=count, requests_per_second=count / 4)

    return [
        Tenant(name, both(nominal), both(borrow), both(lend), "c", weight)
        for name, (nominal, borrow, lend, weight) in zip("abcd", drawn, strict=False)
    ]


class CohortMesh(LeaseMesh):
    """Tenants of a cohort. Its operator changes their limits, deletes them, and moves them from cohort to cohort."""

    @initialize(processes=st.integers(1, 3), drawn=tenants_of)
    def begin(self, processes: int, drawn: Drawn) -> None:
        self.tenants = {each.name: each for each in tenants(drawn)}
        self.set_up(processes, *self.as_set())
        self.was: list[tuple[float, dict[str, Limits]]] = []
        self.moved_at = -TTL_S
        self.brought: dict[str, dict[str, float]] = {}
        self.gone: dict[str, Tenant] = {}

    def as_set(self) -> tuple[dict[str, Limits], list[TenantQuota]]:
        found = self.tenants.values()
        return {each.name: each.nominal for each in found}, [quota_of(each) for each in found if each.cohort]

    def operator_sets(self, *changed: Tenant, deleted: str = "") -> None:
        self.was.append((self.now, dict(self.limits)))
        new = {each.name: each for each in changed}
        self.changed(*new, *([deleted] if deleted else ()))
        before, after = self.tenants.keys() - {deleted}, {**self.tenants, **new}
        if before != after.keys() or any(after[name].cohort != self.tenants[name].cohort for name in before):
            self.moved_at = self.now
        for name in {*new, deleted} & self.tenants.keys():
            self.promise(name, promised_to_tenant(self.tenants[name], new.get(name)))
        self.tenants = {name: each for name, each in {**self.tenants, **new}.items() if name != deleted}
        self.limits, self.quotas = self.as_set()
        for name in before & new.keys():
            self.brought[name] = {each: self.left_over(name, each) for each in LENT}
        self.book.set_limits(self.limits, self.quotas)

    def groups(self) -> list[list[str]]:
        return [[*self.limits, *self.gone]]

    @precondition(lambda self: hasattr(self, "limits"))
    @rule(place=LeaseMesh.places, nominal=units, lend=st.none() | st.integers(0, 10))
    def limits_are_changed(self, place: int, nominal: int, lend: int | None) -> None:
        old = self.tenants[self.key(place)]
        [new] = tenants([(nominal, None, lend, 1.0)])
        self.operator_sets(replace(new, name=old.name, cohort=old.cohort))

    @precondition(lambda self: hasattr(self, "limits"))
    @rule(place=LeaseMesh.places, nominal=units, cohort=st.sampled_from(["c", "d", ""]), other=LeaseMesh.names,
          when=st.sampled_from(REPLACED), seconds=st.sampled_from([0.1, 11.0]),
          busy=LeaseMesh.names, wanted=LeaseMesh.places)  # fmt: skip
    def a_tenant_changes_and_one_router_hears(
        self, place: int, nominal: int, cohort: str, other: str, when: str, seconds: float, busy: str, wanted: int
    ) -> None:
        """Else whoever has more than there is has mostly heard. And the autoscaler may be replaced."""
        self.all_goes_well_for_a_while(busy, place)
        old = self.tenants[self.key(place)]
        limits = Limits(concurrency=nominal, requests_per_second=nominal / 4)
        if when == "before":
            self.the_autoscaler_is_replaced()
        self.operator_sets(replace(old, nominal=limits, cohort=cohort))
        if when == "after":
            self.the_autoscaler_is_replaced()
        self.time_passes(seconds)
        self.demand_is_reported(other, wanted, 100.0, 40.0)
        for _ in range(2):
            self.catches_up(other)

    @precondition(lambda self: hasattr(self, "limits") and len(self.limits) > 1)
    @rule(place=LeaseMesh.places)
    def a_tenant_is_deleted(self, place: int) -> None:
        name = self.key(place)
        self.gone[name] = self.tenants[name]
        self.operator_sets(deleted=name)

    @precondition(lambda self: getattr(self, "gone", None))
    @rule(cohort=st.sampled_from("cd"), nominal=st.none() | units)
    def a_tenant_is_created_again(self, cohort: str, nominal: int | None = None) -> None:
        old = self.gone.pop(next(iter(self.gone)))
        if nominal is not None:
            old = replace(old, nominal=Limits(concurrency=nominal, requests_per_second=nominal / 4))
        self.operator_sets(replace(old, cohort=cohort))

    @precondition(lambda self: hasattr(self, "limits"))
    @rule(place=LeaseMesh.places, cohort=st.sampled_from(["c", "d", ""]))
    def a_tenant_changes_its_cohort(self, place: int, cohort: str) -> None:
        self.operator_sets(replace(self.tenants[self.key(place)], cohort=cohort))

    @precondition(lambda self: hasattr(self, "limits") and len(self.limits) > 1)
    @rule(borrower=LeaseMesh.places, lender=LeaseMesh.places, busy=LeaseMesh.names, other=LeaseMesh.names,
          cohort=st.sampled_from(["d", ""]))  # fmt: skip
    def a_lender_leaves_and_a_router_hears_before_another(
        self, borrower: int, lender: int, busy: str, other: str, cohort: str
    ) -> None:
        """Else the borrower's router has mostly heard already."""
        self.all_goes_well_for_a_while(busy, borrower)
        self.a_tenant_changes_its_cohort(lender, cohort)
        self.demand_is_reported(other, lender, 100.0, 40.0)
        for _ in range(2):
            self.catches_up(other)

    @precondition(lambda self: hasattr(self, "limits"))
    @rule(place=LeaseMesh.places)
    def limits_are_lifted_and_set_again(self, place: int) -> None:
        name = self.key(place)
        self.book.set_limits({**self.limits, name: Limits()}, self.quotas)
        self.book.set_limits(self.limits, self.quotas)

    def most(self, keys: object, name: str) -> float | None:
        """Of all cohorts together: who moves takes its own along, and what it had borrowed is of those that it left.
        What was lent under larger limits runs out, but for floors: an operator's cut frees nobody at once, and of those
        with whom it shares nothing, never."""
        if name not in LENT:
            return None
        return sum(self.most_of(group, name) for group in (*self.cohorts(), *([gone] for gone in self.gone)))

    def most_of(self, group: list[str], name: str) -> float:
        recent = [limits for at, limits in self.was if self.now < at + TTL_S]
        sums = [sum(getattr(limits[key], name) for key in group if key in limits) for limits in (self.limits, *recent)]
        return max(*sums, sum(self.floors(key, name) for key in group), sums[0] + self.came_with(group, name))

    def came_with(self, group: list[str], name: str) -> float:
        """What of floors tenants had left over when they came to others, who may use all that they have."""
        brought = [key for key in group if key in self.brought and group != [key]]
        return sum(min(self.brought[key][name], self.left_over(key, name)) for key in brought)

    def settled(self) -> list[set[str]]:
        return [set(group) for group in self.cohorts()] if self.now >= self.moved_at + TTL_S else []

    def cohorts(self) -> list[list[str]]:
        """A tenant without one is alone."""
        found: dict[str, list[str]] = {}
        for each in self.tenants.values():
            found.setdefault(each.cohort or f"of {each.name}", []).append(each.name)
        return list(found.values())

    def left_over(self, key: str, name: str) -> float:
        """Of floors, by a cut."""
        return max(0.0, self.floors(key, name) - getattr(self.limits[key], name))

    def floors(self, key: str, name: str) -> float:
        shares = [router.leases[key][0] for router in self.routers.values() if key in router.leases]
        return sum(getattr(share.floor, name) or 0 for share in shares)


TestCohortMesh = CohortMesh.TestCase
TestCohortMesh.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize("seed", range(10))
def test_in_a_long_life_a_cohort_never_has_more_than_there_is(seed: int) -> None:
    random = Random(seed)
    mesh = CohortMesh()
    mesh.begin(random.choice([1, 2, 3]), [(random.choice([0, 5, 20]), None, None, 1.0) for _ in range(3)])
    names = list(mesh.routers)

    def some() -> str:
        return random.choice(names)

    def place() -> int:
        return random.randrange(3)

    def leaves(busy: str, other: str) -> None:
        if len(mesh.limits) > 1:
            cohort = random.choice(["d", ""])
            mesh.a_lender_leaves_and_a_router_hears_before_another(place(), place(), busy, other, cohort)

    def changes(busy: str, other: str) -> None:
        nominal, cohort, when, seconds = map(random.choice, ((0, 5, 20), ("c", "d", ""), REPLACED, (0.1, 11.0)))
        mesh.a_tenant_changes_and_one_router_hears(place(), nominal, cohort, other, when, seconds, busy, place())

    steps = (
        (6, lambda: mesh.time_passes(random.choice([0.1, 1.0, 3.0, 9.0, 11.0]))),
        (10, lambda: mesh.the_autoscaler_writes(some())),
        (10, lambda: mesh.the_autoscaler_writes_of_one(some(), place())),
        (20, lambda: mesh.the_router_reads(some())),
        (20, lambda: mesh.the_autoscaler_reads(some())),
        (1, lambda: mesh.demand_moves_while_requests_are_in_hand(some(), place(), some(), place())),
        (10, lambda: mesh.the_router_reports(some())),
        (10, lambda: mesh.requests_come(some(), place(), random.choice([1, 20]))),
        (5, lambda: mesh.requests_are_answered(some(), place(), random.choice([1, 20]))),
        (10, lambda: mesh.demand_is_reported(some(), place(), random.choice([0, 9.0]), random.choice([0, 40.0]))),
        (3, lambda: mesh.connects(some())),
        (1, lambda: mesh.connects_and_is_heard_late(some(), 12.0)),
        (1, lambda: mesh.the_autoscaler_gives_the_stream_up(some())),
        (0.3, lambda: mesh.the_router_is_replaced(some())),
        (0.2, mesh.the_autoscaler_is_replaced),
        (2, lambda: mesh.all_goes_well_for_a_while(some(), place())),
        (0.5, lambda: mesh.a_tenant_is_deleted(place()) if len(mesh.limits) > 1 else None),
        (0.5, lambda: mesh.a_tenant_is_created_again(random.choice("cd")) if mesh.gone else None),
        (0.5, lambda: changes(some(), some())),
        (0.5, lambda: mesh.a_tenant_changes_its_cohort(place(), random.choice(["c", "d", ""]))),
        (0.5, lambda: mesh.limits_are_lifted_and_set_again(place())),
        (2, lambda: leaves(some(), some())),
    )
    weights, moves = [weight for weight, _ in steps], [move for _, move in steps]
    for move in random.choices(moves, weights, k=1500):
        move()
        mesh.nobody_has_more_than_there_is()
        mesh.who_is_over_is_sent_floors_only()


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 3), tenants_of, st.data())
def test_a_lender_has_its_own_back_when_the_leases_of_those_who_borrowed_have_run_out(
    processes: int, drawn: Drawn, data: st.DataObject
) -> None:
    """They hear nothing any more. The lender's demand is spread over all routers."""
    mesh = CohortMesh()
    mesh.begin(processes, drawn)
    for place in range(1, len(drawn)):
        mesh.all_goes_well_for_a_while(data.draw(st.sampled_from(list(mesh.routers)[:processes])), place)
    mesh.time_passes(data.draw(st.floats(0.0, 5.0)))
    lender = mesh.key(0)
    for name in mesh.book.routers:
        mesh.demand_is_reported(name, 0, 100.0, 100.0)
    mesh.time_passes(TTL_S)
    for _ in range(3):
        for name in mesh.book.routers:
            serial, shares = mesh.book.issue(name, [lender], mesh.now, mesh.now)
            mesh.book.applied(name, serial)
            mesh.routers[name].leases[lender] = (shares[lender], mesh.now + TTL_S)
            mesh.nobody_has_more_than_there_is()
    for each in DIMENSIONS[:2]:
        assert mesh.obeyed([lender], each.name) >= getattr(mesh.limits[lender], each.name) - 1e-9


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 3), tenants_of, st.data())
def test_steady_demand_comes_to_rest_and_nobody_starves(processes: int, drawn: Drawn, data: st.DataObject) -> None:
    cohort = tenants(drawn)
    book = book_of(cohort, processes)
    wants = {
        router: {each.name: Want(data.draw(st.floats(0, 10)), data.draw(st.floats(0, 40))) for each in cohort}
        for router in book.routers
    }
    for router, each in wants.items():
        book.want(router, each)
    had = settle(book)
    assert settle(book, 1.0) == had
    for each in cohort:
        for name, by in zip(LENT, ("in_hand", "rate"), strict=True):
            own = getattr(each.nominal, name)
            wanted = sum(getattr(of[each.name], by) for of in wants.values())
            assert getattr(had[each.name], name) >= min(own, wanted) - 1e-6
            spare = sum(getattr(other.nominal, name) for other in cohort) - sum(getattr(o, name) for o in had.values())
            assert abs(spare) < 1e-6, "all that there is, is somebody's"


def test_what_had_run_out_is_not_taken_for_what_a_tenant_that_moves_has_at_a_router() -> None:
    mesh = CohortMesh()
    mesh.begin(2, [(2, None, None, 1.0), (0, None, None, 1.0)])
    mesh.time_passes(TTL_S)
    mesh.a_tenant_changes_its_cohort(0, "")
    mesh.the_autoscaler_writes_to_one_that_is_read_at_once("router-1", "router-0", 0)
    mesh.a_tenant_changes_its_cohort(0, "c")
    mesh.the_autoscaler_writes_to_one_that_is_read_at_once("router-0", "router-0", 0)
    mesh.nobody_has_more_than_there_is()


def test_what_a_lender_that_leaves_had_lent_to_one_that_is_deleted_is_out_as_long_as_that_lasts() -> None:
    mesh = CohortMesh()
    mesh.begin(2, [(20, None, None, 1.0), (0, None, None, 1.0), (0, None, None, 1.0)])
    mesh.all_goes_well_for_a_while("router-1", 1)
    mesh.time_passes(5.0)
    for _ in range(2):
        mesh.the_autoscaler_writes_of_one("router-1", 1)
        mesh.the_router_reads("router-1")
        mesh.the_autoscaler_reads("router-1")
    assert mesh.obeyed("b", "concurrency") > 0
    mesh.a_tenant_is_deleted(1)
    mesh.a_tenant_changes_its_cohort(0, "")
    mesh.time_passes(6.0)
    mesh.demand_is_reported("router-0", 0, 100.0, 40.0)
    for _ in range(2):
        mesh.catches_up("router-0")
    assert mesh.obeyed("b", "concurrency") > 0, "its lease is newer than the lender's"
    mesh.nobody_has_more_than_there_is()


def test_what_a_cut_left_over_with_a_tenant_alone_counts_in_the_cohort_that_it_joins() -> None:
    mesh = CohortMesh()
    mesh.begin(2, [(20, None, None, 1.0), (4, None, None, 1.0)])
    mesh.a_tenant_changes_its_cohort(0, "")
    mesh.all_goes_well_for_a_while("router-1", 0)
    mesh.limits_are_changed(0, 4, None)
    mesh.a_tenant_changes_its_cohort(0, "c")
    mesh.time_passes(11.0)
    mesh.demand_is_reported("router-0", 0, 100.0, 40.0)
    for _ in range(2):
        mesh.catches_up("router-0")
        mesh.nobody_has_more_than_there_is()
        mesh.who_is_over_is_sent_floors_only()
