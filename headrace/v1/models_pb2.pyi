import datetime

from google.api import annotations_pb2 as _annotations_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from headrace.v1 import resources_pb2 as _resources_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class JobState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    JOB_STATE_UNSPECIFIED: _ClassVar[JobState]
    JOB_STATE_QUEUED: _ClassVar[JobState]
    JOB_STATE_RUNNING: _ClassVar[JobState]
    JOB_STATE_DONE: _ClassVar[JobState]
    JOB_STATE_FAILED: _ClassVar[JobState]
    JOB_STATE_CANCELLED: _ClassVar[JobState]

class ModelState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODEL_STATE_UNSPECIFIED: _ClassVar[ModelState]
    MODEL_STATE_LOADING: _ClassVar[ModelState]
    MODEL_STATE_IDLE: _ClassVar[ModelState]
    MODEL_STATE_STARTING: _ClassVar[ModelState]
    MODEL_STATE_READY: _ClassVar[ModelState]
    MODEL_STATE_BLOCKED: _ClassVar[ModelState]
    MODEL_STATE_DELETING: _ClassVar[ModelState]

class VersionState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VERSION_STATE_UNSPECIFIED: _ClassVar[VersionState]
    VERSION_STATE_LOADING: _ClassVar[VersionState]
    VERSION_STATE_SERVING: _ClassVar[VersionState]
    VERSION_STATE_RETIRING: _ClassVar[VersionState]
JOB_STATE_UNSPECIFIED: JobState
JOB_STATE_QUEUED: JobState
JOB_STATE_RUNNING: JobState
JOB_STATE_DONE: JobState
JOB_STATE_FAILED: JobState
JOB_STATE_CANCELLED: JobState
MODEL_STATE_UNSPECIFIED: ModelState
MODEL_STATE_LOADING: ModelState
MODEL_STATE_IDLE: ModelState
MODEL_STATE_STARTING: ModelState
MODEL_STATE_READY: ModelState
MODEL_STATE_BLOCKED: ModelState
MODEL_STATE_DELETING: ModelState
VERSION_STATE_UNSPECIFIED: VersionState
VERSION_STATE_LOADING: VersionState
VERSION_STATE_SERVING: VersionState
VERSION_STATE_RETIRING: VersionState

class UploadArtifactRequest(_message.Message):
    __slots__ = ("file", "chunk")
    class FileHeader(_message.Message):
        __slots__ = ("path", "size_bytes", "sha256")
        PATH_FIELD_NUMBER: _ClassVar[int]
        SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
        SHA256_FIELD_NUMBER: _ClassVar[int]
        path: str
        size_bytes: int
        sha256: str
        def __init__(self, path: _Optional[str] = ..., size_bytes: _Optional[int] = ..., sha256: _Optional[str] = ...) -> None: ...
    FILE_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    file: UploadArtifactRequest.FileHeader
    chunk: bytes
    def __init__(self, file: _Optional[_Union[UploadArtifactRequest.FileHeader, _Mapping]] = ..., chunk: _Optional[bytes] = ...) -> None: ...

class UploadArtifactResponse(_message.Message):
    __slots__ = ("artifact", "size_bytes")
    ARTIFACT_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    artifact: str
    size_bytes: int
    def __init__(self, artifact: _Optional[str] = ..., size_bytes: _Optional[int] = ...) -> None: ...

class DeployModelRequest(_message.Message):
    __slots__ = ("model", "wait")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    model: ModelSpec
    wait: bool
    def __init__(self, model: _Optional[_Union[ModelSpec, _Mapping]] = ..., wait: bool = ...) -> None: ...

class DeployModelResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: Model
    def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetModelResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: Model
    def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ...) -> None: ...

class ExplainModelRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ExplainModelResponse(_message.Message):
    __slots__ = ("name", "tenant", "current", "desired", "sentence", "obstacles", "refused")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    CURRENT_FIELD_NUMBER: _ClassVar[int]
    DESIRED_FIELD_NUMBER: _ClassVar[int]
    SENTENCE_FIELD_NUMBER: _ClassVar[int]
    OBSTACLES_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    name: str
    tenant: str
    current: int
    desired: int
    sentence: str
    obstacles: _containers.RepeatedCompositeFieldContainer[Obstacle]
    refused: _containers.RepeatedCompositeFieldContainer[RefusedRequests]
    def __init__(self, name: _Optional[str] = ..., tenant: _Optional[str] = ..., current: _Optional[int] = ..., desired: _Optional[int] = ..., sentence: _Optional[str] = ..., obstacles: _Optional[_Iterable[_Union[Obstacle, _Mapping]]] = ..., refused: _Optional[_Iterable[_Union[RefusedRequests, _Mapping]]] = ...) -> None: ...

