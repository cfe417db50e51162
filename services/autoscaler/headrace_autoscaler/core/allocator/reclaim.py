"""Who gives up what for whom: room on a node, and quota that was borrowed."""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from headrace_autoscaler.core.allocator.choice import Choice
from headrace_autoscaler.core.allocator.hopeless import Hopeless
from headrace_autoscaler.core.allocator.needs import Held, Need
from headrace_autoscaler.core.allocator.purse import Purse
from headrace_autoscaler.core.allocator.rooms import Room
from headrace_autoscaler.core.allocator.types import Kind
from headrace_autoscaler.domain import Resources

Victims = list[tuple[Need, Held]]
_ENOUGH_TO_CHOOSE_FROM = 32
"""Nodes on which somebody could give up enough; more are not looked at."""


class Holdings:
    """Everything that is held, and what of it may be taken. Whose an instance is, and not which, decides that: a tenant
    gives up what it chooses until it is down to its guarantee."""

    def __init__(self, purse: Purse) -> None:
        self._purse = purse
        self._by_tenant: defaultdict[str, dict[Held, Need]] = defaultdict(dict)
        self._by_room: defaultdict[int, defaultdict[Room, dict[Held, Need]]] = defaultdict(lambda: defaultdict(dict))
        self._hopeless: dict[int, Hopeless] = {}
        self._spare: dict[int, _Spare] = {}
        self._whose_spare = ""

    def add(self, need: Need, held: Held) -> None:
        tenant = need.demand.tenant
        self._by_tenant[tenant][held] = need
        self._by_room[id(held.room.kind)][held.room][held] = need
        if tenant == self._whose_spare:
            self._spare.clear()

    def discard(self, need: Need, held: Held) -> None:
        self._spare.clear()
        del self._by_tenant[need.demand.tenant][held]
        there = self._by_room[id(held.room.kind)]
        del there[held.room][held]
        if not there[held.room]:
            del there[held.room]

    def look_again(self) -> None:
        """Room has been given back."""
        self._hopeless.clear()

    def quota_for(self, need: Need, choice: Choice) -> Victims:
        """Whose going gives the tenant back what others have borrowed of its own; empty: it is not that."""
        due = self._purse.lenders_due(need.demand, choice)
        if not due:
            return []
        theirs = [(owner, held) for tenant in due for held, owner in self._by_tenant.get(tenant, {}).items()]
        theirs.sort(key=lambda each: (-self._purse.share(each[0].demand.tenant), each[1].staying_cost))
        victims: Victims = []
        less: dict[str, list[int]] = {}
        missing = self._purse.shortage(need.demand, choice)
        for owner, held in theirs:
            if not missing:
                break
            units = self._purse.units(held.choice)
            gone = less.setdefault(owner.demand.tenant, [0, 0, 0, 0])
            useful = [place for place in missing if units[place] and place in due[owner.demand.tenant]]
            if useful and self._purse.may_lose(owner.demand.tenant, gone, held.choice):
                victims.append((owner, held))
                for place, count in enumerate(units):
                    gone[place] += count
                missing = {place: left - units[place] for place, left in missing.items() if left > units[place]}
        return victims if not missing else []

    def room_for(self, need: Need, choice: Choice, own: bool) -> Victims:
        """Whose going makes room on one node; empty: nobody's.

        Args:
            own: it is the tenant's own that it asks for. Otherwise it takes one instance at most, and only from the
                tenant with the highest share, which is not below its own afterwards: so the two never take turns.
        """
        return self._for_own(need, choice) if own else self._for_spare(need, choice)

    def _for_own(self, need: Need, choice: Choice) -> Victims:
        known = self._hopeless.setdefault(id(choice.kind), Hopeless())
        if choice in known:
            return []
        found: list[Victims] = []
        hopeless = True
        # Whoever has a share of what is spare, and nobody else, is over its guarantee in something.
        over = self._purse.sharing
        for room, holds in self._by_room.get(id(choice.kind), {}).items() if over else ():
            there = [(owner, held) for held, owner in holds.items() if owner.demand.tenant in over]
            if not there:
                continue
            there.sort(key=lambda each: (-self._purse.share(each[0].demand.tenant), each[1].staying_cost))
            takeable = self._takeable(there)
            if not takeable or not _enough(room, takeable, choice.way.resources):
                continue
            hopeless = False
            others = [each for each in takeable if each[0].demand.tenant != need.demand.tenant]
            if victims := _enough(room, others, choice.way.resources):
                found.append(victims)
                if len(found) == _ENOUGH_TO_CHOOSE_FROM:
                    break
        if hopeless:
            known.add(choice)
        return min(found, key=_order, default=[])

    def _takeable(self, there: Victims) -> Victims:
        less: dict[str, list[int]] = {}
        found: Victims = []
        for owner, held in there:
            tenant = owner.demand.tenant
            gone = less.setdefault(tenant, [0, 0, 0, 0])
            if self._purse.may_lose(tenant, gone, held.choice):
                found.append((owner, held))
                for place, count in enumerate(self._purse.units(held.choice)):
                    gone[place] += count
        return found

    def _for_spare(self, need: Need, choice: Choice) -> Victims:
        purse = self._purse
        richest = purse.richest
        mine = purse.share_with(need.demand.tenant, choice, 1)
        if not richest or richest == need.demand.tenant or mine >= purse.share(richest):
            return []
        spare = self._spare_of(richest, choice.kind)
        if mine >= spare.refused.get(choice.size, math.inf):
            return []
        found: Victims = []
        for left, owner, held in spare.offers:
            if left >= mine:
                found += _enough(held.room, [(owner, held)], choice.way.resources)
        if not found:
            spare.refused[choice.size] = mine
            return []
        return [min(found, key=lambda each: _order([each]))]

    def _spare_of(self, tenant: str, kind: Kind) -> _Spare:
        """Worked out once until the tenant holds something else, or somebody gives up room."""
        if tenant != self._whose_spare:
            self._spare.clear()
            self._whose_spare = tenant
        spare = self._spare.get(id(kind))
        if spare is None:
            purse = self._purse
            spare = self._spare[id(kind)] = _Spare(
                [
                    (purse.share_with(tenant, held.choice, -1), owner, held)
                    for held, owner in self._by_tenant.get(tenant, {}).items()
                    if held.room.kind is kind and purse.may_lose(tenant, [0, 0, 0, 0], held.choice)
                ]
            )
        return spare


