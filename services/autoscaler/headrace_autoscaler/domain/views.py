"""What the fleet knows right now, as `describe` and `status` show it."""

from __future__ import annotations

from dataclasses import dataclass

from headrace_autoscaler.domain.instances import NOT_ENFORCED, Enforcement, InstanceView
from headrace_autoscaler.domain.past import ColdStart, DecisionRecord, DeployFailure


@dataclass(frozen=True, slots=True)
class TrafficView:
    """What came for a model since the autoscaler started. Rates are requests per second.

    Attributes:
        requests: answered, by an engine or without one.
        cache_hits: of them, those without an execution of their own.
        mean_rate: since the first one.
        busiest_rate: of the busiest minute.
        mean_batch: rows per batch that was executed; 0: none was.
        mean_execution_s: what such a batch took.
    """

    requests: int = 0
    cache_hits: int = 0
    mean_rate: float = 0.0
    busiest_rate: float = 0.0
    mean_batch: float = 0.0
    mean_execution_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ModelView:
    """What the fleet knows of a model right now.

    Attributes:
        cold_start_p95_s: of the recent ones' totals; None: there was none.
        blocked_reason: not empty: an instance is wanted and impossible, for this reason.
        outgrown: the last instance that outgrew its memory, in this autoscaler's time.
    """

    instances: tuple[InstanceView, ...] = ()
    cold_start_count: int = 0
    cold_starts: tuple[ColdStart, ...] = ()
    decisions: tuple[DecisionRecord, ...] = ()
    blocked_reason: str = ""
    queued: int = 0
    in_flight: int = 0
    requests: int = 0
    outgrown: DeployFailure | None = None
    cold_start_p95_s: float | None = None
    traffic: TrafficView = TrafficView()


@dataclass(frozen=True, slots=True)
class RouterView:
    id: str
    connected_at: float
    queued: int = 0
    in_flight: int = 0
    requests: int = 0
    refused: int = 0


@dataclass(frozen=True, slots=True)
class StandbyTarget:
    """How many runners are to stand by, why, and the numbers behind it."""

    runners: int
    reason: str
    inputs: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class FleetView:
    epoch: int
    started_at: float
    routers: tuple[RouterView, ...] = ()
    standby: tuple[InstanceView, ...] = ()
    enforcement: Enforcement = NOT_ENFORCED
    standby_target: StandbyTarget | None = None
