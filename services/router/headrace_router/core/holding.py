"""What waits for something else than an instance: for money, or for the step before it in its sequence.

It is admitted, and unsent until then. Nobody starts an instance for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from headrace_router.core.waiting import Stage, Waiting


class Holding:
    """Of one lane.

    Attributes:
        count, size_bytes: of what is held.
    """

    def __init__(self) -> None:
        self.count = self.size_bytes = 0
        self._items: list[Waiting] = []

    def add(self, items: Iterable[Waiting]) -> None:
        for item in items:
            self._items.append(item)
            self.count += 1
            self.size_bytes += item.size_bytes
            item.account.held += 1

    def left(self, item: Waiting) -> None:
        """It is sent on its way, or answered."""
        self.count -= 1
        self.size_bytes -= item.size_bytes
        item.account.held -= 1

    def release(self, may_go: Callable[[Waiting], bool], now: float) -> list[Waiting]:
        """Those that may be queued now, in order. They wait for an instance from now on, not from when they came."""
        waiting = list(self)
        self._items = [item for item in waiting if not may_go(item)]
        released = [item for item in waiting if may_go(item)]
        for item in released:
            item.enqueued = now
            self.left(item)
        return released

    def tidy(self) -> None:
        """Forgets what was answered where it was."""
        if len(self._items) > self.count:
            self._items = list(self)

    def __iter__(self) -> Iterator[Waiting]:
        return (item for item in self._items if item.stage is Stage.HELD)
