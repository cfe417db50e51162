"""Which files the demo identifies: real ones, of as many kinds as this machine's Python has."""

from __future__ import annotations

import os
import sysconfig
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

SOURCES = (".py", ".pyi", ".md", ".toml", ".yaml", ".proto", ".json", ".txt", ".ini", ".rst", ".csv", ".xml", ".html")
MORE_SOURCES = (".css", ".js", ".sh", ".bat", ".c", ".h", ".cpp", ".sql", ".pem")
BINARIES = (".so", ".a", ".exe", ".pyc", ".onnx", ".db", ".mo", ".ttf")
MEDIA = (".png", ".gif", ".ico", ".jpg", ".bmp", ".svg", ".wav", ".au", ".aiff")
ARCHIVES = (".zip", ".whl", ".gz", ".bz2", ".xz", ".tar", ".egg")
KINDS = frozenset(SOURCES + MORE_SOURCES + BINARIES + MEDIA + ARCHIVES)
PER_KIND = 2
LARGEST_BYTES = 8 << 20
SKIPPED_FOLDERS = {".git", ".venv", "__pycache__", "node_modules", ".mypy_cache", ".ruff_cache"}


def choose(repository: Path, at_most: int) -> list[Path]:
    """Files of the repository and of the Python installation, spread evenly over file suffixes."""
    by_kind: dict[str, list[Path]] = defaultdict(list)
    for folder in (repository, Path(sysconfig.get_path("stdlib")), Path(sysconfig.get_path("purelib"))):
        for path in _walk(folder):
            kind = path.suffix.lower()
            if kind in KINDS and len(by_kind[kind]) < PER_KIND and 64 <= path.stat().st_size <= LARGEST_BYTES:
                by_kind[kind].append(path)
    chosen: list[Path] = []
    for rank in range(PER_KIND):
        chosen += [paths[rank] for _, paths in sorted(by_kind.items()) if len(paths) > rank]
    return sorted(chosen[:at_most], key=lambda path: (path.suffix, path.name))


def _walk(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in SKIPPED_FOLDERS)
        for name in sorted(names):
            path = Path(root, name)
            if path.is_file() and not path.is_symlink():
                yield path
