"""How limits are divided among routers, and how the parts move with demand.

Every configured router has a floor of each limit, which is its for ever, heard or not. What is above the
floors is lent by demand: to a router for as long as its lease runs, and to another one only when the first
has said that it obeys a smaller lease, or when its lease must have run out. So the sum of what all routers
could be obeying never exceeds the limit, whatever messages are late or lost.

A lease runs from when its router *sent* the last message that had been heard (see QuotaLease.answers). What
was heard at some moment was sent before it, so a lease has run out at that moment plus the time to live,
however long it was on its way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import floor as whole_part

from headrace_autoscaler.domain import Limits

HEADROOM = 1.25
"""A router is lent this much more than it was seen to want."""
DEAD_BAND = 0.02
"""Of a limit: less is not worth a message."""


@dataclass(frozen=True, slots=True)
class Share:
    """One router's part of a key's limits, and its floor. None: no limit."""

    limits: Limits
    floor: Limits

    @property
    def limited(self) -> bool:
        return is_limited(self.limits)


@dataclass(frozen=True, slots=True)
class Want:
    """What one router was seen to need of a key's limits: requests per second, and requests in hand."""

    rate: float = 0.0
    in_hand: float = 0.0


@dataclass(frozen=True, slots=True)
class _Dimension:
    """One field of `Limits`, and of which want it is lent by."""

    name: str
    by: str
    whole: bool = True


DIMENSIONS = (
    _Dimension("concurrency", "in_hand"),
    _Dimension("requests_per_second", "rate", whole=False),
    _Dimension("queue_length", "in_hand"),
    _Dimension("queue_bytes", "in_hand"),
)


def is_limited(limits: Limits) -> bool:
    """Something of it is leased."""
    return any(getattr(limits, dimension.name) is not None for dimension in DIMENSIONS)


@dataclass(slots=True)
class _Grant:
    """What a router may be obeying. It obeys the amount until the lease runs out, and the floor after that."""

    serial: int
    amount: float
    floor: float
    expires: float


class Pool:
    """One limit among the configured routers. Others get nothing of it.

    Args:
        whole: parts are whole numbers.
        held_until: until then each router may be obeying what somebody before us has lent it.
    """

    def __init__(self, limit: float, routers: Iterable[str], *, whole: bool, held_until: float) -> None:
        self.limit = limit
        self._whole = whole
        self._routers = tuple(routers)
        floor = self.floor
        most = max(0.0, limit - floor * (len(self._routers) - 1))
        self._grants = {router: [_Grant(0, most, floor, held_until)] for router in self._routers}

    @property
    def floor(self) -> float:
        """Half an equal part, and at least one of what there is; all of it where there is only one router."""
        count = len(self._routers)
        if count == 1:
            return self.limit
        part = self.limit / count
        if not self._whole:
            return part / 2
        return max(1, whole_part(part / 2)) if part >= 1 else 0

    def bound(self, router: str, now: float) -> float:
        """The most that a router could be obeying, or may begin to obey."""
        return max(grant.amount if now < grant.expires else grant.floor for grant in self._grants[router])

    def grant(self, router: str, needs: Mapping[str, float], serial: int, expires: float, now: float) -> float:
        """The router's part from now on, booked as sent to it."""
        part = self.part(router, needs, now)
        grants = self._grants.get(router)
        if grants is not None:
            gone = [grant for grant in grants if now >= grant.expires]
            if gone:
                kept = _Grant(gone[-1].serial, 0.0, max(grant.floor for grant in gone), gone[-1].expires)
                grants = [kept, *(grant for grant in grants if now < grant.expires)]
            self._grants[router] = [*grants, _Grant(serial, part, min(self.floor, part), expires)]
        return part

    def part(self, router: str, needs: Mapping[str, float], now: float) -> float:
        """What the router would be granted: its target, as far as no other could be obeying it."""
        if router not in self._grants:
            return 0
        floor = self.floor
        others = sum(max(self.bound(other, now), floor) for other in self._routers if other != router)
        target = self._targets(needs)[router]
        part = max(min(target, self.limit - others), min(floor, self.bound(router, now)))
        return whole_part(part) if self._whole else part

    def granted(self, router: str) -> float:
        """What the router was sent last."""
        return self._grants[router][-1].amount if router in self._grants else 0

    def applied(self, router: str, serial: int) -> bool:
        """The router obeys the grant of this serial, so no earlier one. Whether others may have more by that."""
        grants = self._grants.get(router)
        if grants is None:
            return False
        obeyed = max((grant.serial for grant in grants if grant.serial <= serial), default=0)
        kept = self._grants[router] = [grant for grant in grants if grant.serial >= obeyed]
        return max(grant.amount for grant in grants) > max(grant.amount for grant in kept)

    def _targets(self, needs: Mapping[str, float]) -> dict[str, float]:
        """Floors, then max-min fair what is needed above them, then equal parts of what nobody needs."""
        floor = self.floor
        spare = self.limit - floor * len(self._routers)
        targets = dict.fromkeys(self._routers, float(floor))
        open_needs = {router: max(0.0, needs.get(router, 0.0) * HEADROOM - floor) for router in self._routers}
        waiting = sorted(self._routers, key=lambda router: open_needs[router])
        for position, router in enumerate(waiting):
            given = min(open_needs[router], spare / (len(waiting) - position))
            targets[router] += given
            spare -= given
        targets = {router: target + spare / len(self._routers) for router, target in targets.items()}
        return _rounded(targets, self.limit) if self._whole else targets


