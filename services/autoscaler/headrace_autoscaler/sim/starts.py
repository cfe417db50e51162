"""How fast instances can be started."""

from __future__ import annotations

from bisect import bisect_left, insort


class StartRate:
    """At most `burst` starts at once, and one more every 1 / `per_s` seconds.

    The burst is the standby pool; a runner taken from it is replaced at the machine's rate. This is the virtual
    scheduling form of the generic cell rate algorithm (ITU-T I.371).
    """

    def __init__(self, per_s: float, burst: int) -> None:
        self._spacing_s = 1.0 / per_s
        self._tolerance_s = (max(1, burst) - 1) * self._spacing_s
        self._due = 0.0
        self._free: list[float] = []

    def begin(self, now: float) -> float:
        """When a start that is commanded now begins: at the first place that was given back, or after all others."""
        if self._free:
            del self._free[: bisect_left(self._free, now)]
        if self._free:
            return self._free.pop(0)
        begin = max(now, self._due - self._tolerance_s)
        self._due = max(self._due, now) + self._spacing_s
        return begin

    def withdraw(self, begin: float, now: float) -> None:
        """Gives the place of a start back that has not begun. One that others wait behind is lost if nobody takes it
        before its moment: they have their moments already."""
        if begin <= now:
            return
        insort(self._free, begin)
        while self._free and self._is_last(self._free[-1]):
            self._free.pop()
            self._due -= self._spacing_s

    def _is_last(self, begin: float) -> bool:
        return begin > self._due - self._tolerance_s - 1.5 * self._spacing_s
