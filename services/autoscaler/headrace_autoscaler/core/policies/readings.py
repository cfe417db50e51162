"""From what routers report and the catalogue says to what a policy is told.

A reading holds what happened since the one before, so there is one `Meter` per revision and whoever reads it has to
give the result to the policy.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import ClassVar

from headrace_autoscaler.core.demand import Counts, Demand, DemandWindow
from headrace_autoscaler.core.memory import COUNT, MOMENT, NUMBER, Schema, maybe
from headrace_autoscaler.core.policies.base import Profile, Reading
from headrace_autoscaler.core.revision_status import RevisionStatus, batch_that_fits, service_time_s
from headrace_autoscaler.domain import ModelSpec

_RANK = 0.95
_MOST_OWED_S = 60.0


class Meter:
    """Differences between readings of one revision. All times are monotonic seconds.

    Attributes:
        seen: what had been counted at the last reading.
    """

    MEMORY: ClassVar[Schema] = {
        "_at": maybe(MOMENT),
        "_present": COUNT,
        "_ready": COUNT,
        "_owed_busy_s": NUMBER,
    }

    def __init__(self) -> None:
        self._at: float | None = None
        self.seen = Counts()
        self._present = 0
        self._ready = 0
        self._owed_busy_s = 0.0

    def read(self, window: DemandWindow | None, status: RevisionStatus, now: float, wall: float = 0.0) -> Reading:
        """What happened since this was called last.

        Levels are reported a few times a second; between two readings what is present counts as their mean.

        Args:
            window: None: no router has ever reported on the revision.
            wall: seconds since the epoch; 0 where no schedule is in use.
        """
        demand = Demand() if window is None else window.observe(now)
        total = self.seen if window is None else window.total
        passed_s = 0.0 if self._at is None else now - self._at
        since = total - self.seen
        present = demand.queued + demand.in_flight
        ready_s = passed_s * (self._ready + status.ready) / 2
        busy_s = self._busy(max(0, since.service_time_us) / 1e6, ready_s)
        reading = Reading(
            now=now,
            wall=wall,
            # A new revision inherits what its predecessor was asked for; a total never falls.
            arrivals=max(0, since.arrivals),
            completed=max(0, since.completed),
            concurrency_s=passed_s * (self._present + present) / 2,
            busy_s=busy_s,
            ready_s=ready_s,
            queued=demand.queued,
            executing=demand.in_flight,
            oldest_wait_s=demand.oldest_wait_s,
            ready=status.ready,
            starting=status.starting,
            last_arrival=None if window is None else window.arrived_at,
            gpu_memory_share=status.gpu_memory_share,
        )
        self._at, self.seen, self._present, self._ready = now, total, present, status.ready
        return reading

    def _busy(self, told_s: float, ready_s: float) -> float:
        """Engine time is told when a request ends. No more of it was of this period than there was instance time for;
        the rest is told later, within bounds."""
        owed_s = self._owed_busy_s + told_s
        busy_s = min(owed_s, ready_s)
        self._owed_busy_s = min(owed_s - busy_s, _MOST_OWED_S)
        return busy_s


def profile_of(
    spec: ModelSpec,
    status: RevisionStatus,
    demand: Demand,
    *,
    cold_start_s: float | None = None,
    starts_per_s: float | None = None,
    instance_micros_per_hour: int = 0,
) -> Profile:
    """What is known of a revision. Seconds.

    The service time is what load would make of it: the least per row among the measured batches that leave half of
    the objective for waiting, or what routers saw where batches were near their maximum (see
    `revision_status.service_time_s`).

    Args:
        cold_start_s: 95th percentile of the measured starts; None: none was measured.
        starts_per_s: starts that can begin per second; None: any number.
    """
    each_s, known = service_time_s(spec, demand, status)
    batch = batch_that_fits(spec, status)
    latency_s = max(each_s, batch[1] if batch else each_s)
    requests = max(1, round(latency_s / each_s)) if each_s > 0 else 1
    return Profile(
        concurrency=requests if spec.instance_concurrency is None else min(requests, spec.instance_concurrency),
        slo_s=spec.slo_s,
        service_s=each_s if known else None,
        latency_s=latency_s if known else None,
        cold_start_s=cold_start_s,
        starts_per_s=starts_per_s,
        instance_micros_per_hour=instance_micros_per_hour,
        credit_micros=spec.slo_credit_micros or 0,
        min_instances=spec.min_instances if status.current else 0,
        max_instances=spec.max_instances,
        idle_timeout_s=spec.idle_timeout_s if spec.idle_timeout_asked else None,
    )


def cold_start_p95_s(starts_s: Iterable[float]) -> float | None:
    """95th percentile by nearest rank of what starts took; None: there was none."""
    ordered = sorted(starts_s)
    return ordered[math.ceil(_RANK * len(ordered)) - 1] if ordered else None
