"""A runner whose times leave its peers' band gets fewer bundles, then none but a probe now and then.

Compared is what each has shown for batches of one size against the median of the others, so that neither a
model that became slower nor a single stall makes anybody slow. A runner without peers has nobody to be
compared with, and serves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from statistics import median
from typing import Protocol

LEAVES = 2.0
"""A runner that takes so many times its peers' median has left the band."""
RETURNS = 1.5
"""One that takes less than so many times is back in it; between the two nothing changes."""
NOTICEABLE_S = 0.001
"""Less than this above the median is nobody's trouble, whatever the ratio."""
PROBE_S = 1.0
"""A paused runner gets one bundle in this time: that is how it is seen to have recovered."""
UNLIMITED = 1 << 30


class Standing(Enum):
    """How much a runner is given."""

    USUAL = "usual"
    REDUCED = "reduced"
    """One bundle at a time."""
    PAUSED = "paused"
    """A probe now and then."""


class Place(Enum):
    """Where its times are."""

    INSIDE = "inside"
    EDGE = "edge"
    OUTSIDE = "outside"


STEPS: Mapping[tuple[Standing, Place], tuple[float, Standing]] = {
    (Standing.USUAL, Place.OUTSIDE): (1.0, Standing.REDUCED),
    (Standing.REDUCED, Place.OUTSIDE): (2.0, Standing.PAUSED),
    (Standing.REDUCED, Place.INSIDE): (1.0, Standing.USUAL),
    (Standing.PAUSED, Place.INSIDE): (0.0, Standing.REDUCED),
}
"""Once it has been there for so many seconds, the next standing. Anything else changes nothing."""


class Watch:
    """Of one runner.

    Attributes:
        allowance: bundles that it may hold.
        slowdown: its time over its peers' median; 0: not known.
    """

    __slots__ = ("_place", "_probed_at", "_since", "allowance", "slowdown", "standing")

    def __init__(self) -> None:
        self.standing = Standing.USUAL
        self.allowance = UNLIMITED
        self.slowdown = 0.0
        self._place = Place.INSIDE
        self._since = 0.0
        self._probed_at = 0.0

    def sent(self, now: float) -> None:
        """It has been given a bundle."""
        if self.standing is Standing.PAUSED:
            self._probed_at = now
            self.allowance = 0

    def review(self, own_s: float | None, peers_s: Iterable[float], now: float) -> None:
        """Looks at it again, every now and then.

        Args:
            own_s: what it takes; None: it has not shown enough.
            peers_s: what each of the others takes for the same.
        """
        others = list(peers_s)
        if not others:
            self.standing, self.slowdown = Standing.USUAL, 0.0
            self._move(Place.INSIDE, now)
        elif own_s is not None:
            usual_s = median(others)
            self.slowdown = own_s / max(usual_s, 1e-9)
            self._move(_place(self.slowdown, own_s - usual_s), now)
        self._allow(now)

    def _move(self, place: Place, now: float) -> None:
        if place is not self._place:
            self._place, self._since = place, now
        after_s, standing = STEPS.get((self.standing, place), (0.0, self.standing))
        if standing is not self.standing and now - self._since >= after_s:
            self.standing, self._since, self._probed_at = standing, now, now

    def _allow(self, now: float) -> None:
        if self.standing is Standing.USUAL:
            self.allowance = UNLIMITED
        elif self.standing is Standing.REDUCED or now - self._probed_at >= PROBE_S:
            self.allowance = 1
        else:
            self.allowance = 0


def _place(slowdown: float, excess_s: float) -> Place:
    if slowdown < RETURNS or excess_s < NOTICEABLE_S:
        return Place.INSIDE
    return Place.OUTSIDE if slowdown > LEAVES else Place.EDGE


class Times(Protocol):
    @property
    def typical_rows(self) -> float | None: ...

    def learnt(self, rows: float) -> float | None: ...

    def doubt(self) -> None: ...


class Paced(Protocol):
    @property
    def engine(self) -> Times: ...


class Watched(Protocol):
    """What a review looks at of one runner."""

    @property
    def accepting(self) -> bool: ...

    @property
    def pace(self) -> Paced: ...

    @property
    def watch(self) -> Watch: ...


def review(runners: Iterable[Watched], now: float) -> None:
    """Compares all runners of a model, each for the size of batch that it has typically got."""
    serving = [runner for runner in runners if runner.accepting]
    for runner in serving:
        engine = runner.pace.engine
        rows = engine.typical_rows
        peers = [peer.pace.engine.learnt(rows or 0.0) for peer in serving if peer is not runner]
        known = [time_s for time_s in peers if time_s is not None]
        runner.watch.review(None if rows is None else engine.learnt(rows), known, now)
        if runner.watch.standing is Standing.PAUSED:
            engine.doubt()
