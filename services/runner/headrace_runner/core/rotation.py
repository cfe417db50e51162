"""Whose bundle runs next: first in, first out for each router, and the routers in turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class Rotation(Generic[K, T]):
    """Queues by key, taken from in round robin. Not thread-safe."""

    def __init__(self) -> None:
        self._queues: dict[K, deque[T]] = {}
        self._turn: deque[K] = deque()

    def __len__(self) -> int:
        return sum(len(queue) for queue in self._queues.values())

    def add(self, key: K, item: T) -> None:
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = deque()
            self._turn.append(key)
        queue.append(item)

    def take(self) -> T | None:
        """The next item; None when there is none. Its key goes to the end of the turn."""
        if not self._turn:
            return None
        key = self._turn.popleft()
        queue = self._queues[key]
        item = queue.popleft()
        if queue:
            self._turn.append(key)
        else:
            del self._queues[key]
        return item

    def remove(self, key: K, matches: Callable[[T], bool]) -> T | None:
        """Takes the first item of `key` that matches out of the queue; None if none does."""
        queue = self._queues.get(key, deque())
        found = next((item for item in queue if matches(item)), None)
        if found is None:
            return None
        queue.remove(found)
        if not queue:
            self.drop(key)
        return found

    def drop(self, key: K) -> tuple[T, ...]:
        """Forgets a key; answers what it had waiting."""
        if key not in self._queues:
            return ()
        self._turn.remove(key)
        return tuple(self._queues.pop(key))
