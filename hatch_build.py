"""Compiles the router's native parts when the package is built, editable or as a wheel.

The ingress is C, and needs a C compiler and nothing else: the machine's `cc` where there is one, otherwise the one in
the package `ziglang`, which is then asked for as a build requirement. The hot modules (services/router/compiled.txt)
are Python that mypyc compiles, where there are a `cc` and Python's headers; elsewhere, and where that fails, they are
interpreted, which is slower and otherwise the same. HEADRACE_COMPILED=0 leaves them so; 1 insists on compiling.
"""

from __future__ import annotations

import ast
import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROUTER = Path("services/router")
PACKAGE = "headrace_router"
ROOTS = {PACKAGE: ROUTER, "headrace_common": Path("services/common")}
INGRESS = f"{PACKAGE}/ingress"
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
MANIFEST = f"{PACKAGE}/compiled{Path(SUFFIX).with_suffix('.json')}"
"""What was compiled, and the sources that it depends on: `headrace_router.compiled` compares."""
MYPY = "mypy==2.4.1"
FLAGS = ("-O2", "-std=c11", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-fvisibility=hidden", "-pthread")
_MODE = os.environ.get("HEADRACE_COMPILED", "")


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
        native = root / "build" / "native"
        native.mkdir(parents=True, exist_ok=True)
        with (native / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # Two builds at once take turns; the second finds what the first made.
            made = {_build_ingress(root, native): f"{INGRESS}/ingress.so"}
            compiled = self._build_compiled(root, native)
            if version == "editable":
                _put_beside_sources(root, made | compiled)
            else:
                build_data["force_include"].update({str(path): name for path, name in (made | compiled).items()})
        build_data["pure_python"] = False
        if compiled:
            build_data["infer_tag"] = True
        else:
            build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"

    def _build_compiled(self, root: Path, native: Path) -> dict[Path, str]:
        """Empty: the modules are to be interpreted."""
        if not _can_compile():
            if _MODE == "1":
                raise RuntimeError("HEADRACE_COMPILED=1, and there is no C compiler or no Python.h")
            return {}
        try:
            return _build_compiled(root, native)
        except RuntimeError as error:
            if _MODE == "1":
                raise
            self.app.display_warning(f"{error}\nThe router's hot modules are interpreted: slower, otherwise the same.")
            return {}


def _build_ingress(root: Path, native: Path) -> Path:
    made = native / "ingress.so"
    compiler = ["cc"] if _works(["cc"], "pthread.h") else [sys.executable, "-m", "ziglang", "cc"]
    source = root / ROUTER / INGRESS / "ingress.c"
    _run("the native ingress", [*compiler, *FLAGS, "-o", str(made), str(source)], root)
    return made


def _build_compiled(root: Path, native: Path) -> dict[Path, str]:
    """Extensions and manifest, each with its place in the package. What was built once from the same is taken again."""
    names = (root / ROUTER / "compiled.txt").read_text(encoding="utf-8").split()
    sources = sorted(_with_imports(root, [root / ROUTER / name for name in names]))
    digests = _digests(root, sources)
    recipe = [MYPY, sys.version, platform.machine(), SUFFIX, names, digests, _digest(root / "hatch_compile.py")]
    folder = native / hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:16]
    if not folder.exists():
        with tempfile.TemporaryDirectory(prefix="compile-", dir=native) as fresh:
            command = [sys.executable, str(root / "hatch_compile.py"), fresh]
            _run("the router's hot modules", command, root / ROUTER)
            if _digests(root, sources) != digests:
                raise RuntimeError("sources of the router changed while they were compiled; build again")
            manifest = json.dumps({"compiled": names, "sources": digests}, indent=1)
            Path(fresh, MANIFEST).write_text(manifest, encoding="utf-8")
            whole = Path(fresh, "whole")
            whole.mkdir()
            Path(fresh, PACKAGE).rename(whole / PACKAGE)
            whole.rename(folder)
    # The rule without a recipe is for sources that are gone: they are a reason to build, and no error.
    listed = " ".join(digests)
    (native / "sources.mk").write_text(f"$(STAMP): {listed}\n{listed}:\n", encoding="utf-8")
    return {path: str(path.relative_to(folder)) for path in (folder / PACKAGE).rglob("*.*")}


def _with_imports(root: Path, sources: list[Path]) -> set[Path]:
    """The sources, and those of ours that they import, directly or not: their types are compiled in."""
    found: set[Path] = set()
    while sources:
        source = sources.pop()
        if source not in found:
            found.add(source)
            tree = ast.parse(source.read_text(encoding="utf-8"))
            for node in ast.walk(tree):
                if isinstance(node, ast.ImportFrom) and node.module:
                    modules = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
                    sources += [path for module in modules if (path := _source_of(root, module)) is not None]
    return found


def _source_of(root: Path, module: str) -> Path | None:
    package = module.partition(".")[0]
    if package not in ROOTS:
        return None
    path = root / ROOTS[package] / module.replace(".", "/")
    return next((each for each in (path.with_suffix(".py"), path / "__init__.py") if each.exists()), None)


def _put_beside_sources(root: Path, made: dict[Path, str]) -> None:
    """Of an editable install. What an earlier one left must not stand in for sources that have changed since."""
    (root / ROUTER / MANIFEST).unlink(missing_ok=True)
    kept = {root / ROUTER / name for name in made.values()}
    for old in set((root / ROUTER / PACKAGE).rglob(f"*{SUFFIX}")) - kept:
        old.unlink()
    for path, name in sorted(made.items(), key=lambda item: item[1] == MANIFEST):  # The manifest last.
        # Beside the final name first: a router that runs has the old file mapped.
        fresh = root / ROUTER / f"{name}.new"
        shutil.copy(path, fresh)
        fresh.replace(root / ROUTER / name)


def _digests(root: Path, sources: Iterable[Path]) -> dict[str, str]:
    return {str(path.relative_to(root)): _digest(path) for path in sources}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _can_compile() -> bool:
    wanted = _MODE != "0" and sys.implementation.name == "cpython"
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
        said = f"{done.stdout[-2000:]}{done.stderr[-2000:]}"
        raise RuntimeError(f"{what}: does not compile: {' '.join(command)}\n{said}")
