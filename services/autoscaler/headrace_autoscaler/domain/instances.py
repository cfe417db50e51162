"""A runner with a model, and what holds it to its resources."""

from __future__ import annotations

from dataclasses import dataclass

from headrace_autoscaler.domain.quantities import Resources


@dataclass(frozen=True, slots=True)
class Enforcement:
    """What holds an instance to its resources, as people read it, and whether the kernel counts.

    Attributes:
        cpu: "cgroup", or "threads only, ..." with the reason.
        memory: "cgroup and watchdog" or "RLIMIT_DATA and watchdog".
    """

    cpu: str = ""
    memory: str = ""
    cpu_in_cgroup: bool = False
    memory_in_cgroup: bool = False


NOT_ENFORCED = Enforcement()


@dataclass(frozen=True, slots=True)
class InstanceView:
    """An instance as `describe` shows it."""

    id: str
    model: str
    revision: int
    version: str
    state: str
    resources: Resources
    started_at: float
    pid: int = 0
    resident_bytes: int = 0
    requests: int = 0
    private_bytes: int = 0
    enforcement: Enforcement = NOT_ENFORCED
    profile_us: tuple[tuple[int, int], ...] = ()
