"""Lanes: how many batches a GPU has in hand at once, and who owns which of them.

A lane is all that one batch needs to itself: an execution context, a stream, a block of GPU memory and one of pinned
memory. With two, the copies of one batch overlap the kernels of the other; more than a GPU can overlap costs memory
and gains nothing.
"""

from __future__ import annotations

MOST = 4
"""GPUs have one or two engines that copy each way and one that computes: what a fourth lane adds waits."""
SHARE = 0.5
"""Of the free memory, that lanes beyond the first may take: graphs and other processes need some too."""


def lane_count(slots: int, lane_bytes: int, free_bytes: int) -> int:
    """How many lanes to make.

    Args:
        slots: bundles that the runner may be given at once.
        lane_bytes: of GPU memory, what the first lane took.
        free_bytes: of GPU memory, once there is the first lane.

    Returns:
        At least 1: the first lane is there.
    """
    affordable = 1 + int(free_bytes * SHARE) // max(1, lane_bytes)
    return max(1, min(slots, MOST, affordable))


class Roster:
    """Which lanes are taken. The lowest free one is given first: it is the warmest. One thread at a time."""

    def __init__(self, lanes: int) -> None:
        self._free = [True] * lanes

    @property
    def taken(self) -> int:
        return self._free.count(False)

    def take(self) -> int | None:
        """A lane's number; None: all are taken."""
        for lane, free in enumerate(self._free):
            if free:
                self._free[lane] = False
                return lane
        return None

    def give_back(self, lane: int) -> None:
        """Raises ValueError for a lane that nobody has."""
        if self._free[lane]:
            raise ValueError(f"lane {lane} is given back, and nobody has it")
        self._free[lane] = True
