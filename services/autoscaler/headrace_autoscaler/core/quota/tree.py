"""The quota tree: cohorts of tenants with their models, what each may use, and what each uses.

The vocabulary and the rule are Kueue's (pkg/cache/scheduler/resource_node.go, `available`). With, in one dimension, n a
tenant's nominal quantity, u what it uses and g what it never lends (nominal beyond its lending limit), a tenant t of a
cohort may come to use v if

    v <= n(t) + borrowing limit(t)
    v <= sum of n over the cohort - sum of max(u, g) over its other tenants

The second says that it may have what the others neither use nor keep. From it follows that the cohort never uses
more than its sum. A tenant without a nominal quantity in a dimension is not limited there, and lends nothing of it.
A tenant without a cohort is one alone. Where a cut has left more in use than that, the same rule admits nothing
until so much has been given back.

Sums are kept by cohort: taking and giving back do not depend on how many tenants there are.
"""

from __future__ import annotations

from collections.abc import Iterable

from headrace_autoscaler.core.quota import checks
from headrace_autoscaler.core.quota.amounts import Amounts, Bounds, Dimension, saturated
from headrace_autoscaler.core.quota.cohort import COUNT, DIMENSIONS, UNBOUNDED, Cohort, Node, TenantQuota
from headrace_autoscaler.core.quota.refusals import Binding, Limit, Reclaim, Refusal
from headrace_common.quantities import MAX


