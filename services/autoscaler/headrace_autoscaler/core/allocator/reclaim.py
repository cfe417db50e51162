"""What tenants hold beyond their guarantee, and who gives it up for whom."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from headrace_autoscaler.core.allocator.choice import Choice
from headrace_autoscaler.core.allocator.needs import Held, Need
from headrace_autoscaler.core.allocator.purse import Purse
from headrace_autoscaler.core.allocator.rooms import Room
from headrace_autoscaler.domain import Resources

Victims = list[tuple[Need, Held]]


class Spares:
    """Instances that others may need more."""

    def __init__(self) -> None:
        self._held: dict[Held, Need] = {}
        self._hopeless: set[tuple[str, int, Resources]] = set()

    def add(self, need: Need, held: Held) -> None:
        self._held[held] = need

    def discard(self, held: Held) -> None:
        self._held.pop(held, None)

    def look_again(self) -> None:
        """Room has been given back by what is nobody's spare."""
        self._hopeless.clear()

    def unpaid(self, purse: Purse) -> Iterator[tuple[Need, Held]]:
        """Those that count in no quota yet, by dominant share: the tenant with the lowest first, of its own the
        longest-running."""
        queues: dict[str, Victims] = {}
        for held, need in self._held.items():
            if not held.booked:
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

    def room_from(self, purse: Purse, need: Need, choice: Choice, own: bool) -> Victims:
        """Whose going makes room on one node; empty: nobody's.

        Args:
            own: it is the tenant's own that it asks for. Otherwise it takes one instance at most, and only from a tenant
                whose share is not below its own afterwards: so the two never take turns.
        """
        return self._for_own(purse, need, choice) if own else self._for_spare(purse, need, choice)

    def _for_own(self, purse: Purse, need: Need, choice: Choice) -> Victims:
        key = (need.demand.tenant, id(choice.kind), choice.way.resources)
        if not self._held or key in self._hopeless:
            return []
        best: Victims = []
        for room, there in self._by_room(need, choice).items():
            there.sort(key=lambda each: (-purse.share(each[0].demand.tenant), each[1].staying_cost))
            victims = _enough(room, there, choice.way.resources)
            if victims and (not best or _order(victims) < _order(best)):
                best = victims
        if not best:
            self._hopeless.add(key)
        return best

    def _for_spare(self, purse: Purse, need: Need, choice: Choice) -> Victims:
        mine = purse.share_with(need.demand.tenant, choice, 1)
        if mine >= purse.highest_share:
            return []
        found: Victims = []
        for room, there in self._by_room(need, choice).items():
            for each in there:
                theirs = purse.share_with(each[0].demand.tenant, each[1].choice, -1)
                if theirs >= mine and _enough(room, [each], choice.way.resources):
                    found.append(each)
        found.sort(key=lambda each: (-purse.share(each[0].demand.tenant), _order([each])))
        return found[:1]

    def _by_room(self, need: Need, choice: Choice) -> dict[Room, Victims]:
        rooms: dict[Room, Victims] = {}
        for held, owner in self._held.items():
            room = held.room
            if room.kind is choice.kind and owner.demand.tenant != need.demand.tenant and not room.node.ending:
                rooms.setdefault(room, []).append((owner, held))
        return rooms


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
