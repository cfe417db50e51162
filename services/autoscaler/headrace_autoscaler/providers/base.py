"""What the fleet needs of a place where runners can run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from headrace_autoscaler.domain import Enforcement, Resources
from headrace_common.life_sign import LifeSign


@dataclass(frozen=True, slots=True)
class StartedRunner:
    """A runner process.

    Attributes:
        target: where it serves RunnerService, once it does.
        started_at: when the process began, seconds since the epoch; None: not known.
        sign: what it holds; None: not known.
    """

    runner_id: str
    pid: int
    target: str
    started_at: float | None = field(default=None, compare=False)
    sign: LifeSign | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Departed:
    """A runner that ended while nobody watched.

    Attributes:
        sign: what it held.
        started_at, ended_at: seconds since the epoch; its end to `life_sign.PERIOD_S`. None: not known.
    """

    runner_id: str
    sign: LifeSign
    started_at: float | None
    ended_at: float


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended, as a phrase, and whether for want of memory that its limits did not give it."""

    how: str
    over_memory: bool = False


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

    @property
    def enforcement(self) -> Enforcement:
        """What `hold` does for a runner here."""
        ...

    async def hold(self, runner_id: str, resources: Resources) -> Enforcement:
        """Holds a runner to what it may use from now on, as far as that can be done from outside of it; again for one
        that was held before. Answers what was done: what cannot be done is said and no error."""
        ...

    async def kill(self, runner_id: str) -> None:
        """At once, without asking it. Answers when the process is gone; unknown or gone ones are no error."""
        ...

    async def list(self) -> tuple[StartedRunner, ...]:
        """Runners that are there, also those that an earlier autoscaler started. From then on they are
        this provider's, as if it had started them."""
        ...

    async def departed(self) -> tuple[Departed, ...]:
        """Runners that have ended while nobody watched, each until `forget`."""
        ...

    async def forget(self, runner_ids: Iterable[str]) -> None:
        """Note has been taken of their departure."""
        ...

    async def wait_exit(self, runner_id: str) -> Exit:
        """Answers when the process is gone. At once for an unknown one."""
        ...

    async def close(self) -> None:
        """Stops watching. Leaves the processes as they are."""
        ...
