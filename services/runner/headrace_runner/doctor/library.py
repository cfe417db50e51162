"""`python -m headrace_runner.doctor.library NAME`: loads one library and prints what it tells, as JSON.

In a process of its own: a library that was built for another machine may end the process that loads it.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

from headrace_common.errors import HeadraceError
from headrace_runner.compile.builder import rtx_targets
from headrace_runner.core.diagnosis import Finding
from headrace_runner.engines import trt_library

_TIMEOUT_S = 120.0
"""The first import of a large library reads gigabytes."""
_MAX_REASON = 300


def examine(name: str) -> Finding:
    """Loads it in another process."""
    if not _installed(name):
        return Finding(False)
    command = [sys.executable, "-m", "headrace_runner.doctor.library", name]
    try:
        done = subprocess.run(  # noqa: S603 - the program is ours
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return Finding(True, f"it was still loading after {_TIMEOUT_S:.0f} s")
    if done.returncode < 0:
        return Finding(True, f"it ended its process by signal {-done.returncode}")
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        return Finding(True, (lines[-1] if lines else f"exit status {done.returncode}")[:_MAX_REASON])
    # A library may print as it loads; ours is the last line.
    return Finding(True, facts=json.loads(done.stdout.splitlines()[-1]))


def _installed(name: str) -> bool:
    if name in trt_library.ENGINES:
        return trt_library.installed(name) is not None
    return find_spec(_MODULES.get(name, name)) is not None


def _onnxruntime() -> Mapping[str, Any]:
    ort = importlib.import_module("onnxruntime")
    return {"version": ort.__version__, "providers": ort.get_available_providers()}


def _torch() -> Mapping[str, Any]:
    torch = importlib.import_module("torch")
    return {"version": torch.__version__, "cuda": torch.version.cuda or "", "cuda_works": torch.cuda.is_available()}


def _tensorrt() -> Mapping[str, Any]:
    return {"version": trt_library.load(trt_library.TENSORRT).__version__}


def _tensorrt_rtx() -> Mapping[str, Any]:
    trt = trt_library.load(trt_library.TENSORRT_RTX)
    return {"version": trt.__version__, "targets": rtx_targets(trt)}


def _envoy() -> Mapping[str, Any]:
    """What Envoy needs to load this Python, which the router's process is given."""
    return {"environment": dict(importlib.import_module("pyvoy._server").get_envoy_environ())}


_MODULES = {"envoy": "pyvoy"}
_EXAMINED: Mapping[str, Callable[[], Mapping[str, Any]]] = {
    "onnxruntime": _onnxruntime,
    "torch": _torch,
    "tensorrt": _tensorrt,
    "tensorrt-rtx": _tensorrt_rtx,
    "envoy": _envoy,
}


def main() -> int:
    try:
        facts = _EXAMINED[sys.argv[1]]()
    except HeadraceError as error:
        sys.stderr.write(error.message + "\n")
        return 1
    print(json.dumps(facts))  # noqa: T201 - read by `examine`
    return 0


if __name__ == "__main__":
    sys.exit(main())
