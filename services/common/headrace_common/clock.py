"""Time as a dependency. Cores take `now`; adapters take a `Clock`."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    def monotonic(self) -> float:
        """Seconds, for intervals. Never goes back."""
        ...

    def wall(self) -> float:
        """Seconds since the epoch, for records that people read."""
        ...


class SystemClock:
    # Not methods that call: a request asks four times.
    monotonic = staticmethod(time.monotonic)
    wall = staticmethod(time.time)


class FakeClock:
    """A clock that stands until a test advances it."""

    def __init__(self, monotonic: float = 1000.0, wall: float = 1_750_000_000.0) -> None:
        self._monotonic = monotonic
        self._wall = wall

    def monotonic(self) -> float:
        return self._monotonic

    def wall(self) -> float:
        return self._wall

    def advance(self, seconds: float) -> None:
        self._monotonic += seconds
        self._wall += seconds

    def set_wall(self, wall: float) -> None:
        """As whoever corrects a clock does: intervals do not notice."""
        self._wall = wall
