"""Time averages over sliding windows, from readings of any length."""

from __future__ import annotations

from collections import deque
from typing import ClassVar

from headrace_autoscaler.core.memory import COUNT, MOMENT, NUMBER, Schema, many, row

_ROUNDING = 1e-9
"""What a running sum may be off by: nothing must not look like a little, which would be rounded up to an instance."""


class SlidingMean:
    """Mean of a quantity over the last `window_s`, given its integral over consecutive periods.

    Inside one period the quantity counts as constant, as in a metrics pipeline that keeps one bucket per report.
    """

    MEMORY: ClassVar[Schema] = {"_periods": many(row(MOMENT, MOMENT, NUMBER)), "_sum": NUMBER}

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._periods: deque[tuple[float, float, float]] = deque()
        self._sum = 0.0

    def add(self, begin: float, end: float, integral: float) -> None:
        """Periods must follow one another; an empty one adds nothing. Monotonic seconds."""
        if end <= begin:
            return
        self._periods.append((begin, end, integral))
        self._sum += integral
        while self._periods[0][1] <= end - self._window_s:
            self._sum -= self._periods.popleft()[2]

    def mean(self, now: float, shortest_s: float) -> float:
        """Over the window, or over what there is of it; never over less than `shortest_s`. Nothing seen: 0."""
        if not self._periods:
            return 0.0
        begin, end, integral = self._periods[0]
        since = max(begin, now - self._window_s)
        before = integral * min(1.0, (since - begin) / (end - begin))
        inside = self._sum - before
        return inside / max(shortest_s, now - since) if inside > _ROUNDING else 0.0

    def clear(self) -> None:
        self._periods.clear()
        self._sum = 0.0


class SlidingMaximum:
    """Highest value over the last `window_s`; amortised constant time. Monotonic seconds."""

    MEMORY: ClassVar[Schema] = {"_window_s": NUMBER, "_falling": many(row(MOMENT, COUNT))}

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._falling: deque[tuple[float, int]] = deque()

    def add(self, value: int, now: float) -> None:
        while self._falling and self._falling[-1][1] <= value:
            self._falling.pop()
        self._falling.append((now, value))

    def highest(self, now: float) -> int:
        while self._falling and now - self._falling[0][0] > self._window_s:
            self._falling.popleft()
        return self._falling[0][1] if self._falling else 0
