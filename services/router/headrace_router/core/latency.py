"""How long a batch of n rows takes: an online straight line, a + b * n."""

from __future__ import annotations

FORGETTING = 0.98
"""Weight of the past at each observation: about the last 50 count."""
ENOUGH = 5.0
"""Weight of observations below which the model does not know."""
CLIP = 4.0
"""An observation further than this many mean deviations from the line counts as being there."""
STALE_S = 1.0
"""An estimate older than this is no reason to refuse work: trying again is how it is corrected."""


class LatencyModel:
    """Least squares with exponential forgetting, and residuals clipped (Huber) so that one stall does
    not bend the line. Says None while it does not know.
    """

    __slots__ = ("_base", "_deviation", "_moments", "_seen_at", "_slope", "_weight")

    def __init__(self) -> None:
        self._weight = 0.0
        self._moments = (0.0, 0.0, 0.0, 0.0)
        self._base = 0.0
        self._slope = 0.0
        self._deviation = 0.0
        self._seen_at = float("-inf")

    def observe(self, rows: int, seconds: float, now: float) -> None:
        if self._weight >= ENOUGH:
            seconds = self._clipped(rows, seconds)
        x, y, xx, xy = self._moments
        keep = FORGETTING
        self._weight = self._weight * keep + 1.0
        self._moments = (x * keep + rows, y * keep + seconds, xx * keep + rows * rows, xy * keep + rows * seconds)
        self._seen_at = now
        self._fit()

    def predict(self, rows: float, now: float) -> float | None:
        """Seconds in the engine for a batch of so many rows."""
        if self._weight < ENOUGH or now - self._seen_at > STALE_S:
            return None
        return self._base + self._slope * rows

    def _fit(self) -> None:
        """Neither part may be negative: a batch costs something, and more rows never cost less."""
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
        expected = self._base + self._slope * rows
        residual = seconds - expected
        # A floor of a tenth lets a line that fitted perfectly move at all.
        bound = CLIP * max(self._deviation, 0.1 * expected, 1e-6)
        self._deviation += (min(abs(residual), bound) - self._deviation) * (1.0 - FORGETTING) * 2
        return expected + max(-bound, min(bound, residual))
