"""What a cache on disk lets go of: the entries that were used longest ago."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Entry:
    """
    Attributes:
        path: of what goes as a whole.
        used_at: seconds since the epoch.
    """

    path: Path
    size_bytes: int
    used_at: float


def evicted(entries: Iterable[Entry], most_bytes: int) -> tuple[Entry, ...]:
    """Those to remove so that the rest is within the bound, the one unused for longest first.

    The newest stays, whatever its size: a cache that forgets what it has just been given is none.
    """
    by_age = sorted(entries, key=lambda entry: (entry.used_at, str(entry.path)))
    left = sum(entry.size_bytes for entry in by_age)
    gone = []
    for entry in by_age[:-1]:
        if left <= most_bytes:
            break
        gone.append(entry)
        left -= entry.size_bytes
    return tuple(gone)
