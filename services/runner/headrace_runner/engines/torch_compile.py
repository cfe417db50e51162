"""Compilation of a program by TorchInductor: it writes C++ or Triton code and compiles it, when a shape first comes."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

_PREFIX = "headrace-inductor-"


def compiler() -> str | None:
    """The C++ compiler that TorchInductor would take on CPUs; None: there is none."""
    return shutil.which(os.environ.get("CXX") or "g++")


def compiled(module: Any) -> Any:
    """The module, compiled at its first run.

    What is compiled is this process's own. TorchInductor would share it with all processes of the user, by pickles and
    libraries in a directory with a name that is known.
    """
    _sweep()
    folder = tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
    import torch
    from torch._inductor import config

    config.force_disable_caches = True
    # Its helpers are processes that take their work as pickles.
    config.compile_threads = 1
    return torch.compile(module, dynamic=True, fullgraph=True)


def _sweep() -> None:
    """Removes what processes left behind that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*-*"):
        pid = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if pid.isdigit() and not Path("/proc", pid).exists():
            shutil.rmtree(folder, ignore_errors=True)
