import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from headrace.v1 import models_pb2 as _models_pb2
from headrace.v1 import resources_pb2 as _resources_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RunnerState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RUNNER_STATE_UNSPECIFIED: _ClassVar[RunnerState]
    RUNNER_STATE_STARTING: _ClassVar[RunnerState]
    RUNNER_STATE_STANDBY: _ClassVar[RunnerState]
    RUNNER_STATE_LOADING: _ClassVar[RunnerState]
    RUNNER_STATE_READY: _ClassVar[RunnerState]
    RUNNER_STATE_DRAINING: _ClassVar[RunnerState]
    RUNNER_STATE_GONE: _ClassVar[RunnerState]

class BundleErrorCode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BUNDLE_ERROR_CODE_UNSPECIFIED: _ClassVar[BundleErrorCode]
    BUNDLE_ERROR_CODE_INVALID_INPUT: _ClassVar[BundleErrorCode]
    BUNDLE_ERROR_CODE_ENGINE_FAILED: _ClassVar[BundleErrorCode]
    BUNDLE_ERROR_CODE_OUT_OF_MEMORY: _ClassVar[BundleErrorCode]
    BUNDLE_ERROR_CODE_DROPPED: _ClassVar[BundleErrorCode]
    BUNDLE_ERROR_CODE_WRONG_MODEL: _ClassVar[BundleErrorCode]
RUNNER_STATE_UNSPECIFIED: RunnerState
RUNNER_STATE_STARTING: RunnerState
RUNNER_STATE_STANDBY: RunnerState
RUNNER_STATE_LOADING: RunnerState
RUNNER_STATE_READY: RunnerState
RUNNER_STATE_DRAINING: RunnerState
RUNNER_STATE_GONE: RunnerState
BUNDLE_ERROR_CODE_UNSPECIFIED: BundleErrorCode
BUNDLE_ERROR_CODE_INVALID_INPUT: BundleErrorCode
BUNDLE_ERROR_CODE_ENGINE_FAILED: BundleErrorCode
BUNDLE_ERROR_CODE_OUT_OF_MEMORY: BundleErrorCode
BUNDLE_ERROR_CODE_DROPPED: BundleErrorCode
BUNDLE_ERROR_CODE_WRONG_MODEL: BundleErrorCode

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("status",)
    STATUS_FIELD_NUMBER: _ClassVar[int]
    status: RunnerStatus
    def __init__(self, status: _Optional[_Union[RunnerStatus, _Mapping]] = ...) -> None: ...

class WatchStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WatchStatusResponse(_message.Message):
    __slots__ = ("status",)
    STATUS_FIELD_NUMBER: _ClassVar[int]
    status: RunnerStatus
    def __init__(self, status: _Optional[_Union[RunnerStatus, _Mapping]] = ...) -> None: ...

class RunnerStatus(_message.Message):
    __slots__ = ("runner_id", "pid", "state", "epoch", "instance_id", "tenant", "model", "revision", "version", "shape", "age", "resident_bytes", "engines", "reason", "over_memory", "private_bytes", "gpu_memory_used_bytes", "gpu_memory_total_bytes")
    RUNNER_ID_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    AGE_FIELD_NUMBER: _ClassVar[int]
    RESIDENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    ENGINES_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    OVER_MEMORY_FIELD_NUMBER: _ClassVar[int]
    PRIVATE_BYTES_FIELD_NUMBER: _ClassVar[int]
    GPU_MEMORY_USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    GPU_MEMORY_TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    runner_id: str
    pid: int
    state: RunnerState
    epoch: int
    instance_id: str
    tenant: str
    model: str
    revision: int
    version: str
    shape: _resources_pb2.InstanceShape
    age: _duration_pb2.Duration
    resident_bytes: int
    engines: _containers.RepeatedScalarFieldContainer[str]
    reason: str
    over_memory: bool
    private_bytes: int
    gpu_memory_used_bytes: int
    gpu_memory_total_bytes: int
    def __init__(self, runner_id: _Optional[str] = ..., pid: _Optional[int] = ..., state: _Optional[_Union[RunnerState, str]] = ..., epoch: _Optional[int] = ..., instance_id: _Optional[str] = ..., tenant: _Optional[str] = ..., model: _Optional[str] = ..., revision: _Optional[int] = ..., version: _Optional[str] = ..., shape: _Optional[_Union[_resources_pb2.InstanceShape, _Mapping]] = ..., age: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., resident_bytes: _Optional[int] = ..., engines: _Optional[_Iterable[str]] = ..., reason: _Optional[str] = ..., over_memory: bool = ..., private_bytes: _Optional[int] = ..., gpu_memory_used_bytes: _Optional[int] = ..., gpu_memory_total_bytes: _Optional[int] = ...) -> None: ...

