"""Failures in a row, and when to try again."""

from __future__ import annotations

from dataclasses import dataclass, replace

_FIRST_S = 1.0
_LONGEST_S = 30.0
PATIENCE = 3
"""Failures in a row after which it is said to be blocked."""


@dataclass(frozen=True, slots=True)
class Failures:
    """Frozen: each failure makes the next one. Monotonic seconds."""

    count: int = 0
    reason: str = ""
    retry_at: float = 0.0

    def failed(self, reason: str, now: float) -> Failures:
        """One more. What fails during the pause was begun together with what the pause is for: no new attempt."""
        if self.waits(now):
            return replace(self, reason=reason)
        pause_s = min(_LONGEST_S, _FIRST_S * 2.0**self.count)
        return Failures(self.count + 1, reason, now + pause_s)

    def waits(self, now: float) -> bool:
        return now < self.retry_at

    @property
    def blocking(self) -> bool:
        return self.count >= PATIENCE
