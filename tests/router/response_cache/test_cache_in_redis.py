"""Answers that routers share through redis, and a redis that dies."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable
from typing import Any

from headrace_common.clock import SystemClock
from headrace_common.config import RouterConfig
from headrace_router.cache import CachedPlane
from headrace_router.cache.redis_store import RedisStore

Eventually = Callable[..., Awaitable[None]]


StartFront = Callable[..., Awaitable[Any]]


async def test_a_redis_that_dies_under_load_costs_misses_and_no_errors(
    start_front: StartFront, redis_server: Any, eventually: Eventually
) -> None:
    store = RedisStore(redis_server.url, "mesh", 20.0, 1 << 20, pause_s=0.05)
    front = await start_front(store)
    runner = await front.bench.add_runner("r1")
    await eventually(lambda: store.up)
    assert await front.infer(0.0) == 0.0
    await eventually(lambda: store.counts().stored == 1)
    assert await front.infer(0.0) == 0.0
    assert front.use.cache_hits == 1

    stopping = asyncio.Event()
    answered = 0

    async def ask(value: float) -> None:
        nonlocal answered
        while not stopping.is_set():
            assert await front.infer(value) == value
            answered += 1
            # A hit does not let anybody else run.
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as tasks:
        for n in range(8):
            tasks.create_task(ask(float(n % 4)))
        await eventually(lambda: front.use.cache_hits > 50)
        redis_server.kill()
        await eventually(lambda: not store.up)
        goal, sent = answered + 100, len(runner.bundles)
        await eventually(lambda: answered > goal)
        assert len(runner.bundles) > sent
        redis_server.start()
        await eventually(lambda: store.up)
        hits = front.use.cache_hits
        await eventually(lambda: front.use.cache_hits > hits + 50)
        stopping.set()
    assert front.use.failed == 0
    assert front.is_quiet()


async def test_two_routers_share_answers_through_redis(
    start_front: StartFront, redis_server: Any, eventually: Eventually
) -> None:
    config = RouterConfig(sweep_period_s=0.01)
    store = RedisStore(redis_server.url, "mesh", 20.0, 1 << 20)
    front = await start_front(store)
    runner = await front.bench.add_runner("r1")
    await eventually(lambda: store.up)
    assert await front.infer() == 1.0
    await eventually(lambda: store.counts().stored == 1)
    other = RedisStore(redis_server.url, "mesh", 20.0, 1 << 20)
    second = CachedPlane(front.bench.plane, other, config, SystemClock())
    await second.start()
    try:
        await eventually(lambda: other.up)
        result = await second.infer(front.bench.request(1.0))
        assert struct.unpack("<2f", result.outputs[0].data) == (1.0, 1.0)
        assert len(runner.bundles) == 1
    finally:
        await second.stop()
