"""Which batch sizes get a CUDA graph: a recording of a batch's kernels, which is launched in one call.

A graph holds for one set of shapes and addresses, and takes GPU memory, so only some sizes get one; others are enqueued
kernel by kernel, which gives the same answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from headrace_runner.core.shape_ranges import Profile, Shape

Shapes = tuple[tuple[str, Shape], ...]
"""Of all inputs, sorted by name: what a graph is kept under."""

MOST_GRAPHS = 8
"""Per lane."""
MOST_BYTES = 256 << 20
"""Of GPU memory, all graphs of one lane together."""


def shapes_of(shapes: Mapping[str, Sequence[int]]) -> Shapes:
    return tuple(sorted((name, tuple(shape)) for name, shape in shapes.items()))


def planned_shapes(profile: Profile, most: int = MOST_GRAPHS) -> tuple[Shapes, ...]:
    """Shapes worth a graph, the likeliest first: the smallest, the optimal and the largest of the profile, then batches
    of powers of two between, from the smallest, where nothing but the first dimension varies.
    """
    edges = [
        shapes_of({name: each.smallest for name, each in profile.items()}),
        shapes_of({name: each.optimal for name, each in profile.items()}),
        shapes_of({name: each.largest for name, each in profile.items()}),
    ]
    batches = [
        shapes_of({name: (rows, *each.smallest[1:]) for name, each in profile.items()}) for rows in _rows(profile)
    ]
    return tuple(dict.fromkeys([*edges, *batches]))[:most]


def _rows(profile: Profile) -> list[int]:
    """Powers of two inside the range of the batch; none where anything else varies."""
    bounds = {(each.smallest[0], each.largest[0]) for each in profile.values() if each.smallest}
    others_vary = any(each.smallest[1:] != each.largest[1:] for each in profile.values())
    if len(bounds) != 1 or others_vary or not all(each.smallest for each in profile.values()):
        return []
    [(low, high)] = bounds
    return [rows for power in range(high.bit_length()) if low < (rows := 1 << power) < high]


class GraphPolicy:
    """Of one lane: which of the shapes that come are recorded."""

    def __init__(self, planned: Sequence[Shapes], most_bytes: int = MOST_BYTES) -> None:
        self._open = set(planned)
        self._left_bytes = most_bytes

    def captures(self, shapes: Shapes) -> bool:
        """Whether to record this batch. Each shape once."""
        if self._left_bytes <= 0 or shapes not in self._open:
            return False
        self._open.discard(shapes)
        return True

    def captured(self, size_bytes: int) -> None:
        """A graph is there, and took so much GPU memory."""
        self._left_bytes -= max(0, size_bytes)

    def refuse(self) -> None:
        """The library or the driver cannot record this model: nothing more is tried."""
        self._open.clear()
