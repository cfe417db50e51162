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
_LACKING = {"gpu_millis": "GPU", "gpu_memory_bytes": "GPU memory"}
"""What a machine may have nothing of."""
_SETTINGS = {"cpu_millicores": "autoscaler.cpu_overcommit", "memory_bytes": "autoscaler.memory_share"}
"""What decides how much of the machine is promised."""


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


def tenant_refusal(tenant: str, model: str, short: Shortage) -> str:
    return (
        f"tenant '{tenant}' may use {amount(short.dimension, short.limit)} and uses "
        f"{short_amount(short.dimension, short.used)}; model '{model}' needs "
        f"{short_amount(short.dimension, short.needed)}: {_raise_tenant(tenant, short)}"
    )


def _raise_tenant(tenant: str, short: Shortage) -> str:
    """No command to copy: it would have to repeat the tenant's other limits, which a set replaces."""
    return (
        f"raise the tenant's {short.flag.removeprefix('--')} (`headrace tenant describe {tenant}` shows all its "
        "limits; `tenant set` replaces them)"
    )


def model_refusal(model: str, short: Shortage) -> str:
    return (
        f"model '{model}' may use {amount(short.dimension, short.limit)} and uses "
        f"{short_amount(short.dimension, short.used)}; an instance needs "
        f"{short_amount(short.dimension, short.needed)}: raise the model's limits"
    )


def machine_refusal(model: str, short: Shortage) -> str:
    if _is_lacking(short):
        return _lack(model, short)
    return (
        f"this machine has {amount(short.dimension, short.limit)} to promise and "
        f"{short_amount(short.dimension, short.used)} are taken; model '{model}' needs "
        f"{short_amount(short.dimension, short.needed)}: deploy it with a smaller {short.flag}, delete a "
        f"model{_or_raise(short.dimension)}"
    )


def never_fits(model: str, tenant: str, needed: Resources, own: Limits, nominal: Limits, machine: Limits) -> str:
    """Why a single instance could not run even if nothing else did; empty: it could."""
    if short := shortage(machine, NOTHING, needed):
        if _is_lacking(short):
            return _lack(model, short)
        return (
            f"this machine has {amount(short.dimension, short.limit)} to promise and an instance of model '{model}' "
            f"asks for {short_amount(short.dimension, short.needed)}: deploy it with a smaller {short.flag}"
            f"{_or_raise(short.dimension)}"
        )
    if short := shortage(nominal, NOTHING, needed):
        return (
            f"tenant '{tenant}' may use {amount(short.dimension, short.limit)} and an instance of model '{model}' "
            f"asks for {short_amount(short.dimension, short.needed)}: deploy it with a smaller {short.flag}, or "
            f"{_raise_tenant(tenant, short)}"
        )
    if short := shortage(own, NOTHING, needed):
        return (
            f"model '{model}' may use {amount(short.dimension, short.limit)} by its own limits and an instance of it "
            f"asks for {short_amount(short.dimension, short.needed)}: deploy it with a smaller {short.flag}, or "
            "raise the model's limits"
        )
    return ""


def _is_lacking(short: Shortage) -> bool:
    return short.limit == 0 and short.dimension in _LACKING


def _lack(model: str, short: Shortage) -> str:
    return (
        f"this machine has no {_LACKING[short.dimension]} to promise and model '{model}' asks for "
        f"{short_amount(short.dimension, short.needed)}: deploy it without {short.flag}"
    )


def _or_raise(dimension: str) -> str:
    setting = _SETTINGS.get(dimension)
    return f", or raise {setting}" if setting else ""


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

    def remove(self, tenant: str, model: str, resources: Resources) -> None:
        self.add(tenant, model, subtract(NOTHING, resources))