class ModelFile(_message.Message):
    __slots__ = ("path", "sha256", "size_bytes")
    PATH_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    path: str
    sha256: str
    size_bytes: int
    def __init__(self, path: _Optional[str] = ..., sha256: _Optional[str] = ..., size_bytes: _Optional[int] = ...) -> None: ...

class LoadRequest(_message.Message):
    __slots__ = ("epoch", "instance_id", "tenant", "model", "revision", "version", "directory", "files", "entry_point", "engine", "engine_options", "shape", "signature", "max_batch_size", "slots", "warmup", "traceparent", "cpu_in_cgroup", "memory_in_cgroup", "requests_wait")
    class EngineOptionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIRECTORY_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    ENTRY_POINT_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    ENGINE_OPTIONS_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    WARMUP_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    CPU_IN_CGROUP_FIELD_NUMBER: _ClassVar[int]
    MEMORY_IN_CGROUP_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_WAIT_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    instance_id: str
    tenant: str
    model: str
    revision: int
    version: str
    directory: str
    files: _containers.RepeatedCompositeFieldContainer[ModelFile]
    entry_point: str
    engine: str
    engine_options: _containers.ScalarMap[str, str]
    shape: _resources_pb2.InstanceShape
    signature: _models_pb2.Signature
    max_batch_size: int
    slots: int
    warmup: _containers.RepeatedCompositeFieldContainer[WarmupSample]
    traceparent: str
    cpu_in_cgroup: bool
    memory_in_cgroup: bool
    requests_wait: bool
    def __init__(self, epoch: _Optional[int] = ..., instance_id: _Optional[str] = ..., tenant: _Optional[str] = ..., model: _Optional[str] = ..., revision: _Optional[int] = ..., version: _Optional[str] = ..., directory: _Optional[str] = ..., files: _Optional[_Iterable[_Union[ModelFile, _Mapping]]] = ..., entry_point: _Optional[str] = ..., engine: _Optional[str] = ..., engine_options: _Optional[_Mapping[str, str]] = ..., shape: _Optional[_Union[_resources_pb2.InstanceShape, _Mapping]] = ..., signature: _Optional[_Union[_models_pb2.Signature, _Mapping]] = ..., max_batch_size: _Optional[int] = ..., slots: _Optional[int] = ..., warmup: _Optional[_Iterable[_Union[WarmupSample, _Mapping]]] = ..., traceparent: _Optional[str] = ..., cpu_in_cgroup: bool = ..., memory_in_cgroup: bool = ..., requests_wait: bool = ...) -> None: ...

class WarmupSample(_message.Message):
    __slots__ = ("name", "batch_size", "inputs")
    NAME_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    name: str
    batch_size: int
    inputs: _containers.RepeatedCompositeFieldContainer[Tensor]
    def __init__(self, name: _Optional[str] = ..., batch_size: _Optional[int] = ..., inputs: _Optional[_Iterable[_Union[Tensor, _Mapping]]] = ...) -> None: ...

