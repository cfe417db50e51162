"""Which bytes of an area are free. Pure.

First fit at the lowest address (Knuth, The Art of Computer Programming 1, 2.5, with boundaries in a sorted
list): what was used last is used again first. A page of shared memory costs a fault and a zeroing when it is
touched first, so an area that is mostly empty should stay small.
"""

from __future__ import annotations

from bisect import bisect_left, insort

ALIGNMENT = 64
"""A cache line; more than any element of a tensor needs."""


class Allocator:
    """Regions of `[start, start + size)` that never overlap. Sizes and offsets in bytes."""

    def __init__(self, start: int, size: int) -> None:
        self._free: list[tuple[int, int]] = [(start, start + size)] if size else []
        self._taken: dict[int, int] = {}

    @property
    def taken(self) -> int:
        """Regions that have not been given back."""
        return len(self._taken)

    def take(self, size: int) -> int | None:
        """The offset of a region of at least `size` bytes, aligned as the area's start is; None: there is no room."""
        needed = max(ALIGNMENT, -(-size // ALIGNMENT) * ALIGNMENT)
        for index, (start, end) in enumerate(self._free):
            if end - start >= needed:
                if end - start == needed:
                    del self._free[index]
                else:
                    self._free[index] = (start + needed, end)
                self._taken[start] = needed
                return start
        return None

    def give_back(self, offset: int) -> None:
        """Raises KeyError where no region taken begins at `offset`."""
        start, end = offset, offset + self._taken.pop(offset)
        index = bisect_left(self._free, (start, end))
        if index < len(self._free) and self._free[index][0] == end:
            end = self._free.pop(index)[1]
        if index and self._free[index - 1][1] == start:
            start = self._free.pop(index - 1)[0]
        insort(self._free, (start, end))
