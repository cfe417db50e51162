"""A stop that ends: every step has a limit, all of them together another, and the log says what was waited for."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import traceback
from collections.abc import Awaitable

from headrace_common.clock import Clock
from headrace_common.logs import get_logger

_TOLD_FROM_S = 1.0
_SHORTEST_S = 0.2
"""What a step gets when the time for all is up: most need none."""
_LAST_RESORT_S = 3.0


class Stopping:
    """Runs the steps of a stop, one after the other.

    Args:
        within_s: for all of them.
    """

    def __init__(self, clock: Clock, within_s: float) -> None:
        self._clock = clock
        self._deadline = clock.monotonic() + within_s
        self._log = get_logger()

    async def step(self, name: str, work: Awaitable[object], limit_s: float | None = None) -> None:
        """Gives it up when its time is over: what comes after it must have its turn. None: all that is left."""
        begun = self._clock.monotonic()
        left_s = max(_SHORTEST_S, self._deadline - begun)
        allowed_s = left_s if limit_s is None else min(limit_s, left_s)
        doing = asyncio.ensure_future(work)
        done, _ = await asyncio.wait((doing,), timeout=allowed_s)
        took_s = round(self._clock.monotonic() - begun, 3)
        if not done:
            self._log.error("stop goes on without", step=name, waited_s=took_s, tasks=_unfinished())
            doing.cancel()
            return
        if took_s >= _TOLD_FROM_S:
            self._log.info("stop waited", step=name, waited_s=took_s)
        if not doing.cancelled() and (error := doing.exception()) is not None:
            self._log.error("stop step failed", step=name, error=repr(error), exc_info=error)


def end_anyway(code: int, after_s: float = _LAST_RESORT_S) -> None:
    """Ends the process with this code if it is still there after the time: what a thread does at the end of an event
    loop is nobody's to wait for. The log gets where each thread was."""

    def end() -> None:
        get_logger().error("ended by force", waited_s=after_s, threads=_threads())
        os._exit(code)

    timer = threading.Timer(after_s, end)
    timer.daemon = True
    timer.start()


def _unfinished() -> list[str]:
    current = asyncio.current_task()
    return sorted(task.get_name() for task in asyncio.all_tasks() if task is not current)


def _threads() -> dict[str, str]:
    """Name -> the line where it is."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return {
        f"{names.get(ident, 'unknown')} {ident}": traceback.format_stack(frame)[-1].strip()
        for ident, frame in sys._current_frames().items()  # the documented way to see other threads' stacks
    }
