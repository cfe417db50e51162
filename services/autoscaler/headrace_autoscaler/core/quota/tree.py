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
from dataclasses import dataclass

from headrace_autoscaler.core.quota.amounts import Amount, Amounts, Bounds, Dimension, bounds_of, saturated
from headrace_autoscaler.core.quota.refusals import Binding, Limit, Reclaim, Refusal
from headrace_autoscaler.domain import Tenant

_COUNT = len(Dimension)
_DIMENSIONS = tuple(Dimension)
_UNBOUNDED = Bounds()


@dataclass(frozen=True, slots=True)
class TenantQuota:
    """What is set of a tenant. See `domain.Tenant`.

    Attributes:
        borrowing_limit: at most this much above nominal. No limit: as much as the cohort leaves.
        lending_limit: at most this much of nominal is lent. No limit: all of it.
        cohort: empty: alone.
    """

    name: str
    nominal: Bounds = _UNBOUNDED
    borrowing_limit: Bounds = _UNBOUNDED
    lending_limit: Bounds = _UNBOUNDED
    cohort: str = ""
    weight: float = 1.0


def quota_of(tenant: Tenant) -> TenantQuota:
    return TenantQuota(
        tenant.name,
        bounds_of(tenant.nominal),
        bounds_of(tenant.borrowing_limit),
        bounds_of(tenant.lending_limit),
        tenant.cohort,
        tenant.weight,
    )


class _Cohort:
    """Sums over the tenants of one cohort that have a nominal quantity, by dimension.

    Attributes:
        nominal: sum of n.
        reserved: sum of max(u, g).
        lendable: sum of n - g.
    """

    __slots__ = ("lendable", "members", "name", "nominal", "reserved")

    def __init__(self, name: str) -> None:
        self.name = name
        self.members: dict[str, _Node] = {}
        self.nominal = [0] * _COUNT
        self.reserved = [0] * _COUNT
        self.lendable = [0] * _COUNT


class _Node:
    """A tenant with what it uses. Python's integers are exact: only what leaves the tree saturates."""

    __slots__ = ("cohort", "kept", "quota", "used")

    def __init__(self, quota: TenantQuota, cohort: _Cohort) -> None:
        self.quota = quota
        self.cohort = cohort
        self.used = [0] * _COUNT
        self.kept = [_kept(quota, dimension) for dimension in _DIMENSIONS]

    def join(self, sign: int) -> None:
        """Adds itself to its cohort's sums, or takes itself out of them."""
        for place, nominal in enumerate(self.quota.nominal.units):
            if nominal is not None:
                self.cohort.nominal[place] += sign * nominal
                self.cohort.reserved[place] += sign * max(self.used[place], self.kept[place])
                self.cohort.lendable[place] += sign * (nominal - self.kept[place])

    def use(self, place: int, change: int) -> None:
        before = self.used[place]
        after = self.used[place] = before + change
        if self.quota.nominal.units[place] is not None:
            kept = self.kept[place]
            self.cohort.reserved[place] += max(after, kept) - max(before, kept)

    def borrowed(self, place: int) -> int:
        nominal = self.quota.nominal.units[place]
        return 0 if nominal is None else max(0, self.used[place] - nominal)

    def withheld(self, place: int) -> int:
        """Idle, and not lent."""
        return max(0, self.kept[place] - self.used[place])

    def room(self, place: int) -> int:
        """What the cohort leaves it, used or not. Only where it has a nominal quantity."""
        own = max(self.used[place], self.kept[place])
        return self.cohort.nominal[place] - (self.cohort.reserved[place] - own)

    @property
    def share(self) -> float:
        """Its dominant share of what the cohort can lend, over its weight (dominant resource fairness: A. Ghodsi and
        others, NSDI 2011; of what is borrowed, as Kueue has it)."""
        shares = (self.borrowed(place) / max(1, self.cohort.lendable[place]) for place in range(_COUNT))
        return max(shares) / self.quota.weight


