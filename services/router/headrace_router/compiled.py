"""Whether the hot modules of this router are compiled, and from the sources that lie beside them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

MANIFEST = Path(__file__).with_name("compiled.json")
"""Written when the package is built: path below the package's parent -> SHA-256 of the source that was compiled."""


def count() -> int:
    """Modules that were compiled; 0: all are interpreted."""
    return len(_manifest())


def stale() -> list[str]:
    """Compiled modules whose sources have changed since: what runs is not what is written there."""
    folder = MANIFEST.parents[1]
    return [name for name, digest in _manifest().items() if _digest(folder / name) != digest]


def _manifest() -> dict[str, str]:
    if not MANIFEST.exists():
        return {}
    entries: dict[str, str] = json.loads(MANIFEST.read_text(encoding="utf-8"))
    return entries


def _digest(source: Path) -> str:
    return hashlib.sha256(source.read_bytes()).hexdigest() if source.exists() else ""
