"""How fast instances can be started."""

from __future__ import annotations


class StartRate:
    """At most `burst` starts at once, and one more every 1 / `per_s` seconds.

    The burst is the standby pool; a runner taken from it is replaced at the machine's rate. This is the virtual
    scheduling form of the generic cell rate algorithm (ITU-T I.371).
    """

    def __init__(self, per_s: float, burst: int) -> None:
        self._spacing_s = 1.0 / per_s
        self._tolerance_s = (max(1, burst) - 1) * self._spacing_s
        self._due = 0.0

    def begin(self, now: float) -> float:
        """When a start that is commanded now begins. Never earlier than one commanded before."""
        begin = max(now, self._due - self._tolerance_s)
        self._due = max(self._due, now) + self._spacing_s
        return begin
