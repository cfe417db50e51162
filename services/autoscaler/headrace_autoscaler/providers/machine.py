"""What this machine, or the container that we run in, has."""

from __future__ import annotations

import os
import time
from pathlib import Path

from headrace_autoscaler.domain import Limits
from headrace_common.config import AutoscalerConfig

_START_FIELD = 22 - 3
"""Counted from what follows the command's name, which may hold anything."""
_ENDED = ("Z", "X")
"""States of a process that waits for its parent to take note."""
_CGROUP = Path("/sys/fs/cgroup")


def capacity(config: AutoscalerConfig) -> Limits:
    """What may be promised to instances. GPUs are not offered by this provider."""
    return Limits(
        cpu_millicores=int(cpu_millicores() * config.cpu_overcommit),
        memory_bytes=int(memory_bytes() * config.memory_share),
        gpu_millis=0,
        gpu_memory_bytes=0,
    )


def cpu_millicores() -> int:
    """CPUs that we may run on, or the control group's quota where that is less."""
    usable = len(os.sched_getaffinity(0)) * 1000
    quota, _, period = _read("cpu.max").partition(" ")
    if quota.isdigit() and period.isdigit() and int(period) > 0:
        return min(usable, int(quota) * 1000 // int(period))
    return usable


def memory_bytes() -> int:
    """Physical memory, or the control group's limit where that is less."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _read("memory.max")
    return min(physical, int(limit)) if limit.isdigit() else physical


def process_started_at(pid: int) -> float | None:
    """When a process began, seconds since the epoch, to a hundredth (proc_pid_stat(5), field 22); None: it is gone,
    though nobody may have taken note of its end."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    if fields[0] in _ENDED:
        return None
    since_boot_s = int(fields[_START_FIELD]) / os.sysconf("SC_CLK_TCK")
    return time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - since_boot_s)


def _read(name: str) -> str:
    try:
        return (_CGROUP / name).read_text().strip()
    except OSError:
        return ""
