"""Compiles the router's native ingress when the package is built, editable or as a wheel.

It takes a C compiler and nothing else: the machine's `cc` where there is one, otherwise the one in the
package `ziglang`, which is then asked for as a build requirement.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = Path("services/router/headrace_router/ingress")
FLAGS = ("-O2", "-std=c11", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-fvisibility=hidden", "-pthread")


class IngressBuildHook(BuildHookInterface[Any]):
    """Envoy's dynamic modules are for Linux here; elsewhere the router does without."""

    def dependencies(self) -> list[str]:
        return ["ziglang==0.17.1"] if sys.platform == "linux" and not _works(["cc"]) else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        del version
        if self.target_name != "wheel" or sys.platform != "linux":
            return
        folder = Path(self.root) / FOLDER
        made = folder / "ingress.so"
        compiler = ["cc"] if _works(["cc"]) else [sys.executable, "-m", "ziglang", "cc"]
        # Beside the final name first: a router that runs has the old file mapped.
        fresh = made.with_suffix(".so.new")
        command = [*compiler, *FLAGS, "-o", str(fresh), str(folder / "ingress.c")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - a command of ours
        if done.returncode:
            raise RuntimeError(f"the native ingress does not compile: {' '.join(command)}\n{done.stderr}")
        fresh.replace(made)
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
        build_data["force_include"][str(made)] = "headrace_router/ingress/ingress.so"


def _works(compiler: list[str]) -> bool:
    """It is there, and so are the C library's headers."""
    if shutil.which(compiler[0]) is None:
        return False
    probe = [*compiler, "-xc", "-fsyntax-only", "-include", "pthread.h", "-"]
    return subprocess.run(probe, input=b"", capture_output=True, check=False).returncode == 0  # noqa: S603 - as above
