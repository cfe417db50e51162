"""What waits, by when it must begin, and how many instances that takes.

The queue is first in, first out, so the requests that wait are those that came last. A request must begin within its
share of the objective's slack. What waits and can be begun in time by the instances there are needs no new one,
however long the queue looks: that is where autoscalers that count concurrency overshoot.
"""

from __future__ import annotations

import math
from collections import deque
from typing import ClassVar

from headrace_autoscaler.core.memory import COUNT, MOMENT, Schema, many, row
from headrace_autoscaler.core.policies.headrace_supply import Supply

PATIENCE = 0.25
"""Share of the slack that a queue may use before instances are added. The rest is kept for what is not known:
bursts that go on growing while starts are limited, services that take longer than they did, late readings."""
_STUCK = 0.5
"""Share of the slack after which a queue counts as one that will not go by itself."""
_LATE_S = 0.5
"""What can no longer begin in time should begin this soon after a new instance can help."""
_MOST_ADDED = 256
"""Instances added in one decision at most; the next one is an interval away."""
_COHORTS = 64


class Backlog:
    """When the requests that wait came. Bounded: the oldest cohorts are merged."""

    MEMORY: ClassVar[Schema] = {"_cohorts": many(row(MOMENT, COUNT)), "_count": COUNT}

    def __init__(self) -> None:
        self._cohorts: deque[tuple[float, int]] = deque()
        self._count = 0

    def arrive(self, count: int, at: float) -> None:
        if count <= 0:
            return
        self._cohorts.append((at, count))
        self._count += count
        if len(self._cohorts) > _COHORTS:
            (first, n), (_, m) = self._cohorts.popleft(), self._cohorts.popleft()
            self._cohorts.appendleft((first, n + m))

    def settle(self, queued: int, oldest_wait_s: float, now: float) -> None:
        """Forgets what no longer waits. What waits beyond what was seen to arrive is as old as the oldest."""
        while self._cohorts and self._count > queued:
            at, count = self._cohorts.popleft()
            gone = min(count, self._count - queued)
            self._count -= gone
            if count > gone:
                self._cohorts.appendleft((at, count - gone))
        if queued > self._count:
            self._cohorts.appendleft((now - oldest_wait_s, queued - self._count))
            self._count = queued
        elif self._cohorts:
            at, count = self._cohorts[0]
            self._cohorts[0] = (max(at, now - oldest_wait_s), count)

    def missing(
        self, supply: Supply, ready: int, coming: list[tuple[float, int]], now: float, rate_per_s: float
    ) -> int:
        """Instances to add so that everything that waits begins in time, or else as soon as they help.

        Args:
            ready: instances that answer now; one of them begins a request every `service_s`.
            coming: (seconds until it answers, instances).
            rate_per_s: at which requests arrive just now.
        """
        missing = ahead = 0
        # What is asked for beyond the pace of starts waits for its turn.
        due = max(0.0, sum(count for _, count in coming) / supply.starts_per_s - supply.cold_start_s)
        first_s = supply.cold_start_s + due
        for at, count in self._cohorts:
            ahead += count
            left_s = PATIENCE * supply.slack_s - (now - at)
            by_s = left_s if left_s >= supply.cold_start_s else max(left_s, first_s + _LATE_S)
            begun = ready * max(0.0, by_s) / supply.service_s
            begun += sum(n * supply.begun_by(by_s, ready_s) for ready_s, n in coming)
            missing = max(missing, _added(supply, ahead - begun, by_s, first_s))
        stuck = bool(self._cohorts) and now - self._cohorts[0][0] >= _STUCK * supply.slack_s
        if stuck and supply.slack_s < supply.blind_s:
            missing = max(missing, self._missing_later(supply, ahead, ready, coming, rate_per_s, first_s))
        return missing

    def _missing_later(
        self, supply: Supply, ahead: int, ready: int, coming: list[tuple[float, int]], rate_per_s: float, first_s: float
    ) -> int:
        """Where a start takes longer than a request may wait, a queue that has formed goes on growing until the start
        helps, and everybody behind it is late until it is gone: one slack later, it should be."""
        by_s = first_s + supply.slack_s
        begun = ready * by_s / supply.service_s + sum(n * supply.begun_by(by_s, ready_s) for ready_s, n in coming)
        return _added(supply, ahead + rate_per_s * by_s - begun, by_s, first_s)


def _added(supply: Supply, requests: float, by_s: float, first_s: float) -> int:
    """Instances that begin as many requests by `by_s`, each of which can start 1 / starts_per_s after the last."""
    if requests <= 1e-9:
        return 0
    if supply.starts_per_s * supply.latency_s >= _MOST_ADDED:
        each = supply.begun_by(by_s, first_s)
        return min(_MOST_ADDED, math.ceil(requests / each - 1e-9)) if each > 0 else 0
    count = 0
    while requests > 1e-9 and count < _MOST_ADDED:
        each = supply.begun_by(by_s, first_s + count / supply.starts_per_s)
        if each <= 0:
            break
        requests -= each
        count += 1
    return count
