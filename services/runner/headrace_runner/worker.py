"""The engine's thread: it alone touches the model. Loads first, then bundles, the routers' in turn.

The event loop only queues and delivers, so a bundle costs it two hand-overs and nothing else.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from headrace.runner.v1 import runner_pb2 as pb
from headrace_runner.core.rotation import Rotation
from headrace_runner.execution import Executor, Job

T = TypeVar("T")
_Call = tuple[Callable[[], Any], asyncio.Future[Any]]


class EngineWorker:
    """Made, called and stopped on the event loop.

    The thread is a daemon: an engine that hangs must not keep the process from ending.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ready = threading.Condition()
        self._calls: deque[_Call] = deque()
        self._jobs: Rotation[int, Job] = Rotation()
        self._executor: Executor | None = None
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

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

    def submit(self, job: Job) -> None:
        with self._ready:
            self._jobs.add(job.stream, job)
            self._ready.notify()

    def withdraw(self, stream: int, bundle_id: int) -> Job | None:
        """Takes a bundle back that has not begun; None if it has, or is unknown."""
        with self._ready:
            return self._jobs.remove(stream, lambda job: job.bundle.bundle_id == bundle_id)

    def drop(self, stream: int) -> tuple[Job, ...]:
        """Takes back everything of a stream that has not begun."""
        with self._ready:
            return self._jobs.drop(stream)

    def stop(self, wait_s: float) -> bool:
        """Ends the thread once it is idle. Returns whether it has ended within the time."""
        with self._ready:
            self._stopping = True
            self._ready.notify()
        self._thread.join(wait_s)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while (task := self._next()) is not None:
            task()

    def _next(self) -> Callable[[], None] | None:
        """What to do; None: end. Waits for it."""
        with self._ready:
            while not self._stopping:
                if self._calls:
                    call = self._calls.popleft()
                    return lambda: self._answer(*call)
                if self._executor is not None and (job := self._jobs.take()) is not None:
                    executor = self._executor
                    return lambda: self._execute(executor, job)
                self._ready.wait()
            return None

    def _answer(self, work: Callable[[], Any], future: asyncio.Future[Any]) -> None:
        try:
            result = work()
        except Exception as error:  # noqa: BLE001 - raised again where the outcome is awaited
            self._post(_fail, future, error)
        else:
            self._post(_succeed, future, result)

    def _execute(self, executor: Executor, job: Job) -> None:
        result: pb.BundleResult = executor.execute(job)
        self._post(job.deliver, job, result)

    def _post(self, callback: Callable[..., None], *arguments: Any) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(callback, *arguments)


def _succeed(future: asyncio.Future[T], result: T) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
