"""Targets that a user names: at least as many instances as keep a metric where it should be.

Each target asks for a number of instances by itself; with the policy's own wish, the highest counts, and its reason
says which one it was. Metrics are means over the last seconds, so that one reading decides nothing. A target that can
do nothing, because its metric is not measured or more instances do not move it, says so beside every reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from headrace_autoscaler.core.memory import MOMENT, Schema, maybe, part
from headrace_autoscaler.core.policies.averages import SlidingMean
from headrace_autoscaler.core.policies.base import Policy, Profile, Reading, Wish
from headrace_autoscaler.core.policies.bounds import bounded
from headrace_common.errors import InvalidArgument

_WINDOW_S = 10.0
_ROUNDING = 1e-9
_LEAST = 0.001
"""Of any target: less would ask for a thousand instances per request."""
_NEGLIGIBLE = 0.01
"""Of an instance: what is left of a mean after the last request keeps nothing running."""

OUT_OF_REACH = "the target on latency cannot be met by more instances: execution alone takes as long"
NO_GPU_MEMORY = "no reading of gpu memory: its runners report none, so the target on gpu memory use asks for nothing"


@dataclass(frozen=True, slots=True)
class Target:
    """A metric of METRICS, and the value that an instance should have of it at most."""

    metric: str
    value: float

    @property
    def reason(self) -> str:
        return f"the target on {METRICS[self.metric].words}"

    def wanted(self, means: _Means, reading: Reading, profile: Profile) -> int:
        """Instances that it asks for by itself."""
        return math.ceil(METRICS[self.metric].wanted(means, reading, profile, self.value) - _NEGLIGIBLE)

    def note(self, reading: Reading, profile: Profile) -> str:
        """Why it can do nothing; empty: it can."""
        return METRICS[self.metric].note(reading, profile, self.value)


@dataclass(frozen=True, slots=True)
class Metric:
    """Attributes:
    words: what it is, for a reason.
    expects: its unit, for an error.
    most: highest value that makes sense.
    wanted: instances, not rounded, for (means, reading, profile, value).
    note: why the target can do nothing, for (reading, profile, value); empty: it can.
    """

    words: str
    expects: str
    most: float
    wanted: Callable[[_Means, Reading, Profile, float], float]
    note: Callable[[Reading, Profile, float], str] = lambda _reading, _profile, _value: ""


@dataclass(frozen=True, slots=True)
class _Means:
    """Over the window: requests present; arrivals per second; share of the ready instances' time that was busy."""

    present: float
    rate: float
    busy: float


def parse_target(metric: str, value: float, where: str = "target") -> Target:
    """One target as a user gave it.

    Raises:
        InvalidArgument: names the metric, what was expected and what came.
    """
    found = METRICS.get(metric)
    if found is None:
        raise InvalidArgument(f"{where}: expected a metric of {', '.join(METRICS)}; got {metric!r}")
    if not _LEAST <= value <= found.most:
        raise InvalidArgument(f"{where} {metric}: expected {found.expects}; got {value:g}")
    return Target(metric, value)


def _by_wait(means: _Means, reading: Reading, profile: Profile, value: float) -> float:
    """What waits, begun within `value` seconds from when the oldest came.

    Never more than execute at once all that is present: with so many nothing waits, and more would only be paid for.
    """
    if not reading.queued:
        return 0.0
    if profile.service_s is None:
        return 1.0
    running = max(1, reading.ready + reading.starting)
    in_time = reading.queued * profile.service_s / max(profile.service_s, value - reading.oldest_wait_s)
    return min(2.0 * running, in_time, (reading.queued + reading.executing) / max(1, profile.concurrency))


def _by_latency(means: _Means, reading: Reading, profile: Profile, value: float) -> float:
    """Where execution alone takes as long nobody is in time, however many there are: then for no more than the load,
    and what waits over the same window."""
    wanted = _by_wait(means, reading, profile, max(_ROUNDING, value - (profile.latency_s or 0.0)))
    if profile.service_s is None or not _out_of_reach(reading, profile, value):
        return wanted
    return min(wanted, (means.rate + reading.queued / _WINDOW_S) * profile.service_s)


def _out_of_reach(_reading: Reading, profile: Profile, value: float) -> str:
    return OUT_OF_REACH if profile.latency_s is not None and profile.latency_s >= value else ""


def _by_gpu_memory(means: _Means, reading: Reading, profile: Profile, value: float) -> float:
    used = reading.gpu_memory_share
    return 0.0 if used is None or not means.present else reading.ready * used / value


def _unmeasured(reading: Reading, _profile: Profile, _value: float) -> str:
    return NO_GPU_MEMORY if reading.ready and reading.gpu_memory_share is None else ""


METRICS: dict[str, Metric] = {
    "concurrency": Metric(
        "concurrency", "0.001 requests per instance or more", 1e6, lambda means, _r, _p, value: means.present / value
    ),
    "queue_wait": Metric("queue wait", "a millisecond or more", 86_400.0, _by_wait),
    "latency": Metric("latency", "a millisecond or more", 86_400.0, _by_latency, _out_of_reach),
    "rate": Metric(
        "request rate", "0.001 requests per second and instance or more", 1e9, lambda m, _r, _p, value: m.rate / value
    ),
    "cpu": Metric(
        "cpu use", "a share from 0.001 to 1", 1.0, lambda m, reading, _p, value: reading.ready * m.busy / value
    ),
    "gpu_memory": Metric("gpu memory use", "a share from 0.001 to 1", 1.0, _by_gpu_memory, _unmeasured),
}


class TargetedPolicy:
    """Another policy, and targets beside it."""

    MEMORY: ClassVar[Schema] = {
        "_inner": part(),
        "_present": part(),
        "_arrivals": part(),
        "_busy": part(),
        "_ready": part(),
        "_at": maybe(MOMENT),
    }

    def __init__(self, inner: Policy, targets: Sequence[Target]) -> None:
        self._inner = inner
        self._targets = tuple(targets)
        self._present, self._arrivals = SlidingMean(_WINDOW_S), SlidingMean(_WINDOW_S)
        self._busy, self._ready = SlidingMean(_WINDOW_S), SlidingMean(_WINDOW_S)
        self._at: float | None = None

    @property
    def interval_s(self) -> float:
        return self._inner.interval_s

    def decide(self, reading: Reading, profile: Profile) -> Wish:
        wish = self._inner.decide(reading, profile)
        means = self._observe(reading)
        wanted, reason = max((each.wanted(means, reading, profile), each.reason) for each in self._targets)
        inputs = (*wish.inputs, ("target_wanted", float(wanted)))
        note = "; ".join(filter(None, [wish.note, *(each.note(reading, profile) for each in self._targets)]))
        if wanted <= wish.desired:
            return replace(wish, inputs=inputs, holds_until=wish.holds_until if not wanted else 0.0, note=note)
        return bounded(Wish(wanted, reason, inputs, note=note), profile)

    def _observe(self, reading: Reading) -> _Means:
        now, since = reading.now, reading.now if self._at is None else self._at
        self._at = now
        for mean, integral in (
            (self._present, reading.concurrency_s),
            (self._arrivals, float(reading.arrivals)),
            (self._busy, reading.busy_s),
            (self._ready, reading.ready_s),
        ):
            mean.add(since, now, integral)
        shortest_s = self._inner.interval_s
        ready = self._ready.mean(now, shortest_s)
        return _Means(
            present=self._present.mean(now, shortest_s),
            rate=self._arrivals.mean(now, shortest_s),
            busy=self._busy.mean(now, shortest_s) / ready if ready > 0 else 0.0,
        )