class QuotaTree:
    """What is used is what has been taken and not given back. A tenant that has not been set has no limits."""

    def __init__(self, quotas: Iterable[TenantQuota] = ()) -> None:
        self._nodes: dict[str, _Node] = {}
        self._cohorts: dict[str, _Cohort] = {}
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
        node = _Node(quota, cohort)
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

    def admit(self, tenant: str, model: str, amounts: Amounts) -> Refusal | None:
        """Takes it if that is within every limit; otherwise takes nothing and says what binds."""
        refusal = self.refusal(tenant, model, amounts)
        if refusal is None:
            self.take(tenant, model, amounts)
        return refusal

    def fits(self, tenant: str, model: str, amounts: Amounts) -> bool:
        """`refusal` is None, without looking for whom to name."""
        node = self._nodes.get(tenant)
        return not self._over_model(model, amounts) and (node is None or not any(_short(node, amounts)))

    def refusal(self, tenant: str, model: str, amounts: Amounts) -> Refusal | None:
        """What stands against so much more; None: nothing does."""
        node = self._nodes.get(tenant)
        bindings = self._over_model(model, amounts)
        if node is not None:
            short = _short(node, amounts)
            bindings += [each for place, units in short[0] for each in _over_tenant(node, place, units)]
            bindings += [each for place, units in short[1] for each in _over_cohort(node, place, units)]
        if not bindings:
            return None
        asked = tuple(amounts[binding.limit.dimension] for binding in bindings)
        return Refusal(tenant, model, node.quota.cohort if node else "", tuple(bindings), asked)

    def within_nominal(self, tenant: str, amounts: Amounts) -> bool:
        """The tenant would borrow nothing of what this needs."""
        node = self._nodes.get(tenant)
        return node is None or _within_nominal(node, amounts)

    def reclaims(self, tenant: str, model: str, amounts: Amounts) -> tuple[Reclaim, ...]:
        """From whom the tenant takes back what it needs for this; nothing where that would not admit it.

        It takes only up to its own nominal quantities, and only from tenants above theirs: so no tenant both takes
        and is taken from, and what is borrowed in all only falls.
        """
        node = self._nodes.get(tenant)
        if node is None or self._over_model(model, amounts) or not _within_nominal(node, amounts):
            return ()
        return tuple(reclaim for place, units in _short(node, amounts)[1] for reclaim in _reclaim(node, place, units))

    def share(self, tenant: str) -> float:
        """Of what its cohort can lend, by its dominant dimension, over its weight. The lowest comes first to what is
        spare, the highest gives back first."""
        node = self._nodes.get(tenant)
        return 0.0 if node is None else node.share

    def used(self, tenant: str) -> Amounts:
        node = self._nodes.get(tenant)
        return Amounts() if node is None else _outward(node.used)

    def used_by_model(self, model: str) -> Amounts:
        return _outward(self._model_used.get(model, [0] * _COUNT))

    def borrowed(self, tenant: str) -> Amounts:
        """What it holds above its nominal quantities."""
        node = self._nodes.get(tenant)
        return Amounts() if node is None else _outward([node.borrowed(place) for place in range(_COUNT)])

    def ceiling(self, tenant: str) -> Bounds:
        """What the tenant may come to use while the others use what they use now."""
        node = self._nodes.get(tenant)
        if node is None:
            return _UNBOUNDED
        return Bounds(tuple(_ceiling(node, place) for place in range(_COUNT)))

    def _cohort(self, quota: TenantQuota) -> _Cohort:
        """A tenant alone has a cohort of its own, of which no other is."""
        if not quota.cohort:
            return _Cohort("")
        return self._cohorts.setdefault(quota.cohort, _Cohort(quota.cohort))

    def _leave(self, node: _Node) -> None:
        node.join(-1)
        del node.cohort.members[node.quota.name]
        if not node.cohort.members:
            self._cohorts.pop(node.cohort.name, None)

    def _use(self, tenant: str, model: str, amounts: Amounts, sign: int) -> None:
        node = self._nodes.get(tenant)
        if node is None:
            self.set_tenant(TenantQuota(tenant))
            node = self._nodes[tenant]
        of_model = self._model_used.setdefault(model, [0] * _COUNT)
        if sign < 0 and any(units > min(node.used[place], of_model[place]) for place, units in amounts.present):
            held = (_outward(node.used), _outward(of_model))
            raise ValueError(f"model {model!r} of tenant {tenant!r} gives back {amounts}, and they hold {held}")
        for place, units in amounts.present:
            node.use(place, sign * units)
            of_model[place] += sign * units

    def _over_model(self, model: str, amounts: Amounts) -> list[Binding]:
        limits = self._model_limits.get(model)
        if limits is None:
            return []
        used = self._model_used.get(model, [0] * _COUNT)
        return [
            _binding(Limit.MODEL, model, place, limit, used[place], used[place] + units - limit)
            for place, units in amounts.present
            if (limit := limits.units[place]) is not None and used[place] + units > limit
        ]


def _kept(quota: TenantQuota, dimension: Dimension) -> int:
    """What the tenant never lends of its nominal quantity."""
    nominal, lent = quota.nominal.units[dimension], quota.lending_limit.units[dimension]
    if nominal is None:
        return 0
    if not dimension.lendable:
        return nominal
    return 0 if lent is None else max(0, nominal - lent)


