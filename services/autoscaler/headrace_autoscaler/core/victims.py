"""Which instances make room: those that nobody needs, and those that run on what their tenant has borrowed.

What nobody needs makes room for its own model, its own tenant and, where the machine is short, for anybody. What a
tenant holds above its nominal quantities is given back to whoever of its cohort asks for its own, needed or not. An
instance cannot be given back in part: the one that stands with one foot in what is borrowed goes, but only after
those that stand in it with both. A tenant within its nominal quantities loses nothing that it needs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from headrace_autoscaler.core.plans import Holding, Key, Want
from headrace_autoscaler.core.quota import Dimension, Limit, Refusal, amounts_of
from headrace_autoscaler.core.room import MACHINE, Room


class Victims:
    """Args:
    spares: instances that nobody needs; the last one goes first.
    live: by revision, not draining.
    """

    def __init__(self, spares: Sequence[Holding], live: Mapping[Key, Sequence[Holding]]) -> None:
        self._spares = spares
        self._live = live
        self._by_tenant: dict[str, list[Holding]] | None = None

    def choose(
        self, want: Want, room: Room, free: Collection[str], *, spares: bool
    ) -> tuple[list[Holding], Refusal | None]:
        """Instances without which one more of `want` fits, and what stands against it all the same.

        Args:
            room: with what is held and stays; it is left as it was.
            free: instances that may not be taken.
            spares: take what nobody needs; otherwise only what is given back to a lender.
        """
        chosen: list[Holding] = []
        refusal = room.refusal(want)
        while refusal is not None and not want.spare:
            victim = self._next(want, refusal, room, free, spares)
            if victim is None:
                break
            room.remove(victim)
            chosen.append(victim)
            refusal = room.refusal(want)
        for holding in chosen:
            room.add(holding)
        return chosen, refusal

    def _next(self, want: Want, refusal: Refusal, room: Room, free: Collection[str], spares: bool) -> Holding | None:
        if spares:
            for holding in reversed(self._spares):
                if holding.key != want.key and _takable(holding, room, free) and _helps(holding, want, refusal, room):
                    return holding
        dimension = refusal.first.limit.dimension
        for tenant in room.lenders_claim(want, refusal):
            held = [each for each in self._of(tenant) if _takable(each, room, free) and _holds(each, dimension)]
            if held:
                return min(held, key=lambda each: self._cost(each, room, dimension))
        return None

    def _cost(self, holding: Holding, room: Room, dimension: Dimension) -> tuple[bool, bool, bool, float]:
        """Whole in what is borrowed, needed by nobody, not the only one of its revision, the newest."""
        borrowed = room.quotas.borrowed(holding.tenant)[dimension]
        straddles = borrowed < amounts_of(holding.resources)[dimension]
        ready = sum(each.ready and room.holds(each) for each in self._live.get(holding.key, ()))
        return straddles, holding not in self._spares, ready <= 1, -holding.started_at

    def _of(self, tenant: str) -> list[Holding]:
        if self._by_tenant is None:
            self._by_tenant = {}
            for holdings in self._live.values():
                for holding in holdings:
                    if holding.ready:
                        self._by_tenant.setdefault(holding.tenant, []).append(holding)
        return self._by_tenant.get(tenant, [])


def _takable(holding: Holding, room: Room, free: Collection[str]) -> bool:
    return room.holds(holding) and holding.id not in free


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
