"""What binds a demand, whose limit that is, and who gives back. See `tree` for the rule."""

from __future__ import annotations

from headrace_autoscaler.core.quota.amounts import Amount, Amounts, saturated
from headrace_autoscaler.core.quota.cohort import DIMENSIONS, LENDABLE, Node
from headrace_autoscaler.core.quota.refusals import Binding, Limit, Reclaim

Shortages = list[tuple[int, int]]
"""Places of dimensions, and how much is asked of each."""


def short(node: Node, amounts: Amounts) -> tuple[Shortages, Shortages]:
    """Dimensions, with what they ask for, in which the tenant's own limits bind, and in which its cohort does."""
    own: Shortages = []
    cohort: Shortages = []
    for place, units in amounts.present:
        if node.quota.nominal.units[place] is None:
            continue
        wanted = node.used[place] + units
        most = node.most(place)
        if most is not None and wanted > most:
            own.append((place, units))
        if not node.alone(place) and wanted > node.room(place):
            cohort.append((place, units))
    return own, cohort


def fits(node: Node, amounts: Amounts) -> bool:
    """`short` finds nothing: the same rule, in the time that a planner has which asks it of every instance."""
    used, kept, cohort = node.used, node.kept, node.cohort
    nominal, borrowing = node.quota.nominal.units, node.quota.borrowing_limit.units
    alone = len(cohort.members) == 1
    for place, units in amounts.present:
        limit = nominal[place]
        if limit is None:
            continue
        wanted = used[place] + units
        if alone or not LENDABLE[place]:
            if wanted > limit:
                return False
            continue
        most = borrowing[place]
        if most is not None and wanted > limit + most:
            return False
        own = used[place] if used[place] > kept[place] else kept[place]
        if wanted > cohort.nominal[place] - cohort.reserved[place] + own:
            return False
    return True


def within_nominal(node: Node, amounts: Amounts) -> bool:
    nominal, used = node.quota.nominal.units, node.used
    for place, units in amounts.present:
        limit = nominal[place]
        if limit is not None and used[place] + units > limit:
            return False
    return True


def over_tenant(node: Node, place: int, units: int) -> list[Binding]:
    most = node.most(place) or 0
    kind = Limit.NOMINAL if node.alone(place) else Limit.BORROWING
    used = node.used[place]
    return [binding(kind, node.quota.name, place, most, used, used + units - most)]


def over_cohort(node: Node, place: int, units: int) -> list[Binding]:
    """Who holds back what is missing, and what is left that nobody has."""
    cohort, wanted = node.cohort, node.used[place] + units
    missing = wanted - node.room(place)
    limit, used = cohort.nominal[place], cohort.used[place]
    if wanted <= (node.quota.nominal.units[place] or 0):
        borrowers = [
            (each.quota.name, saturated(DIMENSIONS[place], each.borrowed(place))) for each in over(node, place)
        ]
        return [binding(Limit.BORROWED, cohort.name, place, limit, used, missing, tuple(borrowers))]
    bindings = []
    for lender in cohort.withholding(place):
        if lender is not node and missing > 0:
            idle = lender.withheld(place)
            held_back = min(missing, idle)
            bindings.append(binding(Limit.LENDING, lender.quota.name, place, lender.lends(place), idle, held_back))
            missing -= held_back
    if missing > 0:
        bindings.append(binding(Limit.COHORT, cohort.name, place, limit, used, missing))
    return bindings


def reclaim(node: Node, place: int, units: int) -> list[Reclaim]:
    """From the highest share on, as much as is missing, and from nobody more than it has borrowed."""
    missing = node.used[place] + units - node.room(place)
    found = []
    for borrower in over(node, place):
        if missing > 0:
            back = min(borrower.borrowed(place), missing)
            found.append(Reclaim(borrower.quota.name, saturated(DIMENSIONS[place], back), borrower.share))
            missing -= back
    return found


def over(node: Node, place: int) -> list[Node]:
    """The cohort's others that hold more than their nominal quantity; the highest share first."""
    return [each for each in node.cohort.borrowing(place) if each is not node]


def binding(
    kind: Limit,
    owner: str,
    place: int,
    limit: int,
    used: int,
    missing: int,
    borrowers: tuple[tuple[str, Amount], ...] = (),
) -> Binding:
    amounts = [saturated(DIMENSIONS[place], units) for units in (limit, used, missing)]
    return Binding(kind, owner, amounts[0], amounts[1], amounts[2], borrowers)
