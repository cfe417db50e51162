"""What instances hold, and what tenants and models may use."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Resources:
    """What one instance holds."""

    cpu_millicores: int = 1000
    memory_bytes: int = 1 << 30
    gpu_millis: int = 0
    gpu_memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """What a tenant or a model may use. None: no limit."""

    cpu_millicores: int | None = None
    memory_bytes: int | None = None
    gpu_millis: int | None = None
    gpu_memory_bytes: int | None = None
    concurrency: int | None = None
    requests_per_second: float | None = None
    queue_length: int | None = None
    queue_bytes: int | None = None
    budget_micros_per_hour: int | None = None
    budget_micros_per_month: int | None = None


NO_LIMITS = Limits()
DEFAULT_RESOURCES = Resources()
