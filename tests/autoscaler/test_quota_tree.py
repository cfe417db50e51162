"""Random sequences of what tenants and operators do, against an oracle that counts everything anew."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace_autoscaler.core.quota import (
    Amount,
    Amounts,
    Binding,
    Bounds,
    Dimension,
    Limit,
    QuotaTree,
    Refusal,
    TenantQuota,
)

CPU, MEMORY, MONEY = Dimension.CPU, Dimension.MEMORY, Dimension.MONEY_PER_HOUR
DIMENSIONS = (CPU, MEMORY, Dimension.CONCURRENCY, MONEY)
TENANTS = ("t0", "t1", "t2", "t3")


def cpus(units: int) -> Amounts:
    return Amounts.of(Amount(CPU, units))


def cpu_bound(units: int | None) -> Bounds:
    return Bounds() if units is None else Bounds.of(Amount(CPU, units))


def in_cohort(name: str, nominal: int | None, **rest: object) -> TenantQuota:
    parts = {key: cpu_bound(value) if isinstance(value, int) else value for key, value in rest.items()}
    return TenantQuota(name, cpu_bound(nominal), cohort="c", **parts)  # type: ignore[arg-type]


@dataclass
class Oracle:
    """Everything that is held, one by one. In a cohort, what is borrowed must be idle and lent elsewhere."""

    quotas: dict[str, TenantQuota] = field(default_factory=dict)
    models: dict[str, Bounds] = field(default_factory=dict)
    held: list[tuple[str, str, Amounts]] = field(default_factory=list)

    def used(self, name: str, dimension: Dimension) -> int:
        return sum(amounts.units[dimension] for tenant, _, amounts in self.held if tenant == name)

    def members(self, name: str, dimension: Dimension) -> list[str]:
        cohort = self.quotas[name].cohort
        same = [each for each in self.quotas if each == name or (cohort and self.quotas[each].cohort == cohort)]
        return [each for each in same if self.quotas[each].nominal.units[dimension] is not None]

    def borrowed(self, name: str, dimension: Dimension) -> int:
        return max(0, self.used(name, dimension) - self.nominal(name, dimension))

    def nominal(self, name: str, dimension: Dimension) -> int:
        found = self.quotas[name].nominal.units[dimension]
        assert found is not None
        return found

    def idle(self, name: str, dimension: Dimension) -> int:
        return max(0, self.nominal(name, dimension) - self.used(name, dimension))

    def lent(self, name: str, dimension: Dimension) -> int:
        limit = self.quotas[name].lending_limit.units[dimension]
        idle = self.idle(name, dimension)
        return idle if limit is None else min(idle, limit)

    def allows(self, tenant: str, model: str, amounts: Amounts) -> bool:
        after = Oracle(self.quotas, self.models, [*self.held, (tenant, model, amounts)])
        return all(after.inside(tenant, model, dimension) for dimension in Dimension if amounts.units[dimension])

    def inside(self, tenant: str, model: str, dimension: Dimension) -> bool:
        own = self.models.get(model, Bounds()).units[dimension]
        if own is not None and sum(a.units[dimension] for _, name, a in self.held if name == model) > own:
            return False
        if tenant not in self.quotas or self.quotas[tenant].nominal.units[dimension] is None:
            return True
        borrowed = self.borrowed(tenant, dimension)
        if not dimension.lendable or not self.quotas[tenant].cohort:
            return borrowed == 0
        most = self.quotas[tenant].borrowing_limit.units[dimension]
        members = self.members(tenant, dimension)
        everybody = sum(self.borrowed(each, dimension) for each in members)
        spare = sum(self.lent(each, dimension) for each in members if each != tenant) + self.idle(tenant, dimension)
        alone = sum(each.cohort == self.quotas[tenant].cohort for each in self.quotas.values()) == 1
        return (most is None or alone or borrowed <= most) and everybody <= spare

    def overhang(self) -> dict[tuple[str, Dimension], int]:
        """What tenants, and cohorts in all, hold above what they may."""
        found = {}
        for name, quota in self.quotas.items():
            for dimension in DIMENSIONS:
                if quota.nominal.units[dimension] is None:
                    continue
                over = self.borrowed(name, dimension)
                if dimension.lendable and quota.cohort:
                    limit = quota.borrowing_limit.units[dimension]
                    over = 0 if limit is None else max(0, over - limit)
                    members = self.members(name, dimension)
                    used = sum(self.used(each, dimension) for each in members)
                    total = sum(self.nominal(each, dimension) for each in members)
                    found[f"cohort {quota.cohort}", dimension] = max(0, used - total)
                found[name, dimension] = over
        return found


amounts = st.lists(st.sampled_from([0, 0, 1, 2, 5]), min_size=4, max_size=4).map(
    lambda units: Amounts.of(*(Amount(d, u) for d, u in zip(DIMENSIONS, units, strict=True)))
)
bounds = st.lists(st.sampled_from([None, 0, 1, 3, 6, 9]), min_size=4, max_size=4).map(
    lambda units: Bounds.of(*(Amount(d, u) for d, u in zip(DIMENSIONS, units, strict=True) if u is not None))
)
quotas = st.builds(
    TenantQuota,
    st.sampled_from(TENANTS),
    bounds,
    bounds,
    bounds,
    st.sampled_from(["", "c", "c", "c", "d"]),
    st.sampled_from([0.5, 1.0, 3.0]),
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("admit"), st.sampled_from(TENANTS), st.sampled_from("ab"), amounts),
        st.tuples(st.just("admit"), st.sampled_from(TENANTS), st.sampled_from("ab"), amounts),
        st.tuples(st.just("give back"), st.integers(0, 50)),
        st.tuples(st.just("tenant"), quotas),
        st.tuples(st.just("model"), st.sampled_from("ab"), bounds),
    ),
    max_size=40,
)


class World:
    """The tree and the oracle, doing the same."""

    def __init__(self, given_quotas: list[TenantQuota]) -> None:
        self.tree = QuotaTree()
        self.oracle = Oracle()
        for quota in given_quotas:
            self.set_tenant(quota)

    def set_tenant(self, quota: TenantQuota) -> None:
        self.tree.set_tenant(quota)
        self.oracle.quotas[quota.name] = quota

    def set_model(self, model: str, limits: Bounds) -> None:
        self.tree.set_model(model, limits)
        self.oracle.models[model] = limits

    def admit(self, tenant: str, model: str, asked: Amounts) -> Refusal | None:
        name = f"{tenant}/{model}"
        allowed = self.oracle.allows(tenant, name, asked)
        assert self.tree.fits(tenant, name, asked) == allowed
        refusal = self.tree.admit(tenant, name, asked)
        assert (refusal is None) == allowed
        if refusal is None:
            self.oracle.held.append((tenant, name, asked))
        return refusal

    def give_back(self, place: int) -> None:
        if self.oracle.held:
            self.tree.give_back(*self.oracle.held.pop(place % len(self.oracle.held)))

    def step(self, step: tuple) -> Refusal | None:  # type: ignore[type-arg]
        match step:
            case ("admit", tenant, model, asked):
                return self.admit(tenant, model, asked)
            case ("give back", place):
                self.give_back(place)
            case ("tenant", quota):
                self.set_tenant(quota)
            case ("model", model, limits):
                for tenant in TENANTS:
                    self.set_model(f"{tenant}/{model}", limits)
        return None

    def raise_limit(self, refusal: Refusal, binding: Binding, by: int) -> None:
        dimension = binding.limit.dimension
        if binding.kind is Limit.MODEL:
            self.set_model(binding.owner, _raised(self.oracle.models[binding.owner], dimension, by))
            return
        whose = binding.owner if binding.kind is Limit.LENDING else refusal.tenant
        name = {Limit.BORROWING: "borrowing_limit", Limit.LENDING: "lending_limit"}.get(binding.kind, "nominal")
        quota = self.oracle.quotas[whose]
        self.set_tenant(replace(quota, **{name: _raised(getattr(quota, name), dimension, by)}))


def _raised(limits: Bounds, dimension: Dimension, by: int) -> Bounds:
    old = limits[dimension]
    assert old is not None, "what binds is a limit that is set"
    return limits.with_limit(Amount(dimension, old.units + by))


@settings(max_examples=400, deadline=None)
@given(st.lists(quotas, max_size=4), steps)
def test_it_admits_what_the_oracle_admits_and_counts_what_it_counts(first: list[TenantQuota], todo: list) -> None:  # type: ignore[type-arg]
    world = World(first)
    for step in todo:
        world.step(step)
        for name in world.oracle.quotas:
            for dimension in DIMENSIONS:
                assert world.tree.used(name)[dimension].units == world.oracle.used(name, dimension)
                limited = world.oracle.quotas[name].nominal.units[dimension] is not None
                borrowed = world.oracle.borrowed(name, dimension) if limited and dimension.lendable else 0
                assert world.tree.borrowed(name)[dimension].units == borrowed


@settings(max_examples=400, deadline=None)
@given(st.lists(quotas, max_size=4), steps)
def test_what_a_cut_leaves_over_only_falls_and_nothing_else_makes_it(first: list[TenantQuota], todo: list) -> None:  # type: ignore[type-arg]
    world = World(first)
    over = world.oracle.overhang()
    for step in todo:
        world.step(step)
        now = world.oracle.overhang()
        if step[0] in ("admit", "give back"):
            assert all(now[key] <= over[key] for key in over), "only an operator's change may leave more over"
        over = now


@settings(max_examples=400, deadline=None)
@given(st.lists(quotas, max_size=4), steps)
def test_raising_what_a_refusal_names_by_what_is_missing_admits_the_demand(
    first: list[TenantQuota],
    todo: list,  # type: ignore[type-arg]
) -> None:
    world = World(first)
    for step in todo:
        refusal = world.step(step)
        if refusal is None:
            continue
        _, tenant, model, asked = step
        for binding in refusal.bindings:
            world.raise_limit(refusal, binding, binding.missing.units)
        assert world.admit(tenant, model, asked) is None
        world.give_back(-1)


@settings(max_examples=400, deadline=None)
@given(st.lists(quotas, max_size=4), steps)
def test_a_limit_that_binds_alone_and_is_one_unit_short_is_raised_by_exactly_one_unit(
    first: list[TenantQuota],
    todo: list,  # type: ignore[type-arg]
) -> None:
    world = World(first)
    for step in todo:
        refusal = world.step(step)
        if refusal is None or len(refusal.bindings) > 1:
            continue
        _, tenant, model, asked = step
        binding = refusal.first
        world.raise_limit(refusal, binding, binding.missing.units - 1)
        again = world.admit(tenant, model, asked)
        assert again is not None
        assert [(each.owner, each.missing.units) for each in again.bindings] == [(binding.owner, 1)]
        # What raises a cohort is a tenant's own, which the others may hold.
        others = {Limit.BORROWED} if binding.kind is Limit.COHORT else set()
        assert again.first.kind in {binding.kind} | others
        world.raise_limit(again, again.first, 1)
        assert world.admit(tenant, model, asked) is None
        world.give_back(-1)


@settings(max_examples=400, deadline=None)
@given(st.lists(quotas, max_size=4), steps, st.sampled_from(TENANTS), amounts)
def test_a_lender_reclaims_its_own_from_nobody_below_nominal_and_nobody_from_it(
    first: list[TenantQuota],
    todo: list,  # type: ignore[type-arg]
    tenant: str,
    asked: Amounts,
) -> None:
    world = World(first)
    for step in todo:
        world.step(("admit", step[1], "a", step[3]) if step[0] == "admit" else step)
    name = f"{tenant}/a"
    refusal = world.tree.refusal(tenant, name, asked)
    reclaims = world.tree.reclaims(tenant, name, asked)
    if refusal is not None and refusal.reclaimable and world.tree.within_nominal(tenant, asked):
        assert reclaims
    for reclaim in reclaims:
        dimension = reclaim.amount.dimension
        assert reclaim.borrower != tenant
        assert dimension.lendable
        assert 0 < reclaim.amount.units <= world.oracle.borrowed(reclaim.borrower, dimension)
        world.tree.give_back(reclaim.borrower, f"{reclaim.borrower}/a", Amounts.of(reclaim.amount))
    if reclaims:
        assert world.tree.admit(tenant, name, asked) is None, "what is given back suffices"
        for dimension, units in zip(Dimension, asked.units, strict=True):
            # In no dimension that it took for itself is it one that anybody takes from.
            assert not units or world.tree.borrowed(tenant)[dimension].units == 0


@settings(max_examples=200, deadline=None)
@given(
    st.lists(quotas.map(lambda quota: replace(quota, cohort="c")), min_size=2, max_size=4),
    st.lists(st.tuples(st.sampled_from(TENANTS), st.integers(1, 3)), max_size=60),
)
def test_tenants_that_all_reclaim_all_the_time_come_to_rest(
    first: list[TenantQuota], demands: list[tuple[str, int]]
) -> None:
    tree = QuotaTree(first)
    taken_from: list[tuple[str, str]] = []
    for tenant, units in demands:
        asked = cpus(units)
        for reclaim in tree.reclaims(tenant, tenant, asked):
            taken_from.append((tenant, reclaim.borrower))
            tree.give_back(reclaim.borrower, reclaim.borrower, Amounts.of(reclaim.amount))
        tree.admit(tenant, tenant, asked)
        edges = {(lender, reclaim.borrower) for lender in TENANTS for reclaim in tree.reclaims(lender, lender, cpus(1))}
        assert not {lender for lender, _ in edges} & {borrower for _, borrower in edges}


# Tables: what binds, whose it is, and by how much.

A_TAKES = "a"
CASES = {
    "a tenant alone at its nominal": (
        [TenantQuota("a", cpu_bound(2))],
        {"a": 2},
        [(Limit.NOMINAL, "a", 1)],
    ),
    "borrowing nothing": (
        [in_cohort("a", 2, borrowing_limit=0), in_cohort("b", 2)],
        {"a": 2},
        [(Limit.BORROWING, "a", 1)],
    ),
    "nothing is said of borrowing: all that is idle": ([in_cohort("a", 2), in_cohort("b", 2)], {"a": 3}, []),
    "the cohort's sum": ([in_cohort("a", 2), in_cohort("b", 2)], {"a": 2, "b": 2}, [(Limit.COHORT, "c", 1)]),
    "a lender keeps one": (
        [in_cohort("a", 2), in_cohort("b", 2, lending_limit=1)],
        {"a": 3},
        [(Limit.LENDING, "b", 1)],
    ),
    "its own is out on loan": ([in_cohort("a", 2), in_cohort("b", 2)], {"a": 1, "b": 3}, [(Limit.BORROWED, "c", 1)]),
    "both its borrowing limit and the sum": (
        [in_cohort("a", 2, borrowing_limit=0), in_cohort("b", 2)],
        {"a": 2, "b": 2},
        [(Limit.BORROWING, "a", 1), (Limit.COHORT, "c", 1)],
    ),
    "a member without a limit lends nothing": (
        [in_cohort("a", 2), in_cohort("b", None)],
        {"a": 2, "b": 9},
        [(Limit.COHORT, "c", 1)],
    ),
}


@pytest.mark.parametrize(("given_quotas", "used", "binds"), CASES.values(), ids=CASES.keys())
def test_a_refusal_names_the_limit_and_whose_it_is(
    given_quotas: list[TenantQuota], used: dict[str, int], binds: list[tuple[Limit, str, int]]
) -> None:
    tree = QuotaTree(given_quotas)
    for tenant, units in used.items():
        tree.take(tenant, f"m-{tenant}", cpus(units))
    refusal = tree.refusal(A_TAKES, "m", cpus(1))
    found = [(each.kind, each.owner, each.missing.units) for each in refusal.bindings] if refusal else []
    assert found == binds


def test_money_is_not_borrowed() -> None:
    budget = Bounds.of(Amount(MONEY, 10))
    tree = QuotaTree([TenantQuota(name, budget, cohort="c") for name in "ab"])
    refusal = tree.refusal("a", "m", Amounts.of(Amount(MONEY, 11)))
    assert refusal is not None
    assert (refusal.first.kind, refusal.first.owner) == (Limit.NOMINAL, "a")


def test_the_highest_share_over_weight_gives_back_first() -> None:
    tree = QuotaTree(
        [in_cohort("lender", 6), in_cohort("heavy", 1, weight=4.0), in_cohort("light", 1)],
    )
    tree.take("heavy", "h", cpus(4))
    tree.take("light", "l", cpus(4))
    found = [(each.borrower, each.amount.units) for each in tree.reclaims("lender", "m", cpus(4))]
    assert found == [("light", 3), ("heavy", 1)]


def test_nothing_is_reclaimed_for_what_would_be_borrowed() -> None:
    tree = QuotaTree([in_cohort("a", 2), in_cohort("b", 2)])
    tree.take("b", "m", cpus(4))
    assert tree.reclaims("a", "n", cpus(2))
    assert not tree.reclaims("a", "n", cpus(3))


def test_more_than_was_taken_cannot_be_given_back() -> None:
    tree = QuotaTree([in_cohort("a", 2)])
    tree.take("a", "m", cpus(1))
    with pytest.raises(ValueError, match="gives back"):
        tree.give_back("a", "m", cpus(2))
    assert tree.used("a") == cpus(1), "and nothing of it is"


@pytest.mark.parametrize(("left", "right", "total", "rest"), [(2**63 - 1, 5, 2**63 - 1, 2**63 - 6), (3, 5, 8, 0)])
def test_amounts_saturate_and_do_not_mix(left: int, right: int, total: int, rest: int) -> None:
    a, b = Amount(CPU, left), Amount(CPU, right)
    assert ((a + b).units, (a - b).units) == (total, rest)
    with pytest.raises(ValueError, match="CPU and MEMORY"):
        a + Amount(MEMORY, 1)
