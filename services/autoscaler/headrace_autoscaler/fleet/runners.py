"""Every runner that there is, as far as the autoscaler knows it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum

from headrace_autoscaler.core.plans import Key
from headrace_autoscaler.domain import Enforcement, InstanceView, Loaded, Resources
from headrace_autoscaler.fleet.history import StartFromZero


class RunnerState(IntEnum):
    """A runner's lifecycle. It only goes forward; states may be skipped, none comes again."""

    STARTING = 1
    STANDBY = 2
    LOADING = 3
    READY = 4
    DRAINING = 5
    GONE = 6

    @property
    def label(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a runner holds, from the moment it is told to load until its end."""

    model: str
    revision: int
    version: str
    tenant: str
    resources: Resources

    @property
    def key(self) -> Key:
        return (self.model, self.revision)


@dataclass(frozen=True, slots=True)
class GpuMemory:
    """As a runner's engine measures it: what its instance uses, of what it may."""

    used_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class RunnerReport:
    """What a runner says of itself.

    Attributes:
        gpu_memory: None: its engine does not measure it, or there is no GPU.
    """

    state: RunnerState
    pid: int
    epoch: int
    assignment: Assignment | None
    resident_bytes: int
    reason: str
    over_memory: bool = False
    private_bytes: int = 0
    gpu_memory: GpuMemory | None = None


@dataclass(slots=True)
class Runner:
    """Times are monotonic seconds, `started_wall` is wall-clock.

    Attributes:
        state_since: when the state was entered.
        seen: set once the runner has reported.
        loaded: what its load answered; None for one that was adopted.
        cold_start: the start from zero that its load ends, if it does.
        started_here: by this autoscaler, so that its age is known.
        awaited_s: how long its load waited for it to start.
        answered: a router has told of its first answer, where it was started from zero.
        booked_until_us: how far its time is in the books; monotonic (`Books.mark_us`).
        unheard: it was found, and has not said yet what it holds.
        admitted: it fits the limits; False for one that was verified until a plan has found that it does.
        epoch: the highest fencing epoch that it has obeyed.
        drain_s: what it was given to drain; None: as the configuration says.
        ready_at: when it became ready; None: not yet.
        over_memory: it has outgrown its memory.
        private_bytes: what counts against its memory.
        gpu_memory: as it said last; None: it says nothing of it.
        enforcement: what holds it to its resources; None: nothing yet.
        load_open: it was told to load, and has not answered what it found out.
        gone: set once its process has ended.
    """

    id: str
    target: str
    pid: int
    started_at: float
    started_wall: float
    booked_until_us: int
    state: RunnerState = RunnerState.STARTING
    state_since: float = 0.0
    assignment: Assignment | None = None
    loaded: Loaded | None = None
    resident_bytes: int = 0
    requests: int = 0
    epoch: int = 0
    admitted: bool = True
    exit_reason: str = ""
    unheard: bool = False
    cold_start: StartFromZero | None = None
    ready_at: float | None = None
    over_memory: bool = False
    private_bytes: int = 0
    gpu_memory: GpuMemory | None = None
    enforcement: Enforcement | None = None
    answered: bool = False
    started_here: bool = False
    awaited_s: float = 0.0
    drain_s: float | None = None
    load_open: bool = False
    seen: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def labels(self) -> dict[str, str | int]:
        """What a line of the log says of what it holds."""
        held = self.assignment
        return {} if held is None else {"model": held.model, "revision": held.revision, "tenant": held.tenant}

    def advance(self, state: RunnerState, now: float) -> bool:
        """Whether the state changed; a report from the past changes nothing."""
        if state <= self.state:
            return False
        self.state = state
        self.state_since = now
        if state is RunnerState.READY:
            self.ready_at = now
        return True

    def hear(self, report: RunnerReport, now: float) -> bool:
        """Takes over what the runner says. Whether anything that a plan depends on changed."""
        first = not self.seen.is_set()
        self.seen.set()
        self.unheard = False
        self.pid = report.pid or self.pid
        self.epoch = report.epoch
        self.resident_bytes = report.resident_bytes
        self.private_bytes = report.private_bytes
        self.gpu_memory = report.gpu_memory
        if report.reason:
            self.exit_reason = report.reason
        if self.assignment is None and report.assignment is not None:
            self.assignment = report.assignment
        return self.advance(report.state, now) or first

    def view(self) -> InstanceView:
        held = self.assignment or Assignment("", 0, "", "", Resources())
        return InstanceView(
            id=self.id,
            model=held.model,
            revision=held.revision,
            version=held.version,
            state=self.state.label,
            resources=held.resources,
            started_at=self.started_wall,
            pid=self.pid,
            resident_bytes=self.resident_bytes,
            requests=self.requests,
            private_bytes=self.private_bytes,
            enforcement=self.enforcement or Enforcement(),
            profile_us=self.loaded.profile_us if self.loaded else (),
        )


class Registry:
    """Runners by id, and those that hold something by revision."""

    def __init__(self) -> None:
        self._runners: dict[str, Runner] = {}

    def __iter__(self) -> Iterator[Runner]:
        return iter(tuple(self._runners.values()))

    def __len__(self) -> int:
        return len(self._runners)

    def add(self, runner: Runner) -> None:
        self._runners[runner.id] = runner

    def get(self, runner_id: str) -> Runner | None:
        return self._runners.get(runner_id)

    def remove(self, runner_id: str) -> None:
        self._runners.pop(runner_id, None)

    def holding(self, key: Key) -> list[Runner]:
        return [runner for runner in self._runners.values() if runner.assignment and runner.assignment.key == key]

    def of_model(self, model: str) -> list[Runner]:
        return [runner for runner in self._runners.values() if runner.assignment and runner.assignment.model == model]

    def in_state(self, state: RunnerState) -> list[Runner]:
        return [runner for runner in self._runners.values() if runner.state is state]
