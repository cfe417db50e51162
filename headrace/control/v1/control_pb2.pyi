import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from headrace.v1 import models_pb2 as _models_pb2
from headrace.v1 import resources_pb2 as _resources_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SequenceSignalKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SEQUENCE_SIGNAL_KIND_UNSPECIFIED: _ClassVar[SequenceSignalKind]
    SEQUENCE_SIGNAL_KIND_START: _ClassVar[SequenceSignalKind]
    SEQUENCE_SIGNAL_KIND_END: _ClassVar[SequenceSignalKind]
    SEQUENCE_SIGNAL_KIND_READY: _ClassVar[SequenceSignalKind]
    SEQUENCE_SIGNAL_KIND_ID: _ClassVar[SequenceSignalKind]

class PlacementState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PLACEMENT_STATE_UNSPECIFIED: _ClassVar[PlacementState]
    PLACEMENT_STATE_LOADING: _ClassVar[PlacementState]
    PLACEMENT_STATE_READY: _ClassVar[PlacementState]
    PLACEMENT_STATE_DRAINING: _ClassVar[PlacementState]

class BudgetState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BUDGET_STATE_UNSPECIFIED: _ClassVar[BudgetState]
    BUDGET_STATE_WITHIN: _ClassVar[BudgetState]
    BUDGET_STATE_WARNING: _ClassVar[BudgetState]
    BUDGET_STATE_EXHAUSTED_REFUSE: _ClassVar[BudgetState]
    BUDGET_STATE_EXHAUSTED_QUEUE: _ClassVar[BudgetState]
SEQUENCE_SIGNAL_KIND_UNSPECIFIED: SequenceSignalKind
SEQUENCE_SIGNAL_KIND_START: SequenceSignalKind
SEQUENCE_SIGNAL_KIND_END: SequenceSignalKind
SEQUENCE_SIGNAL_KIND_READY: SequenceSignalKind
SEQUENCE_SIGNAL_KIND_ID: SequenceSignalKind
PLACEMENT_STATE_UNSPECIFIED: PlacementState
PLACEMENT_STATE_LOADING: PlacementState
PLACEMENT_STATE_READY: PlacementState
PLACEMENT_STATE_DRAINING: PlacementState
BUDGET_STATE_UNSPECIFIED: BudgetState
BUDGET_STATE_WITHIN: BudgetState
BUDGET_STATE_WARNING: BudgetState
BUDGET_STATE_EXHAUSTED_REFUSE: BudgetState
BUDGET_STATE_EXHAUSTED_QUEUE: BudgetState

class SyncRequest(_message.Message):
    __slots__ = ("hello", "demand", "applied_version", "excess")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    DEMAND_FIELD_NUMBER: _ClassVar[int]
    APPLIED_VERSION_FIELD_NUMBER: _ClassVar[int]
    EXCESS_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    demand: DemandReport
    applied_version: int
    excess: _containers.RepeatedCompositeFieldContainer[Excess]
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., demand: _Optional[_Union[DemandReport, _Mapping]] = ..., applied_version: _Optional[int] = ..., excess: _Optional[_Iterable[_Union[Excess, _Mapping]]] = ...) -> None: ...

