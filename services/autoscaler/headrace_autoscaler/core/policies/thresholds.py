"""Utilisation between two thresholds, by three names that say how much head-room they keep.

Utilisation is the share of the ready instances' time in which they did work. Over the upper threshold there are at once
as many instances as put it in the middle between the two; under the lower one the same, but only a cooldown after the
last change, so that a dip costs no cold starts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from headrace_autoscaler.core.memory import MOMENT, Schema, maybe, part
from headrace_autoscaler.core.policies.averages import SlidingMean
from headrace_autoscaler.core.policies.base import Profile, Reading, Wish
from headrace_autoscaler.core.policies.bounds import bounded

Sensitivity = Literal["normal", "cost", "latency"]
_WINDOW_S = 10.0
_MULTIPLIERS: dict[Sensitivity, tuple[float, float]] = {
    "normal": (1.0, 1.0),
    "cost": (1.2, 0.8),
    "latency": (0.8, 1.2),
}


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Utilisation above which there are more and below which there are fewer; seconds between a change and fewer."""

    up: float
    down: float
    cooldown_s: float

    def __post_init__(self) -> None:
        if not 0.0 < self.down < self.up:
            raise ValueError(f"thresholds must satisfy 0 < down < up; got down {self.down}, up {self.up}")

    def adjusted(self, sensitivity: Sensitivity) -> Thresholds:
        """Cost-sensitive waits longer before it adds and before it removes; latency-sensitive the opposite."""
        up, down = _MULTIPLIERS[sensitivity]
        return Thresholds(self.up * up, self.down * down, self.cooldown_s)


CONSERVATIVE = Thresholds(up=0.70, down=0.30, cooldown_s=300.0)
BALANCED = Thresholds(up=0.60, down=0.25, cooldown_s=240.0)
AGGRESSIVE = Thresholds(up=0.50, down=0.20, cooldown_s=180.0)


class ThresholdPolicy:
    """Keeps utilisation between the thresholds.

    Args:
        thresholds: one of the three above, or one's own.
        sensitivity: multiplies the thresholds.
    """

    MEMORY: ClassVar[Schema] = {"_busy": part(), "_ready": part(), "_read_at": maybe(MOMENT), "_changed_at": MOMENT}
    interval_s = 5.0

    def __init__(self, thresholds: Thresholds, sensitivity: Sensitivity = "normal") -> None:
        self._thresholds = thresholds.adjusted(sensitivity)
        self._busy = SlidingMean(_WINDOW_S)
        self._ready = SlidingMean(_WINDOW_S)
        self._read_at: float | None = None
        self._changed_at = 0.0

    def decide(self, reading: Reading, profile: Profile) -> Wish:
        now = reading.now
        if self._read_at is not None:
            self._busy.add(self._read_at, now, reading.busy_s)
            self._ready.add(self._read_at, now, reading.ready_s)
        else:
            # Of what ran before the first reading nothing is known.
            self._changed_at = now
        self._read_at = now
        busy, ready = self._busy.mean(now, self.interval_s), self._ready.mean(now, self.interval_s)
        utilisation = busy / ready if ready else 0.0
        running = reading.ready + reading.starting
        wanted, reason = self._wanted(reading, busy, utilisation)
        if wanted != running:
            self._changed_at = now
        until = math.inf if wanted == 0 and not running else 0.0
        inputs = (
            ("busy", busy),
            ("utilisation", utilisation),
            ("up", self._thresholds.up),
            ("down", self._thresholds.down),
            ("ready", float(reading.ready)),
            ("starting", float(reading.starting)),
        )
        return bounded(Wish(wanted, reason, inputs, until), profile)

    def _wanted(self, reading: Reading, busy: float, utilisation: float) -> tuple[int, str]:
        present = reading.queued > 0 or reading.executing > 0
        running = reading.ready + reading.starting
        if running == 0:
            return (1, "first request: nothing runs") if present else (0, "nothing runs and nothing has come")
        middle = math.ceil(busy / ((self._thresholds.up + self._thresholds.down) / 2) - 1e-9)
        if utilisation > self._thresholds.up:
            return max(running, middle), "utilisation is over the upper threshold"
        if utilisation >= self._thresholds.down:
            return running, "utilisation is between the thresholds"
        fewer = min(running, max(middle, 1 if present else 0))
        if fewer == running:
            return running, "utilisation is under the lower threshold, and one fewer would be too few"
        if reading.now - self._changed_at < self._thresholds.cooldown_s:
            return running, "utilisation is under the lower threshold, but the cooldown is not over"
        return fewer, "utilisation is under the lower threshold"
