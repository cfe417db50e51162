import datetime

from google.api import annotations_pb2 as _annotations_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from headrace.v1 import resources_pb2 as _resources_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class BudgetAction(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BUDGET_ACTION_UNSPECIFIED: _ClassVar[BudgetAction]
    BUDGET_ACTION_REFUSE: _ClassVar[BudgetAction]
    BUDGET_ACTION_QUEUE: _ClassVar[BudgetAction]

class BudgetPeriod(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BUDGET_PERIOD_UNSPECIFIED: _ClassVar[BudgetPeriod]
    BUDGET_PERIOD_HOUR: _ClassVar[BudgetPeriod]
    BUDGET_PERIOD_MONTH: _ClassVar[BudgetPeriod]

class BudgetStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BUDGET_STATUS_UNSPECIFIED: _ClassVar[BudgetStatus]
    BUDGET_STATUS_OK: _ClassVar[BudgetStatus]
    BUDGET_STATUS_WARNED: _ClassVar[BudgetStatus]
    BUDGET_STATUS_SPENT: _ClassVar[BudgetStatus]
BUDGET_ACTION_UNSPECIFIED: BudgetAction
BUDGET_ACTION_REFUSE: BudgetAction
BUDGET_ACTION_QUEUE: BudgetAction
BUDGET_PERIOD_UNSPECIFIED: BudgetPeriod
BUDGET_PERIOD_HOUR: BudgetPeriod
BUDGET_PERIOD_MONTH: BudgetPeriod
BUDGET_STATUS_UNSPECIFIED: BudgetStatus
BUDGET_STATUS_OK: BudgetStatus
BUDGET_STATUS_WARNED: BudgetStatus
BUDGET_STATUS_SPENT: BudgetStatus

class SetTenantRequest(_message.Message):
    __slots__ = ("tenant",)
    TENANT_FIELD_NUMBER: _ClassVar[int]
    tenant: TenantSpec
    def __init__(self, tenant: _Optional[_Union[TenantSpec, _Mapping]] = ...) -> None: ...

class SetTenantResponse(_message.Message):
    __slots__ = ("tenant",)
    TENANT_FIELD_NUMBER: _ClassVar[int]
    tenant: Tenant
    def __init__(self, tenant: _Optional[_Union[Tenant, _Mapping]] = ...) -> None: ...

class GetTenantRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetTenantResponse(_message.Message):
    __slots__ = ("tenant",)
    TENANT_FIELD_NUMBER: _ClassVar[int]
    tenant: Tenant
    def __init__(self, tenant: _Optional[_Union[Tenant, _Mapping]] = ...) -> None: ...

class ListTenantsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListTenantsResponse(_message.Message):
    __slots__ = ("tenants",)
    TENANTS_FIELD_NUMBER: _ClassVar[int]
    tenants: _containers.RepeatedCompositeFieldContainer[Tenant]
    def __init__(self, tenants: _Optional[_Iterable[_Union[Tenant, _Mapping]]] = ...) -> None: ...

class DeleteTenantRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class DeleteTenantResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class TenantSpec(_message.Message):
    __slots__ = ("name", "nominal", "borrowing_limit", "lending_limit", "budget", "cohort", "weight", "budget_action")
    NAME_FIELD_NUMBER: _ClassVar[int]
    NOMINAL_FIELD_NUMBER: _ClassVar[int]
    BORROWING_LIMIT_FIELD_NUMBER: _ClassVar[int]
    LENDING_LIMIT_FIELD_NUMBER: _ClassVar[int]
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    COHORT_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    BUDGET_ACTION_FIELD_NUMBER: _ClassVar[int]
    name: str
    nominal: _resources_pb2.Quantities
    borrowing_limit: _resources_pb2.Quantities
    lending_limit: _resources_pb2.Quantities
    budget: _resources_pb2.Budget
    cohort: str
    weight: float
    budget_action: BudgetAction
    def __init__(self, name: _Optional[str] = ..., nominal: _Optional[_Union[_resources_pb2.Quantities, _Mapping]] = ..., borrowing_limit: _Optional[_Union[_resources_pb2.Quantities, _Mapping]] = ..., lending_limit: _Optional[_Union[_resources_pb2.Quantities, _Mapping]] = ..., budget: _Optional[_Union[_resources_pb2.Budget, _Mapping]] = ..., cohort: _Optional[str] = ..., weight: _Optional[float] = ..., budget_action: _Optional[_Union[BudgetAction, str]] = ...) -> None: ...

class Tenant(_message.Message):
    __slots__ = ("name", "spec", "created_at", "models", "budgets")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    BUDGETS_FIELD_NUMBER: _ClassVar[int]
    name: str
    spec: TenantSpec
    created_at: _timestamp_pb2.Timestamp
    models: _containers.RepeatedScalarFieldContainer[str]
    budgets: _containers.RepeatedCompositeFieldContainer[BudgetStanding]
    def __init__(self, name: _Optional[str] = ..., spec: _Optional[_Union[TenantSpec, _Mapping]] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., models: _Optional[_Iterable[str]] = ..., budgets: _Optional[_Iterable[_Union[BudgetStanding, _Mapping]]] = ...) -> None: ...

class BudgetStanding(_message.Message):
    __slots__ = ("tenant", "model", "period", "budget_micros", "spent_micros", "reserved_micros", "status", "returns_at", "currency")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PERIOD_FIELD_NUMBER: _ClassVar[int]
    BUDGET_MICROS_FIELD_NUMBER: _ClassVar[int]
    SPENT_MICROS_FIELD_NUMBER: _ClassVar[int]
    RESERVED_MICROS_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    RETURNS_AT_FIELD_NUMBER: _ClassVar[int]
    CURRENCY_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    model: str
    period: BudgetPeriod
    budget_micros: int
    spent_micros: int
    reserved_micros: int
    status: BudgetStatus
    returns_at: _timestamp_pb2.Timestamp
    currency: str
    def __init__(self, tenant: _Optional[str] = ..., model: _Optional[str] = ..., period: _Optional[_Union[BudgetPeriod, str]] = ..., budget_micros: _Optional[int] = ..., spent_micros: _Optional[int] = ..., reserved_micros: _Optional[int] = ..., status: _Optional[_Union[BudgetStatus, str]] = ..., returns_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., currency: _Optional[str] = ...) -> None: ...
