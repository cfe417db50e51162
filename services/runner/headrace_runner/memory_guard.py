"""Holds this process to its memory: RLIMIT_DATA, and a thread that looks how much is resident.

A thread, because a model that runs on the event loop keeps the loop from looking (see `worker`).
"""

from __future__ import annotations

import asyncio
import os
import resource
import threading
from collections.abc import Callable

from headrace_common.clock import Clock
from headrace_common.enforcement import OVER_MEMORY_STATUS
from headrace_common.errors import InvalidArgument
from headrace_common.logs import get_logger
from headrace_runner.core.memory import PERIOD_S, USED_UP, MemoryWatch, Verdict, mapping_limit, too_small
from headrace_runner.process import memory_usage


class MemoryGuard:
    """Made, started and stopped on the event loop.

    Args:
        leave: called on the event loop, once, with the reason, when the memory has been outgrown.
    """

    def __init__(self, clock: Clock, leave: Callable[[str], None]) -> None:
        self._clock = clock
        self._leave = leave
        self._loop = asyncio.get_running_loop()
        self._thread_id = threading.get_ident()
        self._stopped = threading.Event()
        self._watch: MemoryWatch | None = None

    def hold(self, limit_bytes: int, *, in_cgroup: bool) -> None:
        """From now on. 0: no limit.

        Args:
            in_cgroup: the kernel counts as well, so that nothing need bound what is mapped.

        Raises:
            InvalidArgument: the process holds that much already.
        """
        if not limit_bytes:
            return
        usage = memory_usage()
        if reason := too_small(limit_bytes, usage):
            raise InvalidArgument(reason)
        if not in_cgroup:
            self._limit_mapping(mapping_limit(limit_bytes, usage))
        self._watch = MemoryWatch(limit_bytes)
        threading.Thread(target=self._look, args=(self._watch,), name="memory", daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()

    def ran_out(self) -> None:
        """An allocation failed. Whoever has used up its memory leaves; one request that asks for more than there could
        ever be is refused, and costs nobody an instance. From any thread."""
        watch = self._watch
        if watch is not None and (held := memory_usage().private_bytes) >= USED_UP * watch.limit_bytes:
            self._tell(watch.reason(held) + " (an allocation failed)")

    def _limit_mapping(self, limit_bytes: int) -> None:
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        limit = limit_bytes if most == resource.RLIM_INFINITY else min(limit_bytes, most)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, most))

    def _look(self, watch: MemoryWatch) -> None:
        while not self._stopped.wait(PERIOD_S):
            held = memory_usage().private_bytes
            verdict = watch.observe(held, self._clock.monotonic())
            if verdict is Verdict.LEAVE:
                self._tell(watch.reason(held))
            elif verdict is Verdict.END:
                get_logger().error("over_memory_ended", reason=watch.reason(held))
                os._exit(OVER_MEMORY_STATUS)

    def _tell(self, reason: str) -> None:
        if threading.get_ident() == self._thread_id:
            self._leave(reason)
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._leave, reason)
