"""Every store of answers does the same: this process's memory, and a real redis-server."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from pydantic import ValidationError

from headrace_common.clock import FakeClock, SystemClock
from headrace_common.config import RouterConfig
from headrace_common.errors import InvalidArgument
from headrace_router.cache import open_store
from headrace_router.cache.memory import ENTRY_BYTES, TENSOR_BYTES, MemoryStore
from headrace_router.cache.redis_store import MOST_OVERDUE, RedisStore
from headrace_router.cache.store import Answer, AnswerStore
from headrace_router.core.stored_answers import encode_answer
from headrace_router.domain import TensorData

KEY, OTHER = bytes(range(32)), bytes(range(1, 33))
GROUP = ("m", 1)
LONG_S = 60.0
MOST_BYTES = 1000
PATIENT_S = 20.0
"""A lookup's bound where a slow machine must not turn a hit into a miss."""


def answer(size: int = 8, fill: int = 1) -> Answer:
    return [
        TensorData("y", "FP32", (size // 4,), bytes([fill]) * size),
        TensorData("z", "BYTES", (1,), b"\4\0\0\0abcd"),
    ]


async def until(condition: Callable[[], Any], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "what was waited for did not come about"
        await asyncio.sleep(0.002)


async def settled(store: AnswerStore, stored: int = 1) -> None:
    """So many answers have arrived where they are kept."""
    await until(lambda: store.counts().stored >= stored)


OpenRedis = Callable[..., Awaitable[RedisStore]]


@pytest.fixture
async def redis_store(redis_server: Any) -> AsyncIterator[Callable[..., Awaitable[RedisStore]]]:
    """Opens stores over the server; each has its connection when it is handed out."""
    opened: list[RedisStore] = []

    async def open_one(timeout_s: float = PATIENT_S, prefix: str = "mesh") -> RedisStore:
        store = RedisStore(redis_server.url, prefix, timeout_s, MOST_BYTES, pause_s=0.05)
        opened.append(store)
        await store.start()
        await until(lambda: store.up)
        return store

    yield open_one
    for store in opened:
        await store.stop()


@pytest.fixture(params=["memory", "redis"])
async def store(request: pytest.FixtureRequest, redis_store: OpenRedis) -> AnswerStore:
    return MemoryStore(1 << 20, MOST_BYTES, SystemClock()) if request.param == "memory" else await redis_store()


async def test_an_answer_comes_back_as_it_was(store: AnswerStore) -> None:
    assert await store.get(KEY) is None
    store.put(KEY, answer(), LONG_S, GROUP)
    assert await store.get(KEY) == answer()
    await settled(store)
    assert await store.get(KEY) == answer()
    assert await store.get(OTHER) is None
    counts = store.counts()
    assert (counts.stored, counts.errors, counts.skipped, counts.too_large) == (1, 0, 0, 0)


async def test_what_is_known_at_once_is_what_asking_would_tell(store: AnswerStore) -> None:
    assert store.peek(KEY) is None
    store.put(KEY, answer(), LONG_S, GROUP)
    assert store.peek(KEY) == answer()
    await settled(store)
    assert store.peek(KEY) in (None, await store.get(KEY))
    assert isinstance(store, RedisStore) or store.peek(KEY) == answer()


async def test_the_last_answer_counts(store: AnswerStore) -> None:
    for fill in (1, 2):
        store.put(KEY, answer(fill=fill), LONG_S, GROUP)
    assert await store.get(KEY) == answer(fill=2)
    await settled(store)
    assert await store.get(KEY) == answer(fill=2)


async def test_an_answer_is_forgotten_after_its_time(store: AnswerStore) -> None:
    store.put(KEY, answer(), 0.05, GROUP)
    store.put(OTHER, answer(), LONG_S, GROUP)
    await settled(store, 2)
    deadline = time.monotonic() + 20
    while await store.get(KEY) is not None:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)
    assert await store.get(OTHER) == answer()


async def test_an_answer_that_is_too_large_is_not_kept(store: AnswerStore) -> None:
    store.put(KEY, answer(MOST_BYTES), LONG_S, GROUP)
    assert await store.get(KEY) is None
    store.put(OTHER, answer(MOST_BYTES - 8), LONG_S, GROUP)
    assert await store.get(OTHER) == answer(MOST_BYTES - 8)
    assert store.counts().too_large == 1


async def test_many_keys_at_once_each_get_their_own(store: AnswerStore) -> None:
    keys = [bytes([n]) * 32 for n in range(100)]
    for n, key in enumerate(keys):
        store.put(key, answer(fill=n), LONG_S, GROUP)
    await settled(store, 100)
    got = await asyncio.gather(*(store.get(key) for key in [*keys, *keys]))
    assert got == [answer(fill=n % 100) for n in range(200)]


# --- memory ---


async def test_memory_never_passes_its_bound_and_keeps_what_is_used() -> None:
    one = len(answer()[0].data) + 8 + ENTRY_BYTES + 2 * TENSOR_BYTES
    store = MemoryStore(3 * one, MOST_BYTES, FakeClock())
    keys = [bytes([n]) * 32 for n in range(5)]
    for key in keys:
        store.put(key, answer(), LONG_S, GROUP)
        assert store.counts().size_bytes <= 3 * one
        await store.get(keys[0])
    assert [await store.get(key) is not None for key in keys] == [True, False, False, True, True]
    counts = store.counts()
    assert (counts.entries, counts.size_bytes, counts.evictions) == (3, 3 * one, 2)


async def test_memory_counts_time_by_its_clock() -> None:
    clock = FakeClock()
    store = MemoryStore(1 << 20, MOST_BYTES, clock)
    store.put(KEY, answer(), 10.0, GROUP)
    clock.advance(9.99)
    assert await store.get(KEY) == answer()
    clock.advance(0.01)
    assert await store.get(KEY) is None
    assert store.counts().size_bytes == 0


async def test_memory_frees_what_nobody_asks_for_any_more() -> None:
    store = MemoryStore(1 << 20, MOST_BYTES, FakeClock())
    store.put(KEY, answer(), LONG_S, ("m", 1))
    store.put(OTHER, answer(), LONG_S, ("m", 2))
    store.forget(lambda group: group == ("m", 2))
    assert (await store.get(KEY), await store.get(OTHER)) == (None, answer())
    assert store.counts().entries == 1


# --- Redis ---


async def test_stores_with_one_prefix_share_and_others_do_not(redis_store: OpenRedis) -> None:
    first, second, stranger = await redis_store(), await redis_store(), await redis_store(prefix="other")
    first.put(KEY, answer(), LONG_S, GROUP)
    await settled(first)
    assert await second.get(KEY) == answer()
    assert await stranger.get(KEY) is None


@pytest.mark.parametrize(
    "value",
    [b"", b"something else", encode_answer(OTHER, answer()), encode_answer(KEY, answer())[:-1]],
    ids=["empty", "foreign", "of another key", "cut off"],
)
async def test_a_value_that_is_not_ours_is_a_miss(redis_store: OpenRedis, redis_server: Any, value: bytes) -> None:
    store = await redis_store()
    store.put(KEY, answer(), LONG_S, GROUP)
    await settled(store)
    with redis_server.client() as client:
        [name] = client.keys()
        assert client.pttl(name) > 0
        client.set(name, value)
    assert await store.get(KEY) is None
    assert store.counts().errors == 1
    assert store.up


async def test_a_dead_redis_costs_misses_and_is_found_again(redis_store: OpenRedis, redis_server: Any) -> None:
    store = await redis_store()
    store.put(KEY, answer(), LONG_S, GROUP)
    await settled(store)
    redis_server.kill()
    assert await store.get(KEY) is None
    await until(lambda: not store.up)
    assert store.counts().errors >= 1
    skipped = store.counts().skipped
    store.put(OTHER, answer(), LONG_S, GROUP)
    assert await store.get(OTHER) is None
    assert store.counts().skipped == skipped + 2
    redis_server.start()
    await until(lambda: store.up)
    store.put(OTHER, answer(), LONG_S, GROUP)
    await settled(store, 2)
    assert await store.get(OTHER) == answer()


async def test_a_redis_that_does_not_answer_is_not_waited_for(redis_store: OpenRedis, redis_server: Any) -> None:
    store = await redis_store(timeout_s=0.05)
    redis_server.signal(signal.SIGSTOP)
    try:
        for n in range(MOST_OVERDUE):
            assert await store.get(bytes([n]) * 32) is None
        counts = store.counts()
        assert (counts.errors, counts.skipped) == (MOST_OVERDUE, 0)
        assert await store.get(KEY) is None
        assert store.counts().skipped == 1
    finally:
        redis_server.signal(signal.SIGCONT)


async def test_a_redis_that_is_full_costs_misses(redis_store: OpenRedis, redis_server: Any) -> None:
    store = await redis_store()
    with redis_server.client() as client:
        client.config_set("maxmemory", "1")
    store.put(KEY, answer(), LONG_S, GROUP)
    await until(lambda: store.counts().errors == 1)
    assert await store.get(KEY) is None
    assert store.up


async def test_a_caller_that_goes_away_takes_no_answer_from_others(redis_store: OpenRedis) -> None:
    store = await redis_store()
    store.put(KEY, answer(), LONG_S, GROUP)
    await settled(store)
    gone, stays = (asyncio.ensure_future(store.get(KEY)) for _ in range(2))
    await asyncio.sleep(0)
    gone.cancel()
    assert await stays == answer()
    assert store.counts().errors == 0


# --- which one ---


def test_the_configuration_says_which(redis_server: Any) -> None:
    clock = FakeClock()
    assert isinstance(open_store(RouterConfig(), clock), MemoryStore)

    async def opened() -> AnswerStore:
        return open_store(RouterConfig(cache_url=redis_server.url), clock)

    assert isinstance(asyncio.run(opened()), RedisStore)
    with pytest.raises(ValidationError, match="cache_url"):
        RouterConfig(cache_url="memcached://localhost")


async def test_a_url_that_means_nothing_is_refused_and_not_repeated() -> None:
    with pytest.raises(InvalidArgument, match=r"router\.cache_url: expected redis://HOST:PORT/DB") as refusal:
        open_store(RouterConfig(cache_url="redis://:secret@localhost:port/0"), FakeClock())
    assert "secret" not in refusal.value.message