class RefusedRequests(_message.Message):
    __slots__ = ("tenant", "reason", "count", "obstacles")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    OBSTACLES_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    reason: str
    count: int
    obstacles: _containers.RepeatedCompositeFieldContainer[Obstacle]
    def __init__(self, tenant: _Optional[str] = ..., reason: _Optional[str] = ..., count: _Optional[int] = ..., obstacles: _Optional[_Iterable[_Union[Obstacle, _Mapping]]] = ...) -> None: ...

class Obstacle(_message.Message):
    __slots__ = ("kind", "owner", "sentence", "command", "dimension", "limit", "used", "asked", "missing")
    KIND_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    SENTENCE_FIELD_NUMBER: _ClassVar[int]
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    DIMENSION_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    USED_FIELD_NUMBER: _ClassVar[int]
    ASKED_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    kind: str
    owner: str
    sentence: str
    command: str
    dimension: str
    limit: str
    used: str
    asked: str
    missing: str
    def __init__(self, kind: _Optional[str] = ..., owner: _Optional[str] = ..., sentence: _Optional[str] = ..., command: _Optional[str] = ..., dimension: _Optional[str] = ..., limit: _Optional[str] = ..., used: _Optional[str] = ..., asked: _Optional[str] = ..., missing: _Optional[str] = ...) -> None: ...

class OptimizeModelRequest(_message.Message):
    __slots__ = ("name", "samples", "optimization")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    OPTIMIZATION_FIELD_NUMBER: _ClassVar[int]
    name: str
    samples: str
    optimization: Optimization
    def __init__(self, name: _Optional[str] = ..., samples: _Optional[str] = ..., optimization: _Optional[_Union[Optimization, _Mapping]] = ...) -> None: ...

