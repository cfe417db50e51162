"""One limit of one tenant or model among routers. Integers of its smallest unit.

A router obeys what it was sent until that runs out, and its floor after that. So much of a limit is held as routers
could be obeying in all, heard or not; a part is granted only out of what is not held.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil

HEADROOM = 1.25
"""A router is lent this much more than it was seen to need, where there is enough."""


def with_headroom(need: int) -> int:
    return ceil(need * HEADROOM)


@dataclass(slots=True)
class _Grant:
    """What a router may be obeying. It obeys the amount until the lease runs out, and the floor after that."""

    serial: int
    amount: int
    floor: int
    expires: float


@dataclass(frozen=True, slots=True)
class Terms:
    """What a limit is.

    Attributes:
        limit: the nominal quantity, or a model's own.
        shared: others may borrow of it.
        kept: of the limit, what is never lent.
    """

    limit: int
    shared: bool = False
    kept: int = 0

    def floor(self, routers: int) -> int:
        """Of each router. Where there is only one router, all that is not lent to others."""
        if routers == 1:
            return max(self.kept, self.least(routers)) if self.shared else self.limit
        return self.least(routers)

    def least(self, routers: int) -> int:
        """What a floor is, whatever may be lent: half an equal part, and at least one of what there is."""
        return max(1, self.limit // (2 * routers)) if self.limit >= routers else 0

    def reserved(self, routers: int) -> int:
        """Floors and what is not lent: no other tenant ever has it."""
        return max(self.kept, self.floor(routers) * routers, self.unlent(routers))

    def unlent(self, routers: int) -> int:
        """Of the limit, whatever may be lent: floors, or half of what is too little for floors. That goes to whichever
        router needs it."""
        return self.least(routers) * routers if self.limit >= routers else -(-self.limit // 2)


class Pool:
    """The limit among the configured routers. Others get nothing of it.

    Args:
        most: of the limit and what is borrowed, what somebody before us may have lent to routers.
        held_until: until then they may be obeying that.
        floors: by router, what floors they may have from then on.
        sure: and of each until then at least, whatever others may have.

    Attributes:
        total: what all routers are to have together; without a cohort the limit.
        floor: see `Terms.floor`.
    """

    def __init__(
        self,
        terms: Terms,
        routers: Iterable[str],
        *,
        most: int,
        held_until: float,
        floors: Mapping[str, int],
        sure: int,
    ) -> None:
        self._routers = tuple(routers)
        self._last_first = self._routers[::-1]
        self._targets: dict[str, int] = {}
        self._targets_of = (-1, -1)
        self._targets_by: Mapping[str, int] = {}
        self._sure = sure
        self._grants = {router: [_Grant(0, 0, floors[router], held_until)] for router in self._routers}
        self._in_hand: dict[str, tuple[int, float]] = {}
        self.set_terms(terms, most)

    def set_terms(self, terms: Terms, most: int) -> None:
        """What somebody before us has lent may have been of these terms as well as of others that we have known."""
        self.terms = terms
        self.total = terms.limit
        self.floor = terms.floor(len(self._routers))
        before = max(0, most - self.floor * (len(self._routers) - 1))
        for grants in self._grants.values():
            for grant in grants:
                if grant.serial == 0:
                    grant.amount = max(grant.amount, before)

    def retire(self) -> None:
        """Nobody is to have anything of it."""
        self.total = self.floor = 0

    def parts_within(self, most: int, now: float) -> dict[str, int]:
        """Of what routers could be obeying so much in all, by router; floors first."""
        parts = dict.fromkeys(self._routers, 0)
        floors = {router: max(grant.floor for grant in grants) for router, grants in self._grants.items()}
        for of in (floors, {router: self.bound(router, now) for router in self._routers}):
            for router in self._routers:
                wanted = of[router]
                given = min(most, max(0, wanted - parts[router]))
                parts[router] += given
                most -= given
        return parts

    def clip(self, parts: Mapping[str, int]) -> None:
        """Forgets what routers could be obeying beyond this much each."""
        for router, grants in self._grants.items():
            for grant in grants:
                grant.amount, grant.floor = min(grant.amount, parts[router]), min(grant.floor, parts[router])

    def beyond(self, parts: Mapping[str, int], now: float) -> int:
        """What routers could be obeying in all beyond this much each."""
        return sum(max(0, self.bound(router, now) - parts[router]) for router in self._routers)

    def within(self, parts: Mapping[str, int], now: float) -> int:
        """What routers could be obeying in all of this much each."""
        return sum(min(parts[router], self.bound(router, now)) for router in self._routers)

    def obeyable(self, now: float) -> int:
        """The most that all routers could be obeying."""
        return sum(self.bound(router, now) for router in self._routers)

    def lasts(self) -> float:
        """When the last lease runs out that gives something; monotonic seconds."""
        return max((grant.expires for grants in self._grants.values() for grant in grants if grant.amount), default=0.0)

    def holds(self, router: str, units: int, until: float) -> bool:
        """What a router has in hand beyond its lease; it is believed until then. Whether that is less than before."""
        before, _ = self._in_hand.pop(router, (0, 0.0))
        if units:
            self._in_hand[router] = (units, until)
        return units < before

    def bound(self, router: str, now: float) -> int:
        """The most that a router could be obeying, or may begin to obey, or has in hand from before."""
        # Loops here and below, and no generators: this is asked for every tenant and router, twice a second.
        most = 0
        for grant in self._grants[router]:
            obeyed = grant.amount if now < grant.expires else grant.floor
            if obeyed > most:
                most = obeyed
        if self._in_hand:
            units, until = self._in_hand.get(router, (0, 0.0))
            if units > most and now < until:
                most = units
        return most

    def obeys(self, router: str, now: float) -> int:
        """The least that a router may be obeying still."""
        grants = self._grants.get(router, [])
        return min((grant.amount if now < grant.expires else grant.floor for grant in grants), default=0)

    def held(self, now: float) -> int:
        """The most that all routers could be obeying, with their floors."""
        floor, held = self.floor, 0
        for router in self._routers:
            bound = self.bound(router, now)
            held += bound if bound > floor else floor
        return held

    def wanted(self, needs: Mapping[str, int]) -> int:
        """What all routers hold where each has what it needs: floors are nobody else's."""
        floor, wanted = self.floor, 0
        for router in self._routers:
            need = needs.get(router, 0)
            wanted += need if need > floor else floor
        return wanted

    def kept(self, needs: Mapping[str, int]) -> int:
        """What all routers hold of the limit because of what they need, or as the least floors."""
        least = self.terms.least(len(self._routers))
        needed = sum(max(least, with_headroom(needs.get(router, 0))) for router in self._routers)
        return max(needed, self.terms.unlent(len(self._routers)))

    def grant(self, router: str, part: int, serial: int, expires: float, now: float) -> None:
        """Books the part as sent to the router."""
        grants = self._grants.get(router)
        if grants is not None:
            gone = [grant for grant in grants if now >= grant.expires]
            if gone:
                kept = _Grant(gone[-1].serial, 0, max(grant.floor for grant in gone), gone[-1].expires)
                grants = [kept, *(grant for grant in grants if now < grant.expires)]
            self._grants[router] = [*grants, _Grant(serial, part, min(self.floor, part), expires)]

    def part(self, router: str, needs: Mapping[str, int], most: int, now: float) -> int:
        """What the router would be granted: its target, as far as no other could be obeying it.

        Args:
            needs: by router; what follows from it is remembered until another object comes.
            most: what all routers together may hold.
        """
        if router not in self._grants:
            return 0
        own = self.bound(router, now)
        others = self.held(now) - max(own, self.floor)
        return max(min(self._target(router, needs), most - others), min(self._floor_of(router, now), own))

    def _floor_of(self, router: str, now: float) -> int:
        """What it has whatever others could be obeying. Who may obey an autoscaler before us may have had less, and
        others the rest."""
        oldest = self._grants[router][0]
        return min(self._sure, self.floor) if oldest.serial == 0 and now < oldest.expires else self.floor

    def granted(self, router: str) -> int:
        """What the router was sent last."""
        return self._grants[router][-1].amount if router in self._grants else 0

    def applied(self, router: str, serial: int) -> bool:
        """The router obeys the grant of this serial, so no earlier one. Whether others may have more by that."""
        grants = self._grants.get(router)
        if grants is None:
            return False
        obeyed = max([grant.serial for grant in grants if grant.serial <= serial], default=0)
        kept = self._grants[router] = [grant for grant in grants if grant.serial >= obeyed]
        if len(kept) == len(grants):
            return False
        return max([grant.amount for grant in grants]) > max([grant.amount for grant in kept])

    def _target(self, router: str, needs: Mapping[str, int]) -> int:
        if len(self._routers) == 1:
            return self.total
        of = (self.total, self.floor)
        if self._targets_of != of or self._targets_by is not needs:
            self._targets, self._targets_of, self._targets_by = self._divide(needs), of, needs
        return self._targets[router]

    def _divide(self, needs: Mapping[str, int]) -> dict[str, int]:
        """Floors, then max-min fair what is needed above them, then headroom likewise, then equal parts of what nobody
        needs. Of equal ones the first names get more."""
        count = len(self._routers)
        spare = max(0, self.total - self.floor * count)
        parts = dict.fromkeys(self._routers, self.floor)
        for wanted in (needs, {name: with_headroom(need) for name, need in needs.items()}):
            wants = {name: max(0, wanted.get(name, 0) - parts[name]) for name in self._routers}
            # Who wants least first, and of equal ones the last: what does not divide is left to those that come later.
            for position, name in enumerate(sorted(self._last_first, key=wants.__getitem__)):
                given = min(wants[name], spare // (count - position))
                parts[name] += given
                spare -= given
        whole, over = divmod(spare, count)
        return {name: part + whole + (place < over) for place, (name, part) in enumerate(parts.items())}
