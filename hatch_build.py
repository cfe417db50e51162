"""Compiles the router's native parts when the package is built, editable or as a wheel.

The ingress is C, and needs a C compiler and nothing else: the machine's `cc` where there is one, otherwise the one in
the package `ziglang`, which is then asked for as a build requirement. The hot modules (services/router/compiled.txt)
are Python that mypyc compiles, where there are a `cc` and Python's headers; elsewhere they are interpreted, which is
slower and otherwise the same. HEADRACE_COMPILED=0 leaves them so.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROUTER = Path("services/router")
PACKAGE = "headrace_router"
INGRESS = f"{PACKAGE}/ingress"
MANIFEST = f"{PACKAGE}/compiled.json"
"""What was compiled and from which sources: `headrace_router.compiled` compares."""
MYPY = "mypy==2.4.1"
FLAGS = ("-O2", "-std=c11", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-fvisibility=hidden", "-pthread")


class NativeBuildHook(BuildHookInterface[Any]):
    """Envoy's dynamic modules are for Linux here; elsewhere the router does without."""

    def dependencies(self) -> list[str]:
        if sys.platform != "linux":
            return []
        ingress = [] if _works(["cc"], "pthread.h") else ["ziglang==0.17.1"]
        return ingress + ([MYPY, "setuptools>=80"] if _can_compile() else [])

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel" or sys.platform != "linux":
            return
        root = Path(self.root)
        made = {_build_ingress(root): f"{INGRESS}/ingress.so"}
        if _can_compile():
            made |= _build_compiled(root)
            build_data["infer_tag"] = True
        else:
            build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
            self.app.display_info("the router's hot modules are interpreted: no C compiler or no Python.h was found")
        build_data["pure_python"] = False
        if version == "editable":
            _put_beside_sources(root, made)
        else:
            build_data["force_include"].update({str(path): name for path, name in made.items()})


def _build_ingress(root: Path) -> Path:
    made = _native(root) / "ingress.so"
    compiler = ["cc"] if _works(["cc"], "pthread.h") else [sys.executable, "-m", "ziglang", "cc"]
    source = root / ROUTER / INGRESS / "ingress.c"
    _run("the native ingress", [*compiler, *FLAGS, "-o", str(made), str(source)], root)
    return made


def _build_compiled(root: Path) -> dict[Path, str]:
    """Extensions and manifest, each with its place in the package. What was built once from the same is taken again."""
    sources = [root / ROUTER / name for name in (root / ROUTER / "compiled.txt").read_text(encoding="utf-8").split()]
    digests = {str(path.relative_to(root / ROUTER)): _digest(path) for path in sources}
    known = [*(root / ROUTER).rglob("*.py"), *(root / "services/common").rglob("*.py"), root / "hatch_compile.py"]
    recipe = [MYPY, sys.version, sys.platform, sorted(digests), [_digest(path) for path in sorted(known)]]
    folder = _native(root) / hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:16]
    if not folder.exists():
        with tempfile.TemporaryDirectory(prefix="compile-", dir=_native(root)) as fresh:
            command = [sys.executable, str(root / "hatch_compile.py"), fresh]
            _run("the router's hot modules", command, root / ROUTER)
            Path(fresh, MANIFEST).write_text(json.dumps(digests, indent=1), encoding="utf-8")
            shutil.copytree(Path(fresh, PACKAGE), folder / PACKAGE)
    return {path: str(path.relative_to(folder)) for path in (folder / PACKAGE).rglob("*.*")}


def _put_beside_sources(root: Path, made: dict[Path, str]) -> None:
    """Of an editable install. What an earlier one left must not stand in for sources that have changed since."""
    (root / ROUTER / MANIFEST).unlink(missing_ok=True)
    kept = {root / ROUTER / name for name in made.values()}
    for old in set((root / ROUTER / PACKAGE).rglob("*.so")) - kept:
        old.unlink()
    for path, name in made.items():
        # Beside the final name first: a router that runs has the old file mapped.
        fresh = root / ROUTER / f"{name}.new"
        shutil.copy(path, fresh)
        fresh.replace(root / ROUTER / name)


def _native(root: Path) -> Path:
    folder = root / "build" / "native"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _can_compile() -> bool:
    wanted = os.environ.get("HEADRACE_COMPILED", "1") != "0" and sys.implementation.name == "cpython"
    return wanted and _works(["cc", f"-I{sysconfig.get_path('include')}"], "Python.h")


def _works(compiler: list[str], header: str) -> bool:
    """It is there, and so is the header."""
    if shutil.which(compiler[0]) is None:
        return False
    probe = [*compiler, "-xc", "-fsyntax-only", "-include", header, "-"]
    return subprocess.run(probe, input=b"", capture_output=True, check=False).returncode == 0  # noqa: S603 - ours


def _run(what: str, command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603 - ours
    if done.returncode:
        raise RuntimeError(f"{what}: does not compile: {' '.join(command)}\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
