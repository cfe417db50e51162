"""One load of a revision on a runner: what it is told, and what becomes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from headrace.v1 import resources_pb2
from headrace_autoscaler.domain import Enforcement, Revision
from headrace_autoscaler.fleet.link import LoadAnswer, LoadFailed, LoadRefused, RunnerLink
from headrace_autoscaler.fleet.runners import Assignment, Runner, RunnerState
from headrace_autoscaler.providers.base import InstanceProvider
from headrace_common.clock import Clock
from headrace_common.logs import get_logger
from headrace_common.quantities import format_bytes

_AUTOPSY_S = 1.0
"""How a runner ended that died during a load is known within this."""


@dataclass(frozen=True, slots=True)
class LoadOrder:
    """One load: what, from where, and who hears how it ended. A verification's failure is its deploy's to report."""

    assignment: Assignment
    revision: Revision
    directory: str
    shape: resources_pb2.InstanceShape
    loaded: Callable[[Runner, LoadAnswer], None]
    failed: Callable[[Runner, Exception], None]
    verification: bool = False


class Loading:
    """
    Args:
        links: to the runners that are there, by id.
        load_s: what a load may take.
        changed: called when a load has ended.
        kill: ends a runner whose load has failed.
    """

    def __init__(
        self,
        provider: InstanceProvider,
        links: Mapping[str, RunnerLink],
        clock: Clock,
        epoch: int,
        load_s: float,
        changed: Callable[[], None],
        kill: Callable[[Runner], Awaitable[None]],
    ) -> None:
        self._provider = provider
        self._links = links
        self._clock = clock
        self._epoch = epoch
        self._load_s = load_s
        self._changed = changed
        self._kill = kill
        self._log = get_logger(epoch=epoch)

    async def run(self, runner: Runner, order: LoadOrder) -> None:
        """Ends with the runner ready, or with its end; whoever ordered it hears which."""
        self._log.info("instance loading", instance=runner.id, **runner.labels)
        try:
            answer = await self._answer(runner, order)
        except Exception as error:  # noqa: BLE001 - whatever it is, whoever waits for this load must hear of it
            await self._failed(runner, order, error)
            return
        runner.loaded, runner.load_open = answer.loaded, False
        runner.resident_bytes = runner.resident_bytes or answer.loaded.resident_bytes
        runner.advance(RunnerState.READY, self._clock.monotonic())
        order.loaded(runner, answer)
        self._changed()

    async def hold(self, runner: Runner, assignment: Assignment) -> Enforcement:
        """Holds a runner to what it was promised."""
        runner.enforcement = await self._provider.hold(runner.id, assignment.resources)
        return runner.enforcement

    async def _answer(self, runner: Runner, order: LoadOrder) -> LoadAnswer:
        link = self._links.get(runner.id)
        if link is None:
            raise LoadFailed("the runner died before it could load")
        enforcement = await self.hold(runner, order.assignment)
        return await link.load(
            self._epoch,
            runner.id,
            order.assignment,
            order.revision,
            order.directory,
            order.shape,
            enforcement,
            self._load_s,
            runner.cold_start is not None,
        )

    async def _failed(self, runner: Runner, order: LoadOrder, error: Exception) -> None:
        known = isinstance(error, LoadRefused | LoadFailed)
        failure = error if known else LoadFailed("an unexpected error, which autoscaler.log has in full")
        if isinstance(error, LoadFailed) and await self._ran_out(runner):
            failure = LoadRefused(over_memory(runner, "it ended while it loaded"))
        log = self._log.info if known and order.verification else self._log.warning
        log("load failed", instance=runner.id, reason=str(failure), exc_info=None if known else error, **runner.labels)
        runner.advance(RunnerState.GONE, self._clock.monotonic())
        order.failed(runner, failure)
        self._changed()
        await self._kill(runner)

    async def _ran_out(self, runner: Runner) -> bool:
        """Whether a runner that died during its load outgrew its memory."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_AUTOPSY_S):
                await runner.gone.wait()
        return runner.over_memory


def over_memory(runner: Runner, ended: str) -> str:
    """Of one that could not say it itself."""
    share = format_bytes(runner.assignment.resources.memory_bytes) if runner.assignment else "nothing"
    return f"over its memory: {share} is its share ({ended}); deploy the model with more memory"
