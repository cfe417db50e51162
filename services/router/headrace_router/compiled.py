"""Whether the hot modules of this router are compiled, and from the sources that lie beside them."""

from __future__ import annotations

import hashlib
import json
import sysconfig
from pathlib import Path
from typing import Any

_SUFFIX: str = sysconfig.get_config_var("EXT_SUFFIX")
PACKAGE = Path(__file__).parent


def count(package: Path = PACKAGE) -> int:
    """Modules that this interpreter loads compiled; 0: all are interpreted."""
    names: list[str] = _manifest(package).get("compiled", [])
    return sum(_extension(package, name).exists() for name in names)


def stale(package: Path = PACKAGE) -> list[str]:
    """Sources that have changed since something was compiled from them: what runs is not what is written there.

    Of the package's own and of those that it imports, in a checkout; an installed package does not change.
    """
    if not count(package):
        return []
    root = package.parents[2]
    digests: dict[str, str] = _manifest(package)["sources"]
    return [name for name, digest in digests.items() if (root / name).exists() and _digest(root / name) != digest]


def _manifest(package: Path) -> dict[str, Any]:
    """Written when the package is built, for each interpreter of its own."""
    path = package / f"compiled{Path(_SUFFIX).with_suffix('.json')}"
    if not path.exists():
        return {}
    manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return manifest


def _extension(package: Path, name: str) -> Path:
    return package.parent / f"{name.removesuffix('.py')}{_SUFFIX}"


def _digest(source: Path) -> str:
    return hashlib.sha256(source.read_bytes()).hexdigest()
