"""What tenants may pay for: the quota tree, and who holds how much beyond what is guaranteed."""

from __future__ import annotations

from bisect import bisect_left, insort
from itertools import takewhile

from headrace_autoscaler.core.allocator.choice import Choice, amounts_of_part, part_of
from headrace_autoscaler.core.allocator.types import Demand, Kind, Snapshot
from headrace_autoscaler.core.quota import Dimension, QuotaTree
from headrace_autoscaler.domain import Resources

_COUNT = len(Dimension)
_HELD = 4
"""The first dimensions: what an instance holds of a node."""
_NONE: tuple[int | None, ...] = (None,) * _COUNT


class Purse:
    """Tenants that have no nominal quantity in a dimension are limited by nothing there, and guaranteed nothing: what
    they hold is spare."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._tree = QuotaTree(snapshot.tenants)
        for model, limits in snapshot.model_limits.items():
            self._tree.set_model(model, limits)
        self._weights = {quota.name: quota.weight for quota in snapshot.tenants}
        self._nominal = {quota.name: quota.nominal.units for quota in snapshot.tenants}
        self._whole = _sum_of(snapshot)
        self._used: dict[str, list[int]] = {}
        self._shares: dict[str, float] = {}
        self._stale: set[str] = set()
        self._ranked: dict[str, float] = {}
        self._ranking: list[tuple[float, str]] = []
        self._unranked: set[str] = set()

    def guaranteed(self, tenant: str, choice: Choice) -> bool:
        """One more is within what the tenant is guaranteed."""
        nominal = self._nominal.get(tenant)
        if nominal is None:
            return False
        for place, _ in choice.amounts.present:
            if place < _HELD and nominal[place] is None:
                return False
        return self._tree.within_nominal(tenant, choice.amounts)

    def pay(self, demand: Demand, choice: Choice) -> bool:
        """Books it if every limit allows."""
        if not self.could_pay(demand, choice):
            return False
        self.take(demand, choice)
        return True

    def take(self, demand: Demand, choice: Choice) -> None:
        """Books it, whether or not it is within the limits."""
        self._tree.take(demand.tenant, demand.model, choice.amounts)
        self._hold(demand.tenant, choice, 1)

    def could_pay(self, demand: Demand, choice: Choice) -> bool:
        return self._tree.fits(demand.tenant, demand.model, choice.amounts)

    def book(self, tenant: str, model: str, resources: Resources, kind: Kind | None) -> None:
        """Books what runs, whether or not it is within the limits. Without a node it costs nothing."""
        price = part_of(resources, kind) if kind else 0
        self._tree.take(tenant, model, amounts_of_part(resources, price))

    def give_back(self, demand: Demand, choice: Choice) -> None:
        self._tree.give_back(demand.tenant, demand.model, choice.amounts)
        self._hold(demand.tenant, choice, -1)

    def lenders_due(self, demand: Demand, choice: Choice) -> dict[str, set[int]]:
        """Who has borrowed what this needs of the tenant's own, by borrower and place of the dimension."""
        due: dict[str, set[int]] = {}
        for each in self._tree.reclaims(demand.tenant, demand.model, choice.amounts):
            due.setdefault(each.borrower, set()).add(int(each.amount.dimension))
        return due

    def shortage(self, demand: Demand, choice: Choice) -> dict[int, int]:
        """By place of the dimension, how much the cohort lacks for it."""
        refusal = self._tree.refusal(demand.tenant, demand.model, choice.amounts)
        if refusal is None or not refusal.reclaimable:
            return {}
        return {int(each.missing.dimension): each.missing.units for each in refusal.bindings}

    def may_lose(self, tenant: str, less: list[int], choice: Choice) -> bool:
        """The tenant, with so much less already, is still over its guarantee in something that this instance holds."""
        used = self._used.get(tenant)
        if used is None:
            return False
        nominal = self._nominal.get(tenant, _NONE)
        for place, units in choice.amounts.present:
            if place < _HELD and units:
                limit = nominal[place]
                if limit is None or used[place] - less[place] > limit:
                    return True
        return False

    def units(self, choice: Choice) -> tuple[int, ...]:
        """CPU, memory, GPU and GPU memory of one instance."""
        return choice.amounts.units[:_HELD]

    def why(self, demand: Demand, choice: Choice) -> str:
        """Which limit refuses it; empty: none does."""
        refusal = self._tree.refusal(demand.tenant, demand.model, choice.amounts)
        if refusal is None:
            return ""
        first = refusal.first
        limit = f"{first.limit.dimension.key} {first.limit}"
        return f"{first.kind} of '{first.owner}': {limit}, of which {first.used} are used"

    def share(self, tenant: str) -> float:
        """Of all nodes, what the tenant holds beyond its guarantee, by its dominant dimension, over its weight."""
        if tenant in self._stale:
            self._stale.discard(tenant)
            self._shares[tenant] = self._share_of(tenant, self._used[tenant])
        return self._shares.get(tenant, 0.0)

    @property
    def richest(self) -> str:
        """The tenant with the highest share; empty: nobody holds anything."""
        ranking = self._by_share()
        return ranking[-1][1] if ranking else ""

    @property
    def sharing(self) -> set[str]:
        """Tenants with a share of what is spare."""
        return {tenant for _, tenant in takewhile(lambda each: each[0] > 0, reversed(self._by_share()))}

    def _by_share(self) -> list[tuple[float, str]]:
        """The lowest first."""
        ranking = self._ranking
        for tenant in self._unranked:
            old = self._ranked.get(tenant)
            if old is not None:
                del ranking[bisect_left(ranking, (old, tenant))]
            share = self._ranked[tenant] = self.share(tenant)
            insort(ranking, (share, tenant))
        self._unranked.clear()
        return ranking

    def share_with(self, tenant: str, choice: Choice, change: int) -> float:
        """Its share with one more (1) or one less (-1) of these."""
        used = list(self._used.get(tenant, (0,) * _HELD))
        for place, units in enumerate(self.units(choice)):
            used[place] += change * units
        return self._share_of(tenant, used)

    def weight_of(self, choice: Choice) -> float:
        """Its dominant share of its node: the larger are placed first."""
        kind = choice.kind
        return choice.micros_per_hour / kind.micros_per_hour if kind.micros_per_hour else 0.0

    def _hold(self, tenant: str, choice: Choice, sign: int) -> None:
        used = self._used.setdefault(tenant, [0] * _HELD)
        for place, units in choice.amounts.present:
            if place < _HELD:
                used[place] += sign * units
        self._stale.add(tenant)
        self._unranked.add(tenant)

    def _share_of(self, tenant: str, used: list[int]) -> float:
        nominal = self._nominal.get(tenant, _NONE)
        share = 0.0
        for place, whole in enumerate(self._whole):
            beyond = used[place] - (nominal[place] or 0)
            if beyond > 0 and whole:
                share = max(share, beyond / whole)
        return share / self._weights.get(tenant, 1.0)


def _sum_of(snapshot: Snapshot) -> tuple[int, int, int, int]:
    whole = [0, 0, 0, 0]
    for node in snapshot.nodes:
        has = node.kind.capacity
        whole[0] += has.cpu_millicores
        whole[1] += has.memory_bytes
        whole[2] += has.gpu_millis
        whole[3] += has.gpu_memory_bytes
    return (whole[0], whole[1], whole[2], whole[3])
