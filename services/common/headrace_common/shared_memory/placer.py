"""Writes buffers into one half of a segment and takes their bytes back. One thread at a time."""

from __future__ import annotations

import weakref
from collections.abc import Sequence

import numpy as np

from headrace_common.shared_memory.allocator import ALIGNMENT, Allocator
from headrace_common.shared_memory.segment import Region, Segment

RESERVE_BYTES = 1 << 20
"""Memory is taken in steps of this."""
HEAD_BYTES = ALIGNMENT
"""Before each result: its first byte is 1 while the router still reads it."""
_READ, _FREE = 1, 0

Buffer = bytes | bytearray | memoryview


class Placer:
    """One half, seen by the side that writes it."""

    def __init__(self, segment: Segment, half: tuple[int, int]) -> None:
        self._segment = segment
        self._map = segment.map
        self._start, size = half
        self._end = self._start + size
        self._allocator = Allocator(self._start, size)
        self._reserved = self._start
        self._full_at: int | None = None

    @property
    def taken(self) -> int:
        """Regions in use."""
        return self._allocator.taken

    def place(self, parts: Sequence[Buffer], size: int, head_bytes: int = 0) -> Region | None:
        """Copies parts, of `size` bytes together, into one region; None: there is no room for them.

        `head_bytes`: left free before them.
        """
        start = self._allocator.take(head_bytes + size)
        if start is None:
            return None
        position = start + head_bytes
        if position + size > self._reserved and not self._reserve(position + size):
            self._allocator.give_back(start)
            return None
        shared = self._map
        for part in parts:
            end = position + len(part)
            shared[position:end] = part
            position = end
        return Region(start + head_bytes, size)

    def give_back(self, region: Region, head_bytes: int = 0) -> None:
        """Raises KeyError for what is not in use."""
        self._allocator.give_back(region.offset - head_bytes)

    def _reserve(self, end: int) -> bool:
        if self._full_at is not None and end > self._full_at:
            return False
        wanted = min(self._end, self._start + -(-(end - self._start) // RESERVE_BYTES) * RESERVE_BYTES)
        if not self._segment.reserve(self._reserved, wanted - self._reserved):
            self._full_at = self._reserved
            return False
        self._reserved = wanted
        return True


class ResultPlacer:
    """The results' half, seen by the runner. The router says in the region's head when it has read it."""

    def __init__(self, segment: Segment) -> None:
        self._map = segment.map
        self._placer = Placer(segment, segment.results())
        self._read: dict[int, Region] = {}

    @property
    def taken(self) -> int:
        """Regions that the router still reads."""
        self._reclaim()
        return self._placer.taken

    def place(self, parts: Sequence[Buffer], size: int) -> Region | None:
        """As `Placer.place`."""
        self._reclaim()
        region = self._placer.place(parts, size, HEAD_BYTES)
        if region is not None:
            self._map[region.offset - HEAD_BYTES] = _READ
            self._read[region.offset] = region
        return region

    def take_back(self, region: Region) -> None:
        """The router never came to hear of it."""
        del self._read[region.offset]
        self._placer.give_back(region, HEAD_BYTES)

    def _reclaim(self) -> None:
        for region in [region for region in self._read.values() if self._map[region.offset - HEAD_BYTES] == _FREE]:
            self.take_back(region)


def read_bundle(segment: Segment, region: Region) -> memoryview:
    """A read-only view of what the router placed. Raises BadRegion."""
    segment.check(region, segment.bundles())
    return memoryview(segment.map).toreadonly()[region.offset : region.offset + region.size_bytes]


def read_result(segment: Segment, region: Region) -> memoryview:
    """A read-only view of what the runner placed; the runner gets the bytes back with the last view of them.

    Raises:
        BadRegion: it is not within the results' half.
    """
    segment.check(region, segment.results(), HEAD_BYTES)
    # memoryviews cannot be watched, arrays can: every slice of the view keeps the array.
    content = np.frombuffer(segment.map, np.uint8, region.size_bytes, region.offset)
    content.flags.writeable = False
    weakref.finalize(content, _release, segment, region.offset).atexit = False
    return content.data


def _release(segment: Segment, offset: int) -> None:
    segment.map[offset - HEAD_BYTES] = _FREE
