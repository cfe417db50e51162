"""Which instances make room: those that nobody needs, and those that run on what their tenant has borrowed.

What nobody needs makes room for its own model, its own tenant and, where the machine is short, for anybody. What a
tenant holds above its nominal quantities is given back to whoever of its cohort asks for its own, needed or not. An
instance cannot be given back in part: the one that stands with one foot in what is borrowed goes, but only after
those that stand in it with both. A tenant within its nominal quantities loses nothing that it needs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from headrace_autoscaler.core.plans import Holding, Key, Want
from headrace_autoscaler.core.quota import Dimension, Limit, Refusal, amounts_of
from headrace_autoscaler.core.room import MACHINE, Room


class Victims:
    """Args:
    spares: instances that nobody needs; the last one goes first.
    live: by revision, not draining.
    """

    def __init__(self, spares: Sequence[Holding], live: Mapping[Key, Sequence[Holding]]) -> None:
        self._spares = list(spares)
        self._gone: set[str] = set()
        self._live = live
        self._by_tenant: dict[str, list[Holding]] | None = None

    def gone(self, holding: Holding) -> None:
        """It drains: it is nobody's choice any more."""
        self._gone.add(holding.id)

    def choose(
        self, want: Want, room: Room, kept: Collection[str], *, spares: bool
    ) -> tuple[list[Holding], Refusal | None]:
        """Instances without which one more of `want` fits, and what stands against it all the same.

        Args:
            room: with what is held and stays; it is left as it was.
            kept: instances that may not be taken.
            spares: take what nobody needs; otherwise only what is given back to a lender.
        """
        chosen: list[Holding] = []
        refusal = room.refusal(want)
        while refusal is not None and not want.spare:
            victim = self._next(want, refusal, room, kept, spares)
            if victim is None:
                break
            room.remove(victim)
            chosen.append(victim)
            refusal = room.refusal(want)
        for holding in chosen:
            room.add(holding)
        return chosen, refusal

    def _next(self, want: Want, refusal: Refusal, room: Room, kept: Collection[str], spares: bool) -> Holding | None:
        if spares:
            for holding in self._first_to_last(self._spares):
                if holding.key != want.key and _takable(holding, room, kept) and _helps(holding, want, refusal, room):
                    return holding
        dimension = refusal.first.limit.dimension
        for tenant in room.lenders_claim(want, refusal):
            borrowed = room.quotas.borrowed(tenant)[dimension]
            partly: Holding | None = None
            for holding in self._first_to_last(self._of(tenant)):
                held = amounts_of(holding.resources)[dimension]
                if held.units and _takable(holding, room, kept):
                    if held <= borrowed:
                        return holding
                    partly = partly or holding
            if partly is not None:
                return partly
        return None

    def _first_to_last(self, holdings: list[Holding]) -> Iterator[Holding]:
        """From the end, where what has gone is taken off: taking many is linear."""
        while holdings and holdings[-1].id in self._gone:
            holdings.pop()
        return reversed(holdings)

    def _of(self, tenant: str) -> list[Holding]:
        """The tenant's ready instances. From the end: what nobody needs, then what is not the only one of its
        revision, then the newest."""
        if self._by_tenant is None:
            self._by_tenant = self._sorted()
        return self._by_tenant.get(tenant, [])

    def _sorted(self) -> dict[str, list[Holding]]:
        needless = {holding.id for holding in self._spares}
        found: dict[str, list[tuple[bool, bool, float, Holding]]] = {}
        for holdings in self._live.values():
            ready = sorted((each for each in holdings if each.ready), key=lambda holding: holding.started_at)
            for place, each in enumerate(ready):
                entry = (each.id in needless, place > 0, each.started_at, each)
                found.setdefault(each.tenant, []).append(entry)
        return {
            tenant: [entry[3] for entry in sorted(each, key=lambda entry: entry[:3])] for tenant, each in found.items()
        }


def _takable(holding: Holding, room: Room, kept: Collection[str]) -> bool:
    return room.holds(holding) and holding.id not in kept


def _holds(holding: Holding, dimension: Dimension) -> bool:
    return amounts_of(holding.resources)[dimension].units > 0


def _helps(holding: Holding, want: Want, refusal: Refusal, room: Room) -> bool:
    """It holds some of what is short, where it is short."""
    binding = refusal.first
    if binding.kind is Limit.MODEL and holding.model != want.model:
        return False
    if refusal.tenant != MACHINE and holding.tenant != want.tenant and binding.kind is not Limit.MODEL:
        # Another tenant's, idle: only what it has borrowed.
        cohort = binding.kind in (Limit.COHORT, Limit.LENDING, Limit.BORROWED)
        if not cohort or holding.tenant not in room.quotas.borrowers(want.tenant, binding.limit.dimension):
            return False
    return _holds(holding, binding.limit.dimension)
