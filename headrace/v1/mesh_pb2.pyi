import datetime

from google.api import annotations_pb2 as _annotations_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from headrace.v1 import models_pb2 as _models_pb2
from headrace.v1 import tenants_pb2 as _tenants_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Manifest(_message.Message):
    __slots__ = ("model", "tenant")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    model: _models_pb2.ModelSpec
    tenant: _tenants_pb2.TenantSpec
    def __init__(self, model: _Optional[_Union[_models_pb2.ModelSpec, _Mapping]] = ..., tenant: _Optional[_Union[_tenants_pb2.TenantSpec, _Mapping]] = ...) -> None: ...

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("version", "epoch", "uptime", "routers", "standby", "models", "budgets", "cpu_enforcement", "memory_enforcement", "standby_target")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    UPTIME_FIELD_NUMBER: _ClassVar[int]
    ROUTERS_FIELD_NUMBER: _ClassVar[int]
    STANDBY_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    BUDGETS_FIELD_NUMBER: _ClassVar[int]
    CPU_ENFORCEMENT_FIELD_NUMBER: _ClassVar[int]
    MEMORY_ENFORCEMENT_FIELD_NUMBER: _ClassVar[int]
    STANDBY_TARGET_FIELD_NUMBER: _ClassVar[int]
    version: str
    epoch: int
    uptime: _duration_pb2.Duration
    routers: _containers.RepeatedCompositeFieldContainer[RouterStatus]
    standby: _containers.RepeatedCompositeFieldContainer[_models_pb2.Instance]
    models: _containers.RepeatedCompositeFieldContainer[ModelSummary]
    budgets: _containers.RepeatedCompositeFieldContainer[_tenants_pb2.BudgetStanding]
    cpu_enforcement: str
    memory_enforcement: str
    standby_target: StandbyTarget
    def __init__(self, version: _Optional[str] = ..., epoch: _Optional[int] = ..., uptime: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., routers: _Optional[_Iterable[_Union[RouterStatus, _Mapping]]] = ..., standby: _Optional[_Iterable[_Union[_models_pb2.Instance, _Mapping]]] = ..., models: _Optional[_Iterable[_Union[ModelSummary, _Mapping]]] = ..., budgets: _Optional[_Iterable[_Union[_tenants_pb2.BudgetStanding, _Mapping]]] = ..., cpu_enforcement: _Optional[str] = ..., memory_enforcement: _Optional[str] = ..., standby_target: _Optional[_Union[StandbyTarget, _Mapping]] = ...) -> None: ...

class StandbyTarget(_message.Message):
    __slots__ = ("runners", "reason", "inputs")
    class InputsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    RUNNERS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    runners: int
    reason: str
    inputs: _containers.ScalarMap[str, float]
    def __init__(self, runners: _Optional[int] = ..., reason: _Optional[str] = ..., inputs: _Optional[_Mapping[str, float]] = ...) -> None: ...

class RouterStatus(_message.Message):
    __slots__ = ("id", "queued", "in_flight", "requests", "refused", "connected_at")
    ID_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    CONNECTED_AT_FIELD_NUMBER: _ClassVar[int]
    id: str
    queued: int
    in_flight: int
    requests: int
    refused: int
    connected_at: _timestamp_pb2.Timestamp
    def __init__(self, id: _Optional[str] = ..., queued: _Optional[int] = ..., in_flight: _Optional[int] = ..., requests: _Optional[int] = ..., refused: _Optional[int] = ..., connected_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ModelSummary(_message.Message):
    __slots__ = ("name", "tenant", "state", "instances", "queued", "in_flight", "requests")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    name: str
    tenant: str
    state: _models_pb2.ModelState
    instances: int
    queued: int
    in_flight: int
    requests: int
    def __init__(self, name: _Optional[str] = ..., tenant: _Optional[str] = ..., state: _Optional[_Union[_models_pb2.ModelState, str]] = ..., instances: _Optional[int] = ..., queued: _Optional[int] = ..., in_flight: _Optional[int] = ..., requests: _Optional[int] = ...) -> None: ...

class ReadLogsRequest(_message.Message):
    __slots__ = ("model", "follow", "tail")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    TAIL_FIELD_NUMBER: _ClassVar[int]
    model: str
    follow: bool
    tail: int
    def __init__(self, model: _Optional[str] = ..., follow: bool = ..., tail: _Optional[int] = ...) -> None: ...

class ReadLogsResponse(_message.Message):
    __slots__ = ("line",)
    LINE_FIELD_NUMBER: _ClassVar[int]
    line: str
    def __init__(self, line: _Optional[str] = ...) -> None: ...
