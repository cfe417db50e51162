"""Keeps one service running: starts it, restarts it when it dies, lets it end when told."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from headrace.mesh.process import CANNOT_START, ServiceProcess, describe_exit, last_words, log_size
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
        refusal: why it said, before the mesh was ready, that it cannot start; "": it did not.
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
        self.refusal = ""
        self._start = start
        self._sockets = sockets
        self._clock = clock
        self._policy = policy
        self._process: ServiceProcess | None = None
        self._let_end = asyncio.Event()
        self._may_restart = asyncio.Event()
        self._last_words = ""
        self._logger = get_logger()

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    async def run(self) -> None:
        """Until the service has ended after `let_end`."""
        while not self._let_end.is_set():
            began = self._clock.monotonic()
            code, self.last_exit = await self._run_once()
            for socket in self._sockets:
                socket.unlink(missing_ok=True)
            if self._let_end.is_set():
                self._logger.info("process ended", ended=self.name, how=self.last_exit)
                return
            if code == CANNOT_START and not self._may_restart.is_set():
                self.refusal = self._last_words or f"it does not say why; see {self.log}"
                # Starting it again would end the same way; whoever waits for the mesh decides.
                await self._may_restart.wait()
                if self._let_end.is_set():
                    return
            await self._pause(self._clock.monotonic() - began)

    def restart_always(self) -> None:
        """The mesh serves: from now on it is started again even if it says that it cannot start."""
        self._may_restart.set()

    def let_end(self) -> None:
        """From now on its end is wanted."""
        self._let_end.set()
        self._may_restart.set()

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

    async def _run_once(self) -> tuple[int | None, str]:
        """Exit code, None without one, and how it ended for people."""
        self._last_words = ""
        logged = log_size(self.log)
        try:
            self._process = self._start()
        except OSError as error:
            return None, f"could not be started: {error}"
        self._logger.info("process started", started=self.name, pid=self._process.pid)
        try:
            code = await self._process.wait()
            if code > 0:  # A signal says nothing in the log.
                self._last_words = last_words(self.log, logged)
            return code, describe_exit(code)
        finally:
            if self._process.returncode is not None:
                self._process = None

    async def _pause(self, ran_s: float) -> None:
        plan = plan_restart(self._policy, self.deaths, ran_s)
        self.deaths = plan.deaths
        said = {"error": self._last_words} if self._last_words else {}
        self._logger.error(
            "process died",
            died=self.name,
            how=self.last_exit,
            restart_in_s=plan.delay_s,
            reason=plan.reason,
            log=str(self.log),
            **said,
        )
        with suppress(TimeoutError):
            async with asyncio.timeout(plan.delay_s):
                await self._let_end.wait()
                return
        self.restarts += 1