class LoadResponse(_message.Message):
    __slots__ = ("signature", "max_batch_size", "batching", "platform", "phases", "resident_bytes", "profile_us")
    class PhasesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _duration_pb2.Duration
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...
    class ProfileUsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: int
        def __init__(self, key: _Optional[int] = ..., value: _Optional[int] = ...) -> None: ...
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    BATCHING_FIELD_NUMBER: _ClassVar[int]
    PLATFORM_FIELD_NUMBER: _ClassVar[int]
    PHASES_FIELD_NUMBER: _ClassVar[int]
    RESIDENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    PROFILE_US_FIELD_NUMBER: _ClassVar[int]
    signature: _models_pb2.Signature
    max_batch_size: int
    batching: str
    platform: str
    phases: _containers.MessageMap[str, _duration_pb2.Duration]
    resident_bytes: int
    profile_us: _containers.ScalarMap[int, int]
    def __init__(self, signature: _Optional[_Union[_models_pb2.Signature, _Mapping]] = ..., max_batch_size: _Optional[int] = ..., batching: _Optional[str] = ..., platform: _Optional[str] = ..., phases: _Optional[_Mapping[str, _duration_pb2.Duration]] = ..., resident_bytes: _Optional[int] = ..., profile_us: _Optional[_Mapping[int, int]] = ...) -> None: ...

class UnloadRequest(_message.Message):
    __slots__ = ("epoch", "grace", "reason")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    GRACE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    grace: _duration_pb2.Duration
    reason: str
    def __init__(self, epoch: _Optional[int] = ..., grace: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., reason: _Optional[str] = ...) -> None: ...

class UnloadResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ExecuteRequest(_message.Message):
    __slots__ = ("attach", "bundle", "chunk", "cancel")
    ATTACH_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    attach: Attach
    bundle: Bundle
    chunk: BundleChunk
    cancel: CancelBundle
    def __init__(self, attach: _Optional[_Union[Attach, _Mapping]] = ..., bundle: _Optional[_Union[Bundle, _Mapping]] = ..., chunk: _Optional[_Union[BundleChunk, _Mapping]] = ..., cancel: _Optional[_Union[CancelBundle, _Mapping]] = ...) -> None: ...

class ExecuteResponse(_message.Message):
    __slots__ = ("grant", "result", "chunk", "draining")
    GRANT_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    grant: SlotGrant
    result: BundleResult
    chunk: BundleChunk
    draining: Draining
    def __init__(self, grant: _Optional[_Union[SlotGrant, _Mapping]] = ..., result: _Optional[_Union[BundleResult, _Mapping]] = ..., chunk: _Optional[_Union[BundleChunk, _Mapping]] = ..., draining: _Optional[_Union[Draining, _Mapping]] = ...) -> None: ...

class Attach(_message.Message):
    __slots__ = ("router_id", "instance_id", "model", "revision", "shared_memory")
    ROUTER_ID_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    SHARED_MEMORY_FIELD_NUMBER: _ClassVar[int]
    router_id: str
    instance_id: str
    model: str
    revision: int
    shared_memory: str
    def __init__(self, router_id: _Optional[str] = ..., instance_id: _Optional[str] = ..., model: _Optional[str] = ..., revision: _Optional[int] = ..., shared_memory: _Optional[str] = ...) -> None: ...

class SlotGrant(_message.Message):
    __slots__ = ("slots", "load", "warm", "shared_memory")
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    WARM_FIELD_NUMBER: _ClassVar[int]
    SHARED_MEMORY_FIELD_NUMBER: _ClassVar[int]
    slots: int
    load: _duration_pb2.Duration
    warm: _duration_pb2.Duration
    shared_memory: bool
    def __init__(self, slots: _Optional[int] = ..., load: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., warm: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., shared_memory: bool = ...) -> None: ...

