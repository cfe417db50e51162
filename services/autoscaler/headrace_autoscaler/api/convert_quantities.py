"""Quantities and budgets as people write them, to the domain's exact integers and back."""

from __future__ import annotations

from decimal import Decimal

from headrace.v1 import resources_pb2 as pb
from headrace_autoscaler.core.quota.amounts import exact_bytes
from headrace_autoscaler.domain import Limits, Resources
from headrace_common.errors import InvalidArgument
from headrace_common.quantities import check_rate, format_millis, parse_bytes, parse_micros, parse_millis


def resources_of(quantities: pb.Quantities, what: str) -> Resources:
    """What one instance holds; absent means the default.

    Raises:
        InvalidArgument: names the field below `what`.
    """
    for field in ("concurrency", "requests_per_second", "queue_length", "queue_bytes"):
        if quantities.HasField(field):
            raise InvalidArgument(f"{what}.{field}: an instance does not hold it; set limits.{field}")
    limits = limits_of(quantities, pb.Budget(), what)
    for field, amount in (("cpu", limits.cpu_millicores), ("memory", limits.memory_bytes)):
        if amount == 0:
            raise InvalidArgument(f"{what}.{field}: expected more than 0")
    default = Resources()
    return Resources(
        cpu_millicores=_or(limits.cpu_millicores, default.cpu_millicores),
        memory_bytes=_or(limits.memory_bytes, default.memory_bytes),
        gpu_millis=_or(limits.gpu_millis, default.gpu_millis),
        gpu_memory_bytes=_or(limits.gpu_memory_bytes, default.gpu_memory_bytes),
    )


def limits_of(quantities: pb.Quantities, budget: pb.Budget, what: str) -> Limits:
    """A quota; absent means no limit.

    Raises:
        InvalidArgument: names the field below `what`, or the budget's.
    """
    q, b = quantities, budget
    check_rate(q.requests_per_second, f"{what}.requests_per_second")
    return Limits(
        cpu_millicores=parse_millis(q.cpu, f"{what}.cpu") if q.HasField("cpu") else None,
        memory_bytes=parse_bytes(q.memory, f"{what}.memory") if q.HasField("memory") else None,
        gpu_millis=parse_millis(q.gpu, f"{what}.gpu") if q.HasField("gpu") else None,
        gpu_memory_bytes=parse_bytes(q.gpu_memory, f"{what}.gpu_memory") if q.HasField("gpu_memory") else None,
        concurrency=q.concurrency if q.HasField("concurrency") else None,
        requests_per_second=q.requests_per_second if q.HasField("requests_per_second") else None,
        queue_length=q.queue_length if q.HasField("queue_length") else None,
        queue_bytes=parse_bytes(q.queue_bytes, f"{what}.queue_bytes") if q.HasField("queue_bytes") else None,
        budget_micros_per_hour=parse_micros(b.per_hour, "budget.per_hour") if b.HasField("per_hour") else None,
        budget_micros_per_month=parse_micros(b.per_month, "budget.per_month") if b.HasField("per_month") else None,
    )


def quantities_pb(limits: Limits) -> pb.Quantities:
    """The quantities of a quota; its budgets are `budget_pb`'s."""
    return pb.Quantities(
        cpu=None if limits.cpu_millicores is None else format_millis(limits.cpu_millicores),
        memory=None if limits.memory_bytes is None else exact_bytes(limits.memory_bytes),
        gpu=None if limits.gpu_millis is None else format_millis(limits.gpu_millis),
        gpu_memory=None if limits.gpu_memory_bytes is None else exact_bytes(limits.gpu_memory_bytes),
        concurrency=limits.concurrency,
        requests_per_second=limits.requests_per_second,
        queue_length=limits.queue_length,
        queue_bytes=None if limits.queue_bytes is None else exact_bytes(limits.queue_bytes),
    )


def resources_pb(resources: Resources) -> pb.Quantities:
    return quantities_pb(
        Limits(
            cpu_millicores=resources.cpu_millicores,
            memory_bytes=resources.memory_bytes,
            gpu_millis=resources.gpu_millis or None,
            gpu_memory_bytes=resources.gpu_memory_bytes or None,
        )
    )


def budget_pb(limits: Limits) -> pb.Budget | None:
    """None: no budget."""
    hour, month = limits.budget_micros_per_hour, limits.budget_micros_per_month
    if hour is None and month is None:
        return None
    return pb.Budget(
        per_hour=None if hour is None else money_text(hour), per_month=None if month is None else money_text(month)
    )


def shape_pb(resources: Resources) -> pb.InstanceShape:
    return pb.InstanceShape(
        cpu_millicores=resources.cpu_millicores,
        memory_bytes=resources.memory_bytes,
        gpu_millis=resources.gpu_millis,
        gpu_memory_bytes=resources.gpu_memory_bytes,
    )


def money_text(micros: int) -> str:
    return f"{Decimal(micros) / 10**6:f}"


def _or(value: int | None, default: int) -> int:
    return default if value is None else value
