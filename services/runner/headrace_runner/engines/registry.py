"""The engines there are, by name. Each is imported only where it can be."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from headrace_common.errors import InvalidArgument
from headrace_common.logs import get_logger
from headrace_runner.engines import trt_library
from headrace_runner.engines.base import Engine
from headrace_runner.process import fill_heap

_ENGINES = {
    "onnxruntime": ("headrace_runner.engines.ort", "OnnxRuntimeEngine"),
    "tensorrt": ("headrace_runner.engines.trt", "TensorRTEngine"),
    "tensorrt-rtx": ("headrace_runner.engines.trt", "TensorRTRtxEngine"),
    "torch": ("headrace_runner.engines.torch_engine", "TorchEngine"),
    "fake": ("headrace_runner.engines.fake", "FakeEngine"),
}
_HINTS = {
    "fake": "; runner.allow_fake_engine allows it",
    "torch": "; pip install 'headrace[torch]' where runners run",
}
_FOR_GPUS = frozenset({"tensorrt", "tensorrt-rtx"})
_DEVICES = ("/dev/nvidiactl", "/dev/dxg")
"""Of NVIDIA's driver, on Linux and in WSL."""
SERVED = frozenset(_ENGINES)
"""Engines that a runner has where their libraries are installed."""


def import_engines(allow_fake: bool) -> Mapping[str, Engine]:
    """Imports every engine whose libraries are installed, so that a load pays no import."""
    engines: dict[str, Engine] = {}
    for name, (module, kind) in _ENGINES.items():
        if (name == "fake" and not allow_fake) or not _can_have(name):
            continue
        try:
            engine: Engine = getattr(importlib.import_module(module), kind)()
        except ImportError as error:
            get_logger().warning("engine_unavailable", engine=name, reason=str(error))
            continue
        engines[name] = engine
    return engines


def prepare(engines: Mapping[str, Engine], preload_torch: bool = False) -> None:
    """On the thread that will load: the heap is its own. An engine that fails here says why when it loads.

    Args:
        preload_torch: torch is large, and prepared only for who asks for it.
    """
    fill_heap()
    for name, engine in engines.items():
        if name == "torch" and not preload_torch:
            continue
        try:
            engine.prepare()
        except Exception as error:  # noqa: BLE001 - a runner that starts cold is better than none
            get_logger().warning("engine_not_prepared", engine=name, error=repr(error))


def pick(engines: Mapping[str, Engine], name: str) -> Engine:
    """Raises InvalidArgument that names the engines this runner has."""
    if name in engines:
        return engines[name]
    have = ", ".join(sorted(engines)) or "none"
    hint = _HINTS.get(name, "")
    doctor = "; `headrace doctor` says what is missing" if name in _FOR_GPUS else ""
    raise InvalidArgument(f"engine {name!r} is not available on this runner{hint}; it has: {have}{doctor}")


def _can_have(name: str) -> bool:
    """Cheaply: that a machine has no GPU, or nobody installed a library, is no news."""
    if name == "torch":
        return find_spec(name) is not None
    if name not in _FOR_GPUS:
        return True
    return any(Path(device).exists() for device in _DEVICES) and trt_library.installed(name) is not None
