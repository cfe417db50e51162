"""Knative's pod autoscaler with its published defaults.

Source: knative/serving, pkg/autoscaler/scaling/autoscaler.go and pkg/reconciler/autoscaling/kpa/scaler.go: stable
window 60 s, panic window 6 s, panic threshold 200 %, target utilisation 70 %, scale-up rate 1000, scale-down rate 2,
scale-to-zero grace period 30 s, target burst capacity 211.
"""

from __future__ import annotations

import math
from typing import ClassVar

from headrace_autoscaler.core.memory import COUNT, MOMENT, Schema, maybe, part
from headrace_autoscaler.core.policies.averages import SlidingMean
from headrace_autoscaler.core.policies.base import Profile, Reading, Wish
from headrace_autoscaler.core.policies.bounds import bounded

_STABLE_WINDOW_S = 60.0
_PANIC_WINDOW_S = 6.0
_BUCKET_S = 1.0
_TARGET_UTILISATION = 0.70
_PANIC_THRESHOLD = 2.0
_SCALE_UP_RATE = 1000.0
_SCALE_DOWN_RATE = 2.0
_TARGET_BURST_CAPACITY = 211.0
_UNLIMITED_CONCURRENCY = 100.0
_FOREVER = math.inf


class KpaPolicy:
    """Concurrency averages over a stable and a panic window.

    Args:
        grace_s: how long the activator must have had the route before the last instance goes. It has it for as long as
            the excess burst capacity is negative, and from when the stable window is over without a request. So it is
            waited for only where there was capacity for a burst of 211 until then; small revisions go at once (`Fast
            path scaling to 0` in scaler.go).
    """

    MEMORY: ClassVar[Schema] = {
        "_stable": part(),
        "_panic": part(),
        "_read_at": maybe(MOMENT),
        "_active_at": maybe(MOMENT),
        "_panic_at": maybe(MOMENT),
        "_panic_peak": COUNT,
        "_proxied_at": maybe(MOMENT),
    }
    interval_s = 2.0

    def __init__(self, grace_s: float = 30.0) -> None:
        self._grace_s = grace_s
        self._stable = SlidingMean(_STABLE_WINDOW_S)
        self._panic = SlidingMean(_PANIC_WINDOW_S)
        self._read_at: float | None = None
        self._active_at: float | None = None
        self._panic_at: float | None = None
        self._panic_peak = 0
        self._proxied_at: float | None = None

    def decide(self, reading: Reading, profile: Profile) -> Wish:
        self._record(reading)
        now = reading.now
        total = float(profile.concurrency) or _UNLIMITED_CONCURRENCY
        target = max(0.01, _TARGET_UTILISATION * total)
        stable, panic = self._stable.mean(now, _BUCKET_S), self._panic.mean(now, _BUCKET_S)
        ready = max(1, reading.ready)
        burst_capacity = math.floor(reading.ready * total - _TARGET_BURST_CAPACITY - panic)
        self._enter_or_leave_panic(now, math.ceil(panic / target) / ready)
        desired, reason = self._desired(_limited(stable / target, ready), _limited(panic / target, ready))
        idle = desired == 0 and not _present(reading) and self._idle_s(now) >= _STABLE_WINDOW_S
        self._route(now, through_activator=idle or burst_capacity < 0)
        desired, reason, until = self._to_zero(reading, desired, reason)
        inputs = (
            ("stable_concurrency", stable),
            ("panic_concurrency", panic),
            ("target_concurrency", target),
            ("ready", float(reading.ready)),
            ("panicking", float(self._panic_at is not None)),
            ("excess_burst_capacity", burst_capacity),
        )
        return bounded(Wish(desired, reason, inputs, until), profile)

    def _record(self, reading: Reading) -> None:
        if self._read_at is not None:
            self._stable.add(self._read_at, reading.now, reading.concurrency_s)
            self._panic.add(self._read_at, reading.now, reading.concurrency_s)
        self._read_at = reading.now
        if reading.concurrency_s or _present(reading) or self._active_at is None:
            self._active_at = reading.now

    def _enter_or_leave_panic(self, now: float, over: float) -> None:
        if over >= _PANIC_THRESHOLD:
            self._panic_at = now
        elif self._panic_at is not None and now - self._panic_at > _STABLE_WINDOW_S:
            self._panic_at = None
            self._panic_peak = 0

    def _idle_s(self, now: float) -> float:
        return 0.0 if self._active_at is None else now - self._active_at

    def _route(self, now: float, *, through_activator: bool) -> None:
        if not through_activator:
            self._proxied_at = None
        elif self._proxied_at is None:
            self._proxied_at = now

    def _desired(self, stable: int, panic: int) -> tuple[int, str]:
        if self._panic_at is None:
            return stable, "as many as the stable window's concurrency needs at the target"
        self._panic_peak = max(self._panic_peak, stable, panic)
        return self._panic_peak, "panic: as many as the burst needed at its highest"

    def _to_zero(self, reading: Reading, desired: int, reason: str) -> tuple[int, str, float]:
        if desired > 0:
            return desired, reason, 0.0
        running = reading.ready + reading.starting
        if _present(reading):
            return 1, "first request: nothing runs" if not running else "a request is present", 0.0
        if not running:
            # A revision that comes back from zero is young again.
            self._stable.clear()
            self._panic.clear()
            self._read_at = None
            return 0, "nothing runs and nothing has come", _FOREVER
        if self._idle_s(reading.now) < _STABLE_WINDOW_S:
            return 1, "kept until idle for the stable window", 0.0
        if self._proxied_at is not None and reading.now - self._proxied_at < self._grace_s:
            return 1, "kept for the grace period", 0.0
        return 0, "idle for the stable window and the grace period", 0.0


def _limited(wanted: float, ready: int) -> int:
    """No more than a thousand times, no less than half of what is ready."""
    up = math.ceil(_SCALE_UP_RATE * ready)
    down = math.floor(ready / _SCALE_DOWN_RATE)
    return min(max(math.ceil(wanted), down), up)


def _present(reading: Reading) -> bool:
    return reading.queued > 0 or reading.executing > 0
