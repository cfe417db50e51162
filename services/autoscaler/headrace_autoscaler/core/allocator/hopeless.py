"""What searches have failed for, so that they are not made again."""

from __future__ import annotations

from headrace_autoscaler.core.allocator.choice import Choice
from headrace_autoscaler.domain import Resources

_KEPT = 32
"""Sizes of which none is as large as another. More are not compared with: that would cost more than searching."""


class Hopeless:
    """Sizes of instances that found no room: what is as large in everything finds none either."""

    __slots__ = ("_least", "_sizes")

    def __init__(self) -> None:
        self._sizes: set[int] = set()
        self._least: list[Resources] = []

    def __contains__(self, choice: Choice) -> bool:
        if choice.size in self._sizes:
            return True
        needs = choice.way.resources
        for each in self._least:
            if _as_large(needs, each):
                self._sizes.add(choice.size)
                return True
        return False

    def add(self, choice: Choice) -> None:
        self._sizes.add(choice.size)
        needs = choice.way.resources
        self._least = [each for each in self._least if not _as_large(each, needs)]
        if len(self._least) < _KEPT:
            self._least.append(needs)

    def clear(self) -> None:
        self._sizes.clear()
        self._least.clear()


def _as_large(one: Resources, other: Resources) -> bool:
    return (
        one.cpu_millicores >= other.cpu_millicores
        and one.memory_bytes >= other.memory_bytes
        and one.gpu_millis >= other.gpu_millis
        and one.gpu_memory_bytes >= other.gpu_memory_bytes
    )