class LeaseBook:
    """All limits, by key: "tenant" or "tenant/model". All times are monotonic seconds.

    Args:
        routers: that are configured: "router-0" and on.
        held_until: until then routers may be obeying leases of an autoscaler before this one.
    """

    def __init__(self, routers: int, ttl_s: float, held_until: float) -> None:
        self.routers = tuple(f"router-{number}" for number in range(routers))
        self._ttl_s = ttl_s
        self._held_until = held_until
        self._pools: dict[str, dict[str, Pool]] = {}
        self._limits: dict[str, Limits] = {}
        self._wants: dict[str, dict[str, Want]] = {}
        self._unsettled: set[str] = set()
        self._sent: dict[str, list[tuple[int, tuple[str, ...]]]] = {}
        self._serial = 0

    def set_limits(self, limits: Mapping[str, Limits]) -> None:
        """The limits that there are; a key that is gone takes what was lent of it along."""
        for key in [key for key in self._pools if key not in limits]:
            del self._pools[key]
            self._unsettled.discard(key)
        self._limits = dict(limits)
        for key, each in limits.items():
            self._set(key, each)

    def want(self, router: str, wants: Mapping[str, Want]) -> None:
        """All that a router was seen to need, by key; what is not named it does not need."""
        for key in self._wants.get(router, {}).keys() | wants.keys():
            if key in self._pools:
                self._unsettled.add(key)
        self._wants[router] = dict(wants)

    def moves(self, routers: Iterable[str], now: float) -> dict[str, list[str]]:
        """For each of these routers the keys of which its part is to change."""
        found = {router: [key for key in self._unsettled if self._moves(key, router, now)] for router in routers}
        moving = {key for keys in found.values() for key in keys}
        self._unsettled = {key for key in self._unsettled if key in moving or self._wanted(key)}
        return found

    def issue(self, router: str, keys: Iterable[str], heard_at: float, now: float) -> tuple[int, dict[str, Share]]:
        """The router's shares, booked as sent to it under a serial that `applied` takes.

        Args:
            heard_at: when the message was heard that the leases answer.
        """
        self._serial += 1
        keys = tuple(keys)
        shares = {key: self._share(key, router, heard_at + self._ttl_s, now) for key in keys}
        self._sent.setdefault(router, []).append((self._serial, keys))
        return self._serial, shares

    def applied(self, router: str, serial: int) -> None:
        """The router has said that it obeys what was issued under this serial."""
        sent = self._sent.get(router, [])
        for issued, keys in sent:
            if issued <= serial:
                for key in keys:
                    for pool in self._pools.get(key, {}).values():
                        if pool.applied(router, issued):
                            self._unsettled.add(key)
        self._sent[router] = [each for each in sent if each[0] > serial]

    def _set(self, key: str, limits: Limits) -> None:
        pools = self._pools.setdefault(key, {})
        for dimension in DIMENSIONS:
            limit = getattr(limits, dimension.name)
            if limit is None:
                pools.pop(dimension.name, None)
            elif dimension.name in pools:
                if pools[dimension.name].limit != limit:
                    pools[dimension.name].limit = limit
                    self._unsettled.add(key)
            else:
                pools[dimension.name] = Pool(limit, self.routers, whole=dimension.whole, held_until=self._held_until)
                self._unsettled.add(key)

    def _share(self, key: str, router: str, expires: float, now: float) -> Share:
        pools = self._pools.get(key, {})
        parts = {
            dimension.name: pools[dimension.name].grant(router, self._needs(key, dimension), self._serial, expires, now)
            for dimension in DIMENSIONS
            if dimension.name in pools
        }
        floors = {name: min(pools[name].floor, part) for name, part in parts.items()}
        return Share(Limits(**parts), Limits(**floors))  # type: ignore[arg-type]

    def _moves(self, key: str, router: str, now: float) -> bool:
        for dimension in DIMENSIONS:
            pool = self._pools[key].get(dimension.name)
            if pool is not None:
                change = abs(pool.part(router, self._needs(key, dimension), now) - pool.granted(router))
                if change > DEAD_BAND * pool.limit:
                    return True
        return False

    def _needs(self, key: str, dimension: _Dimension) -> dict[str, float]:
        """Of bytes nobody knows the need; routers with much in hand hold many."""
        needs = {router: getattr(wants[key], dimension.by) for router, wants in self._wants.items() if key in wants}
        if dimension.name == "queue_bytes":
            total = sum(needs.values()) or 1.0
            limit = getattr(self._limits[key], dimension.name)
            return {router: limit * need / total / HEADROOM for router, need in needs.items()}
        return needs

    def _wanted(self, key: str) -> bool:
        return any(key in wants for wants in self._wants.values())


def _rounded(targets: Mapping[str, float], limit: float) -> dict[str, float]:
    """Whole numbers of the same sum, by largest remainders; of equal ones the first names get more."""
    parts: dict[str, float] = {router: whole_part(target + 1e-9) for router, target in targets.items()}
    left = round(limit - sum(parts.values()))
    by_remainder = sorted(targets, key=lambda router: (round(parts[router] - targets[router], 6), router))
    for router in by_remainder[:left]:
        parts[router] += 1
    return parts
