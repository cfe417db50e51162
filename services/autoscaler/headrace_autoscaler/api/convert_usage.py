"""Rows of the books, and how budgets stand."""

from __future__ import annotations

from headrace.v1 import resources_pb2, tenants_pb2, usage_pb2
from headrace_autoscaler.api.convert_time import timestamp
from headrace_autoscaler.core.budgets import BudgetState, Period, Standing
from headrace_autoscaler.domain import UsageRow

_CLASSES = {
    "on_demand": resources_pb2.CAPACITY_CLASS_ON_DEMAND,
    "spot": resources_pb2.CAPACITY_CLASS_SPOT,
    "reserved": resources_pb2.CAPACITY_CLASS_RESERVED,
}
_PERIODS = {Period.HOUR: tenants_pb2.BUDGET_PERIOD_HOUR, Period.MONTH: tenants_pb2.BUDGET_PERIOD_MONTH}
_STATUSES = {
    BudgetState.OK: tenants_pb2.BUDGET_STATUS_OK,
    BudgetState.WARNED: tenants_pb2.BUDGET_STATUS_WARNED,
    BudgetState.SPENT: tenants_pb2.BUDGET_STATUS_SPENT,
}


def standing_pb(standing: Standing) -> tenants_pb2.BudgetStanding:
    budget = standing.budget
    return tenants_pb2.BudgetStanding(
        tenant=budget.tenant,
        model=budget.model,
        period=_PERIODS[budget.period],
        budget_micros=budget.micros,
        spent_micros=standing.spent_micros,
        reserved_micros=standing.reserved_micros,
        status=_STATUSES[standing.state],
        returns_at=timestamp(standing.returns_at),
        currency=standing.currency,
    )


def usage_pb(row: UsageRow, currency: str) -> usage_pb2.UsageRow:
    key, usage = row.key, row.usage
    return usage_pb2.UsageRow(
        hour=timestamp(key.hour),
        tenant=key.tenant,
        model=key.model,
        shape=key.shape,
        capacity_class=_CLASSES.get(key.capacity_class, resources_pb2.CAPACITY_CLASS_UNSPECIFIED),
        instance_seconds=usage.instance_seconds,
        busy_seconds=usage.busy_seconds,
        requests=usage.requests,
        cold_starts=usage.cold_starts,
        cost_micros=usage.cost_micros,
        currency=currency,
        network_bytes=usage.network_bytes,
        storage_byte_seconds=usage.storage_byte_seconds,
        cache_byte_seconds=usage.cache_byte_seconds,
        network_micros=usage.network_micros,
        storage_micros=usage.storage_micros,
        cache_micros=usage.cache_micros,
        management_micros=usage.management_micros,
    )
