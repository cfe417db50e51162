"""What the autoscaler knows, in its own types. No protobuf, no SQL.

`api/` converts these from and to the public API, `store/` from and to rows, `control/` to what
routers and runners are told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Shape holds the batch dimension where there is one; -1 is any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Signature:
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batchable: bool


@dataclass(frozen=True, slots=True)
class Resources:
    """What one instance holds."""

    cpu_millicores: int = 1000
    memory_bytes: int = 1 << 30
    gpu_millis: int = 0
    gpu_memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """What a tenant or a model may use. None: no limit."""

    cpu_millicores: int | None = None
    memory_bytes: int | None = None
    gpu_millis: int | None = None
    gpu_memory_bytes: int | None = None
    concurrency: int | None = None
    requests_per_second: float | None = None
    queue_length: int | None = None
    queue_bytes: int | None = None
    budget_micros_per_hour: int | None = None
    budget_micros_per_month: int | None = None


@dataclass(frozen=True, slots=True)
class Tenant:
    name: str
    nominal: Limits = Limits()
    borrowing_limit: Limits = Limits()
    lending_limit: Limits = Limits()
    cohort: str = ""
    weight: float = 1.0
    refuse_at_budget: bool = True
    created_at: float = 0.0


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
    resources: Resources = Resources()
    limits: Limits = Limits()
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
class ModelFile:
    """Path inside the artifact, with "/"."""

    path: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Batching:
    """config.pbtxt's dynamic_batching, where it says something.

    Attributes:
        padding: inputs whose free non-batch dimensions may be padded, and with what; the user's, not config.pbtxt's.
    """

    preferred_batch_sizes: tuple[int, ...] = ()
    max_queue_delay_us: int = 0
    priority_levels: int = 0
    default_priority_level: int = 0
    max_queue_size: int = 0
    default_timeout_us: int = 0
    padding: tuple[tuple[str, float], ...] = ()


SEQUENCE_IDLE_S = 60.0
"""Triton's default is a second, because there a sequence keeps others from a slot; here it costs its bytes."""


@dataclass(frozen=True, slots=True)
class StateTensor:
    """What a model gives by one output for the next request of the sequence, which gets it by one input.

    Attributes:
        datatype, dims: as declared; "", None: as the model has them.
        dims_hold_batch: as those of all tensors in a config.pbtxt with a max_batch_size of 0.
        initial_file: whose content is `initial`; "": a sequence begins with zeros.
    """

    input: str
    output: str
    datatype: str = ""
    dims: tuple[int, ...] | None = None
    initial_file: str = ""
    initial: bytes = b""
    dims_hold_batch: bool = False


@dataclass(frozen=True, slots=True)
class SequenceSignal:
    """An input that says where in its sequence a request is.

    Attributes:
        kind: "start", "end", "ready" or "id".
        off, on: its element in raw form; empty for an id.
    """

    input: str
    kind: str
    datatype: str
    off: bytes = b""
    on: bytes = b""


@dataclass(frozen=True, slots=True)
class Sequences:
    """How a stateful model keeps state. Routers add these tensors and take them out; clients never see them.

    Attributes:
        max_idle_s: a sequence without a request for so long is over.
    """

    states: tuple[StateTensor, ...]
    signals: tuple[SequenceSignal, ...] = ()
    max_idle_s: float = SEQUENCE_IDLE_S


class RevisionState(StrEnum):
    LOADING = "loading"
    """Its first load is under way; it serves nobody."""
    SERVING = "serving"
    RETIRING = "retiring"
    """Replaced or deleted: answers what it had accepted, then goes."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a first successful load found out. Later loads are checked against it."""

    signature: Signature
    max_batch_size: int
    batching: str
    platform: str
    resident_bytes: int = 0
    profile_us: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class ShapeProfile:
    """Rows per batch -> microseconds of a revision in one shape; empty: it was tried and could not be measured."""

    resources: Resources
    profile_us: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class WarmupTensor:
    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes


@dataclass(frozen=True, slots=True)
class Warmup:
    """A batch to warm up with, beside the default one."""

    name: str
    batch_size: int
    inputs: tuple[WarmupTensor, ...]


