"""How much GPU memory this process holds, by NVML: asked by a thread, because NVML's calls may take milliseconds."""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from headrace_common.gpu_facts import Gpu
from headrace_runner.engines.base import GpuMemory

PERIOD_S = 1.0
Reader = Callable[[], GpuMemory | None]


class GpuWatch:
    """Reads once now, then once a period; `latest` costs nothing.

    Args:
        read: must not raise.
    """

    def __init__(self, read: Reader, period_s: float = PERIOD_S) -> None:
        self._read, self._period_s = read, period_s
        self._closed = threading.Event()
        self.latest = read()
        threading.Thread(target=self._look, name="gpu-memory", daemon=True).start()

    def close(self) -> None:
        self._closed.set()

    def _look(self) -> None:
        while not self._closed.wait(self._period_s):
            self.latest = self._read()


def watch_gpu(gpu: Gpu | None, taken: Callable[[], int]) -> GpuWatch | None:
    """None: there is no NVML, or no GPU.

    Args:
        taken: bytes that the model took when it was loaded, for where the driver doesn't tell by process.
    """
    if gpu is None or not gpu.uuid or find_spec("pynvml") is None:
        return None
    nvml = importlib.import_module("pynvml")
    return GpuWatch(lambda: read_memory(nvml, gpu.uuid, os.getpid(), taken()))


def read_memory(nvml: Any, uuid: str, pid: int, taken: int) -> GpuMemory | None:
    """What a process holds of a GPU; None: the driver does not answer.

    nvmlDeviceGetComputeRunningProcesses knows processes by the numbers of the host, so that in a container with numbers
    of its own this one is not found; and it may know no sizes (Windows, MIG). There, what the load took is told.
    """
    try:
        nvml.nvmlInit()
        try:
            handle = nvml.nvmlDeviceGetHandleByUUID(uuid)
            total = int(nvml.nvmlDeviceGetMemoryInfo(handle).total)
            used = [each.usedGpuMemory for each in nvml.nvmlDeviceGetComputeRunningProcesses(handle) if each.pid == pid]
        finally:
            nvml.nvmlShutdown()
    except nvml.NVMLError:
        return None
    return GpuMemory(int(used[0]) if used and used[0] is not None else taken, total)
