"""What each tenant of a cohort is to have of one dimension by what each wants: its own first, then what is spare.

What a tenant wants within its nominal quantity is its own. What is left of all nominal quantities, less what its owners
never lend, is lent to those that want more and may borrow: to the lowest share first, which is what it borrows of what
the cohort can lend, over its weight. Nobody borrows to have more than it needs while another one lacks what it needs.
What nobody borrows stays with its owners.

That is dominant resource fairness (A. Ghodsi and others, NSDI 2011). Where dimensions are given apart from each other,
as leases are, raising a tenant to the common share in one takes nothing from it in another: each is filled alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import lcm


@dataclass(frozen=True, slots=True)
class Member:
    """A tenant that has a nominal quantity of the dimension. Integers of its smallest unit.

    Attributes:
        kept: of nominal, never lent.
        most: nominal and what it may borrow; None: as much as there is.
        wanted: by its demand, own and borrowed.
        needed: the same without what it only has at hand; None: all that is wanted.
    """

    name: str
    nominal: int
    kept: int
    most: int | None
    wanted: int
    weight: float = 1.0
    needed: int | None = None

    @property
    def own(self) -> int:
        """What it has before anybody borrows."""
        return min(self.nominal, max(self.kept, self.wanted))

    @property
    def borrows(self) -> int:
        """What it would, were there enough."""
        return self._above(self.wanted)

    @property
    def lacks(self) -> int:
        """Of that, what it needs."""
        return self._above(self.wanted if self.needed is None else self.needed)

    def _above(self, units: int) -> int:
        return max(0, (units if self.most is None else min(units, self.most)) - self.nominal)


def allot(members: Sequence[Member]) -> dict[str, int]:
    """By name. The sum is that of the nominal quantities."""
    idle = {each.name: each.nominal - each.own for each in members}
    weights = {each.name: each.weight for each in members}
    total = {each.name: each.own for each in members}
    spare = sum(idle.values())
    lacks = {each.name: each.lacks for each in members}
    at_hand = {each.name: each.borrows - each.lacks for each in members}
    for wants, shares in ((lacks, weights), (at_hand, weights), (idle, idle)):
        for name, part in level(spare, wants, shares).items():
            total[name] += part
            spare -= part
    return total


def level(spare: int, wants: Mapping[str, int], weights: Mapping[str, float]) -> dict[str, int]:
    """Weighted max-min: everybody up to the same share over its weight, or to what it wants; `spare` in all at most.

    Units that do not divide go to the largest remainders; of equal ones the first names get more.
    """
    whole = _whole({name: weights[name] for name, want in wants.items() if want})
    waiting = sorted(whole, key=lambda name: Fraction(wants[name], whole[name]))
    weight, left = sum(whole.values()), spare
    parts: dict[str, int] = {}
    for place, name in enumerate(waiting):
        if wants[name] * weight > left * whole[name]:
            return parts | _divided(left, {name: whole[name] for name in waiting[place:]}, weight)
        parts[name] = wants[name]
        left -= wants[name]
        weight -= whole[name]
    return parts


def _divided(units: int, weights: Mapping[str, int], weight: int) -> dict[str, int]:
    """By weights, whose sum is `weight`."""
    parts = {name: units * each // weight for name, each in weights.items()}
    by_remainder = sorted(weights, key=lambda name: (-(units * weights[name] % weight), name))
    for name in by_remainder[: units - sum(parts.values())]:
        parts[name] += 1
    return parts


def _whole(weights: Mapping[str, float]) -> dict[str, int]:
    """Whole numbers in the same proportions, exactly."""
    ratios = {name: each.as_integer_ratio() for name, each in weights.items()}
    scale = lcm(*(bottom for _, bottom in ratios.values()))
    return {name: top * (scale // bottom) for name, (top, bottom) in ratios.items()}
