"""A map that is bounded by bytes and by age, and forgets what was used longest ago."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

V = TypeVar("V")


@dataclass(slots=True)
class _Entry(Generic[V]):
    value: V
    size_bytes: int
    expires: float
    group: Hashable


class BoundedLru(Generic[V]):
    """Values by key, in groups that can be dropped as wholes. Times are monotonic seconds.

    What has expired is never given out; it leaves when it is asked for or when room is needed.

    Attributes:
        size_bytes: of all entries, as `put` was told; never above the bound.
        evictions: entries that left to make room.
        expiries: entries that were asked for too late.
    """

    def __init__(self, max_bytes: int) -> None:
        self.size_bytes = 0
        self.evictions = 0
        self.expiries = 0
        self._max_bytes = max_bytes
        self._entries: OrderedDict[bytes, _Entry[V]] = OrderedDict()
        self._groups: dict[Hashable, set[bytes]] = {}
        self._sizes: dict[Hashable, int] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def groups(self) -> list[Hashable]:
        """Those that hold something."""
        return list(self._groups)

    def sizes(self) -> dict[Hashable, int]:
        """Bytes by group, of those that hold something."""
        return dict(self._sizes)

    def get(self, key: bytes, now: float) -> V | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.expires <= now:
            self._remove(key)
            self.expiries += 1
            return None
        self._entries.move_to_end(key)
        return entry.value

    def put(self, key: bytes, value: V, size_bytes: int, expires: float, group: Hashable) -> bool:
        """Whether it is kept: what is larger than the whole bound is not. Replaces what the key had."""
        if key in self._entries:
            self._remove(key)
        if size_bytes > self._max_bytes:
            return False
        while self.size_bytes + size_bytes > self._max_bytes:
            self._remove(next(iter(self._entries)))
            self.evictions += 1
        self._entries[key] = _Entry(value, size_bytes, expires, group)
        self._groups.setdefault(group, set()).add(key)
        self.size_bytes += size_bytes
        self._sizes[group] = self._sizes.get(group, 0) + size_bytes
        return True

    def drop(self, group: Hashable) -> int:
        """Forgets a group. How many entries it had."""
        keys = list(self._groups.get(group, ()))
        for key in keys:
            self._remove(key)
        return len(keys)

    def _remove(self, key: bytes) -> None:
        entry = self._entries.pop(key)
        self.size_bytes -= entry.size_bytes
        self._sizes[entry.group] -= entry.size_bytes
        of_group = self._groups[entry.group]
        of_group.discard(key)
        if not of_group:
            del self._groups[entry.group]
            del self._sizes[entry.group]
