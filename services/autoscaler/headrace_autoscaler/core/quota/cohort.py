"""Tenants of a cohort, with what they use and the sums that are kept of it.

Integers of the smallest units: Python's are exact, and only what leaves the tree saturates.
"""

from __future__ import annotations

from dataclasses import dataclass

from headrace_autoscaler.core.quota.amounts import Amounts, Bounds, Dimension, bounds_of
from headrace_autoscaler.domain import Tenant

DIMENSIONS = tuple(Dimension)
COUNT = len(DIMENSIONS)
LENDABLE = tuple(dimension.lendable for dimension in DIMENSIONS)
UNBOUNDED = Bounds()


@dataclass(frozen=True, slots=True)
class TenantQuota:
    """What is set of a tenant. See `domain.Tenant`.

    Attributes:
        borrowing_limit: at most this much above nominal. No limit: as much as the cohort leaves.
        lending_limit: at most this much of nominal is lent. No limit: all of it.
        cohort: empty: alone.
    """

    name: str
    nominal: Bounds = UNBOUNDED
    borrowing_limit: Bounds = UNBOUNDED
    lending_limit: Bounds = UNBOUNDED
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


class Cohort:
    """Sums over the tenants of one cohort that have a nominal quantity, by dimension.

    Attributes:
        nominal: sum of n.
        used: sum of u.
        reserved: sum of max(u, g).
        lendable: sum of n - g.
    """

    __slots__ = ("_borrowing", "_withholding", "lendable", "members", "name", "nominal", "reserved", "used")

    def __init__(self, name: str) -> None:
        self.name = name
        self.members: dict[str, Node] = {}
        self.nominal = [0] * COUNT
        self.used = [0] * COUNT
        self.reserved = [0] * COUNT
        self.lendable = [0] * COUNT
        self._withholding: dict[int, list[Node]] = {}
        self._borrowing: dict[int, list[Node]] = {}

    def withholding(self, place: int) -> list[Node]:
        """Who has something idle that it does not lend; the one with most of it first."""
        if place not in self._withholding:
            found = [each for each in self.members.values() if each.withheld(place)]
            found.sort(key=lambda lender: (-lender.withheld(place), lender.quota.name))
            self._withholding[place] = found
        return self._withholding[place]

    def borrowing(self, place: int) -> list[Node]:
        """Who holds more than its nominal quantity; the highest share first."""
        if place not in self._borrowing:
            found = [each for each in self.members.values() if each.borrowed(place)]
            found.sort(key=lambda borrower: (-borrower.share, borrower.quota.name))
            self._borrowing[place] = found
        return self._borrowing[place]

    def changed(self) -> None:
        """Somebody uses more or less, or has other limits. What was found out is kept until then: many refusals in
        a row are cheap."""
        self._withholding.clear()
        self._borrowing.clear()


class Node:
    """A tenant with what it uses. Python's integers are exact: only what leaves the tree saturates."""

    __slots__ = ("cohort", "kept", "quota", "used")

    def __init__(self, quota: TenantQuota, cohort: Cohort) -> None:
        self.quota = quota
        self.cohort = cohort
        self.used = [0] * COUNT
        self.kept = [_kept(quota, dimension) for dimension in DIMENSIONS]

    def join(self, sign: int) -> None:
        """Adds itself to its cohort's sums, or takes itself out of them."""
        self.cohort.changed()
        for place, nominal in enumerate(self.quota.nominal.units):
            if nominal is not None:
                self.cohort.nominal[place] += sign * nominal
                self.cohort.used[place] += sign * self.used[place]
                self.cohort.reserved[place] += sign * max(self.used[place], self.kept[place])
                self.cohort.lendable[place] += sign * (nominal - self.kept[place])

    def use(self, amounts: Amounts, sign: int) -> None:
        """Takes (1) or gives back (-1)."""
        for place, units in amounts.present:
            self.hold(place, self.used[place] + sign * units)

    def hold(self, place: int, after: int) -> None:
        """Uses so much in all."""
        cohort, before, kept = self.cohort, self.used[place], self.kept[place]
        self.used[place] = after
        if self.quota.nominal.units[place] is not None:
            cohort.used[place] += after - before
            cohort.reserved[place] += (after if after > kept else kept) - (before if before > kept else kept)
        cohort.changed()

    def alone(self, place: int) -> bool:
        """There is nobody to borrow from."""
        return len(self.cohort.members) == 1 or not LENDABLE[place]

    def most(self, place: int) -> int | None:
        """Nominal and what may be borrowed; None: as much as the cohort leaves. For what has a nominal quantity."""
        nominal = self.quota.nominal.units[place] or 0
        if self.alone(place):
            return nominal
        borrowing = self.quota.borrowing_limit.units[place]
        return None if borrowing is None else nominal + borrowing

    def ceiling(self, place: int) -> int | None:
        """What it may come to use now; None: no limit."""
        if self.quota.nominal.units[place] is None:
            return None
        most = self.most(place)
        room = most if self.alone(place) else max(0, self.room(place))
        return room if most is None else min(room or 0, most)

    def borrowed(self, place: int) -> int:
        nominal = self.quota.nominal.units[place]
        if nominal is None or not LENDABLE[place]:
            return 0
        return max(0, self.used[place] - nominal)

    def lends(self, place: int) -> int:
        """Of its nominal quantity, used or not."""
        return (self.quota.nominal.units[place] or 0) - self.kept[place]

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
        shares = (self.borrowed(place) / max(1, self.cohort.lendable[place]) for place in range(COUNT))
        return max(shares) / self.quota.weight


def _kept(quota: TenantQuota, dimension: Dimension) -> int:
    """What the tenant never lends of its nominal quantity."""
    nominal, lent = quota.nominal.units[dimension], quota.lending_limit.units[dimension]
    if nominal is None:
        return 0
    if not dimension.lendable:
        return nominal
    return 0 if lent is None else max(0, nominal - lent)
