"""Whether Envoy can load this Python."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from headrace_common.errors import FailedPrecondition


def check_embeddable(embedding: Mapping[str, str]) -> None:
    """Raises `FailedPrecondition` unless `embedding` preloads a libpython of this Python's version."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    library = embedding.get("LD_PRELOAD") or embedding.get("DYLD_INSERT_LIBRARIES") or ""
    if sys.platform == "darwin" or f"libpython{version}" in Path(library).name:
        return
    raise FailedPrecondition(
        f"this Python ({sys.executable}) has no shared library, so Envoy cannot load it: install libpython{version} "
        f"(Debian, Ubuntu: apt install libpython{version}; Fedora: dnf install python{version}-libs), or use a Python "
        "that was built with --enable-shared"
    )
