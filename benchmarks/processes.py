"""Server processes: started in a session of their own, waited for, and ended with all their children."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.paths import LOGS

STARTS_WITHIN_S = 90
STOPS_WITHIN_S = 20


class DidNotStart(Exception):
    """A server did not come up. The text has the end of its log."""


def free_port() -> int:
    """A TCP port of loopback that nobody has now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def library_path() -> str:
    """For LD_LIBRARY_PATH: where this Python's shared library is, which Triton's Python backend links."""
    return ":".join(filter(None, (sysconfig.get_config_var("LIBDIR"), os.environ.get("LD_LIBRARY_PATH", ""))))


@dataclass(frozen=True, slots=True)
class Server:
    """A process that was started.

    Attributes:
        log: what it writes to both of its outputs.
    """

    process: subprocess.Popen[bytes]
    log: Path

    def until_ready(self, url: str, accepts: Callable[[int], bool] = lambda status: status == 200) -> None:
        """Asks `url` until its status is accepted. Raises DidNotStart."""
        give_up = time.monotonic() + STARTS_WITHIN_S
        while not accepts(_status(url)):
            if self.process.poll() is not None:
                raise DidNotStart(f"it ended with status {self.process.returncode}; {self.log} ends:\n{self._tail()}")
            if time.monotonic() > give_up:
                raise DidNotStart(f"not ready within {STARTS_WITHIN_S} s; {self.log} ends:\n{self._tail()}")
            time.sleep(0.1)

    def _tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])


@contextmanager
def server(name: str, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> Iterator[Server]:
    """Runs `command` in `folder`. Every process of its session is gone afterwards."""
    LOGS.mkdir(parents=True, exist_ok=True)
    log_path = LOGS / f"{name}.log"
    with open(log_path, "wb") as log:
        process = subprocess.Popen(
            command,
            env={**os.environ, **environment},
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield Server(process, log_path)
    finally:
        _end(process)


def _status(url: str) -> int:
    """0 where nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            status: int = answer.status
            return status
    except urllib.error.HTTPError as refused:
        return refused.code
    except OSError:
        return 0


def resident_bytes(pid: int) -> int:
    """Of one process, now."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(f"process {pid} has no resident size")


def descendants(pid: int) -> dict[int, str]:
    """Command lines of all processes below one, by pid."""
    parents, commands = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                # The name in stat(5) is in parentheses and may hold anything.
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                commands[int(entry.name)] = (
                    (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                )
    found: dict[int, str] = {}
    fresh = {pid}
    while fresh:
        fresh = {child for child, parent in parents.items() if parent in fresh}
        found |= {child: commands.get(child, "") for child in fresh}
    return found


def _end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM to the leader, then SIGKILL to whatever is left of the session."""
    process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOPS_WITHIN_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(STOPS_WITHIN_S)
