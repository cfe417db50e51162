"""Kubernetes' horizontal pod autoscaler on CPU, with its published defaults and KServe's target of 80 %.

Source: kubernetes/kubernetes, pkg/controller/podautoscaler (replica_calculator.go, horizontal.go): every 15 s, 10 %
tolerance, scale-up by at most the larger of 4 pods and 100 % every 15 s, scale-down to the highest wish of the last
300 s, at least 1 pod.
"""

from __future__ import annotations

import math
from typing import ClassVar

from headrace_autoscaler.core.memory import Schema, part
from headrace_autoscaler.core.policies.averages import SlidingMaximum
from headrace_autoscaler.core.policies.base import Profile, Reading, Wish
from headrace_autoscaler.core.policies.bounds import bounded

_TOLERANCE = 0.10
_STABILISATION_S = 300.0
_UP_PODS = 4
_UP_RATIO = 2


class HpaPolicy:
    """CPU use of the ready instances over their request.

    An instance has the CPU that it requests, so its use is the share of the time that its engine was busy.

    Args:
        target: CPU utilisation that is aimed at.
        fewest: the autoscaler's own minReplicas; Kubernetes allows no 0 here.
        most: its maxReplicas; None: unlimited.
    """

    MEMORY: ClassVar[Schema] = {"_wishes": part()}
    interval_s = 15.0

    def __init__(self, target: float = 0.80, fewest: int = 1, most: int | None = None) -> None:
        self._target = target
        self._fewest = fewest
        self._most = most
        self._wishes = SlidingMaximum(_STABILISATION_S)

    def decide(self, reading: Reading, profile: Profile) -> Wish:
        current = reading.ready + reading.starting
        utilisation = reading.busy_s / reading.ready_s if reading.ready_s > 0 else 0.0
        proposed = self._clamped(self._propose(reading, utilisation))
        self._wishes.add(proposed, reading.now)
        desired, reason = proposed, "as many as CPU use needs at the target"
        if proposed > current:
            desired = min(proposed, max(current + _UP_PODS, current * _UP_RATIO))
        elif proposed < current:
            desired = min(current, self._wishes.highest(reading.now))
            if desired > proposed:
                reason = "fewer are enough, but not yet for the whole stabilisation window"
        inputs = (
            ("cpu_utilisation", utilisation),
            ("cpu_target", self._target),
            ("proposed", float(proposed)),
            ("ready", float(reading.ready)),
            ("starting", float(reading.starting)),
        )
        return bounded(Wish(self._clamped(desired), reason, inputs), profile)

    def _propose(self, reading: Reading, utilisation: float) -> int:
        """Kubernetes leaves alone what it has no metric of, and counts unready pods as idle before it adds more."""
        current = reading.ready + reading.starting
        if reading.ready == 0 or reading.ready_s <= 0:
            return current
        ratio = utilisation / self._target
        if abs(ratio - 1.0) <= _TOLERANCE:
            return current
        if ratio < 1.0 or not reading.starting:
            return math.ceil(ratio * reading.ready - 1e-9)
        with_unready = ratio * reading.ready / current
        if with_unready <= 1.0 + _TOLERANCE:
            return current
        return math.ceil(with_unready * current - 1e-9)

    def _clamped(self, count: int) -> int:
        count = max(self._fewest, count)
        return count if self._most is None else min(self._most, count)
