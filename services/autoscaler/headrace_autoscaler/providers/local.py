"""Runners as processes of this machine.

They stay in the process group of whoever started the autoscaler, so that the mesh ends as a whole, and
they outlive the autoscaler: the next one finds them by their sockets.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from headrace_autoscaler.core.enforcement import in_cgroup, without_cgroup
from headrace_autoscaler.domain import Enforcement, Resources
from headrace_autoscaler.providers.base import Departed, Exit, StartedRunner, StartFailed
from headrace_autoscaler.providers.cgroups import Cgroups, NoCgroups, find_cgroups
from headrace_autoscaler.providers.machine import process_started_at
from headrace_common.config import ProcessContext
from headrace_common.enforcement import OVER_MEMORY_STATUS
from headrace_common.frames import FRAMES_SUFFIX
from headrace_common.life_sign import PERIOD_S, life_path, read_life
from headrace_common.logs import get_logger

_PEER_CREDENTIALS = struct.Struct("3i")
_MODULE = ("-m", "headrace_runner")
_NOT_ASKED = NoCgroups("nobody asked for control groups")


class LocalProvider:
    """Starts `python -m headrace_runner --context FILE`.

    Args:
        context: the autoscaler's own; runners get the same mesh configuration and directories.
        command: what to run in place of the runner's module, before `--context FILE`.
        cgroups: where runners get control groups of their own; or why they get none.
    """

    def __init__(
        self,
        context: ProcessContext,
        command: Sequence[str] = (sys.executable, *_MODULE),
        cgroups: Cgroups | NoCgroups = _NOT_ASKED,
    ) -> None:
        self._context = context
        self._cgroups = cgroups if isinstance(cgroups, Cgroups) else None
        self.enforcement = in_cgroup() if isinstance(cgroups, Cgroups) else without_cgroup(str(cgroups))
        self._command = tuple(command)
        self._watches: dict[str, _Watch] = {}
        self._log = get_logger()

    async def start(self, runner_id: str) -> StartedRunner:
        context = self._context.model_copy(update={"process": runner_id})
        file = self._context_file(runner_id)
        try:
            context.save(file)
            process = await self._spawn(file)
        except OSError as error:
            file.unlink(missing_ok=True)
            raise StartFailed(f"a runner process cannot be started: {error}") from None
        self._watches[runner_id] = _Watch(
            process.pid, asyncio.create_task(self._reap(runner_id, process), name=f"reap {runner_id}")
        )
        self._place(runner_id, process.pid)
        return StartedRunner(runner_id, process.pid, f"unix:{context.socket}")

    async def hold(self, runner_id: str, resources: Resources) -> Enforcement:
        watch = self._watches.get(runner_id)
        if self._cgroups is None or watch is None:
            return self.enforcement
        try:
            if not self._cgroups.holds(runner_id, watch.pid):
                self._cgroups.place(runner_id, watch.pid)
            self._cgroups.limit(runner_id, resources, self._shared_bytes())
        except OSError as error:
            self._log.warning("runner not limited", runner=runner_id, error=str(error))
            return without_cgroup(f"its control group refused: {error.strerror or error}")
        return self.enforcement

    async def kill(self, runner_id: str) -> None:
        watch = self._watches.get(runner_id)
        if watch is None:
            return
        watch.kill()
        await asyncio.shield(watch.exited)

    async def list(self) -> tuple[StartedRunner, ...]:
        found = []
        for path in sorted(self._context.runtime_dir.glob("runner-*.sock")):
            runner_id = path.stem
            if runner_id not in self._watches and not self._adopt(runner_id, path):
                continue
            pid = self._watches[runner_id].pid
            life = read_life(life_path(path))
            sign = None if life is None else life[0]
            found.append(StartedRunner(runner_id, pid, f"unix:{path}", process_started_at(pid), sign))
        return tuple(found)

    async def departed(self) -> tuple[Departed, ...]:
        found = []
        for path in sorted(self._context.runtime_dir.glob("runner-*.life")):
            runner_id = path.stem
            if runner_id in self._watches or (life := read_life(path)) is None:
                continue
            sign, ended_at = life
            began_at = process_started_at(sign.pid)
            # One that lives shows itself by its socket; what began after the last sign is another process.
            if began_at is None or began_at > ended_at + PERIOD_S:
                found.append(Departed(runner_id, sign, _modified_at(self._context_file(runner_id)), ended_at))
        return tuple(found)

    async def forget(self, runner_ids: Iterable[str]) -> None:
        for runner_id in runner_ids:
            self._forget(runner_id)

    async def wait_exit(self, runner_id: str) -> Exit:
        watch = self._watches.get(runner_id)
        return Exit("not running") if watch is None else await asyncio.shield(watch.exited)

    async def close(self) -> None:
        exits = [watch.exited for watch in self._watches.values()]
        for task in exits:
            task.cancel()
        await asyncio.gather(*exits, return_exceptions=True)
        self._watches.clear()

    async def _spawn(self, file: Path) -> asyncio.subprocess.Process:
        self._context.logs_dir.mkdir(parents=True, exist_ok=True)
        log = os.open(self._context.logs_dir / "runners.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            return await asyncio.create_subprocess_exec(
                *self._command,
                "--context",
                str(file),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        finally:
            os.close(log)

    async def _reap(self, runner_id: str, process: asyncio.subprocess.Process) -> Exit:
        code = await process.wait()
        over_memory = code == OVER_MEMORY_STATUS or self._ran_out(runner_id)
        self._forget(runner_id)
        return Exit(_describe_exit(code), over_memory)

    def _place(self, runner_id: str, pid: int) -> None:
        """Early, so that all of its memory is counted there."""
        if self._cgroups is None:
            return
        try:
            self._cgroups.place(runner_id, pid)
        except OSError as error:
            self._log.warning("runner without a control group", runner=runner_id, error=str(error))

    def _ran_out(self, runner_id: str) -> bool:
        return self._cgroups is not None and self._cgroups.ran_out(runner_id)

    def _shared_bytes(self) -> int:
        """What results may take of the rings: one way of each router's."""
        router = self._context.mesh.router
        return router.processes * router.shared_memory_bytes

    def _adopt(self, runner_id: str, path: Path) -> bool:
        """Whether a process listens there; a socket that nobody listens on is removed."""
        pid = _listener_pid(path)
        descriptor = None if pid is None else _open_pid(pid)
        if pid is None or descriptor is None:
            self._clear(runner_id)
            return False
        exited = asyncio.create_task(self._await_adopted(runner_id, descriptor), name=f"watch {runner_id}")
        self._watches[runner_id] = _Watch(pid, exited, descriptor)
        self._log.info("runner found", runner=runner_id, pid=pid)
        return True

    async def _await_adopted(self, runner_id: str, descriptor: int) -> Exit:
        """Not our child: no exit status, but a descriptor that becomes readable (pidfd_open(2))."""
        loop = asyncio.get_running_loop()
        gone = asyncio.Event()
        loop.add_reader(descriptor, gone.set)
        try:
            await gone.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)
        over_memory = self._ran_out(runner_id)
        self._forget(runner_id)
        return Exit("ended", over_memory)

    def _clear(self, runner_id: str) -> None:
        """What nobody listens on any more. What tells of its end stays."""
        self._watches.pop(runner_id, None)
        if self._cgroups is not None:
            self._cgroups.remove(runner_id)
        socket = self._socket(runner_id)
        for path in (socket, Path(f"{socket}{FRAMES_SUFFIX}")):
            path.unlink(missing_ok=True)
        if not life_path(socket).exists():
            self._context_file(runner_id).unlink(missing_ok=True)

    def _forget(self, runner_id: str) -> None:
        life_path(self._socket(runner_id)).unlink(missing_ok=True)
        self._clear(runner_id)

    def _socket(self, runner_id: str) -> Path:
        return self._context.runtime_dir / f"{runner_id}.sock"

    def _context_file(self, runner_id: str) -> Path:
        return self._context.runtime_dir / f"{runner_id}.json"


