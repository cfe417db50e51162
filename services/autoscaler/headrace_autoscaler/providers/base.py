"""What the fleet needs of a place where runners can run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class StartedRunner:
    """A runner process.

    Attributes:
        target: where it serves RunnerService, once it does.
        started_at: when the process began, seconds since the epoch; None: not known.
    """

    runner_id: str
    pid: int
    target: str
    started_at: float | None = field(default=None, compare=False)


class StartFailed(Exception):
    """No process could be started; the message says why."""


class InstanceProvider(Protocol):
    """Starts, finds and kills runners. One conformance suite holds every provider to it."""

    async def start(self, runner_id: str) -> StartedRunner:
        """Answers when there is a process, not when it serves.

        Raises:
            StartFailed
        """
        ...

    async def kill(self, runner_id: str) -> None:
        """At once, without asking it. Answers when the process is gone; unknown or gone ones are no error."""
        ...

    async def list(self) -> tuple[StartedRunner, ...]:
        """Runners that are there, also those that an earlier autoscaler started. From then on they are
        this provider's, as if it had started them."""
        ...

    async def wait_exit(self, runner_id: str) -> str:
        """Answers when the process is gone: how it ended, as a phrase. At once for an unknown one."""
        ...

    async def close(self) -> None:
        """Stops watching. Leaves the processes as they are."""
        ...
