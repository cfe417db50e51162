import datetime

from google.api import annotations_pb2 as _annotations_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from headrace.v1 import resources_pb2 as _resources_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetUsageRequest(_message.Message):
    __slots__ = ("tenant", "since")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    since: _timestamp_pb2.Timestamp
    def __init__(self, tenant: _Optional[str] = ..., since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class GetUsageResponse(_message.Message):
    __slots__ = ("rows",)
    ROWS_FIELD_NUMBER: _ClassVar[int]
    rows: _containers.RepeatedCompositeFieldContainer[UsageRow]
    def __init__(self, rows: _Optional[_Iterable[_Union[UsageRow, _Mapping]]] = ...) -> None: ...

class UsageRow(_message.Message):
    __slots__ = ("hour", "tenant", "model", "shape", "capacity_class", "instance_seconds", "busy_seconds", "requests", "cold_starts", "cost_micros", "currency", "network_bytes", "storage_byte_seconds", "cache_byte_seconds", "network_micros", "storage_micros", "cache_micros", "management_micros")
    HOUR_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_CLASS_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    BUSY_SECONDS_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    COLD_STARTS_FIELD_NUMBER: _ClassVar[int]
    COST_MICROS_FIELD_NUMBER: _ClassVar[int]
    CURRENCY_FIELD_NUMBER: _ClassVar[int]
    NETWORK_BYTES_FIELD_NUMBER: _ClassVar[int]
    STORAGE_BYTE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    CACHE_BYTE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    NETWORK_MICROS_FIELD_NUMBER: _ClassVar[int]
    STORAGE_MICROS_FIELD_NUMBER: _ClassVar[int]
    CACHE_MICROS_FIELD_NUMBER: _ClassVar[int]
    MANAGEMENT_MICROS_FIELD_NUMBER: _ClassVar[int]
    hour: _timestamp_pb2.Timestamp
    tenant: str
    model: str
    shape: str
    capacity_class: _resources_pb2.CapacityClass
    instance_seconds: float
    busy_seconds: float
    requests: int
    cold_starts: int
    cost_micros: int
    currency: str
    network_bytes: int
    storage_byte_seconds: int
    cache_byte_seconds: int
    network_micros: int
    storage_micros: int
    cache_micros: int
    management_micros: int
    def __init__(self, hour: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., tenant: _Optional[str] = ..., model: _Optional[str] = ..., shape: _Optional[str] = ..., capacity_class: _Optional[_Union[_resources_pb2.CapacityClass, str]] = ..., instance_seconds: _Optional[float] = ..., busy_seconds: _Optional[float] = ..., requests: _Optional[int] = ..., cold_starts: _Optional[int] = ..., cost_micros: _Optional[int] = ..., currency: _Optional[str] = ..., network_bytes: _Optional[int] = ..., storage_byte_seconds: _Optional[int] = ..., cache_byte_seconds: _Optional[int] = ..., network_micros: _Optional[int] = ..., storage_micros: _Optional[int] = ..., cache_micros: _Optional[int] = ..., management_micros: _Optional[int] = ...) -> None: ...
