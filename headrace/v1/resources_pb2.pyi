from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CapacityClass(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CAPACITY_CLASS_UNSPECIFIED: _ClassVar[CapacityClass]
    CAPACITY_CLASS_ON_DEMAND: _ClassVar[CapacityClass]
    CAPACITY_CLASS_SPOT: _ClassVar[CapacityClass]
    CAPACITY_CLASS_RESERVED: _ClassVar[CapacityClass]
CAPACITY_CLASS_UNSPECIFIED: CapacityClass
CAPACITY_CLASS_ON_DEMAND: CapacityClass
CAPACITY_CLASS_SPOT: CapacityClass
CAPACITY_CLASS_RESERVED: CapacityClass

class Quantities(_message.Message):
    __slots__ = ("cpu", "memory", "gpu", "gpu_memory", "concurrency", "requests_per_second", "queue_length", "queue_bytes")
    CPU_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    GPU_FIELD_NUMBER: _ClassVar[int]
    GPU_MEMORY_FIELD_NUMBER: _ClassVar[int]
    CONCURRENCY_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    QUEUE_LENGTH_FIELD_NUMBER: _ClassVar[int]
    QUEUE_BYTES_FIELD_NUMBER: _ClassVar[int]
    cpu: str
    memory: str
    gpu: str
    gpu_memory: str
    concurrency: int
    requests_per_second: float
    queue_length: int
    queue_bytes: str
    def __init__(self, cpu: _Optional[str] = ..., memory: _Optional[str] = ..., gpu: _Optional[str] = ..., gpu_memory: _Optional[str] = ..., concurrency: _Optional[int] = ..., requests_per_second: _Optional[float] = ..., queue_length: _Optional[int] = ..., queue_bytes: _Optional[str] = ...) -> None: ...

class Budget(_message.Message):
    __slots__ = ("per_hour", "per_month")
    PER_HOUR_FIELD_NUMBER: _ClassVar[int]
    PER_MONTH_FIELD_NUMBER: _ClassVar[int]
    per_hour: str
    per_month: str
    def __init__(self, per_hour: _Optional[str] = ..., per_month: _Optional[str] = ...) -> None: ...

class Price(_message.Message):
    __slots__ = ("currency", "micros_per_hour")
    CURRENCY_FIELD_NUMBER: _ClassVar[int]
    MICROS_PER_HOUR_FIELD_NUMBER: _ClassVar[int]
    currency: str
    micros_per_hour: int
    def __init__(self, currency: _Optional[str] = ..., micros_per_hour: _Optional[int] = ...) -> None: ...

class InstanceShape(_message.Message):
    __slots__ = ("name", "cpu_millicores", "memory_bytes", "gpu_millis", "gpu_memory_bytes", "gpu_architecture", "capacity_class", "price")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CPU_MILLICORES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    GPU_MILLIS_FIELD_NUMBER: _ClassVar[int]
    GPU_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    GPU_ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_CLASS_FIELD_NUMBER: _ClassVar[int]
    PRICE_FIELD_NUMBER: _ClassVar[int]
    name: str
    cpu_millicores: int
    memory_bytes: int
    gpu_millis: int
    gpu_memory_bytes: int
    gpu_architecture: str
    capacity_class: CapacityClass
    price: Price
    def __init__(self, name: _Optional[str] = ..., cpu_millicores: _Optional[int] = ..., memory_bytes: _Optional[int] = ..., gpu_millis: _Optional[int] = ..., gpu_memory_bytes: _Optional[int] = ..., gpu_architecture: _Optional[str] = ..., capacity_class: _Optional[_Union[CapacityClass, str]] = ..., price: _Optional[_Union[Price, _Mapping]] = ...) -> None: ...
