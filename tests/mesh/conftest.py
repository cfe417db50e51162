import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest

from headrace.mesh.process_group import group_members

UP = Path(__file__).with_name("standin_up.py")
PATIENCE_S = 30.0
Value = TypeVar("Value")


def eventually(look: Callable[[], Value], what: str) -> Value:
    """The first true value that `look` gives."""
    deadline = time.monotonic() + PATIENCE_S
    while not (value := look()):
        assert time.monotonic() < deadline, f"waited {PATIENCE_S:g} s for: {what}"
        time.sleep(0.02)
    return value


@dataclass
class RunningMesh:
    """A supervisor over stand-ins, in a process of its own."""

    state: Path
    process: subprocess.Popen[str]
    eventually: Callable[..., Any] = field(default=eventually)

    def until_ready(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("ready http://127.0.0.1:"), line + self.stderr
        return line.split()[1]

    @property
    def stderr(self) -> str:
        return (self.state.parent / "stderr").read_text()

    @property
    def events(self) -> list[str]:
        path = self.state / "events"
        return path.read_text().splitlines() if path.exists() else []

    def log(self, event: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.stderr.splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == event]

    def pid_of(self, process: str) -> int:
        return int([line for line in self.log("process started") if line["started"] == process][-1]["pid"])

    @property
    def guard(self) -> int:
        """The guard's id, which is the group's."""
        return eventually(lambda: os.getpgid(self.pid_of("autoscaler")), "the guard's group")

    @property
    def runner(self) -> int:
        path = self.state / "runner.pid"
        return int(eventually(lambda: path.exists() and path.read_text(), "the runner's process id"))

    def members(self, group: int) -> list[int]:
        return group_members(group)

    @property
    def runtime(self) -> Path:
        command = Path(f"/proc/{self.guard}/cmdline").read_bytes().decode().split("\0")
        return Path(command[command.index("--runtime") + 1])

    def metrics(self) -> str:
        url = self.log("metrics")[-1]["url"]
        with urllib.request.urlopen(url, timeout=10) as response:
            return str(response.read().decode())

    def is_locked(self) -> bool:
        with (self.state / "lock").open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def exit_code(self) -> int:
        return self.process.wait(PATIENCE_S)


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """Short enough for unix sockets."""
    path = Path(tempfile.mkdtemp(prefix="hr-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def start_up(short_dir: Path) -> Iterator[Callable[..., RunningMesh]]:
    """Starts a mesh of stand-ins; whatever the test does to it, nothing of it is left afterwards."""
    started: list[RunningMesh] = []
    readers: list[subprocess.Popen[bytes]] = []

    def start(
        ready_timeout_s: float = 25,
        routers: int = 1,
        standby: int = 1,
        under: tuple[str, ...] = (),
        log_reader: tuple[str, ...] = ("cat",),
        **environment: str,
    ) -> RunningMesh:
        arguments = [str(short_dir / "state"), str(ready_timeout_s), str(routers), str(standby)]
        with (short_dir / "stderr").open("w") as stderr:
            reader = subprocess.Popen(log_reader, stdin=subprocess.PIPE, stdout=stderr)
        assert reader.stdin is not None
        with reader.stdin:
            process = subprocess.Popen(
                [*under, sys.executable, str(UP), *arguments],
                stdout=subprocess.PIPE,
                stderr=reader.stdin,
                text=True,
                env={**os.environ, **environment},
            )
        readers.append(reader)
        started.append(RunningMesh(short_dir / "state", process))
        return started[-1]

    yield start
    for mesh in started:
        if mesh.process.poll() is None:
            mesh.process.send_signal(signal.SIGKILL)
            mesh.process.wait()
        mesh.eventually(lambda state=mesh: not (state.state / "lock").exists() or not state.is_locked(), "clean end")
        assert mesh.process.stdout is not None
        mesh.process.stdout.close()
    for reader in readers:
        reader.wait(PATIENCE_S)
