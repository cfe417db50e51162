"""Models with ranges of shapes, over a planner and a clock."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from headrace_autoscaler.core.allocator.choice import sustained
from headrace_autoscaler.core.decider import Decision
from headrace_autoscaler.core.planner import plan
from headrace_autoscaler.core.plans import DrainInstance, Holding, LoadOnStandby, Plan, Snapshot, Want
from headrace_autoscaler.core.quota import bounds_of
from headrace_autoscaler.core.resizing import (
    Resizing,
)
from headrace_autoscaler.core.room import Room
from headrace_autoscaler.core.shape_situation import Situation, Sizing
from headrace_autoscaler.core.sizing import shapes, ways
from headrace_autoscaler.domain import Limits, Resources, ShapeProfile, Tenant

GIB = 1 << 30
ONE, TWO, FOUR = (Resources(cpus * 1000, GIB) for cpus in (1, 2, 4))
ROOMY = Limits(cpu_millicores=64_000, memory_bytes=64 * GIB, gpu_millis=0, gpu_memory_bytes=0)


def price(resources: Resources) -> int:
    return 85 * resources.cpu_millicores


@dataclass
class Ranged:
    """A model with a range, the load on it, and what its shapes would measure (microseconds of one row)."""

    name: str
    times_us: dict[Resources, int]
    load: float = 0.0
    slo_s: float | None = None
    tenant: str = "acme"
    minimum: int = 0
    maximum: int | None = None
    most_millicores: int = 4000
    measured: set[Resources] = field(default_factory=lambda: {ONE})
    limits: Limits = field(default_factory=Limits)
    reason: str = "demand"
    kept: int = 0
    least: Resources = ONE

    @property
    def key(self) -> tuple[str, int]:
        return (self.name, 1)

    def sustains(self, shape: Resources) -> float:
        return sustained(((1, self.times_us[shape]),), self.slo_s)[0]

    def decide(self, footing: Resources) -> Decision:
        """A policy that knows the load: as many as it takes, with head-room."""
        needed = math.ceil(1.3 * self.load / self.sustains(footing)) if self.load else 0
        wanted = max(needed, self.minimum, self.kept)
        desired = wanted if self.maximum is None else min(wanted, self.maximum)
        idle_s = 0.0 if self.load else 100.0
        return Decision(desired, self.reason, wanted, self.kept > needed, (("idle_s", idle_s),), min(needed, desired))


@dataclass
class Mesh:
    """Runners that do at once what they are told, and load until the next pass."""

    models: list[Ranged]
    capacity: Limits = ROOMY
    tenants: tuple[Tenant, ...] = ()
    holdings: list[Holding] = field(default_factory=list)
    now: float = 1000.0
    born: int = 0
    standby: int = 8
    awaiting: bool = False
    failing: set[Resources] = field(default_factory=set)
    failures: int = 0
    resizing: Resizing = field(default_factory=lambda: Resizing(price))
    sizings: dict[str, Sizing] = field(default_factory=dict)

    def run(self, model: str, *held: Resources) -> Mesh:
        for resources in held:
            self.born += 1
            tenant = next(each.tenant for each in self.models if each.name == model)
            self.holdings.append(Holding(f"i{self.born}", model, 1, tenant, resources, True, False, float(self.born)))
        return self

    def shapes_of(self, model: str) -> list[int]:
        """CPUs of its instances, ascending."""
        live = [each for each in self.holdings if each.model == model and not each.draining]
        return sorted(each.resources.cpu_millicores // 1000 for each in live)

    def reason(self, model: str) -> str:
        return self.sizings[model].reason

    def pass_(self, after_s: float = 0.0) -> Plan:
        """One pass; then what was told is done, and loads end."""
        self.now += after_s
        decided = plan(self._snapshot())
        self._obey(decided)
        return decided

    def passes(self, count: int, each_s: float = 1.0) -> None:
        for _ in range(count):
            self.pass_(each_s)

    def _snapshot(self) -> Snapshot:
        room = Room(self.tenants, self.capacity)
        for holding in self.holdings:
            room.add(holding)
        for model in self.models:
            self.sizings[model.name] = self._size(model, room)
        leaving = frozenset().union(*(each.leaving for each in self.sizings.values()))
        return Snapshot(
            wants=tuple(self.sizings[model.name].want for model in self.models),
            holdings=tuple(replace(each, leaving=each.id in leaving) for each in self.holdings),
            standby=tuple(f"s{self.born + number}" for number in range(1, self.standby + 1)),
            starting=0,
            standby_target=8,
            capacity=self.capacity,
            tenants=self.tenants,
        )

    def _size(self, model: Ranged, room: Room) -> Sizing:
        live = tuple(each for each in self.holdings if each.model == model.name and not each.draining)
        footing = self.resizing.footing(model.key, model.least, [each.resources for each in live], self.now)
        decision = model.decide(footing)
        room.quotas.set_model(model.name, bounds_of(model.limits))
        profiles = [ShapeProfile(shape, ((1, model.times_us[shape]),)) for shape in model.measured]
        want = Want(
            model.name, 1, model.tenant, footing, decision.desired, model.limits, decision.spare,
            max(decision.needed, model.minimum), dict(decision.inputs)["idle_s"],
        )  # fmt: skip
        allowed = ways(shapes(model.least, model.most_millicores), profiles)
        situation = Situation(
            want, decision, allowed, live, model.slo_s, model.minimum, model.maximum, model.load, self.failures,
            awaiting=self.awaiting,
        )  # fmt: skip
        return self.resizing.size(situation, room, self.now)

    def _obey(self, decided: Plan) -> None:
        gone = {each.runner for each in decided.actions if isinstance(each, DrainInstance)}
        by_name = {model.name: model for model in self.models}
        after = []
        for each in self.holdings:
            if each.draining:
                continue
            if not each.ready and each.resources in self.failing:
                self.failures += 1
                continue
            if not each.ready:
                by_name[each.model].measured.add(each.resources)
            after.append(replace(each, ready=True, draining=each.id in gone))
        self.holdings = after
        for action in decided.actions:
            if isinstance(action, LoadOnStandby) and action.resources is not None:
                self.born += 1
                tenant = by_name[action.model].tenant
                held = Holding(action.runner, action.model, 1, tenant, action.resources, False, False, self.now)
                self.holdings.append(held)


SLOW_ALONE = {ONE: 120_000, TWO: 70_000, FOUR: 40_000}
"""One CPU misses an objective of 100 ms."""
NEAR_TWICE = {ONE: 10_000, TWO: 5_500, FOUR: 3_200}
FASTER = {ONE: 10_000, TWO: 2_000, FOUR: 1_500}
"""Two CPUs do five times what one does (say, its caches are its own)."""
