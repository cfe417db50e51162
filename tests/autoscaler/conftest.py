"""A fleet over fake runners and a fake clock, and what tests say to it."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from headrace_autoscaler.core.demand import Counts, Level
from headrace_autoscaler.core.planner import Key
from headrace_autoscaler.core.refused import Refused
from headrace_autoscaler.domain import (
    Limits,
    Model,
    ModelSpec,
    Posting,
    Revision,
    ShapeProfile,
    Tenant,
    Usage,
    UsageKey,
)
from headrace_autoscaler.fleet.announcements import NO_NOTICES, BudgetNotices, PlacementNotice
from headrace_autoscaler.fleet.fleet import FleetParts, RunnerFleet
from headrace_autoscaler.fleet.reports import ColdStartEntry, DemandEntry, Report
from headrace_autoscaler.providers.fake import FakeMachine, FakeProvider
from headrace_common.clock import FakeClock
from headrace_common.config import AutoscalerConfig, MeshConfig, ProcessContext

DEADLINE_S = 10.0


class FakeCatalogue:
    """`ports.Catalogue` in memory."""

    def __init__(self) -> None:
        self.by_name: dict[str, Model] = {}
        self.tenant_list: list[Tenant] = []
        self.finished: list[Key] = []

    def models(self) -> tuple[Model, ...]:
        return tuple(self.by_name.values())

    def model(self, name: str) -> Model | None:
        return self.by_name.get(name)

    def tenants(self) -> tuple[Tenant, ...]:
        return tuple(self.tenant_list)

    async def profiled(self, model: str, revision: int, profile: ShapeProfile) -> None:
        if (held := self.by_name.get(model)) is None:
            return
        self.by_name[model] = replace(
            held,
            revisions=tuple(
                replace(each, profiles=(*each.profiles, profile)) if each.revision == revision else each
                for each in held.revisions
            ),
        )

    async def finish_retiring(self, model: str, revision: int) -> None:
        self.finished.append((model, revision))
        held = self.by_name[model]
        left = tuple(each for each in held.revisions if each.revision != revision)
        if left:
            self.by_name[model] = replace(held, revisions=left)
        else:
            del self.by_name[model]

    def put(self, spec: ModelSpec, *revisions: Revision) -> None:
        self.by_name[spec.name] = Model(spec, 0.0, revisions)


class RecordedAnnouncements:
    """`fleet.Announcements`: the newest state, and a history of what each instance was announced as."""

    def __init__(self) -> None:
        self.mark = 0
        self.heard = True
        self.models: tuple[Model, ...] = ()
        self.blocked: dict[Key, str] = {}
        self.budgets = NO_NOTICES
        self.refusals: list[Refused] = []
        self.placements: dict[str, PlacementNotice] = {}
        self.states: dict[str, list[str]] = {}

    def announce(
        self,
        models: Iterable[Model],
        blocked: Mapping[Key, str],
        placements: Iterable[PlacementNotice],
        tenants: Iterable[Tenant],
        budgets: BudgetNotices = NO_NOTICES,
    ) -> int:
        self.mark += 1
        self.budgets = budgets
        self.models, self.blocked = tuple(models), dict(blocked)
        now = {each.instance: each for each in placements}
        for gone in self.placements.keys() - now.keys():
            self.states[gone].append("gone")
        for instance, notice in now.items():
            states = self.states.setdefault(instance, [])
            if not states or states[-1] != notice.state:
                states.append(notice.state)
        self.placements = now
        return self.mark

    def heard_since(self, mark: int) -> bool:
        return self.heard

    def refused(self, model: str) -> tuple[Refused, ...]:
        return tuple(each for each in self.refusals if each.model == model)


@dataclass
class World:
    """A fleet and everything around it."""

    fleet: RunnerFleet
    machine: FakeMachine
    catalogue: FakeCatalogue
    announcements: RecordedAnnouncements
    clock: FakeClock
    parts: FleetParts
    usage: dict[UsageKey, Usage] = field(default_factory=dict)

    def demand(
        self, model: str, revision: int = 1, *, queued: int = 0, in_flight: int = 0, arrivals: int = 0,
        waited_s: float = 0.0, urgent: bool = False, tenant: str = "acme", completed: int = 0,
        busy_us: int = 0, router: str = "router-0", cache_hits: int = 0,
    ) -> None:  # fmt: skip
        counts = Counts(arrivals, arrivals, completed, completed, busy_us)
        entry = DemandEntry(tenant, model, revision, counts, Level(queued, in_flight, waited_s), 0, cache_hits)
        self.fleet.report(Report(router, (entry,), urgent=urgent))
        self.fleet.catalogue_changed()

    def answered(self, model: str) -> None:
        """A router tells that the model's instances have given their first answers."""
        entries = tuple(ColdStartEntry(each, model, 1, 0.02, 0.01, 0.003, 0.05) for each in self.instances(model))
        self.fleet.report(Report("router-0", cold_starts=entries, urgent=True))

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.fleet.catalogue_changed()

    async def until(self, condition: Callable[[], object]) -> None:
        await until(condition)

    def instances(self, model: str, state: str = "ready") -> list[str]:
        return [each.id for each in self.fleet.view(model).instances if each.state == state]

    def standby(self) -> int:
        return sum(each.state == "standby" for each in self.fleet.overview().standby)

    async def successor(self, **changes: object) -> World:
        """Another autoscaler over the same machine, as after a kill: nobody told the runners. Changes: of its parts."""
        fresh = {"epoch": self.parts.epoch + 1, "provider": FakeProvider(self.machine), **changes}
        parts = replace(self.parts, **fresh)  # type: ignore[arg-type]
        return await _open(parts, self.machine, self.catalogue, self.announcements, self.clock)


