"""How large a batch is worth while: past some size more rows in a batch may mean fewer rows per second.

A batch that outgrows a processor's cache takes longer per row (magika on one core: 6.8 ms per row alone, 9.9 at
64), so the largest batch is not the quickest way to empty a queue. What a row costs is kept by size, in powers
of two; the size to cut at is the largest that costs no more than a little above the cheapest. Sizes that nobody
has tried are tried now and then, and what is next larger again and again. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

SLACK = 1.06
"""What a row may cost above the cheapest size's: larger batches spare the router and the wire."""
SHORT_S = 0.003
"""Batches quicker than this are no burden, whatever a row costs: what is around them costs more."""
SMOOTHING = 0.1
ENOUGH = 4
"""Batches of a size after which it counts as known."""
TRY_EVERY = 24
"""One batch in so many is of another size than what is best so far, to learn whether that is still so."""


class EfficientSize:
    """Of one model. Sizes are rows; a size stands for all above half of it.

    Attributes:
        most: the model's maximum batch.
    """

    __slots__ = ("_costs", "_counts", "_place", "_places", "_since_trial", "most")

    def __init__(self, most: int) -> None:
        self.most = most
        self._places = _place_of(most) + 1
        self._costs = [0.0] * self._places
        self._counts = [0] * self._places
        self._place = self._places - 1
        self._since_trial = 0

    def seed(self, profile: Iterable[tuple[int, float]]) -> None:
        """Starts from times that were measured elsewhere, (rows, seconds); what is known already stays."""
        for rows, seconds in profile:
            place = _place_of(rows)
            if rows > 0 and place < self._places and not self._counts[place]:
                self._costs[place], self._counts[place] = seconds / rows, ENOUGH
        self._settle()

    def observe(self, rows: int, seconds: float) -> None:
        """A batch was executed."""
        place = _place_of(rows)
        if place >= self._places or rows < 1:
            return
        cost = seconds / rows
        count = self._counts[place]
        self._costs[place] += (cost - self._costs[place]) * max(SMOOTHING, 1.0 / (count + 1))
        self._counts[place] = count + 1
        self._settle()

    def cut_at(self) -> int:
        """The size of the next batch, at most. Called for each that is cut: now and then it is a trial."""
        place = self._place
        self._since_trial += 1
        if self._since_trial >= TRY_EVERY:
            self._since_trial = 0
            place = self._trial()
        return min(self.most, 1 << place)

    @property
    def usual(self) -> int:
        """The size that batches are cut at but for trials."""
        return min(self.most, 1 << self._place)

    def _trial(self) -> int:
        """The next smaller size that nobody knows, or else the next larger one."""
        for place in range(self._place - 1, -1, -1):
            if self._counts[place] < ENOUGH:
                return place
        return min(self._place + 1, self._places - 1)

    def _settle(self) -> None:
        known = [place for place in range(self._places) if self._counts[place] >= ENOUGH]
        if not known:
            return
        cheapest = min(self._costs[place] for place in known)
        for place in reversed(known):
            cost = self._costs[place]
            if cost <= cheapest * SLACK or cost * (1 << place) < SHORT_S:
                self._place = place
                return


def _place_of(rows: int) -> int:
    """The power of two that is not below."""
    return max(0, rows - 1).bit_length()
