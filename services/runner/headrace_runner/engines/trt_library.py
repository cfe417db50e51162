"""The one place that knows which TensorRT is installed: `tensorrt` or `tensorrt-rtx`. Both have one API.

Finding out imports nothing: importing takes half a second, and a cached plan needs no library.
"""

from __future__ import annotations

import importlib
import os
import platform
import re
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from headrace_common.errors import FailedPrecondition
from headrace_runner.core.plan_manifest import MINIMUM_DRIVER, EngineBuild

TENSORRT, TENSORRT_RTX = "tensorrt", "tensorrt-rtx"
ENGINES = (TENSORRT_RTX, TENSORRT)
ERRORS = ("INTERNAL_ERROR", "ERROR")
"""Severities of what TensorRT says that is a reason (ILogger::Severity)."""
_MODULES = {
    # The bindings import by themselves; the metapackages, which need NVIDIA's own index, only rename them.
    TENSORRT: ("tensorrt_bindings", "tensorrt"),
    TENSORRT_RTX: ("tensorrt_rtx_bindings", "tensorrt_rtx"),
}
_VERSION = re.compile(r"""^__version__ = ["']([0-9][0-9A-Za-z.+-]*)["']""", re.MULTILINE)


def installed(engine: str) -> EngineBuild | None:
    """What is installed of an engine; None: nothing."""
    for module in _MODULES[engine]:
        # Found by its path: asking for the metadata of a distribution costs ten times as much.
        spec = find_spec(module)
        if spec is None or not spec.origin:
            continue
        match = _VERSION.search(Path(spec.origin).read_text(errors="replace"))
        if match:
            return EngineBuild(engine, match[1], _cuda(Path(spec.origin)), this_platform())
    return None


def require(engine: str) -> EngineBuild:
    """Raises FailedPrecondition, with what to install."""
    build = installed(engine)
    if build is None:
        raise FailedPrecondition(f"{engine} is not installed; pip install 'headrace[{engine}]'")
    return build


def load(engine: str) -> Any:
    """The module of an engine that is installed. The GPU that it uses, to compile also, is `gpus.own_gpu`.

    Raises:
        FailedPrecondition: it is installed and cannot be loaded; with the loader's reason.
    """
    # Before CUDA starts: CUDA_VISIBLE_DEVICES counts as the driver does then (`visible_gpus`), and not by speed.
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    for module in _MODULES[engine]:
        if find_spec(module) is None:
            continue
        try:
            return importlib.import_module(module)
        except (ImportError, OSError) as error:
            raise FailedPrecondition(f"{engine} is installed and cannot be loaded: {error}") from error
    raise FailedPrecondition(f"{engine} is not installed; pip install 'headrace[{engine}]'")


def make_logger(trt: Any, hear: Callable[[str, str], None]) -> Any:
    """An ILogger. Must be kept as long as what it is given to.

    Args:
        hear: takes severity and text; called from whichever thread the library is in.
    """

    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, text: str) -> None:
            hear(severity.name, text)

    return Logger()


def versions() -> dict[str, str]:
    """Of the engines that are installed."""
    return {engine: build.version for engine in ENGINES if (build := installed(engine))}


def this_platform() -> str:
    """As manifests have it: "linux-x86_64"."""
    return f"{sys.platform}-{platform.machine()}"


def _cuda(origin: Path) -> int:
    """CUDA's major version, which the distributions beside the module have in their names."""
    for metadata in origin.parent.parent.glob(
        f"{origin.parent.name.removesuffix('_bindings')}_cu[0-9][0-9]*.dist-info"
    ):
        if match := re.search(r"_cu([0-9]{2})", metadata.name):
            return int(match[1])
    return max(MINIMUM_DRIVER)
