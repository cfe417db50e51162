"""How long a batch of n rows takes: an online straight line, a + b * n."""

from __future__ import annotations

from collections.abc import Sequence

FORGETTING = 0.98
"""Weight of the past at each observation: about the last 50 count."""
ENOUGH = 5.0
"""Weight of observations below which the model does not know."""
DRIFT = 2 * (1.0 - FORGETTING)
"""Weight of the newest observation in the mean deviation."""
CLIP = 4.0
"""An observation further than this many mean deviations from the line counts as being there."""
LASTING = 8
"""So many observations in a row, all too far on one side, are no stalls: the past is forgotten for them."""
SETTLED = 15.0
"""Weight of observations below which each may move the line a lot."""
REFIT = 8
"""The line is solved when it is asked for; outliers are told by one that is at most so many observations old."""
STALE_S = 1.0
"""An estimate older than this is no reason to refuse work: trying again is how it is corrected."""


class LatencyModel:
    """Least squares with exponential forgetting, and residuals clipped (Huber) so that one stall does
    not bend the line. Says None while it does not know.

    Args:
        prior: learns everything that this learns, and is asked while this does not know.
    """

    __slots__ = (
        "_base",
        "_deviation",
        "_largest",
        "_moments",
        "_outliers",
        "_prior",
        "_seen_at",
        "_slope",
        "_unsolved",
        "_weight",
    )

    def __init__(self, prior: LatencyModel | None = None) -> None:
        self._prior = prior
        self._outliers: list[tuple[int, float, bool]] = []
        self._deviation = 0.0
        self._weight = 0.0
        self._moments = (0.0, 0.0, 0.0, 0.0)
        self._unsolved = 0
        self._largest = 0.0
        self._base = 0.0
        self._slope = 0.0
        self._seen_at = float("-inf")

    def observe(self, rows: int, seconds: float, now: float) -> None:
        if self._prior is not None:
            self._prior.observe(rows, seconds, now)
        if self._weight >= ENOUGH:
            seconds = self._clipped(rows, seconds)
        self._add(rows, seconds, FORGETTING, 1.0)
        self._seen_at = now

    def seed(self, profile: Sequence[tuple[int, float]], now: float) -> None:
        """Starts from times that were measured elsewhere, (rows, seconds): enough to know, and soon outweighed."""
        if profile and self._weight < ENOUGH:
            self._forget()
            for rows, seconds in profile:
                self._add(rows, seconds, 1.0, ENOUGH / len(profile))
            self._seen_at = now

    def predict(self, rows: float, now: float) -> float | None:
        """Seconds in the engine for a batch of so many rows."""
        if self._weight < ENOUGH or now - self._seen_at > STALE_S:
            return None if self._prior is None else self._prior.predict(rows, now)
        if self._unsolved:
            self._solve()
        return self._base + self._slope * rows

    def guess(self, rows: float) -> float | None:
        """As `predict`, by what was learnt last, of whatever age: to share out work by, never to refuse it."""
        if self._weight < ENOUGH:
            return None if self._prior is None else self._prior.guess(rows)
        if self._unsolved:
            self._solve()
        return self._base + self._slope * rows

    @property
    def typical_rows(self) -> float | None:
        """The mean size of what was seen here."""
        return None if self._weight < ENOUGH else self._moments[0] / self._weight

    def learnt(self, rows: float) -> float | None:
        """What was seen here, of whatever age, and nothing of the prior: for comparing one with another. None too
        for batches of more than twice what was seen: too short a time is guessed for them where all were small."""
        if self._weight < ENOUGH or rows > 2 * self._largest:
            return None
        if self._unsolved:
            self._solve()
        return self._base + self._slope * rows

    def doubt(self) -> None:
        """The past counts for little from now on: for a runner that is seldom asked, and may have recovered."""
        if self._weight > 2 * ENOUGH:
            keep = 2 * ENOUGH / self._weight
            x, y, xx, xy = self._moments
            self._weight = 2 * ENOUGH
            self._moments = (x * keep, y * keep, xx * keep, xy * keep)

    def _forget(self) -> None:
        self._weight, self._moments = 0.0, (0.0, 0.0, 0.0, 0.0)

    def _add(self, rows: int, seconds: float, keep: float, weight: float) -> None:
        x, y, xx, xy = self._moments
        wx = weight * rows
        largest = self._largest * keep
        self._largest = rows if rows > largest else largest
        self._weight = self._weight * keep + weight
        self._moments = (x * keep + wx, y * keep + weight * seconds, xx * keep + wx * rows, xy * keep + wx * seconds)
        self._unsolved += 1

    def _solve(self) -> None:
        """Neither part may be negative: a batch costs something, and more rows never cost less."""
        self._unsolved = 0
        n = self._weight
        x, y, xx, xy = self._moments
        spread = n * xx - x * x
        slope = (n * xy - x * y) / spread if spread > 1e-9 * max(1.0, xx) else 0.0
        base = (y - slope * x) / n
        if slope < 0.0:
            base, slope = y / n, 0.0
        elif base < 0.0:
            base, slope = 0.0, xy / xx
        self._base, self._slope = base, slope

    def _clipped(self, rows: int, seconds: float) -> float:
        if self._unsolved >= REFIT or self._weight < SETTLED:
            self._solve()
        expected = self._base + self._slope * rows
        residual = seconds - expected
        # A floor of a tenth lets a line that fitted perfectly move at all.
        bound = CLIP * max(self._deviation, 0.1 * expected, 1e-6)
        off = residual if residual >= 0.0 else -residual
        if off <= bound:
            if self._outliers:
                self._outliers.clear()
            self._deviation += (off - self._deviation) * DRIFT
            return seconds
        if self._has_changed(rows, seconds, residual > 0):
            return seconds
        self._deviation += (bound - self._deviation) * DRIFT
        return expected + (bound if residual > 0 else -bound)

    def _has_changed(self, rows: int, seconds: float, above: bool) -> bool:
        """Counts outliers on one side; once there are enough, they alone are the past."""
        outliers = self._outliers
        if outliers and outliers[-1][2] != above:
            outliers.clear()
        outliers.append((rows, seconds, above))
        if len(outliers) < LASTING:
            return False
        self._forget()
        self._deviation = 0.0
        for seen_rows, seen_s, _ in outliers[:-1]:
            self._add(seen_rows, seen_s, 1.0, 1.0)
        outliers.clear()
        return True
