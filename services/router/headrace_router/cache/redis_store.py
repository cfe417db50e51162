"""Answers in Redis, which several routers and meshes may share.

A request waits `timeout_s` at most, and not at all while Redis is known to be away or slow. Lookups that
come together go as one MGET; answers are written behind, by a task of this store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import cast

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from headrace_common.logs import get_logger
from headrace_router.cache.store import Answer, StoreCounts, size_of
from headrace_router.core.stored_answers import decode_answer, encode_answer

CONNECT_S = 2.0
"""A connection, or an answer that nobody waits for any more, may take so long."""
PAUSE_S = 2.0
"""After a failure Redis is left alone for so long."""
MOST_OVERDUE = 3
"""So many lookups in a row may come too late before that is a failure."""
MOST_WANTED = 256
"""Keys of one lookup; what comes beyond is a miss."""
MOST_UNWRITTEN_BYTES = 8 << 20
WRITES_AT_ONCE = 64

_log = get_logger()
_FAILURES = (RedisError, OSError, TimeoutError)


@dataclass(slots=True)
class _Lookup:
    """Keys that go to Redis together, and who waits for their values."""

    hopes: dict[bytes, list[asyncio.Future[bytes | None]]] = field(default_factory=dict)
    timer: asyncio.TimerHandle | None = None

    def tell(self, values: Sequence[bytes | None]) -> bool:
        """Whether somebody was still waiting."""
        if self.timer is not None:
            self.timer.cancel()
        waiting = False
        for hopes, value in zip(self.hopes.values(), values, strict=True):
            for hope in hopes:
                if not hope.done():
                    waiting = True
                    hope.set_result(value)
        return waiting

    def give_up(self) -> bool:
        return self.tell([None] * len(self.hopes))


@dataclass(frozen=True, slots=True)
class _Unwritten:
    answer: Answer
    size_bytes: int
    expires: float


class RedisStore:
    """A `store.AnswerStore`. Everything of Redis happens in two tasks, between `start` and `stop`.

    Args:
        prefix: in front of every key.
        pause_s: see PAUSE_S.

    Attributes:
        up: there is a connection that has not failed.
    """

    def __init__(
        self, url: str, prefix: str, timeout_s: float, max_entry_bytes: int, *, pause_s: float = PAUSE_S
    ) -> None:
        self.up = False
        self._prefix = f"{prefix}:answer:".encode()
        self._timeout_s = timeout_s
        self._pause_s = pause_s
        self._max_entry_bytes = max_entry_bytes
        self._reads, self._writes = _client(url), _client(url)
        self._wanted = _Lookup()
        self._overdue = 0
        self._rests_until = 0.0
        self._asked = asyncio.Event()
        self._unwritten: dict[bytes, _Unwritten] = {}
        self._unwritten_bytes = 0
        self._due = asyncio.Event()
        self._counts = StoreCounts()
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False

    def counts(self) -> StoreCounts:
        return self._counts

    async def start(self) -> None:
        """Does not wait for Redis."""
        self._tasks = [
            asyncio.create_task(self._keep_on(self._read, self._go_down), name="cache reads"),
            asyncio.create_task(self._keep_on(self._write, self._lose_writes), name="cache writes"),
        ]

    async def stop(self) -> None:
        """What is not written yet is lost: it is only a cache."""
        # On Python 3.11 the client's use of wait_for can swallow a cancellation: the tasks look here as well.
        self._stopping = True
        self._asked.set()
        self._due.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._go_down()
        for client in (self._reads, self._writes):
            await client.aclose()

    def peek(self, key: bytes) -> Answer | None:
        """What is still to be written."""
        due = self._unwritten.get(key)
        return due.answer if due is not None and asyncio.get_running_loop().time() < due.expires else None

    async def get(self, key: bytes) -> Answer | None:
        loop = asyncio.get_running_loop()
        if (answer := self.peek(key)) is not None:
            return answer
        wanted = self._wanted
        if not self.up or len(wanted.hopes) >= MOST_WANTED or loop.time() < self._rests_until:
            self._counts.skipped += 1
            return None
        if wanted.timer is None:
            wanted.timer = loop.call_later(self._timeout_s, self._too_late, wanted)
            self._asked.set()
        hope: asyncio.Future[bytes | None] = loop.create_future()
        wanted.hopes.setdefault(key, []).append(hope)
        value = await hope
        if value is None:
            return self.peek(key)
        answer = decode_answer(key, value)
        if answer is None:
            self._counts.errors += 1
        return answer

    def put(self, key: bytes, answer: Answer, ttl_s: float, group: Hashable) -> None:
        size = size_of(answer)
        if size > self._max_entry_bytes:
            self._counts.too_large += 1
        elif not self.up or self._unwritten_bytes + size > MOST_UNWRITTEN_BYTES:
            self._counts.skipped += 1
        else:
            self._take_out(key)
            self._unwritten[key] = _Unwritten(answer, size, asyncio.get_running_loop().time() + ttl_s)
            self._unwritten_bytes += size
            self._due.set()

    def sizes(self) -> Mapping[Hashable, int]:
        return {}

    def forget(self, is_alive: Callable[[Hashable], bool]) -> None:
        """Nothing: keys name their revision, and Redis lets them expire."""

    def _too_late(self, lookup: _Lookup) -> None:
        if lookup is self._wanted:
            self._wanted = _Lookup()
        if lookup.give_up():
            self._counts.errors += 1
            self._overdue += 1
            if self._overdue >= MOST_OVERDUE:
                self._rests_until = asyncio.get_running_loop().time() + self._pause_s

    async def _keep_on(self, work: Callable[[], Awaitable[None]], clean_up: Callable[[], None]) -> None:
        while not self._stopping:
            try:
                await work()
            except _FAILURES as error:
                self._counts.errors += 1
                if self.up:
                    _log.warning("cache failed; requests go on without it", reason=repr(error))
            except Exception:  # noqa: BLE001 - whatever Redis or its client do, requests go on
                self._counts.errors += 1
                _log.exception("cache failed; requests go on without it")
            finally:
                clean_up()
            if not self._stopping:
                await asyncio.sleep(self._pause_s)

    def _go_down(self) -> None:
        self.up = False
        lookup, self._wanted = self._wanted, _Lookup()
        lookup.give_up()

    async def _read(self) -> None:
        """Connects, then looks up what is wanted, until something fails."""
        await self._reads.connection_pool.disconnect()
        async with asyncio.timeout(CONNECT_S):
            await self._reads.ping()
        self.up = True
        _log.info("cache connected")
        while not self._stopping:
            await self._asked.wait()
            self._asked.clear()
            lookup, self._wanted = self._wanted, _Lookup()
            if lookup.hopes:
                await self._look_up(lookup)

    async def _look_up(self, lookup: _Lookup) -> None:
        try:
            async with asyncio.timeout(CONNECT_S):
                values = await self._reads.mget([self._name(key) for key in lookup.hopes])
        except BaseException:
            lookup.give_up()
            raise
        if lookup.tell(cast("Sequence[bytes | None]", values)):
            self._overdue = 0

    async def _write(self) -> None:
        """Writes what is due, until something fails."""
        await self._writes.connection_pool.disconnect()
        while not self._stopping:
            await self._due.wait()
            self._due.clear()
            while not self._stopping and (batch := list(islice(self._unwritten.items(), WRITES_AT_ONCE))):
                now = asyncio.get_running_loop().time()
                async with asyncio.timeout(CONNECT_S), self._writes.pipeline(transaction=False) as pipeline:
                    for key, due in batch:
                        left_ms = max(1, int((due.expires - now) * 1000))
                        pipeline.set(self._name(key), encode_answer(key, due.answer), px=left_ms)
                    await pipeline.execute()
                self._counts.stored += len(batch)
                for key, due in batch:
                    if self._unwritten.get(key) is due:
                        self._take_out(key)

    def _lose_writes(self) -> None:
        self._unwritten.clear()
        self._unwritten_bytes = 0

    def _take_out(self, key: bytes) -> None:
        due = self._unwritten.pop(key, None)
        if due is not None:
            self._unwritten_bytes -= due.size_bytes

    def _name(self, key: bytes) -> bytes:
        return self._prefix + key.hex().encode()


def _client(url: str) -> Redis:
    """One that fails at once: trying again is what the store does."""
    return Redis.from_url(url, retry=Retry(NoBackoff(), 0), socket_connect_timeout=CONNECT_S)
