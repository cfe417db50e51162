"""What tenants may pay for: the quota tree, with an instance's amounts worked out once for each choice."""

from __future__ import annotations

from headrace_autoscaler.core.allocator.choice import Choice, part_of
from headrace_autoscaler.core.allocator.types import Demand, Kind, Snapshot
from headrace_autoscaler.core.quota import Amounts, Dimension, QuotaTree
from headrace_autoscaler.domain import Resources

_COUNT = len(Dimension)


class Purse:
    """Tenants that have no nominal quantity in a dimension are limited by nothing there, and guaranteed nothing: what
    they hold is spare."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._tree = QuotaTree(snapshot.tenants)
        for model, limits in snapshot.model_limits.items():
            self._tree.set_model(model, limits)
        self._amounts: dict[tuple[Resources, int], Amounts] = {}
        self._weights = {quota.name: quota.weight for quota in snapshot.tenants}
        self._nominal = {quota.name: quota.nominal.units for quota in snapshot.tenants}
        self._spare: dict[str, list[int]] = {}
        self._whole = _sum_of(snapshot)
        self._shares: dict[str, float] = {}

    def guaranteed(self, tenant: str, choice: Choice) -> bool:
        """One more is within what the tenant is guaranteed."""
        nominal = self._nominal.get(tenant)
        if nominal is None:
            return False
        amounts = self._amounts_of(choice)
        return all(
            nominal[place] is not None for place, _ in amounts.present if place < Dimension.CONCURRENCY
        ) and self._tree.within_nominal(tenant, amounts)

    def pay(self, demand: Demand, choice: Choice, *, spare: bool = False) -> bool:
        """Books it if every limit allows."""
        amounts = self._amounts_of(choice)
        if not self._tree.fits(demand.tenant, demand.model, amounts):
            return False
        self._tree.take(demand.tenant, demand.model, amounts)
        if spare:
            self._hold(demand.tenant, choice, 1)
        return True

    def take(self, tenant: str, model: str, resources: Resources, kind: Kind | None) -> None:
        """Books what runs, whether or not it is within the limits. Without a node it costs nothing."""
        price = part_of(resources, kind) if kind else 0
        self._tree.take(tenant, model, self._amounts_for(resources, price))

    def give_back(self, demand: Demand, choice: Choice, *, spare: bool) -> None:
        self._tree.give_back(demand.tenant, demand.model, self._amounts_of(choice))
        if spare:
            self._hold(demand.tenant, choice, -1)

    def why(self, demand: Demand, choice: Choice) -> str:
        """Which limit refuses it."""
        refusal = self._tree.refusal(demand.tenant, demand.model, self._amounts_of(choice))
        if refusal is None:
            return "its quota had no room when it was tried"
        first = refusal.first
        return f"{first.kind} of '{first.owner}': {first.limit.dimension.key} {first.limit}, of which {first.used} are used"

    def share(self, tenant: str) -> float:
        """Of all nodes, what the tenant holds beyond its guarantee, by its dominant dimension, over its weight."""
        return self._shares.get(tenant, 0.0)

    @property
    def highest_share(self) -> float:
        return max(self._shares.values(), default=0.0)

    def share_with(self, tenant: str, choice: Choice, change: int) -> float:
        """Its share with one more (1) or one less (-1) of these."""
        held = list(self._spare.get(tenant, (0, 0, 0, 0)))
        for place, units in enumerate(self._amounts_of(choice).units[:4]):
            held[place] += change * units
        return self._share_of(tenant, held)

    def weight_of(self, choice: Choice) -> float:
        """Its dominant share of its node: the larger are placed first."""
        kind = choice.kind
        return choice.micros_per_hour / kind.micros_per_hour if kind.micros_per_hour else 0.0

    def _hold(self, tenant: str, choice: Choice, sign: int) -> None:
        held = self._spare.setdefault(tenant, [0, 0, 0, 0])
        for place, units in enumerate(self._amounts_of(choice).units[:4]):
            held[place] += sign * units
        self._shares[tenant] = self._share_of(tenant, held)

    def _share_of(self, tenant: str, held: list[int]) -> float:
        shares = (units / whole for units, whole in zip(held, self._whole, strict=True) if whole)
        return max(shares, default=0.0) / self._weights.get(tenant, 1.0)

    def _amounts_of(self, choice: Choice) -> Amounts:
        return self._amounts_for(choice.way.resources, choice.micros_per_hour)

    def _amounts_for(self, needs: Resources, price: int) -> Amounts:
        key = (needs, price)
        known = self._amounts.get(key)
        if known is None:
            units = [0] * _COUNT
            units[:4] = (needs.cpu_millicores, needs.memory_bytes, needs.gpu_millis, needs.gpu_memory_bytes)
            units[Dimension.MONEY_PER_HOUR] = price
            known = self._amounts[key] = Amounts(tuple(units))
        return known


def _sum_of(snapshot: Snapshot) -> tuple[int, int, int, int]:
    whole = [0, 0, 0, 0]
    for node in snapshot.nodes:
        has = node.kind.capacity
        whole[0] += has.cpu_millicores
        whole[1] += has.memory_bytes
        whole[2] += has.gpu_millis
        whole[3] += has.gpu_memory_bytes
    return (whole[0], whole[1], whole[2], whole[3])
