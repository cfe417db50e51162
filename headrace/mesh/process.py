"""One service process: started in the guard's group, its output in a log file, its end awaited."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

CANNOT_START = 2
"""Exit code by which a service says that it cannot start, whoever tries again; its last line says why."""


class ServiceProcess:
    """A child process.

    Args:
        command: what to execute.
        log: where its standard output and error are appended.
        group: process group to join; 0: a new one, of which it is the leader.
        descriptors: to be inherited.
    """

    def __init__(self, command: Sequence[str], log: Path, group: int, descriptors: Sequence[int] = ()) -> None:
        with log.open("ab") as output:
            # Synchronous on purpose: the child is known before the event loop runs on, so that the
            # reaper of orphans never takes it for one.
            self._child = subprocess.Popen(  # noqa: S603 - the command is ours
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                process_group=group,
                pass_fds=descriptors,
            )
        self.pid = self._child.pid

    @property
    def returncode(self) -> int | None:
        """None: it runs. Negative: the signal that ended it."""
        return self._child.poll()

    async def wait(self) -> int:
        """Waits for its end; may be cancelled, and waited for by several."""
        while (code := self._child.poll()) is None:
            await _readable(os.pidfd_open(self.pid))
        return code

    async def wait_at_most(self, seconds: float) -> bool:
        """Whether it ended within this time."""
        try:
            async with asyncio.timeout(seconds):
                await self.wait()
        except TimeoutError:
            return False
        return True

    def send(self, number: signal.Signals) -> None:
        """Signals it, if it still runs."""
        self._child.send_signal(number)


async def _readable(descriptor: int) -> None:
    """Waits for a pidfd, which reads as ready once its process has ended; closes it."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def describe_exit(code: int) -> str:
    """For people: "exit code 3", "signal SIGKILL"."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"


def tail(log: Path, lines: int = 15) -> list[str]:
    """The end of a log; empty where there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 64 * 1024))
            return file.read().decode(errors="replace").splitlines()[-lines:]
    except OSError:
        return []


def log_size(log: Path) -> int:
    """Bytes; 0 where there is none."""
    try:
        return log.stat().st_size
    except OSError:
        return 0


def last_words(log: Path, since: int) -> str:
    """The reason in the last line that a process has logged, or the line itself; "": it wrote nothing.

    Args:
        log: its log.
        since: size of the log when it was started; before that are the words of earlier ones.
    """
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            start = since if since <= size else 0  # Rotation empties a log.
            file.seek(max(start, size - 64 * 1024))
            lines = file.read().decode(errors="replace").split("\n")
    except OSError:
        return ""
    return _reason(next((line.strip() for line in reversed(lines) if line.strip()), ""))


def _reason(line: str) -> str:
    try:
        entry = json.loads(line)
    except ValueError:
        return line
    if not isinstance(entry, dict):
        return line
    return str(entry.get("reason") or entry.get("error") or line)
