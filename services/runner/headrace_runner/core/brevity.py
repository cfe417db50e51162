"""Whether a bundle is so short that handing it to another thread would cost more than it takes."""

from __future__ import annotations

SHORT_S = 0.001
"""So long may the event loop stand still."""
OBSERVATIONS = 16
FADING = 0.95
"""Of the longest time, per bundle since: one that was slow by chance is forgotten after some dozens."""


class Brevity:
    """Judges by the longest recent bundle of about as many rows; does not extrapolate.

    Rows are counted in powers of two, so a batch twice as large as any before is not taken for short.
    """

    def __init__(self) -> None:
        self._longest_s: dict[int, float] = {}
        self._seen: dict[int, int] = {}

    def observe(self, rows: int, seconds: float) -> None:
        size = rows.bit_length()
        self._longest_s[size] = max(seconds, self._longest_s.get(size, 0.0) * FADING)
        self._seen[size] = self._seen.get(size, 0) + 1

    def short(self, rows: int) -> bool:
        size = rows.bit_length()
        return self._seen.get(size, 0) >= OBSERVATIONS and self._longest_s[size] < SHORT_S
