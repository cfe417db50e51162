"""What a plan has come to, as actions: what starts at once, what only once something else has gone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from headrace_autoscaler.core.allocator.catalog import format_price
from headrace_autoscaler.core.allocator.choice import UNMEASURED
from headrace_autoscaler.core.allocator.needs import Held, Need
from headrace_autoscaler.core.allocator.purse import Purse
from headrace_autoscaler.core.allocator.rooms import Room, Rooms
from headrace_autoscaler.core.allocator.types import (
    Action,
    Instance,
    Move,
    Place,
    Plan,
    Refused,
    Resize,
    Snapshot,
    Start,
    Stop,
)


@dataclass(frozen=True, slots=True)
class Gone:
    """An instance that goes.

    Attributes:
        need: whose it was; None: nobody knows it.
    """

    instance: Instance
    reason: str
    need: Need | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    snapshot: Snapshot
    rooms: Rooms
    needs: Sequence[Need]
    gone: Sequence[Gone]


def put_in_order(outcome: Outcome) -> Plan:
    """The actions that lead there, the first to begin first."""
    by_need: dict[int, list[Gone]] = {}
    for each in outcome.gone:
        by_need.setdefault(id(each.need) if each.need else 0, []).append(each)
    moment = _Now(outcome)
    actions: list[Action] = []
    stops: list[Action] = [Stop(each.instance.id, each.reason) for each in by_need.get(0, ())]
    total = 0
    for need in outcome.needs:
        starting = [held for held in need.held if held.instance is None]
        leaving = by_need.get(id(need), [])
        if starting and leaving:
            starting, leaving = _unmoved(need, starting, leaving)
        for held in starting:
            gone = _replaced_by(held, leaving)
            if gone is not None:
                leaving.remove(gone)
            actions.append(_start(need, held, gone, moment.after(need, held)))
        stops += [Stop(each.instance.id, each.reason) for each in leaving]
        total += sum(held.choice.micros_per_hour for held in need.held)
    # What starts at once comes first, then what goes, then what waits for that.
    at_once = [each for each in actions if not isinstance(each, Stop) and not each.after]
    later = [each for each in actions if not isinstance(each, Stop) and each.after]
    idle = tuple(sorted(node for node, room in outcome.rooms.by_node.items() if not room.held))
    return Plan((*at_once, *stops, *later), tuple(_refusals(outcome.needs)), total, idle)


def _unmoved(need: Need, starting: list[Held], leaving: list[Gone]) -> tuple[list[Held], list[Gone]]:
    """Without what was sent away and then found its own place free again."""
    left = list(leaving)
    new: list[Held] = []
    for held in starting:
        same = next((gone for gone in left if _is_same(need, held, gone.instance)), None)
        if same is None:
            new.append(held)
        else:
            held.instance = same.instance
            left.remove(same)
    return new, left


def _is_same(need: Need, held: Held, instance: Instance) -> bool:
    way = held.choice.way
    planned = (need.demand.tenant, way.name, way.resources, held.room.node.id, held.device)
    return planned == (instance.tenant, instance.way, instance.resources, instance.node, instance.device)


def _replaced_by(held: Held, leaving: Sequence[Gone]) -> Gone | None:
    alike = (each for each in leaving if each.instance.way == held.choice.way.name)
    return next(alike, leaving[0] if leaving else None)


def _start(need: Need, held: Held, gone: Gone | None, after: tuple[str, ...]) -> Action:
    demand, choice = need.demand, held.choice
    place = Place(
        demand.model,
        demand.revision,
        demand.tenant,
        choice.way.name,
        held.room.node.id,
        held.device,
        choice.way.resources,
        choice.micros_per_hour,
    )
    if gone is None:
        return Start(place, _why(need, held), after)
    if gone.instance.way == choice.way.name:
        return Move(gone.instance.id, place, gone.reason, after)
    return Resize(gone.instance.id, place, f"{gone.reason}: {_why(need, held)}", after)


def _why(need: Need, held: Held) -> str:
    choice = held.choice
    price = f"{format_price(choice.micros_per_hour)} an hour"
    variant = choice.way.variant
    what = "" if variant is None else f" of '{variant.name}'"
    if choice.rate == UNMEASURED:
        return f"one instance{what} until it has been measured, at {price}"
    each = f"an instance{what} sustains {choice.rate:.4g} in batches of {choice.rows}, at {price}"
    if need.demand.rate <= 0:
        return f"its minimum of {need.demand.minimum}; {each}"
    return f"{need.demand.rate:.4g} requests per second; {each}"


def _refusals(needs: Iterable[Need]) -> Iterable[Refused]:
    for need in needs:
        if need.short:
            demand = need.demand
            lacking = max(0.0, demand.rate - need.served)
            yield Refused(demand.model, demand.revision, demand.tenant, lacking, need.reason)


class _Now:
    """What is left while nothing that goes has gone yet. A start that finds no room or quota in that waits."""

    def __init__(self, outcome: Outcome) -> None:
        snapshot = outcome.snapshot
        leaving = [each.instance for each in outcome.gone]
        leaving += sorted((each for each in snapshot.instances if each.draining), key=lambda each: each.id)
        self._on_node: dict[str, list[Instance]] = {}
        self._of_tenant: dict[str, list[Instance]] = {}
        for instance in leaving:
            self._on_node.setdefault(instance.node, []).append(instance)
            self._of_tenant.setdefault(instance.tenant, []).append(instance)
        self._rooms: dict[str, Room] = {}
        self._purse: Purse | None = None
        if self._of_tenant:
            self._fill(outcome)

    def after(self, need: Need, held: Held) -> tuple[str, ...]:
        """Who must have gone before this starts."""
        node, tenant = held.room.node.id, need.demand.tenant
        room = self._rooms.get(node)
        waits_for: list[Instance] = []
        if room is not None and not _take(room, held):
            waits_for += self._on_node[node]
        purse = self._purse if tenant in self._of_tenant else None
        if purse is not None and not purse.pay(need.demand, held.choice):
            waits_for += [each for each in self._of_tenant[tenant] if each not in waits_for]
        return tuple(each.id for each in waits_for)

    def _fill(self, outcome: Outcome) -> None:
        """Only the nodes and tenants that something leaves matter."""
        rooms = outcome.rooms
        self._purse = Purse(outcome.snapshot)
        for name in self._on_node:
            if (room := rooms.by_node.get(name)) is not None:
                self._rooms[name] = Room(room.node, room.kind)
        for instance in outcome.snapshot.instances:
            room = self._rooms.get(instance.node)
            if room is not None:
                room.change(instance.resources, instance.device, 1)
            if instance.tenant in self._of_tenant:
                there = rooms.by_node.get(instance.node)
                self._purse.book(instance.tenant, instance.model, instance.resources, there.kind if there else None)


def _take(room: Room, held: Held) -> bool:
    """On the device that the plan has chosen, or not at all."""
    needs = held.choice.way.resources
    room.change(needs, held.device, 1)
    if room.within_capacity:
        return True
    room.change(needs, held.device, -1)
    return False
