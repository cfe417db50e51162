"""Where what can be made again is kept between processes, and how it is kept within bounds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from headrace_runner.core.cache_bounds import Entry, evicted

MOST_BYTES = 4 << 30
"""Of each kind of thing that is kept, unless told otherwise."""


def cache_root() -> Path:
    """By the XDG Base Directory Specification."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headrace"


def touch(entry: Path) -> None:
    """Notes that an entry was used. One that another process has just removed, or may not be written, is no matter."""
    try:
        os.utime(entry)
    except OSError:
        return


def keep_within(directory: Path, pattern: str, most_bytes: int) -> None:
    """Removes the entries used longest ago. An entry is a file, or a directory of files, that matches the pattern.

    Safe beside processes that read, write and evict: what they have open stays readable (unlink(2)), and an entry that
    lost a part is no entry to its readers.
    """
    for entry in evicted(_entries(directory, pattern), most_bytes):
        _remove(entry.path)


def _entries(directory: Path, pattern: str) -> Iterator[Entry]:
    for path in directory.glob(pattern):
        try:
            if sizes := [each.stat().st_size for each in _files(path)]:
                yield Entry(path, sum(sizes), path.stat().st_mtime)
        except FileNotFoundError:
            continue  # Another process was faster.


def _files(path: Path) -> list[Path]:
    """Of an entry, without what is being written (`write_atomically`)."""
    files = list(path.iterdir()) if path.is_dir() else [path]
    return [each for each in files if not each.name.startswith(".")]


def _remove(path: Path) -> None:
    try:
        for each in _files(path):
            each.unlink(missing_ok=True)
        if path.is_dir():
            path.rmdir()
    except OSError:
        return  # Somebody writes there anew, or has removed it.
