"""What the user asked for under one name, and the revisions of it."""

from __future__ import annotations

from dataclasses import dataclass

from headrace_autoscaler.domain.quantities import DEFAULT_RESOURCES, NO_LIMITS, Limits, Resources
from headrace_autoscaler.domain.revisions import Revision, RevisionState


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What the user asked for, with defaults settled.

    Attributes:
        idle_timeout_asked: the user said it; otherwise the policy may choose its own.
        traffic, cost_sensitivity: as given; `policy` is already what they come to.
        schedules: "CRON ZONE=N"; targets: (metric, value).
        slo_credit_micros: what a request inside its objective is worth; None: not declared.
        max_cpu_millicores: an instance may have up to so many, and `resources` has the least; None: it has those.
        states: (output, input) of state tensors; config.pbtxt's are not here.
        sequence_idle_s: None: config.pbtxt's, or the default.
    """

    name: str
    tenant: str = "default"
    min_instances: int = 0
    max_instances: int | None = None
    idle_timeout_s: float = 60.0
    slo_s: float | None = None
    max_batch_size: int | None = None
    resources: Resources = DEFAULT_RESOURCES
    limits: Limits = NO_LIMITS
    shared_with: tuple[str, ...] = ()
    engine: str = ""
    engine_options: tuple[tuple[str, str], ...] = ()
    response_cache: bool = False
    policy: str = "headrace"
    source: str = ""
    cache_shared: bool = False
    cache_ttl_s: float | None = None
    instance_concurrency: int | None = None
    padding: tuple[tuple[str, float], ...] = ()
    tolerates_spot: bool = False
    spread: int = 1
    gpu_architectures: tuple[str, ...] = ()
    idle_timeout_asked: bool = False
    traffic: str = ""
    cost_sensitivity: str = ""
    schedules: tuple[str, ...] = ()
    targets: tuple[tuple[str, float], ...] = ()
    slo_credit_micros: int | None = None
    max_cpu_millicores: int | None = None
    states: tuple[tuple[str, str], ...] = ()
    sequence_idle_s: float | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """A model and its revisions, oldest first. At most one SERVING revision per version name; the
    current one is the SERVING one with the highest version number, the newest among equals."""

    spec: ModelSpec
    created_at: float
    revisions: tuple[Revision, ...] = ()
    deleting: bool = False

    @property
    def current(self) -> Revision | None:
        serving = [r for r in self.revisions if r.state is RevisionState.SERVING]
        return max(serving, key=lambda r: (int(r.version), r.revision), default=None)
