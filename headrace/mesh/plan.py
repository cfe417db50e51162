"""What `headrace up` runs, and how each process is started."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from headrace.mesh.restart import RestartPolicy
from headrace_common.config import MeshConfig, ProcessContext

CommandLine = Callable[[str, Path], list[str]]
"""Process name and context file to the command that runs the process."""

_LONGEST_SOCKET = len("/runner-0123456789abcdef.sock")
_SUN_PATH = 107


def service_command(process: str, context: Path) -> list[str]:
    """The services' own entry points: "router-0" is `python -m headrace_router`."""
    return [sys.executable, "-m", f"headrace_{process.partition('-')[0]}", "--context", str(context)]


@dataclass(frozen=True, slots=True)
class MeshPlan:
    """One run of the mesh.

    Attributes:
        listen: the front's HOST:PORT as the user wrote it; port 0: any.
        state_dir: what survives.
        mesh: configuration, flags included.
        command: how services are started.
        metrics_required: the user chose the metrics address, so another one will not do.
        ready_timeout_s: start to serving.
        guard_grace_s: SIGTERM to SIGKILL where the supervisor is gone or in a hurry.
        restart: delays between restarts.
    """

    listen: str
    state_dir: Path
    mesh: MeshConfig
    command: CommandLine = service_command
    metrics_required: bool = False
    ready_timeout_s: float = 30.0
    guard_grace_s: float = 5.0
    restart: RestartPolicy = field(default_factory=RestartPolicy)

    @property
    def processes(self) -> tuple[str, ...]:
        """The autoscaler first; ends last."""
        return ("autoscaler", *(f"router-{index}" for index in range(self.mesh.router.processes)))

    def context(self, process: str, runtime: Path, listen: str) -> ProcessContext:
        """What a process is told by the supervisor, which this process is."""
        return ProcessContext(
            process=process,
            state_dir=self.state_dir,
            runtime_dir=runtime,
            listen=listen,
            supervisor=os.getpid(),
            mesh=self.mesh,
        )


def make_runtime_dir() -> Path:
    """A new directory, with a path short enough for unix sockets, that only this user can read."""
    preferred = os.environ.get("XDG_RUNTIME_DIR", "")
    if preferred and os.access(preferred, os.W_OK):
        made = Path(tempfile.mkdtemp(prefix="headrace-", dir=preferred))
        if len(os.fsencode(made)) + _LONGEST_SOCKET <= _SUN_PATH:
            return made
        made.rmdir()
    return Path(tempfile.mkdtemp(prefix="headrace-", dir="/tmp"))
