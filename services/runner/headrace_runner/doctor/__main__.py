"""`python -m headrace_runner.doctor [--config FILE]`: prints what this machine can run, as JSON.

Exit status: 0; 1 where something that is configured cannot work; 2 where the configuration cannot be read.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from headrace_common.config import MeshConfig, load_mesh_config
from headrace_common.control_groups import own_directory, why_not_divisible
from headrace_common.errors import InvalidArgument
from headrace_common.gpu_facts import Gpu
from headrace_common.gpus import Gpus, find_gpus, own_gpu
from headrace_common.machine import cpu_millicores, memory_bytes
from headrace_runner.core.diagnosis import EXTRAS, engine_problems, engine_reports, pip
from headrace_runner.doctor.configured import PACKAGES, mesh_problems
from headrace_runner.doctor.library import examine
from headrace_runner.engines.registry import SERVED
from headrace_runner.engines.trt_library import this_platform

_CPUINFO = Path("/proc/cpuinfo")


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m headrace_runner.doctor", description=__doc__)
    parser.add_argument("--config", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    try:
        mesh = load_mesh_config(options.config) if options.config else MeshConfig()
    except InvalidArgument as error:
        sys.stderr.write(f"headrace: {error.message}\n")
        return 2
    report = diagnose(mesh)
    print(json.dumps(report, indent=2))  # noqa: T201 - a program for people
    return 1 if report["problems"] else 0


def diagnose(mesh: MeshConfig) -> dict[str, Any]:
    """Looks at this machine."""
    # Each loads in a process of its own.
    with ThreadPoolExecutor() as pool:
        gpus_found = pool.submit(find_gpus)
        findings = dict(zip([*EXTRAS, "envoy"], pool.map(examine, [*EXTRAS, "envoy"]), strict=True))
        gpus = gpus_found.result()
    engines = engine_reports(findings, gpus.gpus, gpus.missing, SERVED)
    problems = [*engine_problems(engines), *mesh_problems(mesh, findings["envoy"])]
    return {
        "headrace": _version("headrace"),
        "machine": _machine(),
        "gpu": _gpus(gpus),
        "engines": [asdict(engine) for engine in engines],
        "packages": [_package(name) for name in PACKAGES],
        "problems": [asdict(problem) for problem in problems],
    }


def _machine() -> dict[str, Any]:
    return {
        "platform": this_platform(),
        "python": platform.python_version(),
        "cpu": _cpu_model(),
        "cpu_millicores": cpu_millicores(),
        "memory_bytes": memory_bytes(),
        "control_groups": _control_groups(),
    }


def _cpu_model() -> str:
    try:
        lines = _CPUINFO.read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _control_groups() -> dict[str, str]:
    """Whether runners can be held to their resources by the kernel."""
    try:
        group = own_directory()
        reason = why_not_divisible(group) if group else "there are no control groups v2"
    except OSError as error:
        group, reason = None, f"{error.filename}: {error.strerror}"
    return {"group": str(group or ""), "missing": reason}


def _gpus(found: Gpus) -> dict[str, Any]:
    own = own_gpu(found)
    gpus = [_gpu(gpu, used=gpu == own) for gpu in found.gpus]
    missing = found.missing or ("" if own else "CUDA_VISIBLE_DEVICES shows none of this machine's GPUs")
    return {"driver": found.driver, "gpus": gpus, "missing": missing}


def _gpu(gpu: Gpu, *, used: bool) -> dict[str, Any]:
    """`used`: runners started from here have it."""
    return {"name": gpu.name, "target": gpu.target, "memory_bytes": gpu.memory_bytes, "uuid": gpu.uuid, "used": used}


def _package(name: str) -> dict[str, str]:
    extra, purpose = PACKAGES[name]
    version = _version(name)
    return {"name": name, "version": version, "for": purpose, "install": "" if version else pip(extra)}


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


if __name__ == "__main__":
    sys.exit(main())