async def until(condition: Callable[[], object]) -> None:
    """Lets the loop run until it holds; an AssertionError after the deadline."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - conditions span processes, tasks and streams
            await asyncio.sleep(0.002)


async def _open(
    parts: FleetParts, machine: FakeMachine, catalogue: FakeCatalogue, announcements: RecordedAnnouncements,
    clock: FakeClock,
) -> World:  # fmt: skip
    usage: dict[UsageKey, Usage] = {}

    async def post(posting: Posting) -> None:
        for key, more in posting.increments.items():
            held = usage.get(key, Usage())
            sums = {name: getattr(held, name) + getattr(more, name) for name in Usage.__dataclass_fields__}
            usage[key] = Usage(**sums)

    if parts.usage is _discard_usage:
        parts = replace(parts, usage=post)
    fleet = RunnerFleet(parts)
    await fleet.start()
    return World(fleet, machine, catalogue, announcements, clock, parts, usage)


@pytest.fixture
def runtime_dir() -> Iterator[Path]:
    """Short enough for unix sockets."""
    path = Path(tempfile.mkdtemp(prefix="hr-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
async def open_world(runtime_dir: Path) -> AsyncIterator[Callable[..., object]]:
    """Opens fleets; `standby`, `capacity` and AutoscalerConfig's keys by name."""
    opened: list[World] = []
    machine = FakeMachine(runtime_dir)

    async def open_one(capacity: Limits | None = None, **settings: object) -> World:
        fixed = {"decision_period_s": 60.0, "standby": 1, "standby_max": settings.get("standby", 1)}
        config = AutoscalerConfig(**{**fixed, **settings})  # type: ignore[arg-type]
        context = ProcessContext(
            process="autoscaler", state_dir=runtime_dir, runtime_dir=runtime_dir, mesh=MeshConfig(autoscaler=config)
        )
        catalogue, clock = FakeCatalogue(), FakeClock()
        machine.wall = clock.wall
        room = capacity or Limits(cpu_millicores=16_000, memory_bytes=64 << 30, gpu_millis=0, gpu_memory_bytes=0)
        announcements = RecordedAnnouncements()
        parts = FleetParts(context, 7, catalogue, FakeProvider(machine), announcements, _discard_usage, clock, room)
        world = await _open(parts, machine, catalogue, announcements, clock)
        opened.append(world)
        return world

    yield open_one
    for world in opened:
        await world.fleet.close()
    await machine.close()


async def _discard_usage(_posting: Posting) -> None:
    """Replaced by the world's own."""
