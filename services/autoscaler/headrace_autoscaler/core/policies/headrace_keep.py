"""How long an instance that nobody needs now is kept, from when it was needed again before.

With c the cost of a second of staying and C that of not being there, keeping for T costs E[min(T, gap)] c + C
P(gap > T) (ski rental with a known distribution: Karlin, Li, Manasse and Owicki, 1990; for serverless functions:
Shahrad et al., "Serverless in the Wild", USENIX ATC 2020). T minimises this over the model's own gaps, so it stays
while hazard x C > c. There is one histogram per rank: the fifth instance is needed again less often than the first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from headrace_autoscaler.core.memory import MOMENT, NUMBER, Schema, many, maybe, part

RANKS = 48
"""Ranks beyond share the last histogram."""
LONGEST_S = 300.0
_EDGES = tuple(0.5 * 2.0 ** (step / 2) for step in range(19))
_ROUNDING = 1e-9
_FADE = 0.97
"""Of a count, per gap: the last thirty or so gaps decide."""


class Gaps:
    """Lengths of the gaps between needs, in half-octaves of seconds, and the time that is best to keep."""

    __slots__ = ("_counts", "keep_s", "last")
    MEMORY: ClassVar[Schema] = {
        "_counts": many(NUMBER, len(_EDGES) + 1),
        "keep_s": NUMBER,
        "last": maybe(MOMENT),
    }

    def __init__(self, keep_s: float) -> None:
        self._counts = [0.0] * (len(_EDGES) + 1)
        self.keep_s = keep_s
        self.last: float | None = None

    def needed(self, now: float, continuous_s: float, absence_s: float) -> None:
        """Args:
        continuous_s: a shorter gap is none.
        absence_s: C / c, instance seconds that not being there costs.
        """
        if self.last is not None and now - self.last > continuous_s:
            bin_ = sum(edge < now - self.last for edge in _EDGES)
            self._counts = [count * _FADE for count in self._counts]
            self._counts[bin_] += 1.0
            self.keep_s = self._best(absence_s)
        self.last = now

    def keeps(self, now: float) -> bool:
        return self.last is not None and now - self.last <= self.keep_s

    @property
    def until(self) -> float:
        return -1.0 if self.last is None else self.last + self.keep_s

    def _best(self, absence_s: float) -> float:
        left = sum(self._counts)
        best_s, least, stayed, before = 0.0, absence_s * left, 0.0, 0.0
        for count, edge in zip(self._counts, _EDGES, strict=False):
            if edge > LONGEST_S:
                break
            stayed += count * (before + edge) / 2
            left = max(0.0, left - count)
            cost = stayed + left * (edge + absence_s)
            # Longer than the longest gap costs the same, as far as this model's past tells: not longer, then.
            if cost < least - _ROUNDING * max(1.0, least):
                best_s, least = edge, cost
            before = edge
        return best_s


class Keep:
    """Of all ranks. `absence_s(rank)` is what it costs that the instance of this rank (from 1) is not there."""

    MEMORY: ClassVar[Schema] = {"_ranks": many(part(lambda: Gaps(0.0)))}

    def __init__(self) -> None:
        self._ranks: list[Gaps] = []

    def needed(self, count: int, now: float, continuous_s: float, absence_s: Callable[[int], float]) -> None:
        while len(self._ranks) < min(count, RANKS):
            self._ranks.append(Gaps(min(LONGEST_S, absence_s(len(self._ranks) + 1))))
        for rank, gaps in enumerate(self._ranks[:count], 1):
            gaps.needed(now, continuous_s, absence_s(rank))

    def count(self, now: float) -> int:
        """Instances whose time is not over."""
        for rank in range(len(self._ranks), 0, -1):
            if self._ranks[rank - 1].keeps(now):
                return rank
        return 0

    def next_change(self, now: float) -> float:
        """When `count` falls next; now if nothing is kept."""
        count = self.count(now)
        return self._ranks[count - 1].until if count else now
