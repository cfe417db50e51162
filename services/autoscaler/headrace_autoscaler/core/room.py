"""What is taken and what is left, of the machine and of quotas. Amounts are exact integers."""

from __future__ import annotations

from dataclasses import dataclass

from headrace_autoscaler.domain import Limits, Resources
from headrace_common.quantities import format_bytes, format_millis

NOTHING = Resources(0, 0, 0, 0)
DIMENSIONS = ("cpu_millicores", "memory_bytes", "gpu_millis", "gpu_memory_bytes")
_FLAGS = {
    "cpu_millicores": "--cpu",
    "memory_bytes": "--memory",
    "gpu_millis": "--gpu",
    "gpu_memory_bytes": "--gpu-memory",
}


def add(left: Resources, right: Resources) -> Resources:
    return Resources(
        left.cpu_millicores + right.cpu_millicores,
        left.memory_bytes + right.memory_bytes,
        left.gpu_millis + right.gpu_millis,
        left.gpu_memory_bytes + right.gpu_memory_bytes,
    )


def subtract(left: Resources, right: Resources) -> Resources:
    return Resources(
        left.cpu_millicores - right.cpu_millicores,
        left.memory_bytes - right.memory_bytes,
        left.gpu_millis - right.gpu_millis,
        left.gpu_memory_bytes - right.gpu_memory_bytes,
    )


@dataclass(frozen=True, slots=True)
class Shortage:
    """The first dimension in which something does not fit."""

    dimension: str
    limit: int
    used: int
    needed: int

    @property
    def flag(self) -> str:
        return _FLAGS[self.dimension]


def shortage(limits: Limits, used: Resources, needed: Resources) -> Shortage | None:
    """What stands against `needed` more under these limits; None: it fits."""
    for dimension in DIMENSIONS:
        limit = getattr(limits, dimension)
        need = getattr(needed, dimension)
        taken = getattr(used, dimension)
        if limit is not None and need > 0 and taken + need > limit:
            return Shortage(dimension, limit, taken, need)
    return None


def amount(dimension: str, value: int) -> str:
    """With its unit: "2 CPUs", "1Gi of memory"."""
    if dimension == "cpu_millicores":
        return f"{format_millis(value)} CPU{'' if value == 1000 else 's'}"
    if dimension == "gpu_millis":
        return f"{format_millis(value)} GPU{'' if value == 1000 else 's'}"
    return f"{format_bytes(value)} of {'memory' if dimension == 'memory_bytes' else 'GPU memory'}"


def flag_value(dimension: str, value: int) -> str:
    """As the command line takes it; exact."""
    return format_millis(value) if dimension in ("cpu_millicores", "gpu_millis") else str(value)


def tenant_refusal(tenant: str, model: str, short: Shortage) -> str:
    raised = flag_value(short.dimension, short.used + short.needed)
    return (
        f"tenant '{tenant}' may use {amount(short.dimension, short.limit)} and uses "
        f"{short_amount(short.dimension, short.used)}; model '{model}' needs "
        f"{short_amount(short.dimension, short.needed)}: raise it with "
        f"`headrace tenant set {tenant} {short.flag} {raised}`"
    )


def model_refusal(model: str, short: Shortage) -> str:
    return (
        f"model '{model}' may use {amount(short.dimension, short.limit)} and uses "
        f"{short_amount(short.dimension, short.used)}; an instance needs "
        f"{short_amount(short.dimension, short.needed)}: raise the model's limits"
    )


def machine_refusal(model: str, short: Shortage) -> str:
    return (
        f"this machine has {amount(short.dimension, short.limit)} to promise and "
        f"{short_amount(short.dimension, short.used)} are taken; model '{model}' needs "
        f"{short_amount(short.dimension, short.needed)}: deploy it with a smaller {short.flag}, delete a "
        "model, or raise autoscaler.cpu_overcommit or autoscaler.memory_share"
    )


def short_amount(dimension: str, value: int) -> str:
    return format_millis(value) if dimension in ("cpu_millicores", "gpu_millis") else format_bytes(value)


class Usage:
    """Sums of what is held: in all, by tenant, by model."""

    def __init__(self) -> None:
        self.total = NOTHING
        self.tenants: dict[str, Resources] = {}
        self.models: dict[str, Resources] = {}

    def add(self, tenant: str, model: str, resources: Resources) -> None:
        self.total = add(self.total, resources)
        self.tenants[tenant] = add(self.tenants.get(tenant, NOTHING), resources)
        self.models[model] = add(self.models.get(model, NOTHING), resources)
