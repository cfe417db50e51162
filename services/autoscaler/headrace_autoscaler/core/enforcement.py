"""What limits hold an instance to its resources, and how that is said. Text of the kernel's files comes in as text.

Control groups are cgroup v2 (Linux's Documentation/admin-guide/cgroup-v2.rst).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from headrace_autoscaler.domain import Enforcement, Resources

_PERIOD_US = 100_000
_SHORTEST_QUOTA_US = 1_000
"""The kernel refuses less."""


def cgroup_limits(resources: Resources, shared_bytes: int) -> Mapping[str, str]:
    """File name in the control group -> what to write, in this order.

    Args:
        shared_bytes: of the rings that routers share with a runner. The kernel counts a page of shared memory where
            it was touched first, which the tenant did not ask for and is not to pay for.
    """
    return {
        "cpu.max": _cpu_max(resources.cpu_millicores),
        "memory.max": str(resources.memory_bytes + shared_bytes) if resources.memory_bytes else "max",
        # A runner without one of its processes is no use to anybody.
        "memory.oom.group": "1",
    }


def _cpu_max(millicores: int) -> str:
    if not millicores:
        return f"max {_PERIOD_US}"
    return f"{max(_SHORTEST_QUOTA_US, millicores * _PERIOD_US // 1000)} {_PERIOD_US}"


def oom_kills(memory_events: str) -> int:
    """How often the kernel has killed for want of memory, out of memory.events."""
    for line in memory_events.splitlines():
        name, _, count = line.partition(" ")
        if name == "oom_kill" and count.isdigit():
            return int(count)
    return 0


def family(parents: Mapping[int, int], root: int) -> frozenset[int]:
    """A process and all that descend from it. `parents`: pid -> its parent's."""
    members = {root}
    while more := {pid for pid, parent in parents.items() if parent in members} - members:
        members |= more
    return frozenset(members)


@dataclass(frozen=True, slots=True)
class Occupied:
    """Why a group that holds processes cannot be divided. `strangers`: those that are not ours to move."""

    strangers: tuple[int, ...]


def judge_members(members: Collection[int], ours: Collection[int]) -> Occupied | None:
    """A group with processes in it cannot have limited children, so its processes have to move to a child first: which
    is only done to processes of this mesh."""
    strangers = tuple(sorted(set(members) - set(ours)))
    return Occupied(strangers) if strangers else None


def in_cgroup() -> Enforcement:
    return Enforcement(cpu="cgroup", memory="cgroup and watchdog", cpu_in_cgroup=True, memory_in_cgroup=True)


def without_cgroup(reason: str) -> Enforcement:
    return Enforcement(
        cpu=f"threads only, millicores are not enforced on this machine: {reason}", memory="RLIMIT_DATA and watchdog"
    )