class Draining(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class CancelBundle(_message.Message):
    __slots__ = ("bundle_id",)
    BUNDLE_ID_FIELD_NUMBER: _ClassVar[int]
    bundle_id: int
    def __init__(self, bundle_id: _Optional[int] = ...) -> None: ...

class Bundle(_message.Message):
    __slots__ = ("bundle_id", "rows", "inputs", "outputs", "traceparents", "time_left_us", "attempt")
    class TraceparentsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: str
        def __init__(self, key: _Optional[int] = ..., value: _Optional[str] = ...) -> None: ...
    BUNDLE_ID_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENTS_FIELD_NUMBER: _ClassVar[int]
    TIME_LEFT_US_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    bundle_id: int
    rows: _containers.RepeatedScalarFieldContainer[int]
    inputs: _containers.RepeatedCompositeFieldContainer[Tensor]
    outputs: _containers.RepeatedScalarFieldContainer[str]
    traceparents: _containers.ScalarMap[int, str]
    time_left_us: int
    attempt: int
    def __init__(self, bundle_id: _Optional[int] = ..., rows: _Optional[_Iterable[int]] = ..., inputs: _Optional[_Iterable[_Union[Tensor, _Mapping]]] = ..., outputs: _Optional[_Iterable[str]] = ..., traceparents: _Optional[_Mapping[int, str]] = ..., time_left_us: _Optional[int] = ..., attempt: _Optional[int] = ...) -> None: ...

class Tensor(_message.Message):
    __slots__ = ("name", "datatype", "shape", "data", "region", "chunked_bytes", "row_ends")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DATATYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    CHUNKED_BYTES_FIELD_NUMBER: _ClassVar[int]
    ROW_ENDS_FIELD_NUMBER: _ClassVar[int]
    name: str
    datatype: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    data: bytes
    region: SharedMemoryRegion
    chunked_bytes: int
    row_ends: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, name: _Optional[str] = ..., datatype: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., data: _Optional[bytes] = ..., region: _Optional[_Union[SharedMemoryRegion, _Mapping]] = ..., chunked_bytes: _Optional[int] = ..., row_ends: _Optional[_Iterable[int]] = ...) -> None: ...

class SharedMemoryRegion(_message.Message):
    __slots__ = ("offset", "size_bytes")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    offset: int
    size_bytes: int
    def __init__(self, offset: _Optional[int] = ..., size_bytes: _Optional[int] = ...) -> None: ...

class BundleChunk(_message.Message):
    __slots__ = ("bundle_id", "tensor_index", "offset", "data")
    BUNDLE_ID_FIELD_NUMBER: _ClassVar[int]
    TENSOR_INDEX_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    bundle_id: int
    tensor_index: int
    offset: int
    data: bytes
    def __init__(self, bundle_id: _Optional[int] = ..., tensor_index: _Optional[int] = ..., offset: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class BundleResult(_message.Message):
    __slots__ = ("bundle_id", "outputs", "error", "wait_us", "compute_us")
    BUNDLE_ID_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    WAIT_US_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_US_FIELD_NUMBER: _ClassVar[int]
    bundle_id: int
    outputs: _containers.RepeatedCompositeFieldContainer[Tensor]
    error: BundleError
    wait_us: int
    compute_us: int
    def __init__(self, bundle_id: _Optional[int] = ..., outputs: _Optional[_Iterable[_Union[Tensor, _Mapping]]] = ..., error: _Optional[_Union[BundleError, _Mapping]] = ..., wait_us: _Optional[int] = ..., compute_us: _Optional[int] = ...) -> None: ...

class BundleError(_message.Message):
    __slots__ = ("code", "detail")
    CODE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    code: BundleErrorCode
    detail: str
    def __init__(self, code: _Optional[_Union[BundleErrorCode, str]] = ..., detail: _Optional[str] = ...) -> None: ...

class GetStatsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatsResponse(_message.Message):
    __slots__ = ("bundles", "rows", "failed_bundles", "compute_us", "wait_us", "resident_bytes", "uptime", "requests")
    BUNDLES_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    FAILED_BUNDLES_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_US_FIELD_NUMBER: _ClassVar[int]
    WAIT_US_FIELD_NUMBER: _ClassVar[int]
    RESIDENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    UPTIME_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    bundles: int
    rows: int
    failed_bundles: int
    compute_us: int
    wait_us: int
    resident_bytes: int
    uptime: _duration_pb2.Duration
    requests: int
    def __init__(self, bundles: _Optional[int] = ..., rows: _Optional[int] = ..., failed_bundles: _Optional[int] = ..., compute_us: _Optional[int] = ..., wait_us: _Optional[int] = ..., resident_bytes: _Optional[int] = ..., uptime: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., requests: _Optional[int] = ...) -> None: ...
