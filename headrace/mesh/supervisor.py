"""Runs the mesh on one machine: starts it, keeps it running, drains it, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

from headrace.errors import FailedPrecondition, HeadraceError, Unavailable
from headrace.mesh.draining import drain_router
from headrace.mesh.gateway import MeshCollector, MetricsGateway, open_gateway
from headrace.mesh.keeper import Keeper
from headrace.mesh.log_rotation import keep_logs_small
from headrace.mesh.orphans import adopt_orphans, reap_orphans
from headrace.mesh.plan import MeshPlan, make_runtime_dir
from headrace.mesh.preflight import Holdings, hold_what_is_needed
from headrace.mesh.process import ServiceProcess, describe_exit
from headrace.mesh.process_group import end_group
from headrace.mesh.readiness import CannotStart, NotReady, wait_until_ready
from headrace_common.clock import SystemClock
from headrace_common.logs import configure_logging, get_logger

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# What a process gets to end in once its work is done.
_SPARE_S = 5.0


def run_mesh(plan: MeshPlan, announce: Callable[[str], None]) -> None:
    """Runs until a signal says stop.

    Args:
        plan: what to run.
        announce: is given the URL once the mesh serves.

    Raises:
        InvalidArgument, FailedPrecondition: what must hold before the start does not, or a service says that it cannot
            start; nothing runs.
        Unavailable: the mesh did not come up, or lost its guard; it has been stopped.
    """
    configure_logging("supervisor", plan.mesh.telemetry.log_level)
    with hold_what_is_needed(plan) as holdings:
        failure = asyncio.run(Supervisor(plan, holdings, announce).run())
    if failure is not None:
        raise failure


class Supervisor:
    """One run of the mesh. `run` is called once."""

    def __init__(self, plan: MeshPlan, holdings: Holdings, announce: Callable[[str], None]) -> None:
        self._plan = plan
        self._holdings = holdings
        self._front = holdings.front.address
        self._announce = announce
        self._runtime = Path()
        self._keepers: tuple[Keeper, ...] = ()
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._failure: HeadraceError | None = None
        self._log = get_logger()

    async def run(self) -> HeadraceError | None:
        """Until a signal says stop, or the mesh failed; returns why it failed."""
        loop = asyncio.get_running_loop()
        for number in _STOP_SIGNALS:
            # Under nohup a hang-up is ignored, and stays so.
            if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, self._on_signal, number)
        adopt_orphans()
        self._runtime = make_runtime_dir()
        pipe_read, pipe_write = os.pipe()
        try:
            guard = self._start_guard(pipe_read)
        finally:
            os.close(pipe_read)
        try:
            await self._run_services(guard, partial(os.close, pipe_write))
            await guard.wait()
        finally:
            # Where there was no guard any more to do it.
            shutil.rmtree(self._runtime, ignore_errors=True)
        self._log.info("mesh stopped")
        return self._failure

    async def _run_services(self, guard: ServiceProcess, release_guard: Callable[[], None]) -> None:
        self._keepers = tuple(self._keeper(process, guard.pid) for process in self._plan.processes)
        async with asyncio.TaskGroup() as tasks:
            watchers = [
                tasks.create_task(self._watch_guard(guard)),
                tasks.create_task(reap_orphans(guard.pid, partial(self._own_children, guard))),
                tasks.create_task(keep_logs_small(self._plan.state_dir / "logs")),
            ]
            for keeper in self._keepers:
                tasks.create_task(keeper.run())
            try:
                await self._serve()
            finally:
                for watcher in watchers:
                    watcher.cancel()
                for keeper in self._keepers:
                    keeper.let_end()
                # The guard ends what still runs, and with that the keepers.
                release_guard()
                if guard.returncode is not None:
                    await asyncio.to_thread(end_group, guard.pid, self._plan.guard_grace_s)

    async def _serve(self) -> None:
        try:
            gateway = self._open_gateway()
        except FailedPrecondition as error:
            self._failure = error
            return
        try:
            if await self._become_ready():
                await self._stop.wait()
            await self._first_of(self._drain(), self._hurry)
        finally:
            await asyncio.to_thread(gateway.close)

    def _open_gateway(self) -> MetricsGateway:
        collector = MeshCollector(self._runtime, self._restarts)
        gateway = open_gateway(self._holdings.metrics, collector, self._plan.metrics_required)
        self._log.info("metrics", url=f"{gateway.address.url}/metrics")
        return gateway

    async def _become_ready(self) -> bool:
        """Whether the mesh serves now; otherwise it failed, or is to stop."""
        standby = self._plan.mesh.autoscaler.standby
        ready = wait_until_ready(self._keepers, self._front, self._runtime, standby, self._plan.ready_timeout_s)
        try:
            if not await self._first_of(ready, self._stop):
                return False
        except CannotStart as error:
            self._log.error("mesh cannot start", reason=str(error))
            self._failure = FailedPrecondition(f"the mesh cannot start: {error}")
            return False
        except NotReady as error:
            self._log.error("mesh did not come up")
            self._failure = Unavailable(f"the mesh did not come up: {error}")
            return False
        for keeper in self._keepers:
            keeper.restart_always()
        self._log.info("mesh ready", url=self._front.url)
        self._announce(self._front.url)
        return True

    async def _drain(self) -> None:
        autoscaler, *routers = self._keepers
        self._log.info("draining", routers=len(routers))
        async with asyncio.TaskGroup() as tasks:
            for router in routers:
                tasks.create_task(self._stop_router(router))
        await autoscaler.stop(self._plan.mesh.autoscaler.drain_timeout_s + _SPARE_S)

    async def _stop_router(self, router: Keeper) -> None:
        router.let_end()
        if router.pid is None:
            return
        abandoned = await drain_router(self._runtime, router.name, self._plan.mesh.router.drain_timeout_s)
        self._log.info("router drained", router=router.name, abandoned=abandoned)
        await router.stop(_SPARE_S)

    async def _first_of(self, work: Coroutine[Any, Any, None], event: asyncio.Event) -> bool:
        """Whether the work was done before the event; it is cancelled otherwise."""
        doing = asyncio.create_task(work)
        waiting = asyncio.create_task(event.wait())
        try:
            await asyncio.wait((doing, waiting), return_when=asyncio.FIRST_COMPLETED)
            if doing.done():
                await doing
                return True
            return False
        finally:
            for task in (doing, waiting):
                task.cancel()
            await asyncio.gather(doing, waiting, return_exceptions=True)

    async def _watch_guard(self, guard: ServiceProcess) -> None:
        how = describe_exit(await guard.wait())
        self._failure = Unavailable(f"the guard ended ({how}), without which the mesh could leave processes behind")
        self._log.error("guard died", how=how, reason="stopping: nothing would clean up after us")
        self._stop.set()

    def _on_signal(self, number: signal.Signals) -> None:
        if self._stop.is_set():
            self._log.warning("hurrying", reason=f"second signal, {number.name}")
            self._hurry.set()
        else:
            self._log.info("stopping", reason=number.name)
            self._stop.set()

    def _start_guard(self, pipe_read: int) -> ServiceProcess:
        options = ("--pipe", str(pipe_read), "--runtime", str(self._runtime))
        grace = ("--grace", str(self._plan.guard_grace_s))
        return ServiceProcess(
            [sys.executable, "-m", "headrace.mesh.guard", *options, *grace],
            self._plan.state_dir / "logs" / "guard.log",
            group=0,
            descriptors=(pipe_read, self._holdings.lock.descriptor),
        )

    def _keeper(self, process: str, group: int) -> Keeper:
        context = self._plan.context(process, self._runtime, str(self._front))
        path = self._runtime / f"{process}.json"
        context.save(path)
        log = context.logs_dir / f"{process}.log"
        return Keeper(
            process,
            partial(ServiceProcess, self._plan.command(process, path), log, group),
            log=log,
            sockets=(context.socket, self._runtime / f"{process}-admin.sock"),
            clock=SystemClock(),
            policy=self._plan.restart,
        )

    def _own_children(self, guard: ServiceProcess) -> set[int]:
        return {guard.pid, *(keeper.pid for keeper in self._keepers if keeper.pid is not None)}

    def _restarts(self) -> dict[str, int]:
        return {keeper.name: keeper.restarts for keeper in self._keepers}
