"""What this machine, or the container that we run in, has."""

from __future__ import annotations

import os
import time
from pathlib import Path

from headrace_autoscaler.domain import Limits
from headrace_common.config import AutoscalerConfig
from headrace_common.gpu_facts import Gpu
from headrace_common.machine import cpu_millicores, memory_bytes

_START_FIELD = 22 - 3
"""Counted from what follows the command's name, which may hold anything."""
_ENDED = ("Z", "X")
"""States of a process that waits for its parent to take note."""


def capacity(config: AutoscalerConfig, gpu: Gpu | None = None) -> Limits:
    """What may be promised to instances.

    Args:
        gpu: the one that runners use: the first that CUDA shows to this process, and so to theirs. A machine's others
            are for other meshes, each with its CUDA_VISIBLE_DEVICES.
    """
    return Limits(
        cpu_millicores=int(cpu_millicores() * config.cpu_overcommit),
        memory_bytes=int(memory_bytes() * config.memory_share),
        gpu_millis=1000 if gpu is not None else 0,
        gpu_memory_bytes=gpu.memory_bytes if gpu is not None else 0,
    )


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
