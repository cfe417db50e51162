"""What instances can do by when: those that run, those on their way, and those that could still be started."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import ClassVar

from headrace_autoscaler.core.memory import COUNT, MOMENT, NUMBER, Schema, many, row
from headrace_autoscaler.core.policies.base import Profile

GUESSED_SERVICE_S = 0.01
GUESSED_COLD_START_S = 2.0
"""Before one was measured: the lower end of what serverless platforms publish (2-4 s)."""
SLACK_WITHOUT_SLO_S = 1.0
"""Without an objective, a request may wait this long."""
_LEAST_SLACK = 0.25
"""Of the latency: an objective that even an idle instance misses still asks for short queues."""
UNLIMITED_PER_S = 1e6


@dataclass(frozen=True, slots=True)
class Supply:
    """A profile with what is unknown settled. Seconds.

    Attributes:
        service_s: instance seconds per request.
        latency_s: of one request in an instance.
        slack_s: how long a request may wait and still meet the objective.
        cold_start_s: until a start answers, once it has begun.
        starts_per_s: starts that can begin per second.
        blind_s: an instance that is asked for at the next reading does not answer before this has passed.
        known: the service time is measured.
    """

    service_s: float
    latency_s: float
    slack_s: float
    cold_start_s: float
    starts_per_s: float
    blind_s: float
    known: bool

    @classmethod
    def of(cls, profile: Profile, interval_s: float) -> Supply:
        known = profile.service_s is not None and profile.service_s > 0
        service_s = profile.service_s if known and profile.service_s is not None else GUESSED_SERVICE_S
        latency_s = max(service_s, profile.latency_s or service_s)
        slack_s = SLACK_WITHOUT_SLO_S if profile.slo_s is None else profile.slo_s - latency_s
        cold_start_s = GUESSED_COLD_START_S if profile.cold_start_s is None else profile.cold_start_s
        return cls(
            service_s=service_s,
            latency_s=latency_s,
            slack_s=max(slack_s, _LEAST_SLACK * latency_s),
            cold_start_s=cold_start_s,
            starts_per_s=profile.starts_per_s or UNLIMITED_PER_S,
            blind_s=cold_start_s + interval_s,
            known=known,
        )

    @property
    def at_once(self) -> float:
        """Requests that one instance has in hand when it is full."""
        return self.latency_s / self.service_s

    def begun_by(self, by_s: float, ready_s: float) -> float:
        """Requests that an idle instance, ready at `ready_s`, has begun by `by_s`."""
        if by_s < ready_s:
            return 0.0
        return self.at_once * (math.floor((by_s - ready_s) / self.latency_s + 1e-9) + 1)

    def useful_starts(self) -> int:
        """Starts that may be under way at once: what is asked for beyond them only waits, and is paid for."""
        return max(1, math.ceil(self.starts_per_s * (self.cold_start_s + 2 * (self.blind_s - self.cold_start_s))))


class Orders:
    """When what is starting was asked for; bounded by the number of readings that one cold start lasts."""

    MEMORY: ClassVar[Schema] = {"_orders": many(row(MOMENT, NUMBER, make=list)), "_count": COUNT}

    def __init__(self) -> None:
        self._orders: deque[list[float]] = deque()
        self._count = 0

    def add(self, count: int, now: float) -> None:
        self._orders.append([now, count])
        self._count += count

    def settle(self, starting: int) -> None:
        """What was asked for first is ready first. What others took away counts as ready."""
        while self._orders and self._count > starting:
            gone = min(self._orders[0][1], self._count - starting)
            self._orders[0][1] -= gone
            self._count -= int(gone)
            if self._orders[0][1] <= 0:
                self._orders.popleft()

    def ready_in_s(self, starting: int, supply: Supply, now: float) -> list[tuple[float, int]]:
        """(seconds from now, instances) of all that start; one that this did not ask for counts as just begun."""
        found = [(max(0.0, at + supply.cold_start_s - now), int(count)) for at, count in self._orders]
        unknown = starting - self._count
        return [*found, (supply.cold_start_s, unknown)] if unknown > 0 else found