class Excess(_message.Message):
    __slots__ = ("tenant", "model", "in_hand")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    IN_HAND_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    model: str
    in_hand: QuotaLimits
    def __init__(self, tenant: _Optional[str] = ..., model: _Optional[str] = ..., in_hand: _Optional[_Union[QuotaLimits, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("router_id", "software_version", "highest_epoch")
    ROUTER_ID_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_VERSION_FIELD_NUMBER: _ClassVar[int]
    HIGHEST_EPOCH_FIELD_NUMBER: _ClassVar[int]
    router_id: str
    software_version: str
    highest_epoch: int
    def __init__(self, router_id: _Optional[str] = ..., software_version: _Optional[str] = ..., highest_epoch: _Optional[int] = ...) -> None: ...

class SyncResponse(_message.Message):
    __slots__ = ("epoch", "update")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    update: StateUpdate
    def __init__(self, epoch: _Optional[int] = ..., update: _Optional[_Union[StateUpdate, _Mapping]] = ...) -> None: ...

class StateUpdate(_message.Message):
    __slots__ = ("version", "full", "models", "removed_models", "placements", "removed_placements", "leases", "removed_leases")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    FULL_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    REMOVED_MODELS_FIELD_NUMBER: _ClassVar[int]
    PLACEMENTS_FIELD_NUMBER: _ClassVar[int]
    REMOVED_PLACEMENTS_FIELD_NUMBER: _ClassVar[int]
    LEASES_FIELD_NUMBER: _ClassVar[int]
    REMOVED_LEASES_FIELD_NUMBER: _ClassVar[int]
    version: int
    full: bool
    models: _containers.RepeatedCompositeFieldContainer[ModelEntry]
    removed_models: _containers.RepeatedScalarFieldContainer[str]
    placements: _containers.RepeatedCompositeFieldContainer[Placement]
    removed_placements: _containers.RepeatedScalarFieldContainer[str]
    leases: _containers.RepeatedCompositeFieldContainer[QuotaLease]
    removed_leases: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, version: _Optional[int] = ..., full: bool = ..., models: _Optional[_Iterable[_Union[ModelEntry, _Mapping]]] = ..., removed_models: _Optional[_Iterable[str]] = ..., placements: _Optional[_Iterable[_Union[Placement, _Mapping]]] = ..., removed_placements: _Optional[_Iterable[str]] = ..., leases: _Optional[_Iterable[_Union[QuotaLease, _Mapping]]] = ..., removed_leases: _Optional[_Iterable[str]] = ...) -> None: ...

class ModelEntry(_message.Message):
    __slots__ = ("name", "tenant", "shared_with", "revisions", "slo", "response_cache", "cache_shared", "cache_ttl", "created_at", "budget_reason", "budget_subject", "budget_returns_at")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    SHARED_WITH_FIELD_NUMBER: _ClassVar[int]
    REVISIONS_FIELD_NUMBER: _ClassVar[int]
    SLO_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_CACHE_FIELD_NUMBER: _ClassVar[int]
    CACHE_SHARED_FIELD_NUMBER: _ClassVar[int]
    CACHE_TTL_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    BUDGET_REASON_FIELD_NUMBER: _ClassVar[int]
    BUDGET_SUBJECT_FIELD_NUMBER: _ClassVar[int]
    BUDGET_RETURNS_AT_FIELD_NUMBER: _ClassVar[int]
    name: str
    tenant: str
    shared_with: _containers.RepeatedScalarFieldContainer[str]
    revisions: _containers.RepeatedCompositeFieldContainer[Revision]
    slo: _duration_pb2.Duration
    response_cache: bool
    cache_shared: bool
    cache_ttl: _duration_pb2.Duration
    created_at: _timestamp_pb2.Timestamp
    budget_reason: str
    budget_subject: str
    budget_returns_at: _timestamp_pb2.Timestamp
    def __init__(self, name: _Optional[str] = ..., tenant: _Optional[str] = ..., shared_with: _Optional[_Iterable[str]] = ..., revisions: _Optional[_Iterable[_Union[Revision, _Mapping]]] = ..., slo: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., response_cache: bool = ..., cache_shared: bool = ..., cache_ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., budget_reason: _Optional[str] = ..., budget_subject: _Optional[str] = ..., budget_returns_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Revision(_message.Message):
    __slots__ = ("revision", "version", "current", "retiring", "signature", "max_batch_size", "batching", "model_config", "platform", "blocked_reason", "loading", "instance_concurrency", "sequences")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CURRENT_FIELD_NUMBER: _ClassVar[int]
    RETIRING_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    BATCHING_FIELD_NUMBER: _ClassVar[int]
    MODEL_CONFIG_FIELD_NUMBER: _ClassVar[int]
    PLATFORM_FIELD_NUMBER: _ClassVar[int]
    BLOCKED_REASON_FIELD_NUMBER: _ClassVar[int]
    LOADING_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_CONCURRENCY_FIELD_NUMBER: _ClassVar[int]
    SEQUENCES_FIELD_NUMBER: _ClassVar[int]
    revision: int
    version: str
    current: bool
    retiring: bool
    signature: _models_pb2.Signature
    max_batch_size: int
    batching: BatchingPolicy
    model_config: bytes
    platform: str
    blocked_reason: str
    loading: bool
    instance_concurrency: int
    sequences: SequenceRules
    def __init__(self, revision: _Optional[int] = ..., version: _Optional[str] = ..., current: bool = ..., retiring: bool = ..., signature: _Optional[_Union[_models_pb2.Signature, _Mapping]] = ..., max_batch_size: _Optional[int] = ..., batching: _Optional[_Union[BatchingPolicy, _Mapping]] = ..., model_config: _Optional[bytes] = ..., platform: _Optional[str] = ..., blocked_reason: _Optional[str] = ..., loading: bool = ..., instance_concurrency: _Optional[int] = ..., sequences: _Optional[_Union[SequenceRules, _Mapping]] = ...) -> None: ...

class SequenceRules(_message.Message):
    __slots__ = ("states", "signals", "max_idle_us")
    STATES_FIELD_NUMBER: _ClassVar[int]
    SIGNALS_FIELD_NUMBER: _ClassVar[int]
    MAX_IDLE_US_FIELD_NUMBER: _ClassVar[int]
    states: _containers.RepeatedCompositeFieldContainer[StateTensor]
    signals: _containers.RepeatedCompositeFieldContainer[SequenceSignal]
    max_idle_us: int
    def __init__(self, states: _Optional[_Iterable[_Union[StateTensor, _Mapping]]] = ..., signals: _Optional[_Iterable[_Union[SequenceSignal, _Mapping]]] = ..., max_idle_us: _Optional[int] = ...) -> None: ...

class StateTensor(_message.Message):
    __slots__ = ("input", "output", "datatype", "shape", "size_bytes", "initial")
    INPUT_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    DATATYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    INITIAL_FIELD_NUMBER: _ClassVar[int]
    input: str
    output: str
    datatype: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    size_bytes: int
    initial: bytes
    def __init__(self, input: _Optional[str] = ..., output: _Optional[str] = ..., datatype: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., size_bytes: _Optional[int] = ..., initial: _Optional[bytes] = ...) -> None: ...

class SequenceSignal(_message.Message):
    __slots__ = ("input", "kind", "datatype", "shape", "off", "on")
    INPUT_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    DATATYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    OFF_FIELD_NUMBER: _ClassVar[int]
    ON_FIELD_NUMBER: _ClassVar[int]
    input: str
    kind: SequenceSignalKind
    datatype: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    off: bytes
    on: bytes
    def __init__(self, input: _Optional[str] = ..., kind: _Optional[_Union[SequenceSignalKind, str]] = ..., datatype: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., off: _Optional[bytes] = ..., on: _Optional[bytes] = ...) -> None: ...

class BatchingPolicy(_message.Message):
    __slots__ = ("preferred_batch_sizes", "max_queue_delay_us", "priority_levels", "default_priority_level", "max_queue_size", "default_timeout_us", "pad")
    class PadEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    PREFERRED_BATCH_SIZES_FIELD_NUMBER: _ClassVar[int]
    MAX_QUEUE_DELAY_US_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_LEVELS_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_PRIORITY_LEVEL_FIELD_NUMBER: _ClassVar[int]
    MAX_QUEUE_SIZE_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_TIMEOUT_US_FIELD_NUMBER: _ClassVar[int]
    PAD_FIELD_NUMBER: _ClassVar[int]
    preferred_batch_sizes: _containers.RepeatedScalarFieldContainer[int]
    max_queue_delay_us: int
    priority_levels: int
    default_priority_level: int
    max_queue_size: int
    default_timeout_us: int
    pad: _containers.ScalarMap[str, float]
    def __init__(self, preferred_batch_sizes: _Optional[_Iterable[int]] = ..., max_queue_delay_us: _Optional[int] = ..., priority_levels: _Optional[int] = ..., default_priority_level: _Optional[int] = ..., max_queue_size: _Optional[int] = ..., default_timeout_us: _Optional[int] = ..., pad: _Optional[_Mapping[str, float]] = ...) -> None: ...

class Placement(_message.Message):
    __slots__ = ("instance_id", "model", "revision", "target", "state", "shape", "decide", "place", "profile_us")
    class ProfileUsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: int
        def __init__(self, key: _Optional[int] = ..., value: _Optional[int] = ...) -> None: ...
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DECIDE_FIELD_NUMBER: _ClassVar[int]
    PLACE_FIELD_NUMBER: _ClassVar[int]
    PROFILE_US_FIELD_NUMBER: _ClassVar[int]
    instance_id: str
    model: str
    revision: int
    target: str
    state: PlacementState
    shape: _resources_pb2.InstanceShape
    decide: _duration_pb2.Duration
    place: _duration_pb2.Duration
    profile_us: _containers.ScalarMap[int, int]
    def __init__(self, instance_id: _Optional[str] = ..., model: _Optional[str] = ..., revision: _Optional[int] = ..., target: _Optional[str] = ..., state: _Optional[_Union[PlacementState, str]] = ..., shape: _Optional[_Union[_resources_pb2.InstanceShape, _Mapping]] = ..., decide: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., place: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., profile_us: _Optional[_Mapping[int, int]] = ...) -> None: ...

class QuotaLease(_message.Message):
    __slots__ = ("tenant", "model", "limits", "floor", "ttl", "budget_state", "weight", "answers", "budget_reason", "budget_returns_at")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    FLOOR_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    BUDGET_STATE_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    BUDGET_REASON_FIELD_NUMBER: _ClassVar[int]
    BUDGET_RETURNS_AT_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    model: str
    limits: QuotaLimits
    floor: QuotaLimits
    ttl: _duration_pb2.Duration
    budget_state: BudgetState
    weight: float
    answers: int
    budget_reason: str
    budget_returns_at: _timestamp_pb2.Timestamp
    def __init__(self, tenant: _Optional[str] = ..., model: _Optional[str] = ..., limits: _Optional[_Union[QuotaLimits, _Mapping]] = ..., floor: _Optional[_Union[QuotaLimits, _Mapping]] = ..., ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., budget_state: _Optional[_Union[BudgetState, str]] = ..., weight: _Optional[float] = ..., answers: _Optional[int] = ..., budget_reason: _Optional[str] = ..., budget_returns_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class QuotaLimits(_message.Message):
    __slots__ = ("concurrency", "requests_per_second", "queue_length", "queue_bytes")
    CONCURRENCY_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    QUEUE_LENGTH_FIELD_NUMBER: _ClassVar[int]
    QUEUE_BYTES_FIELD_NUMBER: _ClassVar[int]
    concurrency: int
    requests_per_second: float
    queue_length: int
    queue_bytes: int
    def __init__(self, concurrency: _Optional[int] = ..., requests_per_second: _Optional[float] = ..., queue_length: _Optional[int] = ..., queue_bytes: _Optional[int] = ...) -> None: ...

class DemandReport(_message.Message):
    __slots__ = ("period", "demands", "cold_starts", "runners", "urgent", "caches")
    PERIOD_FIELD_NUMBER: _ClassVar[int]
    DEMANDS_FIELD_NUMBER: _ClassVar[int]
    COLD_STARTS_FIELD_NUMBER: _ClassVar[int]
    RUNNERS_FIELD_NUMBER: _ClassVar[int]
    URGENT_FIELD_NUMBER: _ClassVar[int]
    CACHES_FIELD_NUMBER: _ClassVar[int]
    period: _duration_pb2.Duration
    demands: _containers.RepeatedCompositeFieldContainer[Demand]
    cold_starts: _containers.RepeatedCompositeFieldContainer[ColdStartReport]
    runners: _containers.RepeatedCompositeFieldContainer[RunnerHealth]
    urgent: bool
    caches: _containers.RepeatedCompositeFieldContainer[CacheUse]
    def __init__(self, period: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., demands: _Optional[_Iterable[_Union[Demand, _Mapping]]] = ..., cold_starts: _Optional[_Iterable[_Union[ColdStartReport, _Mapping]]] = ..., runners: _Optional[_Iterable[_Union[RunnerHealth, _Mapping]]] = ..., urgent: bool = ..., caches: _Optional[_Iterable[_Union[CacheUse, _Mapping]]] = ...) -> None: ...

class CacheUse(_message.Message):
    __slots__ = ("model", "byte_seconds")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    BYTE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    model: str
    byte_seconds: int
    def __init__(self, model: _Optional[str] = ..., byte_seconds: _Optional[int] = ...) -> None: ...

class Demand(_message.Message):
    __slots__ = ("tenant", "model", "revision", "arrivals", "rows", "queued", "in_flight", "completed", "failed", "service_time_us", "queue_time_us", "within_slo", "refusals", "oldest_wait_us", "bundles", "input_bytes", "output_bytes", "cache_hits", "following", "held")
    class RefusalsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    TENANT_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    ARRIVALS_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    COMPLETED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    SERVICE_TIME_US_FIELD_NUMBER: _ClassVar[int]
    QUEUE_TIME_US_FIELD_NUMBER: _ClassVar[int]
    WITHIN_SLO_FIELD_NUMBER: _ClassVar[int]
    REFUSALS_FIELD_NUMBER: _ClassVar[int]
    OLDEST_WAIT_US_FIELD_NUMBER: _ClassVar[int]
    BUNDLES_FIELD_NUMBER: _ClassVar[int]
    INPUT_BYTES_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_BYTES_FIELD_NUMBER: _ClassVar[int]
    CACHE_HITS_FIELD_NUMBER: _ClassVar[int]
    FOLLOWING_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    model: str
    revision: int
    arrivals: int
    rows: int
    queued: int
    in_flight: int
    completed: int
    failed: int
    service_time_us: int
    queue_time_us: int
    within_slo: int
    refusals: _containers.ScalarMap[str, int]
    oldest_wait_us: int
    bundles: int
    input_bytes: int
    output_bytes: int
    cache_hits: int
    following: int
    held: int
    def __init__(self, tenant: _Optional[str] = ..., model: _Optional[str] = ..., revision: _Optional[int] = ..., arrivals: _Optional[int] = ..., rows: _Optional[int] = ..., queued: _Optional[int] = ..., in_flight: _Optional[int] = ..., completed: _Optional[int] = ..., failed: _Optional[int] = ..., service_time_us: _Optional[int] = ..., queue_time_us: _Optional[int] = ..., within_slo: _Optional[int] = ..., refusals: _Optional[_Mapping[str, int]] = ..., oldest_wait_us: _Optional[int] = ..., bundles: _Optional[int] = ..., input_bytes: _Optional[int] = ..., output_bytes: _Optional[int] = ..., cache_hits: _Optional[int] = ..., following: _Optional[int] = ..., held: _Optional[int] = ...) -> None: ...

class ColdStartReport(_message.Message):
    __slots__ = ("instance_id", "model", "revision", "load", "warm", "first_answer", "total")
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    WARM_FIELD_NUMBER: _ClassVar[int]
    FIRST_ANSWER_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    instance_id: str
    model: str
    revision: int
    load: _duration_pb2.Duration
    warm: _duration_pb2.Duration
    first_answer: _duration_pb2.Duration
    total: _duration_pb2.Duration
    def __init__(self, instance_id: _Optional[str] = ..., model: _Optional[str] = ..., revision: _Optional[int] = ..., load: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., warm: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., first_answer: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., total: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class RunnerHealth(_message.Message):
    __slots__ = ("instance_id", "connected", "bundles", "mean_service_time_us", "lost_bundles", "slow", "slowdown")
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    CONNECTED_FIELD_NUMBER: _ClassVar[int]
    BUNDLES_FIELD_NUMBER: _ClassVar[int]
    MEAN_SERVICE_TIME_US_FIELD_NUMBER: _ClassVar[int]
    LOST_BUNDLES_FIELD_NUMBER: _ClassVar[int]
    SLOW_FIELD_NUMBER: _ClassVar[int]
    SLOWDOWN_FIELD_NUMBER: _ClassVar[int]
    instance_id: str
    connected: bool
    bundles: int
    mean_service_time_us: int
    lost_bundles: int
    slow: bool
    slowdown: float
    def __init__(self, instance_id: _Optional[str] = ..., connected: bool = ..., bundles: _Optional[int] = ..., mean_service_time_us: _Optional[int] = ..., lost_bundles: _Optional[int] = ..., slow: bool = ..., slowdown: _Optional[float] = ...) -> None: ...
