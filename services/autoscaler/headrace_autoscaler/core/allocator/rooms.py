"""What is left on each node, and the first node where something fits.

First fit over nodes of a kind, the fullest first, larger things before smaller ones (first fit decreasing: D. S.
Johnson, "Near-optimal bin packing algorithms", MIT 1973). What fitted nowhere up to a node will not fit there later, so
that a search goes on where the last one for as much ended; a node that gets room again is looked at again. What fitted
on no node of a kind is not looked for again until one gets room. In all that is linear in nodes and instances for every
size class of instances.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from headrace_autoscaler.core.allocator.choice import Choice
from headrace_autoscaler.core.allocator.hopeless import Hopeless
from headrace_autoscaler.core.allocator.types import Kind, Node
from headrace_autoscaler.domain import Resources


class Room:
    """What is left on one node. May be less than nothing where what runs was never planned like this."""

    __slots__ = ("cpu", "devices", "held", "kind", "memory", "node", "pool")

    def __init__(self, node: Node, kind: Kind) -> None:
        capacity = kind.capacity
        self.node = node
        self.kind = kind
        self.pool: Pool | None = None
        self.cpu = capacity.cpu_millicores
        self.memory = capacity.memory_bytes
        gpus = kind.gpus
        self.devices = [[1000, capacity.gpu_memory_bytes // gpus] for _ in range(gpus)]
        self.held = 0

    def fits(self, needs: Resources) -> bool:
        if needs.cpu_millicores > self.cpu or needs.memory_bytes > self.memory:
            return False
        return not needs.gpu_millis or self.device_for(needs) is not None

    def device_for(self, needs: Resources) -> int | None:
        """The fullest GPU where its share fits; None: there is none."""
        best: int | None = None
        for number, (millis, memory) in enumerate(self.devices):
            fits = needs.gpu_millis <= millis and needs.gpu_memory_bytes <= memory
            if fits and (best is None or millis < self.devices[best][0]):
                best = number
        return best

    def take(self, needs: Resources, device: int | None) -> None:
        self.change(needs, device, 1)

    def give_back(self, needs: Resources, device: int | None) -> None:
        self.change(needs, device, -1)
        if self.pool is not None:
            self.pool.look_again(self)

    def change(self, needs: Resources, device: int | None, sign: int) -> None:
        """Takes (1) or gives back (-1), without a search being told."""
        self.cpu -= sign * needs.cpu_millicores
        self.memory -= sign * needs.memory_bytes
        self.held += sign
        if device is not None and device < len(self.devices):
            self.devices[device][0] -= sign * needs.gpu_millis
            self.devices[device][1] -= sign * needs.gpu_memory_bytes

    @property
    def within_capacity(self) -> bool:
        if self.cpu < 0 or self.memory < 0:
            return False
        return not self.devices or all(min(each) >= 0 for each in self.devices)


class Pool:
    """Nodes of one kind in one failure domain."""

    __slots__ = ("_coarse", "_exact", "_full", "_rooms", "domain")

    def __init__(self, domain: str, rooms: Iterable[Room], full: Hopeless) -> None:
        self.domain = domain
        self._full = full
        self._rooms = sorted(rooms, key=lambda room: (room.cpu, room.memory, room.node.id))
        self._exact: dict[int, int] = {}
        self._coarse: dict[Resources, int] = {}
        for room in self._rooms:
            room.pool = self

    def find(self, choice: Choice) -> Room | None:
        needs, rooms = choice.way.resources, self._rooms
        at = self._exact.get(choice.size, -1)
        if at < 0:
            at = self._first_of_class(needs)
        end = len(rooms)
        while at < end and not rooms[at].fits(needs):
            at += 1
        self._exact[choice.size] = at
        return rooms[at] if at < end else None

    def look_again(self, room: Room) -> None:
        self._rooms.append(room)
        self._full.clear()

    def _first_of_class(self, needs: Resources) -> int:
        """Where the search for a size begins that was never looked for: behind the nodes that are too full for
        anything of its class."""
        amounts = (needs.cpu_millicores, needs.memory_bytes, needs.gpu_millis, needs.gpu_memory_bytes)
        least = Resources(*map(_rounded, amounts))
        at = self._coarse.get(least, 0)
        while at < len(self._rooms) and not self._rooms[at].fits(least):
            at += 1
        self._coarse[least] = at
        return at


def _rounded(amount: int) -> int:
    """Down to three binary digits: sizes of a class differ by less than a quarter."""
    shift = max(0, amount.bit_length() - 3)
    return amount >> shift << shift


class Rooms:
    """All nodes. Kinds are compared by identity: equal ones have been made one."""

    def __init__(self, nodes: Iterable[Node]) -> None:
        self.by_node: dict[str, Room] = {}
        self.kinds: list[Kind] = []
        known: dict[Kind, Kind] = {}
        alike: dict[int, Kind] = {}
        for node in nodes:
            kind = alike.get(id(node.kind))
            if kind is None:
                kind = alike[id(node.kind)] = known.setdefault(node.kind, node.kind)
            self.by_node[node.id] = Room(node, kind)
        self.kinds = list(known)
        self._pools: dict[int, list[Pool]] = {}
        self._full = {id(kind): Hopeless() for kind in self.kinds}

    def open(self) -> None:
        """To be called once what runs has been taken out of the rooms, before anything is looked for."""
        grouped: dict[tuple[int, str], list[Room]] = {}
        for room in self.by_node.values():
            if not room.node.ending:
                grouped.setdefault((id(room.kind), room.node.domain), []).append(room)
        for kind, domain in sorted(grouped, key=lambda key: key[1]):
            self._pools.setdefault(kind, []).append(Pool(domain, grouped[kind, domain], self._full[kind]))

    def find(self, choice: Choice, crowding: Mapping[str, int] | None = None) -> Room | None:
        """The first node of its kind with room.

        Args:
            crowding: instances by failure domain; the emptiest domain is tried first. None: it does not matter.
        """
        kind = id(choice.kind)
        if choice in self._full[kind]:
            return None
        pools: Sequence[Pool] = self._pools.get(kind, ())
        if crowding and len(pools) > 1:
            pools = sorted(pools, key=lambda pool: crowding.get(pool.domain, 0))
        for pool in pools:
            room = pool.find(choice)
            if room is not None:
                return room
        self._full[kind].add(choice)
        return None

    def find_elsewhere(self, choice: Choice, domains: Mapping[str, int]) -> Room | None:
        """The first node with room in a failure domain that is not among these."""
        if choice in self._full[id(choice.kind)]:
            return None
        for pool in self._pools.get(id(choice.kind), ()):
            if pool.domain not in domains and (room := pool.find(choice)) is not None:
                return room
        return None
