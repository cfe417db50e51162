"""The NVIDIA GPUs of this machine, asked of its driver: by NVML, or by nvidia-smi where NVML's package is missing."""

from __future__ import annotations

import importlib
import os
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec
from shutil import which
from typing import Any

from headrace_common.gpu_facts import Gpu, capability_of, visible_gpus

_TIMEOUT_S = 20.0
_QUERY = ("name", "compute_cap", "memory.total", "driver_version", "uuid")
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Gpus:
    """
    Attributes:
        driver: its version; "": there is none that answers.
        missing: why there are no GPUs; "" if there are.
    """

    driver: str = ""
    gpus: tuple[Gpu, ...] = ()
    missing: str = ""


def find_gpus() -> Gpus:
    """Asks the driver, whatever is missing."""
    found = Gpus(missing="there is no NVIDIA driver: neither its library (NVML) nor nvidia-smi answers")
    if find_spec("pynvml") is not None:
        found = _by_nvml(importlib.import_module("pynvml"))
    if not found.driver and which("nvidia-smi"):
        return _by_nvidia_smi()
    return found


def own_gpu(found: Gpus) -> Gpu | None:
    """The GPU that this process uses: the first that CUDA shows it. None: there is none."""
    gpus = visible_gpus(found.gpus, os.environ.get("CUDA_VISIBLE_DEVICES"))
    return gpus[0] if gpus else None


def _by_nvml(nvml: Any) -> Gpus:
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return Gpus(missing=f"NVIDIA's driver does not answer: {error}")
    try:
        driver = _text(nvml.nvmlSystemGetDriverVersion())
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        gpus = tuple(
            Gpu(
                _text(nvml.nvmlDeviceGetName(handle)),
                capability_of(*nvml.nvmlDeviceGetCudaComputeCapability(handle)),
                int(nvml.nvmlDeviceGetMemoryInfo(handle).total),
                _text(nvml.nvmlDeviceGetUUID(handle)),
            )
            for handle in handles
        )
    except nvml.NVMLError as error:
        return Gpus(missing=f"NVIDIA's driver does not tell: {error}")
    finally:
        nvml.nvmlShutdown()
    return Gpus(driver, gpus, "" if gpus else "the driver sees no GPU")


def _by_nvidia_smi() -> Gpus:
    command = ["nvidia-smi", f"--query-gpu={','.join(_QUERY)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(  # noqa: S603 - found by PATH, as people run it
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Gpus(missing=f"nvidia-smi does not answer: {error}")
    if done.returncode:
        return Gpus(missing=f"nvidia-smi: {' '.join((done.stderr or done.stdout).split())}")
    return read_nvidia_smi(done.stdout)


def read_nvidia_smi(text: str) -> Gpus:
    """A line for each GPU: name, compute capability, MiB, driver, UUID."""
    gpus, driver = [], ""
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        major, _, minor = cells[1].partition(".") if len(cells) == len(_QUERY) else ("", "", "")
        if not (major.isdigit() and minor.isdigit() and cells[2].isdigit()):
            return Gpus(missing=f"nvidia-smi answers what cannot be read: {line!r}")
        gpus.append(Gpu(cells[0], capability_of(int(major), int(minor)), int(cells[2]) * _MIB, cells[4]))
        driver = cells[3]
    return Gpus(driver, tuple(gpus), "" if gpus else "the driver sees no GPU")


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
