"""What tenants of a cohort lend each other of what is leased to routers: by the quota tree, in which that is used which
routers could be obeying, floors are never lent, and demand decides who has what (see `quota.allotments`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from headrace_autoscaler.core.ghosts import Ghost
from headrace_autoscaler.core.lease_pool import Pool, Terms, with_headroom
from headrace_autoscaler.core.loans import Loan
from headrace_autoscaler.core.quota import Amount, Amounts, Bounds, Dimension, QuotaTree, Refusal, TenantQuota
from headrace_autoscaler.core.quota.allotments import Member, allot
from headrace_common.quantities import MAX

LEASED = (Dimension.CONCURRENCY, Dimension.REQUEST_RATE)
"""What is borrowed of what is leased."""

Needs = Callable[[str, Dimension], Mapping[str, int]]
"""Of a tenant, by router."""

Trees = dict[tuple[str, Dimension], QuotaTree]
"""Of a cohort in one dimension, where everybody has what it needs: to ask for many tenants at one moment."""


class Lending:
    """
    Args:
        quotas: of tenants, by name; who is in no cohort neither lends nor borrows.
        routers: how many are configured.
        ghosts: what is gone, and not yet given back.
        loans: of tenants that were in another cohort before.
    """

    def __init__(
        self, quotas: Iterable[TenantQuota], routers: int, ghosts: Iterable[Ghost] = (), loans: Iterable[Loan] = ()
    ) -> None:
        self._routers = routers
        self._quotas = {each.name: each for each in quotas if each.cohort}
        self._cohorts: dict[str, list[TenantQuota]] = {}
        for quota in self._quotas.values():
            self._cohorts.setdefault(quota.cohort, []).append(quota)
        self._members = {
            (cohort, dimension): [each for each in quotas if each.nominal.units[dimension] is not None]
            for cohort, quotas in self._cohorts.items()
            for dimension in LEASED
        }
        self._tree = QuotaTree(self._quotas.values())
        # Of no tenant's name; they use something, and have nothing of their own.
        self._ghosts = {f"\0{place}": ghost for place, ghost in enumerate(ghosts) if ghost.cohort}
        self._loans = {f"\1{place}": loan for place, loan in enumerate(loans)}
        for name, ghost in self._ghosts.items():
            if ghost.dimension is not None:
                self._stand_in(name, ghost.dimension, ghost.cohort)
        for name, loan in self._loans.items():
            if loan.key in self._quotas:
                self._stand_in(name, loan.dimension, self._quotas[loan.key].cohort)
        self._pools: dict[tuple[str, Dimension], Pool] = {}
        self._booked: dict[tuple[str, Dimension], int] = {}
        self._owed: set[tuple[str, Dimension]] = set()
        self._booked_at: float | None = None
        self._due = set(self._cohorts)

    def terms(self, key: str, dimension: Dimension | None, limit: int) -> Terms:
        """Of one limit of a key. None: what is never borrowed."""
        quota = self._quotas.get(key)
        if quota is None or dimension is None:
            return Terms(limit)
        shared = len(self._members[quota.cohort, dimension]) > 1
        return Terms(limit, shared, _kept(quota, dimension))

    def before(self, key: str, dimension: Dimension | None, limit: int) -> int:
        """The most that somebody before us may have lent routers of it. Ask before pools join."""
        if dimension is None or key not in self._quotas:
            return limit
        return self._tree.ceiling_of(key, dimension) or 0

    def join(self, key: str, dimension: Dimension | None, pool: Pool) -> None:
        if key in self._quotas and dimension is not None:
            self._pools[key, dimension] = pool

    def cohort(self, key: str, dimension: Dimension | None) -> str:
        """From which this may be borrowed; empty: from none."""
        quota = self._quotas.get(key)
        return quota.cohort if quota is not None and dimension is not None else ""

    def everybody(self) -> Iterator[str]:
        return iter(self._quotas)

    def companions(self, keys: Iterable[str]) -> set[str]:
        """Tenants that may get what these give back."""
        cohorts = {self._quotas[key].cohort for key in keys if key in self._quotas}
        return {each.name for cohort in cohorts for each in self._cohorts[cohort]}

    def demand_changed(self, key: str) -> None:
        if key in self._quotas:
            self._due.add(self._quotas[key].cohort)

    def allot(self, needs: Needs) -> set[str]:
        """Sets what pools are to have in all, where demand has changed. Who is to have more or less than before."""
        changed = set()
        for cohort in self._due:
            for dimension in LEASED:
                members = [self._member(each, dimension, needs) for each in self._members[cohort, dimension]]
                for name, total in allot(members).items():
                    pool = self._pools[name, dimension]
                    if pool.total != total:
                        pool.total = total
                        changed.add(name)
        self._due.clear()
        return changed

    def book(self, now: float) -> None:
        """Counts what routers could be obeying at this moment."""
        if self._booked_at != now:
            self._owed.clear()
            for (name, dimension), pool in self._pools.items():
                held = pool.held(now)
                self._use(name, dimension, held)
                if held < min(pool.total, pool.terms.limit):
                    self._owed.add((self._quotas[name].cohort, dimension))
            for name, ghost in self._ghosts.items():
                if ghost.dimension is not None:
                    self._use(name, ghost.dimension, ghost.borrowed(now))
            for name, loan in self._loans.items():
                overdrawn = self._tree.overdrawn(loan.cohort, loan.dimension)
                loan.falls(overdrawn, self._uncovered(loan.cohort, loan.dimension, now), now)
                if loan.key in self._quotas:
                    self._use(name, loan.dimension, self._withheld(loan))
            self._booked_at = now

    def lasts(self, cohort: str, dimension: Dimension) -> float:
        """When the last lease of it runs out that was granted in this cohort; monotonic seconds."""
        members = (self._pools[each.name, dimension] for each in self._members.get((cohort, dimension), ()))
        gone = (ghost.pool for ghost in self._ghosts.values() if (ghost.cohort, ghost.dimension) == (cohort, dimension))
        return max(pool.lasts() for pool in (*members, *gone))

    def granted(self, key: str, now: float) -> None:
        """What this tenant's routers could be obeying has changed."""
        for dimension in LEASED:
            if (key, dimension) in self._pools:
                self._use(key, dimension, self._pools[key, dimension].held(now))

    def owes(self, key: str, dimension: Dimension | None) -> bool:
        """Somebody in its cohort had less than its own that it is to have, when that was booked."""
        return dimension is not None and (self.cohort(key, dimension), dimension) in self._owed

    def given_back(self) -> None:
        """Routers obey less than what is booked."""
        self._booked_at = None

    def most(self, key: str, dimension: Dimension | None, limit: int) -> int:
        """What all routers together may hold of it now, as booked."""
        if dimension is None:
            return limit
        if (key, dimension) not in self._pools:
            lent = sum(loan.units for loan in self._loans.values() if (loan.key, loan.dimension) == (key, dimension))
            return max(0, limit - lent)
        return self._tree.ceiling_of(key, dimension) or 0

    def refusal(self, trees: Trees, tenant: str, model: str, missing: Amount, needs: Needs) -> Refusal | None:
        """What stands against so much more than what a tenant is to have, where demand is met as far as quotas go: the
        others have of theirs what they need, or their least floors."""
        dimension, cohort = missing.dimension, self._quotas[tenant].cohort
        tree = trees.get((cohort, dimension))
        if tree is None:
            tree = trees[cohort, dimension] = self._as_needed(cohort, dimension, needs)
        unneeded = self._pools[tenant, dimension].total - self._needed(tenant, dimension, needs)
        rest = Amounts.of(Amount(dimension, unneeded))
        tree.take(tenant, "", rest)
        found = tree.refusal(tenant, model, Amounts.of(missing))
        tree.give_back(tenant, "", rest)
        return found

    def lends(self, key: str) -> bool:
        return key in self._quotas

    def _as_needed(self, cohort: str, dimension: Dimension, needs: Needs) -> QuotaTree:
        tree = QuotaTree(self._cohorts[cohort])
        for quota in self._members[cohort, dimension]:
            tree.take(quota.name, "", Amounts.of(Amount(dimension, self._needed(quota.name, dimension, needs))))
        return tree

    def _needed(self, name: str, dimension: Dimension, needs: Needs) -> int:
        pool = self._pools[name, dimension]
        return min(pool.total, pool.kept(needs(name, dimension)))

    def _member(self, quota: TenantQuota, dimension: Dimension, needs: Needs) -> Member:
        pool = self._pools[quota.name, dimension]
        limit, borrowing = pool.terms.limit, quota.borrowing_limit.units[dimension]
        needed = needs(quota.name, dimension)
        return Member(
            quota.name,
            limit,
            pool.terms.reserved(self._routers),
            None if borrowing is None else limit + borrowing,
            pool.wanted({router: with_headroom(need) for router, need in needed.items()}),
            quota.weight,
            pool.wanted(needed),
        )

    def _uncovered(self, cohort: str, dimension: Dimension, now: float) -> int:
        """How much more routers could be obeying of a cohort than it has. Floors that they do not obey do not count."""
        pools = [self._pools[each.name, dimension] for each in self._members.get((cohort, dimension), ())]
        gone = [each for each in self._ghosts.values() if (each.cohort, each.dimension) == (cohort, dimension)]
        obeyed = sum(pool.obeyable(now) for pool in pools) + sum(ghost.borrowed(now) for ghost in gone)
        return max(0, obeyed - sum(pool.terms.limit for pool in pools))

    def _stand_in(self, name: str, dimension: Dimension, cohort: str) -> None:
        self._tree.set_tenant(TenantQuota(name, Bounds.of(Amount(dimension, 0)), cohort=cohort))

    def _withheld(self, loan: Loan) -> int:
        """Of what the tenant has where it is now: a cut may have left less than what is out."""
        nominal = self._quotas[loan.key].nominal.units[loan.dimension]
        return min(loan.units, nominal or 0)

    def _use(self, name: str, dimension: Dimension, held: int) -> None:
        held = min(MAX, held)
        if held != self._booked.get((name, dimension), 0):
            self._booked[name, dimension] = held
            self._tree.hold(name, dimension, held)


def _kept(quota: TenantQuota, dimension: Dimension) -> int:
    nominal, lent = quota.nominal.units[dimension] or 0, quota.lending_limit.units[dimension]
    return 0 if lent is None else max(0, nominal - lent)