class QuotaTree:
    """What is used is what has been taken and not given back. A tenant that has not been set has no limits."""

    def __init__(self, quotas: Iterable[TenantQuota] = ()) -> None:
        self._nodes: dict[str, Node] = {}
        self._cohorts: dict[str, Cohort] = {}
        self._model_limits: dict[str, Bounds] = {}
        self._model_used: dict[str, list[int]] = {}
        for quota in quotas:
            self.set_tenant(quota)

    def set_tenant(self, quota: TenantQuota) -> None:
        """Creates the tenant or replaces its limits. What it uses stays, even where that is now over them."""
        old = self._nodes.get(quota.name)
        if old is not None:
            self._leave(old)
        cohort = self._cohort(quota)
        node = Node(quota, cohort)
        if old is not None:
            node.used = old.used
        cohort.members[quota.name] = node
        node.join(1)
        self._nodes[quota.name] = node

    def set_model(self, model: str, limits: Bounds) -> None:
        """A model's own limits."""
        if limits.present:
            self._model_limits[model] = limits
        else:
            self._model_limits.pop(model, None)

    def take(self, tenant: str, model: str, amounts: Amounts) -> None:
        """Books what is used, whether or not it is within the limits."""
        self._use(tenant, model, amounts, 1)

    def give_back(self, tenant: str, model: str, amounts: Amounts) -> None:
        """Raises:
        ValueError: more than has been taken.
        """
        self._use(tenant, model, amounts, -1)

    def hold(self, tenant: str, dimension: Dimension, units: int) -> None:
        """Books what a tenant uses in all in one dimension, of no model, in the smallest unit; whether or not it is
        within the limits. For a tenant that has been set, and of which nothing is taken otherwise."""
        self._nodes[tenant].hold(dimension, units)

    def admit(self, tenant: str, model: str, amounts: Amounts) -> Refusal | None:
        """Takes it if that is within every limit; otherwise takes nothing and says what binds."""
        refusal = self.refusal(tenant, model, amounts)
        if refusal is None:
            self.take(tenant, model, amounts)
        return refusal

    def fits(self, tenant: str, model: str, amounts: Amounts) -> bool:
        """`refusal` is None, without looking for whom to name."""
        node = self._nodes.get(tenant)
        if node is not None and not checks.fits(node, amounts):
            return False
        return model not in self._model_limits or not self._over_model(model, amounts)

    def refusal(self, tenant: str, model: str, amounts: Amounts) -> Refusal | None:
        """What stands against so much more; None: nothing does."""
        node = self._nodes.get(tenant)
        bindings = self._over_model(model, amounts)
        if node is not None:
            short = checks.short(node, amounts)
            bindings += [each for place, units in short[0] for each in checks.over_tenant(node, place, units)]
            bindings += [each for place, units in short[1] for each in checks.over_cohort(node, place, units)]
        if not bindings:
            return None
        asked = tuple(amounts[binding.limit.dimension] for binding in bindings)
        return Refusal(tenant, model, node.quota.cohort if node else "", tuple(bindings), asked)

    def within_nominal(self, tenant: str, amounts: Amounts) -> bool:
        """The tenant would borrow nothing of what this needs."""
        node = self._nodes.get(tenant)
        return node is None or checks.within_nominal(node, amounts)

    def reclaims(self, tenant: str, model: str, amounts: Amounts) -> tuple[Reclaim, ...]:
        """From whom the tenant takes back what it needs for this; nothing where that would not admit it.

        It takes only up to its own nominal quantities, and only from tenants above theirs: so no tenant both takes
        and is taken from, and what is borrowed in all only falls.
        """
        node = self._nodes.get(tenant)
        if node is None or self._over_model(model, amounts) or not checks.within_nominal(node, amounts):
            return ()
        return tuple(
            reclaim for place, units in checks.short(node, amounts)[1] for reclaim in checks.reclaim(node, place, units)
        )

    def cohort(self, tenant: str) -> str:
        """Empty: the tenant is alone."""
        node = self._nodes.get(tenant)
        return node.quota.cohort if node else ""

    def overdrawn(self, cohort: str, dimension: Dimension) -> int:
        """How much more its tenants use or keep than they have together, in the smallest unit."""
        found = self._cohorts.get(cohort)
        return 0 if found is None else max(0, found.reserved[dimension] - found.nominal[dimension])

    def has_own(self, tenant: str, dimension: Dimension) -> bool:
        """It has a nominal quantity: it is limited there, and that much is its."""
        node = self._nodes.get(tenant)
        return node is not None and node.quota.nominal.units[dimension] is not None

    def borrowers(self, tenant: str, dimension: Dimension) -> tuple[str, ...]:
        """The other tenants of its cohort that hold more than their nominal quantity; the highest share first."""
        node = self._nodes.get(tenant)
        return () if node is None else tuple(each.quota.name for each in checks.over(node, dimension))

    def share(self, tenant: str) -> float:
        """Of what its cohort can lend, by its dominant dimension, over its weight. The lowest comes first to what is
        spare, the highest gives back first."""
        node = self._nodes.get(tenant)
        return 0.0 if node is None else node.share

    def used(self, tenant: str) -> Amounts:
        node = self._nodes.get(tenant)
        return Amounts() if node is None else outward(node.used)

    def used_by_model(self, model: str) -> Amounts:
        return outward(self._model_used.get(model, [0] * COUNT))

    def borrowed(self, tenant: str) -> Amounts:
        """What it holds above its nominal quantities."""
        node = self._nodes.get(tenant)
        return Amounts() if node is None else outward([node.borrowed(place) for place in range(COUNT)])

    def ceiling(self, tenant: str) -> Bounds:
        """What the tenant may come to use while the others use what they use now."""
        node = self._nodes.get(tenant)
        if node is None:
            return UNBOUNDED
        return Bounds(tuple(self.ceiling_of(tenant, dimension) for dimension in DIMENSIONS))

    def ceiling_of(self, tenant: str, dimension: Dimension) -> int | None:
        """The same in one dimension, in its smallest unit."""
        node = self._nodes.get(tenant)
        ceiling = None if node is None else node.ceiling(dimension)
        return None if ceiling is None else min(MAX, ceiling)

    def _cohort(self, quota: TenantQuota) -> Cohort:
        """A tenant alone has a cohort of its own, of which no other is."""
        if not quota.cohort:
            return Cohort("")
        return self._cohorts.setdefault(quota.cohort, Cohort(quota.cohort))

    def _leave(self, node: Node) -> None:
        node.join(-1)
        del node.cohort.members[node.quota.name]
        if not node.cohort.members:
            self._cohorts.pop(node.cohort.name, None)

    def _use(self, tenant: str, model: str, amounts: Amounts, sign: int) -> None:
        node = self._nodes.get(tenant)
        if node is None:
            self.set_tenant(TenantQuota(tenant))
            node = self._nodes[tenant]
        of_model = self._model_used.get(model)
        if of_model is None:
            of_model = self._model_used[model] = [0] * COUNT
        if sign < 0 and any(units > min(node.used[place], of_model[place]) for place, units in amounts.present):
            held = (outward(node.used), outward(of_model))
            raise ValueError(f"model {model!r} of tenant {tenant!r} gives back {amounts}, and they hold {held}")
        node.use(amounts, sign)
        for place, units in amounts.present:
            of_model[place] += sign * units

    def _over_model(self, model: str, amounts: Amounts) -> list[Binding]:
        limits = self._model_limits.get(model)
        if limits is None:
            return []
        used = self._model_used.get(model, [0] * COUNT)
        return [
            checks.binding(Limit.MODEL, model, place, limit, used[place], used[place] + units - limit)
            for place, units in amounts.present
            if (limit := limits.units[place]) is not None and used[place] + units > limit
        ]


def outward(units: Iterable[int]) -> Amounts:
    return Amounts(tuple(saturated(dimension, each).units for dimension, each in zip(DIMENSIONS, units, strict=True)))
