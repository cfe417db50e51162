"""Answers in this process's memory."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping

from headrace_common.clock import Clock
from headrace_router.cache.store import Answer, StoreCounts, size_of
from headrace_router.core.bounded_lru import BoundedLru

ENTRY_BYTES = 500
TENSOR_BYTES = 200
"""What an answer takes beside its data: keys, lists, shapes, and their share of the maps. Measured, 620 bytes
with one tensor and 170 with each further one, and rounded up."""


class MemoryStore:
    """A `store.AnswerStore`. The bound holds for data and what Python needs to keep them, and is never passed."""

    def __init__(self, max_bytes: int, max_entry_bytes: int, clock: Clock) -> None:
        self._answers: BoundedLru[Answer] = BoundedLru(max_bytes)
        self._max_entry_bytes = max_entry_bytes
        self._now = clock.monotonic
        self._stored = 0
        self._too_large = 0

    def counts(self) -> StoreCounts:
        answers = self._answers
        return StoreCounts(len(answers), answers.size_bytes, self._stored, self._too_large, answers.evictions)

    async def start(self) -> None:
        """There is nothing to start."""

    async def stop(self) -> None:
        """There is nothing to stop."""

    def peek(self, key: bytes) -> Answer | None:
        return self._answers.get(key, self._now())

    async def get(self, key: bytes) -> Answer | None:
        return self.peek(key)

    def put(self, key: bytes, answer: Answer, ttl_s: float, group: Hashable) -> None:
        size = size_of(answer)
        held = size + ENTRY_BYTES + TENSOR_BYTES * len(answer)
        if size <= self._max_entry_bytes and self._answers.put(key, answer, held, self._now() + ttl_s, group):
            self._stored += 1
        else:
            self._too_large += 1

    def sizes(self) -> Mapping[Hashable, int]:
        return self._answers.sizes()

    def forget(self, is_alive: Callable[[Hashable], bool]) -> None:
        for group in self._answers.groups():
            if not is_alive(group):
                self._answers.drop(group)