def _alone(node: _Node, place: int) -> bool:
    return len(node.cohort.members) == 1 or not _DIMENSIONS[place].lendable


def _most(node: _Node, place: int, nominal: int) -> int | None:
    """Nominal and what may be borrowed; None: as much as the cohort leaves."""
    if _alone(node, place):
        return nominal
    borrowing = node.quota.borrowing_limit.units[place]
    return None if borrowing is None else nominal + borrowing


def _ceiling(node: _Node, place: int) -> int | None:
    nominal = node.quota.nominal.units[place]
    if nominal is None:
        return None
    most = _most(node, place, nominal)
    if _alone(node, place):
        return most
    room = max(0, node.room(place))
    return room if most is None else min(room, most)


_Shortages = list[tuple[int, int]]


def _short(node: _Node, amounts: Amounts) -> tuple[_Shortages, _Shortages]:
    """Dimensions, with what they ask for, in which the tenant's own limits bind, and in which its cohort does."""
    own: _Shortages = []
    cohort: _Shortages = []
    for place, units in amounts.present:
        nominal = node.quota.nominal.units[place]
        if nominal is None:
            continue
        wanted = node.used[place] + units
        most = _most(node, place, nominal)
        if most is not None and wanted > most:
            own.append((place, units))
        if not _alone(node, place) and wanted > node.room(place):
            cohort.append((place, units))
    return own, cohort


def _within_nominal(node: _Node, amounts: Amounts) -> bool:
    nominal = node.quota.nominal.units
    return all(
        (limit := nominal[place]) is None or node.used[place] + units <= limit for place, units in amounts.present
    )


def _over_tenant(node: _Node, place: int, units: int) -> list[Binding]:
    nominal = node.quota.nominal.units[place] or 0
    most = _most(node, place, nominal) or 0
    kind = Limit.NOMINAL if _alone(node, place) else Limit.BORROWING
    used = node.used[place]
    return [_binding(kind, node.quota.name, place, most, used, used + units - most)]


def _over_cohort(node: _Node, place: int, units: int) -> list[Binding]:
    """Who holds back what is missing, and what is left that nobody has."""
    cohort, wanted = node.cohort, node.used[place] + units
    missing = wanted - node.room(place)
    used = sum(each.used[place] for each in _limited(cohort, place))
    if wanted <= (node.quota.nominal.units[place] or 0):
        borrowers = tuple((name, saturated(Dimension(place), over)) for name, over, _ in _borrowers(node, place))
        return [_binding(Limit.BORROWED, cohort.name, place, cohort.nominal[place], used, missing, borrowers)]
    bindings = []
    for each in sorted(_limited(cohort, place), key=lambda lender: (-lender.withheld(place), lender.quota.name)):
        held_back = min(missing, each.withheld(place))
        if each is not node and held_back > 0:
            lent = (each.quota.nominal.units[place] or 0) - each.kept[place]
            owner = each.quota.name
            bindings.append(_binding(Limit.LENDING, owner, place, lent, each.withheld(place), held_back))
            missing -= held_back
    if missing > 0:
        bindings.append(_binding(Limit.COHORT, cohort.name, place, cohort.nominal[place], used, missing))
    return bindings


def _limited(cohort: _Cohort, place: int) -> list[_Node]:
    return [each for each in cohort.members.values() if each.quota.nominal.units[place] is not None]


def _borrowers(node: _Node, place: int) -> list[tuple[str, int, float]]:
    """The cohort's other tenants that hold more than their nominal quantity, the highest share first."""
    found = [
        (name, each.borrowed(place), each.share)
        for name, each in node.cohort.members.items()
        if each is not node and each.borrowed(place) > 0
    ]
    return sorted(found, key=lambda borrower: (-borrower[2], borrower[0]))


def _reclaim(node: _Node, place: int, units: int) -> list[Reclaim]:
    missing = node.used[place] + units - node.room(place)
    found = []
    for name, over, share in _borrowers(node, place):
        if missing <= 0:
            break
        found.append(Reclaim(name, saturated(Dimension(place), min(over, missing)), share))
        missing -= over
    return found


def _binding(
    kind: Limit,
    owner: str,
    place: int,
    limit: int,
    used: int,
    missing: int,
    borrowers: tuple[tuple[str, Amount], ...] = (),
) -> Binding:
    dimension = Dimension(place)
    amounts = (saturated(dimension, units) for units in (limit, used, missing))
    return Binding(kind, owner, *amounts, borrowers=borrowers)


def _outward(units: Iterable[int]) -> Amounts:
    return Amounts(tuple(saturated(dimension, each).units for dimension, each in zip(_DIMENSIONS, units, strict=True)))