@dataclass(frozen=True, slots=True)
class Revision:
    """One deploy of one version of a model.

    Attributes:
        revision: counts within the model, never used twice.
        version: the name that clients use.
        artifact: directory of its files below the artifacts directory.
        files: the files that this version needs, the entry point among them.
        entry_point: path of the file that the engine loads.
        engine: "onnxruntime", "fake", ...
        max_batch_size: asked for by deploy or config.pbtxt; None: decided by the probe.
        slots: bundles in hand per router (instance_group.count); None: the mesh's default.
        model_config: serialised inference.ModelConfig as far as the source gave one.
        loaded: None until the first load has succeeded.
        profiles: by shape that it was loaded with.
        sequences: as declared; None: the model is not stateful.
    """

    model: str
    revision: int
    version: str
    state: RevisionState
    artifact: str
    files: tuple[ModelFile, ...]
    entry_point: str
    engine: str
    engine_options: tuple[tuple[str, str], ...] = ()
    max_batch_size: int | None = None
    slots: int | None = None
    batching: Batching = Batching()
    warmup: tuple[Warmup, ...] = ()
    model_config: bytes = b""
    deployed_at: float = 0.0
    loaded: Loaded | None = None
    profiles: tuple[ShapeProfile, ...] = ()
    sequences: Sequences | None = None


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


@dataclass(frozen=True, slots=True)
class Enforcement:
    """What holds an instance to its resources, as people read it, and whether the kernel counts.

    Attributes:
        cpu: "cgroup", or "threads only, ..." with the reason.
        memory: "cgroup and watchdog" or "RLIMIT_DATA and watchdog".
    """

    cpu: str = ""
    memory: str = ""
    cpu_in_cgroup: bool = False
    memory_in_cgroup: bool = False


@dataclass(frozen=True, slots=True)
class InstanceView:
    """An instance as `describe` shows it."""

    id: str
    model: str
    revision: int
    version: str
    state: str
    resources: Resources
    started_at: float
    pid: int = 0
    resident_bytes: int = 0
    requests: int = 0
    private_bytes: int = 0
    enforcement: Enforcement = Enforcement()
    profile_us: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class ColdStart:
    """One start from zero; seconds by phase."""

    at: float
    revision: int
    decide_s: float
    place_s: float
    load_s: float
    warm_s: float
    first_answer_s: float
    total_s: float
    from_standby: bool


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    at: float
    revision: int
    current: int
    desired: int
    reason: str
    inputs: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Learnt:
    """What something has learnt, as plain JSON values (`core.memory`).

    Attributes:
        form: which classes told it; what another form says is not understood.
        monotonic, wall: when it was told, by both clocks; seconds.
    """

    form: int
    monotonic: float
    wall: float
    told: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ModelPast:
    """What is kept of a model's past across a restart: bounded, newest last.

    Attributes:
        cold_starts: with the runner that each was on.
        policies: by revision.
    """

    cold_start_count: int = 0
    cold_starts: tuple[tuple[str, ColdStart], ...] = ()
    decisions: tuple[DecisionRecord, ...] = ()
    policies: tuple[tuple[int, Learnt], ...] = ()


@dataclass(frozen=True, slots=True)
class DeployFailure:
    at: float
    reason: str


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
    enforcement: Enforcement = Enforcement()
    standby_target: StandbyTarget | None = None


@dataclass(frozen=True, slots=True)
class UsageKey:
    """Hour: seconds since the epoch of its start."""

    hour: int
    tenant: str
    model: str
    shape: str
    capacity_class: str


@dataclass(frozen=True, slots=True)
class Usage:
    """Increments or sums, by context. Money in micro-units.

    Attributes:
        cost_micros: all of it; what network, storage, cache and management leave is the instances'.
        network_bytes: tensor bytes of answered requests, in and out.
    """

    instance_seconds: float = 0.0
    busy_seconds: float = 0.0
    requests: int = 0
    cold_starts: int = 0
    cost_micros: int = 0
    network_bytes: int = 0
    storage_byte_seconds: int = 0
    cache_byte_seconds: int = 0
    network_micros: int = 0
    storage_micros: int = 0
    cache_micros: int = 0
    management_micros: int = 0


@dataclass(frozen=True, slots=True)
class UsageRow:
    key: UsageKey
    usage: Usage
    currency: str = field(default="USD")


@dataclass(frozen=True, slots=True)
class Posting:
    """One write of the books.

    Attributes:
        epoch, serial: who posts, and its how manyth; the same posting twice is booked once.
        booked_until_us: with it, everything that ran is booked until then; microseconds since the epoch, by the clock
            as it was: where that was set back, earlier than in the posting before.
    """

    epoch: int
    serial: int
    increments: Mapping[UsageKey, Usage]
    booked_until_us: int
