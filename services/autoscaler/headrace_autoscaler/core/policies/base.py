"""What a policy is told and what it answers; the same live and in the simulator.

A policy object belongs to one model (live: one revision) and remembers what it needs between readings. It is asked
at least every `interval_s`, and at once when a request arrives that finds nothing ready and nothing starting.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

INTERVAL_S = 0.25
"""Routers report every 250 ms; asking more often would tell nothing new."""


@dataclass(frozen=True, slots=True)
class Profile:
    """What holds for a model whatever its load. Seconds; money in micro-units.

    Attributes:
        concurrency: requests that one instance executes at once.
        slo_s: latency objective, waiting included; None: none was declared.
        service_s: instance seconds per request at the batch size that load would form and that still meets the
            objective (with concurrency N, an instance serves N / latency, so this is latency / N); None: unknown.
        latency_s: what one request takes in an instance, without waiting; None: unknown.
        cold_start_s: 95th percentile of what starting an instance took, until it answers; None: never measured.
        starts_per_s: starts that can begin per second, as measured; None: any number at once.
        instance_micros_per_hour: price of one instance.
        credit_micros: what one request inside its objective is worth.
        min_instances, max_instances: the user's bounds; None: no upper bound.
        idle_timeout_s: keep-warm time the user asked for; None: the policy chooses.
    """

    concurrency: int = 1
    slo_s: float | None = None
    service_s: float | None = None
    latency_s: float | None = None
    cold_start_s: float | None = None
    starts_per_s: float | None = None
    instance_micros_per_hour: int = 0
    credit_micros: int = 0
    min_instances: int = 0
    max_instances: int | None = None
    idle_timeout_s: float | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """What has happened since the last reading of this policy, and what is.

    Attributes:
        now: monotonic seconds.
        wall: the same moment in seconds since the epoch (for schedules); 0: no schedule is in use.
        arrivals, completed: requests since the last reading.
        concurrency_s: integral over the period of the requests that waited or were executing (request-seconds).
        busy_s: integral over the period of engine time used (instance-seconds that did work).
        ready_s: integral over the period of the ready instances (instance-seconds).
        queued, executing: requests now.
        oldest_wait_s: age of the oldest request that waits.
        ready, starting: instances now; one that drains is neither.
        last_arrival: monotonic seconds; None: nothing has ever arrived.
        gpu_memory_share: of what the ready instances have, 0 to 1; None: not measured.
    """

    now: float
    wall: float = 0.0
    arrivals: int = 0
    completed: int = 0
    concurrency_s: float = 0.0
    busy_s: float = 0.0
    ready_s: float = 0.0
    queued: int = 0
    executing: int = 0
    oldest_wait_s: float = 0.0
    ready: int = 0
    starting: int = 0
    last_arrival: float | None = None
    gpu_memory_share: float | None = None


@dataclass(frozen=True, slots=True)
class Wish:
    """How many instances should be ready or on their way, and why.

    Attributes:
        reason: without numbers, so that it changes only when the decision does.
        inputs: the numbers behind it.
        holds_until: nothing changes before this (monotonic seconds) unless something arrives or the instances
            change, so the policy need not be asked; 0: ask at the next interval.
        spare: nobody needs the instances that this keeps beyond `needed`; they may be taken where room is short.
        note: what is to be said beside any reason, such as that something asked for cannot be had; empty: nothing.
    """

    desired: int
    reason: str
    inputs: tuple[tuple[str, float], ...] = ()
    holds_until: float = 0.0
    spare: bool = False
    needed: int = 0
    note: str = ""


class Policy(Protocol):
    """One model's policy. `profile` may differ from call to call: what was measured gets better."""

    @property
    def interval_s(self) -> float: ...

    def decide(self, reading: Reading, profile: Profile) -> Wish: ...
