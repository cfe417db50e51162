"""Writes to the store, and into memory once they are committed: one after the other, so that both see the same order.

They run in a thread of their own, which no slow fetch or upload can hold up. One that has begun is finished even if its
caller is cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from headrace_autoscaler.core.promises import Promise, Promised, with_earlier
from headrace_autoscaler.domain import Limits
from headrace_autoscaler.ports import Store

T = TypeVar("T")


class Writes:
    """
    Attributes:
        promised: what limits were that routers may still obey: see `core.promises`.
    """

    def __init__(self, store: Store) -> None:
        self.promised: dict[str, Promise] = {}
        self._store = store
        self._lock = asyncio.Lock()
        self._writer = ThreadPoolExecutor(1, "store")
        self._tasks: set[asyncio.Task[object]] = set()
        # Keys of changes that have failed. The store may have them all the same: who comes next would need the promise.
        self._in_doubt: set[str] = set()

    async def settled(self) -> None:
        """Waits for writes in progress, those of cancelled callers among them."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def close(self) -> None:
        self._writer.shutdown(wait=False)

    async def do(
        self,
        commit: Callable[[], T],
        remember: Callable[[T], object],
        promised: Callable[[], Mapping[str, Limits | None]] = dict,
    ) -> T:
        """
        Args:
            commit: writes to the store; in the thread.
            remember: takes over into memory what that returned.
            promised: what routers may go on obeying, as of before the write.
        """
        task = asyncio.get_running_loop().create_task(self._commit(commit, remember, promised))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    async def forget(self, promised: Promised) -> None:
        """Forgets these promises; where more was promised since, that stays."""

        def commit() -> list[str]:
            keys = [key for key, promise in promised.items() if self.promised.get(key) is promise]
            keys = [key for key in keys if key not in self._in_doubt]
            self._store.forget_promised(keys)
            return keys

        def remember(keys: list[str]) -> None:
            for key in keys:
                del self.promised[key]

        await self.do(commit, remember)

    async def _commit(
        self,
        commit: Callable[[], T],
        remember: Callable[[T], object],
        promised: Callable[[], Mapping[str, Limits | None]],
    ) -> T:
        async with self._lock:
            kept = {
                key: with_earlier(limits, self.promised.get(key))
                for key, limits in promised().items()
                if limits is not None
            }

            def both() -> T:
                # Promises first: who is killed in between has promised too much, which is forgotten in time.
                for key, promise in kept.items():
                    self._store.promise(key, promise)
                return commit()

            self._in_doubt.update(kept)
            result = await asyncio.get_running_loop().run_in_executor(self._writer, both)
            self._in_doubt.difference_update(kept)
            self.promised.update(kept)
            remember(result)
            return result
