"""Nobody is left without an answer when a model is drained or the router stops."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from headrace_common import errors
from headrace_common.clock import SystemClock
from headrace_router.cache.memory import MemoryStore
from headrace_router.cache.store import Answer

StartFront = Callable[..., Awaitable[Any]]


class SlowStore(MemoryStore):
    """Knows nothing at once.

    Attributes:
        asked: somebody has.
        gate: cleared: lookups wait.
    """

    def __init__(self) -> None:
        super().__init__(1 << 20, 1 << 20, SystemClock())
        self.asked, self.gate = asyncio.Event(), asyncio.Event()

    def peek(self, key: bytes) -> Answer | None:
        return None

    async def get(self, key: bytes) -> Answer | None:
        self.asked.set()
        await self.gate.wait()
        return super().peek(key)


@pytest.mark.parametrize("asked", [True, False], ids=["while it is looked up", "before it is looked up"])
async def test_a_drain_waits_for_what_is_not_looked_up_yet(start_front: StartFront, asked: bool) -> None:
    store = SlowStore()
    front = await start_front(store)
    answer = front.submit()
    if asked:
        await store.asked.wait()
    drain = asyncio.create_task(front.bench.plane.drain(10.0))
    await front.eventually(lambda: front.bench.plane.stopping)
    await store.asked.wait()
    assert not drain.done()
    store.gate.set()
    with pytest.raises(errors.Unavailable):
        await answer
    assert await drain == 0
    assert front.is_quiet()


@pytest.mark.parametrize("asked", [True, False], ids=["while it is looked up", "before it is looked up"])
async def test_a_stop_leaves_nobody_without_an_answer(start_front: StartFront, asked: bool) -> None:
    store = SlowStore()
    front = await start_front(store)
    answer = front.submit()
    if asked:
        await store.asked.wait()
    await front.cached.stop()
    assert isinstance(answer.exception(), errors.Unavailable)
    assert front.is_quiet()


# --- what counts ---
