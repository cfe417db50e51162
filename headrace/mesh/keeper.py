"""Keeps one service running: starts it, restarts it when it dies, lets it end when told."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from headrace.mesh.process import ServiceProcess, describe_exit
from headrace.mesh.restart import RestartPolicy, plan_restart
from headrace_common.clock import Clock
from headrace_common.logs import get_logger


class Keeper:
    """One service's keeper.

    Args:
        name: of the process: "autoscaler", "router-0".
        start: starts it; may raise OSError.
        log: where its output goes.
        sockets: its unix sockets, removed when it has died so that nobody waits on a corpse.
        clock: for how long it ran.
        policy: delays between restarts.

    Attributes:
        deaths: unwanted ends in a row, without a stable run between.
        restarts: since the mesh started.
        last_exit: how it last ended, for people.
    """

    def __init__(
        self,
        name: str,
        start: Callable[[], ServiceProcess],
        *,
        log: Path,
        sockets: tuple[Path, ...],
        clock: Clock,
        policy: RestartPolicy,
    ) -> None:
        self.name = name
        self.log = log
        self.deaths = 0
        self.restarts = 0
        self.last_exit = ""
        self._start = start
        self._sockets = sockets
        self._clock = clock
        self._policy = policy
        self._process: ServiceProcess | None = None
        self._let_end = asyncio.Event()
        self._logger = get_logger()

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    async def run(self) -> None:
        """Until the service has ended after `let_end`."""
        while not self._let_end.is_set():
            began = self._clock.monotonic()
            self.last_exit = await self._run_once()
            for socket in self._sockets:
                socket.unlink(missing_ok=True)
            if self._let_end.is_set():
                self._logger.info("process ended", ended=self.name, how=self.last_exit)
                return
            await self._pause(self._clock.monotonic() - began)

    def let_end(self) -> None:
        """From now on its end is wanted."""
        self._let_end.set()

    async def stop(self, timeout_s: float) -> None:
        """SIGTERM; SIGKILL if it has not ended after this time."""
        self.let_end()
        process = self._process
        if process is None:
            return
        process.send(signal.SIGTERM)
        if not await process.wait_at_most(timeout_s):
            self._logger.warning("process killed", killed=self.name, reason=f"not ended {timeout_s:g} s after SIGTERM")
            process.send(signal.SIGKILL)
            await process.wait()

    async def _run_once(self) -> str:
        try:
            self._process = self._start()
        except OSError as error:
            return f"could not be started: {error}"
        self._logger.info("process started", started=self.name, pid=self._process.pid)
        try:
            return describe_exit(await self._process.wait())
        finally:
            if self._process.returncode is not None:
                self._process = None

    async def _pause(self, ran_s: float) -> None:
        plan = plan_restart(self._policy, self.deaths, ran_s)
        self.deaths = plan.deaths
        self._logger.error(
            "process died",
            died=self.name,
            how=self.last_exit,
            restart_in_s=plan.delay_s,
            reason=plan.reason,
            log=str(self.log),
        )
        with suppress(TimeoutError):
            async with asyncio.timeout(plan.delay_s):
                await self._let_end.wait()
                return
        self.restarts += 1
