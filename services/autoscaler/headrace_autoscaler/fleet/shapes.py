"""Models that were deployed with a range of shapes: what was measured of each, and what a plan is to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from headrace_autoscaler.core.allocator import Way
from headrace_autoscaler.core.backoff import Failures
from headrace_autoscaler.core.decider import Decision
from headrace_autoscaler.core.plans import Holding, Key, Want
from headrace_autoscaler.core.resizing import Resizing
from headrace_autoscaler.core.room import Room
from headrace_autoscaler.core.shape_situation import Situation
from headrace_autoscaler.core.sizing import MicrosPerHour, first_that_meets, shapes, ways
from headrace_autoscaler.domain import (
    InstanceView,
    Limits,
    Model,
    ModelSpec,
    Resources,
    Revision,
    RevisionState,
    ShapeProfile,
    Tenant,
)
from headrace_autoscaler.fleet.runners import Assignment, Registry, Runner, RunnerState
from headrace_autoscaler.fleet.tasks import TaskSet
from headrace_autoscaler.ports import Catalogue

Profile = tuple[tuple[int, int], ...]

_BETTER = 0.9
"""What is measured again is kept where a time is this share of the one before, or less."""


@dataclass(frozen=True, slots=True)
class Counted:
    """A revision as its policy sees it: in instances of one shape.

    Attributes:
        spec: with that shape; the same object as long as nothing changes.
        runners: those that count.
        profile_us: of that shape.
    """

    spec: ModelSpec
    runners: list[Runner]
    profile_us: Profile


@dataclass(frozen=True, slots=True)
class Asked:
    """A want, and what it came from.

    Attributes:
        current: the model's minimum holds for the revision.
        sizable: it serves on; what retires keeps its shape.
    """

    want: Want
    model: Model
    revision: Revision
    decision: Decision
    current: bool
    sizable: bool
    rows_per_request: float = 1.0


@dataclass(frozen=True, slots=True)
class Sized:
    """Attributes:
    reasons: by revision, what is done about its shape.
    """

    wants: tuple[Want, ...]
    holdings: tuple[Holding, ...]
    reasons: Mapping[Key, str]


class Shapes:
    def __init__(self, catalogue: Catalogue, registry: Registry, price: MicrosPerHour, tasks: TaskSet) -> None:
        self._catalogue = catalogue
        self._registry = registry
        self._resizing = Resizing(price)
        self._tasks = tasks
        self._measured: dict[Key, dict[Resources, Profile]] = {}
        self._specs: dict[Key, tuple[ModelSpec, ModelSpec]] = {}

    def keep_only(self, keys: set[Key]) -> None:
        self._resizing.keep_only(keys)
        self._measured = {key: each for key, each in self._measured.items() if key in keys}
        self._specs = {key: each for key, each in self._specs.items() if key in keys}

    def measured(self, held: Assignment, profile_us: Profile) -> None:
        """A load's times, which are kept: the least of all loads, as a busy machine only adds to them."""
        model = self._catalogue.model(held.model)
        revision = next((each for each in model.revisions if each.revision == held.revision), None) if model else None
        if model is None or revision is None:
            return
        known = {each.resources: each.profile_us for each in self.profiles(revision)}
        before = known.get(held.resources)
        merged = _least(before or (), profile_us)
        if before is not None and not _is_better(dict(before), dict(merged)):
            return
        self._measured.setdefault(held.key, {})[held.resources] = merged
        self._tasks.start(
            self._catalogue.profiled(held.model, held.revision, ShapeProfile(held.resources, merged)),
            f"profile of {held.model} revision {held.revision}",
        )

    def profiles(self, revision: Revision) -> tuple[ShapeProfile, ...]:
        """With what is being written."""
        known = {each.resources: each.profile_us for each in revision.profiles}
        known |= self._measured.get((revision.model, revision.revision), {})
        return tuple(ShapeProfile(resources, profile_us) for resources, profile_us in known.items())

    def profile_of(self, revision: Revision, resources: Resources) -> Profile:
        """Of this shape; of the first load where nothing is known of it."""
        return self._known(revision, resources) or (revision.loaded.profile_us if revision.loaded else ())

    def view(self, runner: Runner) -> InstanceView:
        """With what is known of its shape, where it was adopted or its load went without the runs that are timed."""
        seen, held = runner.view(), runner.assignment
        if seen.profile_us or held is None:
            return seen
        model = self._catalogue.model(held.model)
        revisions = model.revisions if model is not None else ()
        known = next((self._known(each, held.resources) for each in revisions if each.revision == held.revision), ())
        return replace(seen, profile_us=known) if known else seen

    def _known(self, revision: Revision, resources: Resources) -> Profile:
        return next((each.profile_us for each in self.profiles(revision) if each.resources == resources), ())

    def shape_of(self, model: Model, revision: int) -> Resources:
        """What the model's instances are counted in."""
        spec = self._specs.get((model.spec.name, revision))
        return spec[1].resources if spec is not None and spec[0] is model.spec else model.spec.resources

    def counted(self, model: Model, revision: Revision, runners: list[Runner], now: float) -> Counted:
        spec = model.spec
        if spec.max_cpu_millicores is None or revision.state is RevisionState.RETIRING:
            return Counted(spec, runners, self.profile_of(revision, spec.resources))
        key = (revision.model, revision.revision)
        live = [each.assignment.resources for each in runners if each.assignment and each.state < RunnerState.DRAINING]
        first = first_that_meets(self._ways(spec, self.profiles(revision)), spec.slo_s)
        footing = self._resizing.footing(key, first, live, now)
        target = self._resizing.target(key)
        counting = [each for each in runners if each.assignment is None or each.assignment.resources != target]
        return Counted(self._with_shape(key, spec, footing), counting, self.profile_of(revision, footing))

    def size(
        self, asked: Iterable[Asked], holdings: tuple[Holding, ...], tenants: tuple[Tenant, ...], capacity: Limits,
        failures: Mapping[Key, Failures], now: float,
    ) -> Sized:  # fmt: skip
        """Every want with its shape; models without a range keep theirs."""
        asked = tuple(asked)
        if not any(_has_range(each) for each in asked):
            return Sized(tuple(each.want for each in asked), holdings, {})
        room = Room(tenants, capacity, (each.want for each in asked))
        live: dict[Key, list[Holding]] = {}
        for holding in holdings:
            room.add(holding)
            if not holding.draining:
                live.setdefault(holding.key, []).append(holding)
        wants: list[Want] = []
        leaving: set[str] = set()
        reasons: dict[Key, str] = {}
        for each in asked:
            if not _has_range(each):
                wants.append(each.want)
                continue
            situation = self._situation(each, live.get(each.want.key, ()), failures.get(each.want.key))
            sizing = self._resizing.size(situation, room, now)
            wants.append(sizing.want)
            leaving |= sizing.leaving
            if sizing.reason:
                reasons[each.want.key] = sizing.reason
        held = tuple(replace(each, leaving=True) if each.id in leaving else each for each in holdings)
        return Sized(tuple(wants), held, reasons)

    def _situation(self, asked: Asked, live: Sequence[Holding], failed: Failures | None) -> Situation:
        spec = asked.model.spec
        profiles = self.profiles(asked.revision)
        runners = [self._registry.get(each.id) for each in live]
        return Situation(
            want=replace(asked.want, resources=self.shape_of(asked.model, asked.revision.revision)),
            decision=asked.decision,
            ways=self._ways(spec, profiles),
            live=tuple(live),
            slo_s=spec.slo_s,
            minimum=spec.min_instances if asked.current else 0,
            maximum=spec.max_instances,
            arrivals=dict(asked.decision.inputs).get("arrival_rate", 0.0) * asked.rows_per_request,
            failures=failed.count if failed is not None else 0,
            known=frozenset(each.resources for each in profiles),
            awaiting=any(each is not None and each.load_open and each.state is RunnerState.READY for each in runners),
        )

    def _ways(self, spec: ModelSpec, profiles: Iterable[ShapeProfile]) -> tuple[Way, ...]:
        return ways(shapes(spec.resources, spec.max_cpu_millicores), profiles)

    def _with_shape(self, key: Key, spec: ModelSpec, footing: Resources) -> ModelSpec:
        before = self._specs.get(key)
        if before is None or before[0] is not spec or before[1].resources != footing:
            shaped = spec if footing == spec.resources else replace(spec, resources=footing)
            before = self._specs[key] = (spec, shaped)
        return before[1]


def _has_range(asked: Asked) -> bool:
    return asked.sizable and asked.model.spec.max_cpu_millicores is not None


def _least(known: Profile, found: Profile) -> Profile:
    merged = dict(known)
    for rows, micros in found:
        merged[rows] = min(micros, merged.get(rows, micros))
    return tuple(sorted(merged.items()))


def _is_better(before: Mapping[int, int], after: Mapping[int, int]) -> bool:
    return any(rows not in before or micros <= _BETTER * before[rows] for rows, micros in after.items())
