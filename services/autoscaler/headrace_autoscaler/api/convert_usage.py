"""Rows of the books."""

from __future__ import annotations

from headrace.v1 import resources_pb2, usage_pb2
from headrace_autoscaler.api.convert_time import timestamp
from headrace_autoscaler.domain import UsageRow

_CLASSES = {
    "on_demand": resources_pb2.CAPACITY_CLASS_ON_DEMAND,
    "spot": resources_pb2.CAPACITY_CLASS_SPOT,
    "reserved": resources_pb2.CAPACITY_CLASS_RESERVED,
}


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
    )
