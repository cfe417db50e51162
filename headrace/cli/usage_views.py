"""The books' rows as the command line shows them: each, by the hour, and in all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headrace.cli.views import moment, word
from headrace.v1 import resources_pb2, usage_pb2
from headrace_common.quantities import format_micros

_TOTAL = "(total)"
_SUMMED = (
    "instance_seconds",
    "busy_seconds",
    "requests",
    "cold_starts",
    "network_bytes",
    "storage_byte_seconds",
    "cache_byte_seconds",
    "network_micros",
    "storage_micros",
    "cache_micros",
    "management_micros",
    "cost_micros",
)


def usage_view(row: usage_pb2.UsageRow) -> dict[str, Any]:
    """One row of the books; cost is decimal text."""
    return {
        "hour": moment(row.hour),
        "tenant": row.tenant,
        "model": row.model,
        "shape": row.shape,
        "class": word(resources_pb2.CapacityClass.Name(row.capacity_class), "CAPACITY_CLASS_")
        if row.capacity_class
        else "",
        "instance_seconds": round(row.instance_seconds, 3),
        "busy_seconds": round(row.busy_seconds, 3),
        "requests": row.requests,
        "cold_starts": row.cold_starts,
        "network_bytes": row.network_bytes,
        "storage_byte_seconds": row.storage_byte_seconds,
        "cache_byte_seconds": row.cache_byte_seconds,
        **{f"{part}_cost": format_micros(micros) for part, micros in _parts(row).items()},
        "cost": format_micros(row.cost_micros),
        "currency": row.currency,
    }


def usage_by_hour(rows: Sequence[usage_pb2.UsageRow]) -> list[dict[str, Any]]:
    """One row for each hour, tenant and model, whatever the shapes and classes."""
    sums: dict[tuple[object, ...], usage_pb2.UsageRow] = {}
    for row in rows:
        key = (row.hour.seconds, row.tenant, row.model, row.currency)
        empty = usage_pb2.UsageRow(hour=row.hour, tenant=row.tenant, model=row.model, currency=row.currency)
        _add(sums.setdefault(key, empty), row)
    return [usage_view(each) for each in sums.values()]


def usage_totals(rows: Sequence[usage_pb2.UsageRow]) -> list[dict[str, Any]]:
    """One row over all hours for each tenant, model, shape and class, and one of everything for each currency."""
    sums: dict[tuple[object, ...], usage_pb2.UsageRow] = {}
    for row in rows:
        one = (row.tenant, row.model, row.shape, row.capacity_class, row.currency)
        for key in (one, (_TOTAL, row.currency)):
            total = sums.setdefault(key, usage_pb2.UsageRow(tenant=_TOTAL, currency=row.currency))
            if key is one:
                total.tenant, total.model, total.shape = row.tenant, row.model, row.shape
                total.capacity_class = row.capacity_class
            _add(total, row)
    ordered = sorted(sums, key=lambda key: (key[0] == _TOTAL, *map(str, key)))
    return [usage_view(sums[key]) for key in ordered]


def _add(total: usage_pb2.UsageRow, row: usage_pb2.UsageRow) -> None:
    for name in _SUMMED:
        setattr(total, name, getattr(total, name) + getattr(row, name))


def _parts(row: usage_pb2.UsageRow) -> dict[str, int]:
    """What a row's cost is made of."""
    others = {
        "network": row.network_micros,
        "storage": row.storage_micros,
        "cache": row.cache_micros,
        "management": row.management_micros,
    }
    return {"instance": row.cost_micros - sum(others.values()), **others}
