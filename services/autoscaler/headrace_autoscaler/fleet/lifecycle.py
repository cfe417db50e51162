"""Starting, draining and burying runners: what a plan's actions do. What a load is, is in `loading`."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from headrace_autoscaler.core.backoff import Failures
from headrace_autoscaler.core.standby import StartTimes
from headrace_autoscaler.domain import Resources
from headrace_autoscaler.fleet.books import Books
from headrace_autoscaler.fleet.link import RunnerLink
from headrace_autoscaler.fleet.loading import Loading, LoadOrder, over_memory
from headrace_autoscaler.fleet.runners import Assignment, Registry, Runner, RunnerState
from headrace_autoscaler.fleet.tasks import TaskSet
from headrace_autoscaler.providers.base import Exit, InstanceProvider, StartedRunner, StartFailed
from headrace_common.clock import Clock
from headrace_common.life_sign import LifeSign
from headrace_common.logs import get_logger

_RECONNECT_S = 0.1
_UNLOAD_MARGIN_S = 5.0
EARLY_S = 5.0
"""A runner that ends by itself within this after it was ready has failed to start."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    load_s: float
    drain_s: float


def _nobody_hears(_runner: Runner, _ended: str) -> None: ...


class Lifecycle:
    """Every runner has one task, from its start to its end. `changed` is called after every change.

    Attributes:
        starts: of the processes that it started itself.
        died_early: called with a runner that ended by itself as soon as it was ready, and how it ended.
        outgrew: called once with a runner that was ready and has outgrown its memory, and with what it says of it.
    """

    def __init__(
        self,
        provider: InstanceProvider,
        registry: Registry,
        books: Books,
        clock: Clock,
        epoch: int,
        timeouts: Timeouts,
        changed: Callable[[], None],
    ) -> None:
        self._provider = provider
        self._registry = registry
        self._books = books
        self._clock = clock
        self._epoch = epoch
        self._timeouts = timeouts
        self._changed = changed
        self._links: dict[str, RunnerLink] = {}
        self._loading = Loading(provider, self._links, clock, epoch, timeouts.load_s, changed, self._kill)
        self._tasks = TaskSet()
        self._departed: set[str] = set()
        self._log = get_logger(epoch=epoch)
        self.start_failures = Failures()
        self.starts = StartTimes()
        self.died_early: Callable[[Runner, str], None] = _nobody_hears
        self.outgrew: Callable[[Runner, str], None] = _nobody_hears

    async def adopt(self, patience_s: float) -> None:
        """Takes over the runners that are there, and waits a moment to hear what they hold."""
        runners = await self.adopt_new()
        with suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                for runner in runners:
                    await runner.seen.wait()

    async def adopt_new(self) -> list[Runner]:
        """Takes over those that are not known yet: one that was starting when an earlier autoscaler died
        shows itself only when it serves."""
        found = [each for each in await self._provider.list() if self._registry.get(each.runner_id) is None]
        runners = [self._enter(started.runner_id, started) for started in found]
        for runner in runners:
            self._tasks.start(self._follow(runner), f"runner {runner.id}")
        for gone in await self._provider.departed():
            if gone.runner_id not in self._departed:
                self._departed.add(gone.runner_id)
                self._log.info("runner had gone", runner=gone.runner_id, ended_at=gone.ended_at)
                self._books.departed(_assignment_of(gone.sign), gone.started_at, gone.ended_at)
        return runners

    @property
    def departed(self) -> frozenset[str]:
        """Runners that ended while no autoscaler was there, and whose time was booked."""
        return frozenset(self._departed)

    async def forget(self, departed: frozenset[str]) -> None:
        """Their time is in the books, for good."""
        await self._provider.forget(departed)
        self._departed -= departed

    def start(self, reason: str) -> None:
        runner = self._enter(f"runner-{secrets.token_hex(4)}")
        runner.started_here = True
        self.starts.begun(runner.started_at)
        self._log.info("runner starting", runner=runner.id, reason=reason)
        self._tasks.start(self._live(runner), f"runner {runner.id}")

    def load(self, runner: Runner, order: LoadOrder) -> None:
        """The runner is the revision's from now on, whatever comes of the load."""
        self._books.settle(runner)
        runner.assignment = order.assignment
        runner.load_open = True
        runner.advance(RunnerState.LOADING, self._clock.monotonic())
        self._tasks.start(self._loading.run(runner, order), f"load {order.revision.model} on {runner.id}")

    def drain(self, runner: Runner, reason: str, within_s: float | None = None) -> None:
        """Lets it answer what it has. One that is not ready yet has nothing to answer.

        Args:
            within_s: it is given so long; None: as the configuration says.
        """
        ready = runner.state is RunnerState.READY
        if runner.advance(RunnerState.DRAINING, self._clock.monotonic()):
            self._log.info("instance draining", instance=runner.id, reason=reason, **runner.labels)
            runner.drain_s = within_s
            drain_s = self._drain_s(runner)
            self._tasks.start(self._unload(runner, reason, ready, drain_s), f"drain {runner.id}")

    def stop(self, runner: Runner, reason: str) -> None:
        """For a runner that holds nothing, or whose time is up."""
        self._log.info("runner stopping", runner=runner.id, reason=reason)
        runner.advance(RunnerState.GONE, self._clock.monotonic())
        self._tasks.start(self._kill(runner), f"kill {runner.id}")

    def sweep(self) -> None:
        """Ends runners that have been on their way for too long."""
        now = self._clock.monotonic()
        allowed_s = {
            RunnerState.STARTING: self._timeouts.load_s,
            RunnerState.LOADING: self._timeouts.load_s + _UNLOAD_MARGIN_S,
            RunnerState.GONE: _UNLOAD_MARGIN_S,
        }
        for runner in self._registry:
            limit_s = allowed_s.get(runner.state)
            if runner.state is RunnerState.DRAINING:
                limit_s = self._drain_s(runner) + _UNLOAD_MARGIN_S
            if limit_s is None or now - runner.state_since <= limit_s:
                continue
            if runner.state is RunnerState.STARTING:
                self._start_failed(f"a runner was not ready to load {limit_s:g} s after its start")
            runner.state_since = now
            self.stop(runner, f"{runner.state.label} for more than {limit_s:g} s")

    def _drain_s(self, runner: Runner) -> float:
        return self._timeouts.drain_s if runner.drain_s is None else runner.drain_s

    async def shut_down(self, drain_s: float) -> None:
        """Unloads everything, in at most this time, also what drains already; what is left then is killed."""
        reason = "the mesh stops"
        for runner in self._registry:
            if runner.state in (RunnerState.READY, RunnerState.DRAINING):
                runner.advance(RunnerState.DRAINING, self._clock.monotonic())
                self._tasks.start(self._unload(runner, reason, True, drain_s), f"unload {runner.id}")
            else:
                self.stop(runner, reason)
        waiting = [
            asyncio.create_task(self._provider.wait_exit(runner.id), name=runner.id) for runner in self._registry
        ]
        if waiting:
            _, late = await asyncio.wait(waiting, timeout=drain_s + 1.0)
            for task in late:
                self._log.warning(
                    "runner killed", runner=task.get_name(), reason=f"not ended {drain_s:g} s after unload"
                )
                task.cancel()
        await asyncio.gather(*(self._kill(runner) for runner in self._registry))

    async def close(self) -> None:
        await self._tasks.close()
        await asyncio.gather(*(link.close() for link in self._links.values()))
        self._links.clear()

    async def count_requests(self) -> None:
        """Asks ready runners how many requests they have executed."""

        async def ask(runner: Runner, link: RunnerLink) -> None:
            count = await link.requests()
            runner.requests = runner.requests if count is None else count

        ready = self._registry.in_state(RunnerState.READY)
        await asyncio.gather(*(ask(each, self._links[each.id]) for each in ready if each.id in self._links))

    def _enter(self, runner_id: str, started: StartedRunner | None = None) -> Runner:
        now = self._clock.monotonic()
        runner = Runner(
            id=runner_id,
            target=started.target if started else "",
            pid=started.pid if started else 0,
            started_at=now,
            started_wall=(started.started_at if started else None) or self._clock.wall(),
            booked_until_us=self._books.adopted_from_us(started.started_at) if started else self._books.mark_us(),
            state_since=now,
            assignment=_assignment_of(started.sign) if started and started.sign else None,
            unheard=started is not None and started.sign is None,
        )
        self._registry.add(runner)
        return runner

    async def _live(self, runner: Runner) -> None:
        try:
            started = await self._provider.start(runner.id)
        except StartFailed as error:
            self._registry.remove(runner.id)
            self._start_failed(str(error))
            return
        runner.target, runner.pid = started.target, started.pid
        if runner.state is RunnerState.GONE:
            # Stopped while it was being started, when there was nothing to kill yet.
            await self._kill(runner)
        await self._follow(runner)

    async def _follow(self, runner: Runner) -> None:
        link = self._links[runner.id] = RunnerLink(runner.target)
        watching = self._tasks.start(self._watch(runner, link), f"watch {runner.id}")
        try:
            ended = await self._provider.wait_exit(runner.id)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        self._links.pop(runner.id, None)
        self._bury(runner, ended)
        await link.close()

    async def _watch(self, runner: Runner, link: RunnerLink) -> None:
        while True:
            async for report in link.watch():
                self._books.settle(runner)
                if runner.hear(report, self._clock.monotonic()):
                    if report.state is RunnerState.STANDBY:
                        self.start_failures = Failures()
                        if runner.started_here:
                            self.starts.took(runner.state_since - runner.started_at)
                    self._log.info("runner state", runner=runner.id, state=runner.state.label, **runner.labels)
                    self._changed()
                if report.over_memory:
                    self._outgrew(runner, report.reason)
                if runner.assignment is not None and runner.enforcement is None:
                    # Adopted: whoever held it before may have died before it could.
                    await self._loading.hold(runner, runner.assignment)
            await asyncio.sleep(_RECONNECT_S)

    def _outgrew(self, runner: Runner, reason: str) -> None:
        if runner.over_memory:
            return
        runner.over_memory = True
        if runner.ready_at is not None:
            self._log.warning("instance over its memory", instance=runner.id, reason=reason, **runner.labels)
            self.outgrew(runner, reason)

    def _bury(self, runner: Runner, exited: Exit) -> None:
        ended = exited.how
        runner.unheard = False
        self._books.settle(runner)
        self._registry.remove(runner.id)
        runner.seen.set()
        if exited.over_memory:
            self._outgrew(runner, over_memory(runner, ended))
        runner.gone.set()
        expected = runner.state in (RunnerState.DRAINING, RunnerState.GONE)
        log = self._log.info if expected else self._log.warning
        reason = runner.exit_reason or ("stopped" if expected else "it died")
        log("runner gone", runner=runner.id, state=runner.state.label, ended=ended, reason=reason, **runner.labels)
        if (
            runner.state is RunnerState.READY
            and not runner.over_memory
            and self._clock.monotonic() - runner.state_since < EARLY_S
        ):
            self.died_early(runner, ended)
        if runner.state is RunnerState.STARTING:
            self._start_failed(f"a runner ended before it was ready to load ({ended}); runners.log has the details")
        else:
            self._changed()

    def _start_failed(self, reason: str) -> None:
        self.start_failures = self.start_failures.failed(reason, self._clock.monotonic())
        self._log.error("runner not started", reason=reason, failures=self.start_failures.count)
        self._changed()

    async def _unload(self, runner: Runner, reason: str, ready: bool, drain_s: float) -> None:
        link = self._links.get(runner.id)
        if not ready or link is None or not await link.unload(self._epoch, drain_s, reason):
            await self._kill(runner)

    async def _kill(self, runner: Runner) -> None:
        """A runner refuses what a replaced autoscaler tells it; a signal it could not refuse."""
        if runner.epoch > self._epoch:
            self._log.error("runner not ours", runner=runner.id, its_epoch=runner.epoch)
            return
        await self._provider.kill(runner.id)


def _assignment_of(sign: LifeSign) -> Assignment | None:
    if not sign.model:
        return None
    resources = Resources(sign.cpu_millicores, sign.memory_bytes, sign.gpu_millis, sign.gpu_memory_bytes)
    return Assignment(sign.model, sign.revision, sign.version, sign.tenant, resources)
