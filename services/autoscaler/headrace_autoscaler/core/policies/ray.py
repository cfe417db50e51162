"""Ray Serve's replica autoscaler with its published defaults.

Source: ray-project/ray, python/ray/serve/autoscaling_policy.py: two ongoing requests per replica, both factors 1,
upscale delay 30 s, downscale delay 600 s, look-back 30 s, 1 to 100 replicas.
"""

from __future__ import annotations

import math
from typing import ClassVar

from headrace_autoscaler.core.memory import COUNT, MOMENT, Schema, maybe, part
from headrace_autoscaler.core.policies.averages import SlidingMean
from headrace_autoscaler.core.policies.base import Profile, Reading, Wish
from headrace_autoscaler.core.policies.bounds import bounded

_TARGET_ONGOING = 2.0
_FACTOR = 1.0
_LOOK_BACK_S = 30.0
_UPSCALE_DELAY_S = 30.0
_DOWNSCALE_DELAY_S = 600.0
_FEWEST, _MOST = 1, 100


class RayPolicy:
    """Ongoing requests per replica, applied once the same direction was wanted for long enough.

    Ray's controller counts turns of 0.1 s; here the same delays are measured, once a second.
    """

    MEMORY: ClassVar[Schema] = {
        "_ongoing": part(),
        "_read_at": maybe(MOMENT),
        "_target": COUNT,
        "_wanted_more_since": maybe(MOMENT),
        "_wanted_fewer_since": maybe(MOMENT),
    }
    interval_s = 1.0

    def __init__(self) -> None:
        self._ongoing = SlidingMean(_LOOK_BACK_S)
        self._read_at: float | None = None
        self._target = 0
        self._wanted_more_since: float | None = None
        self._wanted_fewer_since: float | None = None

    def decide(self, reading: Reading, profile: Profile) -> Wish:
        now = reading.now
        if self._read_at is not None:
            self._ongoing.add(self._read_at, now, reading.concurrency_s)
        else:
            self._target = reading.ready + reading.starting  # As Ray takes its own up from a checkpoint.
        self._read_at = now
        ongoing = self._ongoing.mean(now, self.interval_s)
        if reading.ready == 0:
            return self._without_replicas(reading, profile, ongoing)
        desired = _desired(reading.ready, ongoing)
        reason = self._apply(desired, now)
        inputs = (("ongoing", ongoing), ("ready", float(reading.ready)), ("wanted", float(desired)))
        return bounded(Wish(self._target, reason, inputs), profile)

    def _without_replicas(self, reading: Reading, profile: Profile, ongoing: float) -> Wish:
        present = reading.queued > 0 or reading.executing > 0
        inputs = (("ongoing", ongoing), ("ready", 0.0))
        if present:
            self._target = max(1, self._target)
            return bounded(Wish(self._target, "no replica is ready and requests wait", inputs), profile)
        until = math.inf if self._target == 0 else 0.0
        return bounded(Wish(self._target, "no replica is ready", inputs, until), profile)

    def _apply(self, desired: int, now: float) -> str:
        if desired == self._target:
            self._wanted_more_since = self._wanted_fewer_since = None
            return "as many as the ongoing requests need"
        if desired > self._target:
            self._wanted_fewer_since = None
            since = self._wanted_more_since = now if self._wanted_more_since is None else self._wanted_more_since
            delay_s, reason = _UPSCALE_DELAY_S, "more are wanted, but not yet for the upscale delay"
        else:
            self._wanted_more_since = None
            since = self._wanted_fewer_since = now if self._wanted_fewer_since is None else self._wanted_fewer_since
            delay_s, reason = _DOWNSCALE_DELAY_S, "fewer are wanted, but not yet for the downscale delay"
        if now - since < delay_s:
            return reason
        self._target = desired
        self._wanted_more_since = self._wanted_fewer_since = None
        return "as many as the ongoing requests need"


def _desired(current: int, ongoing: float) -> int:
    desired = current * (ongoing / (_TARGET_ONGOING * current))
    return min(max(math.ceil(current + _FACTOR * (desired - current) - 1e-9), _FEWEST), _MOST)