class OptimizeModelResponse(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: OptimizeJob
    def __init__(self, job: _Optional[_Union[OptimizeJob, _Mapping]] = ...) -> None: ...

class CancelOptimizationRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class CancelOptimizationResponse(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: OptimizeJob
    def __init__(self, job: _Optional[_Union[OptimizeJob, _Mapping]] = ...) -> None: ...

class ListVariantsRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ListVariantsResponse(_message.Message):
    __slots__ = ("job", "variants")
    JOB_FIELD_NUMBER: _ClassVar[int]
    VARIANTS_FIELD_NUMBER: _ClassVar[int]
    job: OptimizeJob
    variants: _containers.RepeatedCompositeFieldContainer[Variant]
    def __init__(self, job: _Optional[_Union[OptimizeJob, _Mapping]] = ..., variants: _Optional[_Iterable[_Union[Variant, _Mapping]]] = ...) -> None: ...

class UseVariantRequest(_message.Message):
    __slots__ = ("name", "variant")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VARIANT_FIELD_NUMBER: _ClassVar[int]
    name: str
    variant: str
    def __init__(self, name: _Optional[str] = ..., variant: _Optional[str] = ...) -> None: ...

class UseVariantResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: Model
    def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ...) -> None: ...

class Optimization(_message.Message):
    __slots__ = ("labels", "floor", "latency", "precisions", "prune", "keep_original")
    LABELS_FIELD_NUMBER: _ClassVar[int]
    FLOOR_FIELD_NUMBER: _ClassVar[int]
    LATENCY_FIELD_NUMBER: _ClassVar[int]
    PRECISIONS_FIELD_NUMBER: _ClassVar[int]
    PRUNE_FIELD_NUMBER: _ClassVar[int]
    KEEP_ORIGINAL_FIELD_NUMBER: _ClassVar[int]
    labels: str
    floor: float
    latency: _duration_pb2.Duration
    precisions: _containers.RepeatedScalarFieldContainer[str]
    prune: _containers.RepeatedScalarFieldContainer[float]
    keep_original: bool
    def __init__(self, labels: _Optional[str] = ..., floor: _Optional[float] = ..., latency: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., precisions: _Optional[_Iterable[str]] = ..., prune: _Optional[_Iterable[float]] = ..., keep_original: bool = ...) -> None: ...

class OptimizeJob(_message.Message):
    __slots__ = ("model", "state", "reason", "stage", "stage_done", "stage_total", "optimization", "created_at", "started_at", "ended_at", "attempts", "chosen", "automatic", "switched")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    STAGE_DONE_FIELD_NUMBER: _ClassVar[int]
    STAGE_TOTAL_FIELD_NUMBER: _ClassVar[int]
    OPTIMIZATION_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    ENDED_AT_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    CHOSEN_FIELD_NUMBER: _ClassVar[int]
    AUTOMATIC_FIELD_NUMBER: _ClassVar[int]
    SWITCHED_FIELD_NUMBER: _ClassVar[int]
    model: str
    state: JobState
    reason: str
    stage: str
    stage_done: int
    stage_total: int
    optimization: Optimization
    created_at: _timestamp_pb2.Timestamp
    started_at: _timestamp_pb2.Timestamp
    ended_at: _timestamp_pb2.Timestamp
    attempts: int
    chosen: str
    automatic: bool
    switched: str
    def __init__(self, model: _Optional[str] = ..., state: _Optional[_Union[JobState, str]] = ..., reason: _Optional[str] = ..., stage: _Optional[str] = ..., stage_done: _Optional[int] = ..., stage_total: _Optional[int] = ..., optimization: _Optional[_Union[Optimization, _Mapping]] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., started_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., ended_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., attempts: _Optional[int] = ..., chosen: _Optional[str] = ..., automatic: bool = ..., switched: _Optional[str] = ...) -> None: ...

class Variant(_message.Message):
    __slots__ = ("name", "what", "verdict", "reason", "size_bytes", "quality", "share", "lower", "upper", "samples", "cpu_per_row", "timings", "on_front", "chosen", "serves", "artifact", "engines")
    class Timing(_message.Message):
        __slots__ = ("rows", "latency", "rows_per_second")
        ROWS_FIELD_NUMBER: _ClassVar[int]
        LATENCY_FIELD_NUMBER: _ClassVar[int]
        ROWS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
        rows: int
        latency: _duration_pb2.Duration
        rows_per_second: float
        def __init__(self, rows: _Optional[int] = ..., latency: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., rows_per_second: _Optional[float] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    WHAT_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    QUALITY_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    LOWER_FIELD_NUMBER: _ClassVar[int]
    UPPER_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    CPU_PER_ROW_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    ON_FRONT_FIELD_NUMBER: _ClassVar[int]
    CHOSEN_FIELD_NUMBER: _ClassVar[int]
    SERVES_FIELD_NUMBER: _ClassVar[int]
    ARTIFACT_FIELD_NUMBER: _ClassVar[int]
    ENGINES_FIELD_NUMBER: _ClassVar[int]
    name: str
    what: str
    verdict: str
    reason: str
    size_bytes: int
    quality: str
    share: float
    lower: float
    upper: float
    samples: int
    cpu_per_row: _duration_pb2.Duration
    timings: _containers.RepeatedCompositeFieldContainer[Variant.Timing]
    on_front: bool
    chosen: bool
    serves: bool
    artifact: str
    engines: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., what: _Optional[str] = ..., verdict: _Optional[str] = ..., reason: _Optional[str] = ..., size_bytes: _Optional[int] = ..., quality: _Optional[str] = ..., share: _Optional[float] = ..., lower: _Optional[float] = ..., upper: _Optional[float] = ..., samples: _Optional[int] = ..., cpu_per_row: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., timings: _Optional[_Iterable[_Union[Variant.Timing, _Mapping]]] = ..., on_front: bool = ..., chosen: bool = ..., serves: bool = ..., artifact: _Optional[str] = ..., engines: _Optional[_Iterable[str]] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ("tenant",)
    TENANT_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    def __init__(self, tenant: _Optional[str] = ...) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[Model]
    def __init__(self, models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ...) -> None: ...

class DeleteModelRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class DeleteModelResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ModelSpec(_message.Message):
    __slots__ = ("name", "tenant", "source", "artifact", "min_instances", "max_instances", "idle_timeout", "slo", "max_batch_size", "resources", "limits", "budget", "shared_with", "engine", "engine_options", "response_cache", "policy", "instance_concurrency", "cache_shared", "cache_ttl", "padding", "tolerates_spot", "spread", "gpu_architectures", "traffic", "cost_sensitivity", "schedules", "targets", "slo_credit", "max_cpu", "states", "sequence_idle")
    class EngineOptionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class PaddingEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class TargetsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class StatesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    ARTIFACT_FIELD_NUMBER: _ClassVar[int]
    MIN_INSTANCES_FIELD_NUMBER: _ClassVar[int]
    MAX_INSTANCES_FIELD_NUMBER: _ClassVar[int]
    IDLE_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    SLO_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    SHARED_WITH_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    ENGINE_OPTIONS_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_CACHE_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_CONCURRENCY_FIELD_NUMBER: _ClassVar[int]
    CACHE_SHARED_FIELD_NUMBER: _ClassVar[int]
    CACHE_TTL_FIELD_NUMBER: _ClassVar[int]
    PADDING_FIELD_NUMBER: _ClassVar[int]
    TOLERATES_SPOT_FIELD_NUMBER: _ClassVar[int]
    SPREAD_FIELD_NUMBER: _ClassVar[int]
    GPU_ARCHITECTURES_FIELD_NUMBER: _ClassVar[int]
    TRAFFIC_FIELD_NUMBER: _ClassVar[int]
    COST_SENSITIVITY_FIELD_NUMBER: _ClassVar[int]
    SCHEDULES_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    SLO_CREDIT_FIELD_NUMBER: _ClassVar[int]
    MAX_CPU_FIELD_NUMBER: _ClassVar[int]
    STATES_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_IDLE_FIELD_NUMBER: _ClassVar[int]
    name: str
    tenant: str
    source: str
    artifact: str
    min_instances: int
    max_instances: int
    idle_timeout: _duration_pb2.Duration
    slo: _duration_pb2.Duration
    max_batch_size: int
    resources: _resources_pb2.Quantities
    limits: _resources_pb2.Quantities
    budget: _resources_pb2.Budget
    shared_with: _containers.RepeatedScalarFieldContainer[str]
    engine: str
    engine_options: _containers.ScalarMap[str, str]
    response_cache: bool
    policy: str
    instance_concurrency: int
    cache_shared: bool
    cache_ttl: _duration_pb2.Duration
    padding: _containers.ScalarMap[str, float]
    tolerates_spot: bool
    spread: int
    gpu_architectures: _containers.RepeatedScalarFieldContainer[str]
    traffic: str
    cost_sensitivity: str
    schedules: _containers.RepeatedScalarFieldContainer[str]
    targets: _containers.ScalarMap[str, float]
    slo_credit: str
    max_cpu: str
    states: _containers.ScalarMap[str, str]
    sequence_idle: _duration_pb2.Duration
    def __init__(self, name: _Optional[str] = ..., tenant: _Optional[str] = ..., source: _Optional[str] = ..., artifact: _Optional[str] = ..., min_instances: _Optional[int] = ..., max_instances: _Optional[int] = ..., idle_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., slo: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., max_batch_size: _Optional[int] = ..., resources: _Optional[_Union[_resources_pb2.Quantities, _Mapping]] = ..., limits: _Optional[_Union[_resources_pb2.Quantities, _Mapping]] = ..., budget: _Optional[_Union[_resources_pb2.Budget, _Mapping]] = ..., shared_with: _Optional[_Iterable[str]] = ..., engine: _Optional[str] = ..., engine_options: _Optional[_Mapping[str, str]] = ..., response_cache: bool = ..., policy: _Optional[str] = ..., instance_concurrency: _Optional[int] = ..., cache_shared: bool = ..., cache_ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., padding: _Optional[_Mapping[str, float]] = ..., tolerates_spot: bool = ..., spread: _Optional[int] = ..., gpu_architectures: _Optional[_Iterable[str]] = ..., traffic: _Optional[str] = ..., cost_sensitivity: _Optional[str] = ..., schedules: _Optional[_Iterable[str]] = ..., targets: _Optional[_Mapping[str, float]] = ..., slo_credit: _Optional[str] = ..., max_cpu: _Optional[str] = ..., states: _Optional[_Mapping[str, str]] = ..., sequence_idle: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "tenant", "state", "reason", "versions", "instances", "min_instances", "max_instances", "spec", "created_at", "cold_starts", "decisions", "last_failure", "traffic", "job", "variant")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    MIN_INSTANCES_FIELD_NUMBER: _ClassVar[int]
    MAX_INSTANCES_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    COLD_STARTS_FIELD_NUMBER: _ClassVar[int]
    DECISIONS_FIELD_NUMBER: _ClassVar[int]
    LAST_FAILURE_FIELD_NUMBER: _ClassVar[int]
    TRAFFIC_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    VARIANT_FIELD_NUMBER: _ClassVar[int]
    name: str
    tenant: str
    state: ModelState
    reason: str
    versions: _containers.RepeatedCompositeFieldContainer[ModelVersion]
    instances: _containers.RepeatedCompositeFieldContainer[Instance]
    min_instances: int
    max_instances: int
    spec: ModelSpec
    created_at: _timestamp_pb2.Timestamp
    cold_starts: ColdStarts
    decisions: _containers.RepeatedCompositeFieldContainer[Decision]
    last_failure: DeployFailure
    traffic: Traffic
    job: OptimizeJob
    variant: str
    def __init__(self, name: _Optional[str] = ..., tenant: _Optional[str] = ..., state: _Optional[_Union[ModelState, str]] = ..., reason: _Optional[str] = ..., versions: _Optional[_Iterable[_Union[ModelVersion, _Mapping]]] = ..., instances: _Optional[_Iterable[_Union[Instance, _Mapping]]] = ..., min_instances: _Optional[int] = ..., max_instances: _Optional[int] = ..., spec: _Optional[_Union[ModelSpec, _Mapping]] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., cold_starts: _Optional[_Union[ColdStarts, _Mapping]] = ..., decisions: _Optional[_Iterable[_Union[Decision, _Mapping]]] = ..., last_failure: _Optional[_Union[DeployFailure, _Mapping]] = ..., traffic: _Optional[_Union[Traffic, _Mapping]] = ..., job: _Optional[_Union[OptimizeJob, _Mapping]] = ..., variant: _Optional[str] = ...) -> None: ...

class Traffic(_message.Message):
    __slots__ = ("requests", "cache_hits", "mean_rate", "busiest_rate", "mean_batch", "mean_execution")
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    CACHE_HITS_FIELD_NUMBER: _ClassVar[int]
    MEAN_RATE_FIELD_NUMBER: _ClassVar[int]
    BUSIEST_RATE_FIELD_NUMBER: _ClassVar[int]
    MEAN_BATCH_FIELD_NUMBER: _ClassVar[int]
    MEAN_EXECUTION_FIELD_NUMBER: _ClassVar[int]
    requests: int
    cache_hits: int
    mean_rate: float
    busiest_rate: float
    mean_batch: float
    mean_execution: _duration_pb2.Duration
    def __init__(self, requests: _Optional[int] = ..., cache_hits: _Optional[int] = ..., mean_rate: _Optional[float] = ..., busiest_rate: _Optional[float] = ..., mean_batch: _Optional[float] = ..., mean_execution: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class ModelVersion(_message.Message):
    __slots__ = ("version", "revision", "state", "signature", "max_batch_size", "batching", "artifact", "size_bytes", "engine", "deployed_at", "profile_us")
    class ProfileUsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: int
        def __init__(self, key: _Optional[int] = ..., value: _Optional[int] = ...) -> None: ...
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    BATCHING_FIELD_NUMBER: _ClassVar[int]
    ARTIFACT_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    DEPLOYED_AT_FIELD_NUMBER: _ClassVar[int]
    PROFILE_US_FIELD_NUMBER: _ClassVar[int]
    version: str
    revision: int
    state: VersionState
    signature: Signature
    max_batch_size: int
    batching: str
    artifact: str
    size_bytes: int
    engine: str
    deployed_at: _timestamp_pb2.Timestamp
    profile_us: _containers.ScalarMap[int, int]
    def __init__(self, version: _Optional[str] = ..., revision: _Optional[int] = ..., state: _Optional[_Union[VersionState, str]] = ..., signature: _Optional[_Union[Signature, _Mapping]] = ..., max_batch_size: _Optional[int] = ..., batching: _Optional[str] = ..., artifact: _Optional[str] = ..., size_bytes: _Optional[int] = ..., engine: _Optional[str] = ..., deployed_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., profile_us: _Optional[_Mapping[int, int]] = ...) -> None: ...

class Signature(_message.Message):
    __slots__ = ("inputs", "outputs", "batchable")
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    BATCHABLE_FIELD_NUMBER: _ClassVar[int]
    inputs: _containers.RepeatedCompositeFieldContainer[TensorSpec]
    outputs: _containers.RepeatedCompositeFieldContainer[TensorSpec]
    batchable: bool
    def __init__(self, inputs: _Optional[_Iterable[_Union[TensorSpec, _Mapping]]] = ..., outputs: _Optional[_Iterable[_Union[TensorSpec, _Mapping]]] = ..., batchable: bool = ...) -> None: ...

class TensorSpec(_message.Message):
    __slots__ = ("name", "datatype", "shape", "optional")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DATATYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    OPTIONAL_FIELD_NUMBER: _ClassVar[int]
    name: str
    datatype: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    optional: bool
    def __init__(self, name: _Optional[str] = ..., datatype: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., optional: bool = ...) -> None: ...

class Instance(_message.Message):
    __slots__ = ("id", "state", "revision", "version", "shape", "started_at", "pid", "resident_bytes", "requests", "cpu_enforcement", "memory_enforcement", "private_bytes", "profile_us")
    class ProfileUsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: int
        def __init__(self, key: _Optional[int] = ..., value: _Optional[int] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    RESIDENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    CPU_ENFORCEMENT_FIELD_NUMBER: _ClassVar[int]
    MEMORY_ENFORCEMENT_FIELD_NUMBER: _ClassVar[int]
    PRIVATE_BYTES_FIELD_NUMBER: _ClassVar[int]
    PROFILE_US_FIELD_NUMBER: _ClassVar[int]
    id: str
    state: str
    revision: int
    version: str
    shape: _resources_pb2.InstanceShape
    started_at: _timestamp_pb2.Timestamp
    pid: int
    resident_bytes: int
    requests: int
    cpu_enforcement: str
    memory_enforcement: str
    private_bytes: int
    profile_us: _containers.ScalarMap[int, int]
    def __init__(self, id: _Optional[str] = ..., state: _Optional[str] = ..., revision: _Optional[int] = ..., version: _Optional[str] = ..., shape: _Optional[_Union[_resources_pb2.InstanceShape, _Mapping]] = ..., started_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., pid: _Optional[int] = ..., resident_bytes: _Optional[int] = ..., requests: _Optional[int] = ..., cpu_enforcement: _Optional[str] = ..., memory_enforcement: _Optional[str] = ..., private_bytes: _Optional[int] = ..., profile_us: _Optional[_Mapping[int, int]] = ...) -> None: ...

class ColdStarts(_message.Message):
    __slots__ = ("count", "recent", "p95")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    RECENT_FIELD_NUMBER: _ClassVar[int]
    P95_FIELD_NUMBER: _ClassVar[int]
    count: int
    recent: _containers.RepeatedCompositeFieldContainer[ColdStart]
    p95: _duration_pb2.Duration
    def __init__(self, count: _Optional[int] = ..., recent: _Optional[_Iterable[_Union[ColdStart, _Mapping]]] = ..., p95: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class ColdStart(_message.Message):
    __slots__ = ("at", "revision", "decide", "place", "load", "warm", "first_answer", "total", "from_standby")
    AT_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    DECIDE_FIELD_NUMBER: _ClassVar[int]
    PLACE_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    WARM_FIELD_NUMBER: _ClassVar[int]
    FIRST_ANSWER_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    FROM_STANDBY_FIELD_NUMBER: _ClassVar[int]
    at: _timestamp_pb2.Timestamp
    revision: int
    decide: _duration_pb2.Duration
    place: _duration_pb2.Duration
    load: _duration_pb2.Duration
    warm: _duration_pb2.Duration
    first_answer: _duration_pb2.Duration
    total: _duration_pb2.Duration
    from_standby: bool
    def __init__(self, at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., revision: _Optional[int] = ..., decide: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., place: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., load: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., warm: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., first_answer: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., total: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., from_standby: bool = ...) -> None: ...

class Decision(_message.Message):
    __slots__ = ("at", "revision", "current", "desired", "reason", "inputs")
    class InputsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    AT_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    CURRENT_FIELD_NUMBER: _ClassVar[int]
    DESIRED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    at: _timestamp_pb2.Timestamp
    revision: int
    current: int
    desired: int
    reason: str
    inputs: _containers.ScalarMap[str, float]
    def __init__(self, at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., revision: _Optional[int] = ..., current: _Optional[int] = ..., desired: _Optional[int] = ..., reason: _Optional[str] = ..., inputs: _Optional[_Mapping[str, float]] = ...) -> None: ...

class DeployFailure(_message.Message):
    __slots__ = ("at", "reason")
    AT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    at: _timestamp_pb2.Timestamp
    reason: str
    def __init__(self, at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., reason: _Optional[str] = ...) -> None: ...
