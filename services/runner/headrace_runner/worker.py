"""Who calls the engine: its thread, or the event loop for bundles that are short. Never both at once.

Loads come first, then bundles, the routers' in turn. Handing a bundle to the thread and back costs some
0.1 ms and a third of the context switches of a short one (docs/data-path.md), so what has been short every
time is executed where it arrives, as long as the thread is idle and nothing waits. A model that hangs then
stops the event loop as well: such a runner answers nobody any more and is killed by its process id, after
the grace of its unload.

A model with several lanes (`Pipelined`) gets a thread for each, and nothing on the event loop: while one waits for the
GPU, the next bundle is taken up (docs/adr/0015-lanes-on-the-gpu.md).
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from headrace_common.clock import Clock
from headrace_runner.core.brevity import Brevity
from headrace_runner.core.rotation import Rotation
from headrace_runner.execution import Executor, Job
from headrace_runner.transport import Answer

T = TypeVar("T")
_Call = tuple[Callable[[], Any], asyncio.Future[Any]]


class EngineWorker:
    """Made, called and stopped on the event loop.

    Its threads are daemons: an engine that hangs must not keep the process from ending.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._ready = threading.Condition()
        self._calls: deque[_Call] = deque()
        self._jobs: Rotation[int, Job] = Rotation()
        self._executor: Executor | None = None
        self._brevity = Brevity()
        self._busy = 0
        self._stopping = False
        self._threads: list[threading.Thread] = []
        self._start_thread()

    def call(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Runs `work` on the thread, ahead of bundles."""
        future: asyncio.Future[T] = self._loop.create_future()
        with self._ready:
            self._calls.append((work, future))
            self._ready.notify()
        return future

    def use(self, executor: Executor) -> None:
        """Bundles are executed by this from now on."""
        with self._ready:
            self._executor = executor
            self._ready.notify()
        while len(self._threads) < executor.lanes:
            self._start_thread()

    def submit(self, job: Job) -> None:
        """Executes a bundle, now or in its turn."""
        with self._ready:
            executor = self._executor
            idle = not self._busy and not self._calls and not len(self._jobs)
            if executor is None or not idle or executor.lanes > 1 or not self._brevity.short(job.rows):
                self._jobs.add(job.stream, job)
                self._ready.notify()
                return
        # The thread sleeps on: only this event loop, which is here, could give it work.
        job.deliver(job, self._timed(executor, job))

    def withdraw(self, stream: int, bundle_id: int) -> Job | None:
        """Takes a bundle back that has not begun; None if it has, or is unknown."""
        with self._ready:
            return self._jobs.remove(stream, lambda job: job.bundle.bundle_id == bundle_id)

    def drop(self, stream: int) -> tuple[Job, ...]:
        """Takes back everything of a stream that has not begun."""
        with self._ready:
            return self._jobs.drop(stream)

    def stop(self, wait_s: float) -> bool:
        """Ends the threads once they are idle. Returns whether they have ended within the time."""
        with self._ready:
            self._stopping = True
            self._ready.notify_all()
        give_up = self._clock.monotonic() + wait_s
        for thread in self._threads:
            thread.join(max(0.0, give_up - self._clock.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _start_thread(self) -> None:
        with self._ready:
            self._busy += 1  # Until it waits.
        thread = threading.Thread(target=self._work, name=f"engine-{len(self._threads)}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _work(self) -> None:
        while (task := self._next()) is not None:
            if isinstance(task, Job):
                self._execute(task)
            else:
                self._answer(*task)
            # Not held while the next one is waited for: it refers to tensors.
            del task

    def _next(self) -> Job | _Call | None:
        """What to do; None: end. Waits for it."""
        with self._ready:
            while not self._stopping:
                if self._calls:
                    return self._calls.popleft()
                if self._executor is not None and (job := self._jobs.take()) is not None:
                    return job
                self._busy -= 1
                self._ready.wait()
                self._busy += 1
            return None

    def _answer(self, work: Callable[[], Any], future: asyncio.Future[Any]) -> None:
        try:
            result = work()
        except Exception as error:  # noqa: BLE001 - raised again where the outcome is awaited
            self._post(_fail, future, error)
        else:
            self._post(_succeed, future, result)

    def _execute(self, job: Job) -> None:
        if self._executor is not None:
            self._post(job.deliver, job, self._timed(self._executor, job))

    def _timed(self, executor: Executor, job: Job) -> Answer:
        begun = self._clock.monotonic()
        answer = executor.execute(job)
        if executor.lanes == 1:
            self._brevity.observe(job.rows, self._clock.monotonic() - begun)
        return answer

    def _post(self, callback: Callable[..., None], *arguments: Any) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(callback, *arguments)


def _succeed(future: asyncio.Future[T], result: T) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