@dataclass(slots=True)
class _Spare:
    """What the richest tenant holds on one kind of node.

    Attributes:
        offers: the share that is left to it without this one.
        refused: by size, the lowest share of a tenant for which none of these made room. Nor do they for a higher one.
    """

    offers: list[tuple[float, Need, Held]]
    refused: dict[int, float] = field(default_factory=dict)


def in_turn(purse: Purse, waiting: Victims) -> Iterator[tuple[Need, Held]]:
    """By dominant share: the tenant with the lowest first, of its own the longest-running."""
    queues: dict[str, Victims] = {}
    for need, held in waiting:
        queues.setdefault(need.demand.tenant, []).append((need, held))
    for queue in queues.values():
        queue.sort(key=lambda each: each[1].age, reverse=True)
    heap = [(purse.share(tenant), tenant) for tenant in queues]
    heapq.heapify(heap)
    while heap:
        _, tenant = heapq.heappop(heap)
        yield queues[tenant].pop()
        if queues[tenant]:
            heapq.heappush(heap, (purse.share(tenant), tenant))


def _enough(room: Room, there: Victims, needs: Resources) -> Victims:
    """The first of these whose going makes room for it."""
    victims: Victims = []
    given: list[Held] = []
    for owner, held in there:
        room.change(held.choice.way.resources, held.device, -1)
        given.append(held)
        victims.append((owner, held))
        if room.fits(needs):
            break
    else:
        victims = []
    for held in given:
        room.change(held.choice.way.resources, held.device, 1)
    return victims


def _order(victims: Victims) -> tuple[int, float, list[tuple[int, int, float, str]], str]:
    """The fewest first, then the cheapest to start again, then whoever has the least in hand."""
    cold = sum(owner.demand.cold_start_s for owner, _ in victims)
    return (len(victims), cold, [held.staying_cost for _, held in victims], victims[0][1].room.node.id)
