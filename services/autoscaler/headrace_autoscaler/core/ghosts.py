"""Pools that are gone, with what routers may still be obeying of them.

A tenant that is deleted, that leaves its cohort or whose limit is lifted takes its own along, but what it had borrowed
is its old cohort's: that is lent to nobody else until routers have said that they obey something newer, or until the
leases have run out. Where the limit returns in the meantime, it goes on with what was known of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass

from headrace_autoscaler.core.lease_pool import Pool
from headrace_autoscaler.core.quota import Dimension


@dataclass(frozen=True, slots=True)
class Ghost:
    """
    Attributes:
        name: of the limit.
        dimension: None: it was never borrowed.
        cohort: that it was in; empty: none.
        own: by router, what of what it was sent was within the limit when that went; where one has given way, the
            others obey the rest still.
    """

    key: str
    name: str
    dimension: Dimension | None
    cohort: str
    own: Mapping[str, int]
    pool: Pool

    def borrowed(self, now: float) -> int:
        """What routers could be obeying that was its cohort's."""
        return self.pool.beyond(self.own, now)

    def kept(self, now: float) -> int:
        """What routers could be obeying that was its own."""
        return self.pool.within(self.own, now)


class Ghosts:
    """Of all keys; the oldest first."""

    def __init__(self) -> None:
        self._all: list[Ghost] = []

    def __iter__(self) -> Iterator[Ghost]:
        return iter(self._all)

    def add(self, ghost: Ghost) -> None:
        ghost.pool.retire()
        self._all.append(ghost)

    def back(self, key: str, name: str, cohort: str) -> Pool | None:
        """A pool with what routers may be obeying of this limit. In another cohort than before only with its own."""
        found = [each for each in self._all if (each.key, each.name) == (key, name)]
        if not found:
            return None
        ghost = found[-1]
        if ghost.cohort == cohort:
            self._all.remove(ghost)
            return ghost.pool
        pool = deepcopy(ghost.pool)
        # Alone it had borrowed nothing: what is beyond its limit, a cut has left over.
        if ghost.cohort:
            pool.clip(ghost.own)
        return pool

    def issued(self, router: str, serial: int, expires: float, now: float) -> None:
        """What the router is sent now has nothing of them."""
        for ghost in self._all:
            ghost.pool.grant(router, 0, serial, expires, now)

    def applied(self, router: str, serial: int) -> bool:
        """The router obeys this. Whether a cohort may have more by that."""
        freed = [ghost.pool.applied(router, serial) and bool(ghost.cohort) for ghost in self._all]
        return any(freed)

    def expire(self, now: float) -> None:
        """Forgets those of which no router obeys anything. What floors leave was its own, but a limit that returns
        smaller has them still."""
        self._all = [ghost for ghost in self._all if ghost.pool.obeyable(now)]
