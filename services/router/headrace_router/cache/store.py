"""The interface of what keeps answers, owned by `plane`."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Protocol

from headrace_router.domain import TensorData

Answer = list[TensorData]
"""Outputs whose data are bytes of their own. Nobody changes them: they are handed out many times."""


@dataclass(slots=True)
class StoreCounts:
    """Since the start, except levels.

    Attributes:
        entries, size_bytes: levels; zero where another process holds the answers.
        stored: answers that were taken.
        too_large: answers that were not, for their size.
        evictions: answers that left before their time, to make room.
        errors: lookups and writes that failed, and values that were damaged or not ours.
        skipped: lookups and writes that were not tried, as the store is down or behind.
    """

    entries: int = 0
    size_bytes: int = 0
    stored: int = 0
    too_large: int = 0
    evictions: int = 0
    errors: int = 0
    skipped: int = 0


class AnswerStore(Protocol):
    """Keeps answers as well as it can: it may lose any, and never raises."""

    def counts(self) -> StoreCounts: ...

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def peek(self, key: bytes) -> Answer | None:
        """What `get` would say, if that is known here and now; None: ask `get`."""
        ...

    async def get(self, key: bytes) -> Answer | None:
        """What was put under this key less than its time to live ago; None: a miss, for whatever reason."""
        ...

    def put(self, key: bytes, answer: Answer, ttl_s: float, group: Hashable) -> None:
        """Does not wait. Groups are what `forget` drops."""
        ...

    def sizes(self) -> Mapping[Hashable, int]:
        """Bytes of this process's memory by group; nothing where another process holds the answers."""
        ...

    def forget(self, is_alive: Callable[[Hashable], bool]) -> None:
        """Frees what this process holds of groups that are not asked for any more."""
        ...


def size_of(answer: Answer) -> int:
    """Bytes of its tensors' data."""
    return sum(len(tensor.data) for tensor in answer)