class _Watch:
    """One process that is there, and the task that ends with it."""

    def __init__(self, pid: int, exited: asyncio.Task[Exit], descriptor: int | None = None) -> None:
        self.pid = pid
        self.exited = exited
        self._descriptor = descriptor

    def kill(self) -> None:
        if self.exited.done():
            return
        try:
            if self._descriptor is None:
                # A child that has not been reaped keeps its number, so this cannot hit another process.
                os.kill(self.pid, signal.SIGKILL)
            else:
                signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)
        except ProcessLookupError:
            return


def open_cgroups(context: ProcessContext, proc: Path = Path("/proc")) -> Cgroups | NoCgroups:
    """As the configuration says. The supervisor and all it started may be moved for it; without one, only what we
    started: our parent may be init, from which everything descends."""
    try:
        cgroups = find_cgroups(context.mesh.autoscaler.cgroup, context.supervisor or os.getpid(), proc)
    except NoCgroups as reason:
        get_logger().info("no control groups", reason=str(reason))
        return reason
    cgroups.sweep()
    get_logger().info("control groups", root=str(cgroups.root))
    return cgroups


def _modified_at(path: Path) -> float | None:
    """Seconds since the epoch; None: it is not there."""
    try:
        return path.stat().st_mtime
    except OSError:
        return None


def _listener_pid(path: Path) -> int | None:
    """The process that listens on a unix socket (SO_PEERCRED of unix(7)), None if nobody does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError:
            return None
        credentials = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
    pid: int = _PEER_CREDENTIALS.unpack(credentials)[0]
    return pid if pid > 0 else None


def _open_pid(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def _describe_exit(code: int) -> str:
    if code >= 0:
        return f"exit status {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
