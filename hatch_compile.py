"""Compiles the router's hot modules to C extensions: `python hatch_compile.py FOLDER`.

`hatch_build.py` runs it in a process of its own, in services/router, when the package is built.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from mypyc.build import mypycify
from setuptools import Distribution
from setuptools.command.build_ext import build_ext

GROUP = "headrace_router.hot"
"""The extensions are thin; what they share is `headrace_router/hot__mypyc`."""
OPTIONS = (
    "--config-file=",
    "--no-site-packages",
    "--ignore-missing-imports",
    "--follow-imports=silent",
    "--explicit-package-bases",
    "--namespace-packages",
)
"""Installed packages are not looked at, so that every build is the same: what comes from them is of type Any, which
costs speed where it is used, and no more."""


def main(folder: str) -> None:
    """Writes the extensions below `folder`, in the layout of the package."""
    sources = Path("compiled.txt").read_text(encoding="utf-8").split()
    os.environ["MYPYPATH"] = os.pathsep.join(("../common", "../.."))
    extensions = mypycify([*OPTIONS, *sources], opt_level="3", group_name=GROUP, target_dir=f"{folder}/c")
    command = build_ext(Distribution({"name": "headrace", "ext_modules": extensions}))
    command.build_lib = folder
    command.build_temp = f"{folder}/o"
    command.parallel = os.cpu_count()
    command.ensure_finalized()
    command.run()


if __name__ == "__main__":
    main(sys.argv[1])
