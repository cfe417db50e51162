"""Observe, plan, apply: one pass, without an await in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from headrace_autoscaler.core.explaining import Standing
from headrace_autoscaler.core.planner import plan
from headrace_autoscaler.core.plans import (
    Action,
    DrainInstance,
    Key,
    LoadOnStandby,
    Plan,
    Snapshot,
    StartStandby,
    StopJob,
    StopStandby,
    Want,
)
from headrace_autoscaler.core.rationing import refuse_spent
from headrace_autoscaler.core.replacement import Replacements
from headrace_autoscaler.core.room import Room
from headrace_autoscaler.domain import DecisionRecord, Limits, Model, Revision
from headrace_autoscaler.fleet.announcements import Announcements, PlacementNotice
from headrace_autoscaler.fleet.demand_book import DemandBook
from headrace_autoscaler.fleet.history import History
from headrace_autoscaler.fleet.job_desk import JobDesk
from headrace_autoscaler.fleet.lifecycle import Lifecycle
from headrace_autoscaler.fleet.observation import SERVED, Judge, Judged, holdings, wants
from headrace_autoscaler.fleet.placing import Placing
from headrace_autoscaler.fleet.retirement import Retirement
from headrace_autoscaler.fleet.runners import Registry, Runner, RunnerState
from headrace_autoscaler.fleet.shapes import Asked, Shapes, Sized
from headrace_autoscaler.fleet.standby_pool import StandbyPool
from headrace_autoscaler.fleet.treasury import Treasury
from headrace_autoscaler.fleet.verification import Verifications
from headrace_autoscaler.ports import Catalogue
from headrace_common.clock import Clock
from headrace_common.errors import Unavailable
from headrace_common.logs import get_logger

_ANNOUNCED = (RunnerState.LOADING, RunnerState.READY, RunnerState.DRAINING)
REFILL_HELD_S = 1.0
"""The standby pool's refill waits for cold starts for at most this long."""


@dataclass(kw_only=True)
class Reconciler:
    """Keeps what runs as the catalogue, demand and quotas say. See `fleet.RunnerFleet` for the parts."""

    catalogue: Catalogue
    registry: Registry
    demand: DemandBook
    history: History
    verifications: Verifications
    lifecycle: Lifecycle
    placing: Placing
    retirement: Retirement
    replacements: Replacements
    treasury: Treasury
    announcements: Announcements
    clock: Clock
    judge: Judge
    shapes: Shapes
    standby: StandbyPool
    jobs: JobDesk
    capacity: Limits
    _blocked: Mapping[Key, str] = field(default_factory=dict)
    _current: dict[str, Key] = field(default_factory=dict)
    _refill_held_since: float | None = None
    _barred: set[Key] = field(default_factory=set)
    _standing: Mapping[str, Standing] = field(default_factory=dict)

    def reconcile(self) -> None:
        now = self.clock.monotonic()
        self.lifecycle.sweep()
        self.placing.forgive(now)
        models = self.catalogue.models()
        self._follow_catalogue(models)
        judged = self.judge.judge(models, now, self.clock.wall())
        self.treasury.review(models, self.catalogue.tenants(), now)
        self._refuse_unpaid_verifications()
        sized = self._size(judged, now)
        snapshot = self._snapshot(sized, now)
        decided = plan(snapshot)
        barred = {want.key for want in snapshot.wants if want.paused or want.held_back} | decided.bound.keys()
        self._note_cold_starts(judged, now, frozenset(snapshot.standby), barred)
        self._barred = barred
        self._follow_plan(decided, now)
        for action in decided.actions:
            self._apply(action)
        self._record(judged, decided, sized)
        self._standing = self._stand(judged, snapshot.wants, decided)
        self._refuse_verifications()
        mark = self._announce(models, snapshot.wants)
        self.treasury.announced(mark)
        self.retirement.follow(judged, mark)

    @property
    def refill_held(self) -> bool:
        """The standby pool is short, and waits for cold starts."""
        return self._refill_held_since is not None

    def blocked_reason(self, model: Model) -> str:
        keys = ((model.spec.name, revision.revision) for revision in reversed(model.revisions))
        return next((self._blocked[key] for key in keys if key in self._blocked), "")

    def standing(self, model: str) -> Standing | None:
        """What the last plan made of it; None: nothing of it has loaded yet."""
        return self._standing.get(model)

    def room(self) -> Room:
        """With all that is held now, until it is gone."""
        room = Room(self.catalogue.tenants(), self.capacity, (each.want for each in self._standing.values()))
        for holding in holdings(self.registry, frozenset()):
            room.add(holding)
        for job in self.jobs.holdings():
            room.add(job)
        return room

    def _stand(self, judged: list[Judged], wanted: tuple[Want, ...], decided: Plan) -> dict[str, Standing]:
        failures = self.placing.failures
        return {
            want.model: Standing(
                want,
                each.status.instances,
                each.decision.wanted,
                each.decision.reason,
                decided.bound.get(want.key, ""),
                f"model '{want.model}' {failures[want.key].reason}" if want.paused else "",
            )
            for each, want in zip(judged, wanted, strict=True)
            if each.status.current
        }

    def _follow_catalogue(self, models: tuple[Model, ...]) -> None:
        keys = {_key(revision) for model in models for revision in model.revisions}
        for model in models:
            self._follow_current(model)
        self.verifications.release(_served(models))
        self.demand.keep_only(keys)
        self.judge.keep_only(keys)
        self.placing.keep_only(keys)
        self.history.keep_only(keys)
        self._current = {name: key for name, key in self._current.items() if key in keys}

    def _follow_current(self, model: Model) -> None:
        current = model.current
        if current is None:
            return
        before = self._current.get(current.model)
        if before is not None and before != _key(current):
            self.demand.inherit(before, _key(current))
            self.judge.decider.inherit(before, _key(current))
        self._current[current.model] = _key(current)

    def _size(self, judged: list[Judged], now: float) -> Sized:
        held = holdings(self.registry, self.replacements.review(self._replaceable(judged), now))
        failures = self.placing.failures
        asked = [
            Asked(
                want,
                each.model,
                each.revision,
                each.decision,
                each.status.current,
                not each.status.retiring,
                self.demand.rows_per_request(each.key, now),
            )
            for each, want in zip(judged, wants(judged, failures, now), strict=True)
        ]
        return self.shapes.size(asked, held, self.catalogue.tenants(), self.capacity, failures, now)

    def _snapshot(self, sized: Sized, now: float) -> Snapshot:
        starts = self.lifecycle.start_failures
        waits = starts.waits(now)
        empty = [each for each in self.registry if each.assignment is None]
        starting = sum(runner.state is RunnerState.STARTING for runner in empty)
        held_since = self._refill_held_since
        return Snapshot(
            wants=self.treasury.ration(sized.wants, sized.holdings),
            holdings=sized.holdings,
            standby=tuple(runner.id for runner in empty if runner.state is RunnerState.STANDBY),
            starting=starting,
            standby_target=self.standby.decide(now).runners,
            capacity=self.capacity,
            start_limit=0 if waits else self.standby.start_limit(starting, now),
            start_refusal=starts.reason if waits and starts.blocking else "",
            tenants=self.catalogue.tenants(),
            verifications=tuple(each.key for each in self.verifications.waiting()),
            protected=self.verifications.protected(),
            hold_refill=held_since is None or now - held_since < REFILL_HELD_S,
            jobs=self.jobs.holdings(),
        )

    def _replaceable(self, judged: list[Judged]) -> dict[str, Key]:
        """Instances that serve revisions which stay."""
        staying = {each.key for each in judged if not each.status.retiring}
        return {
            runner.id: runner.assignment.key
            for runner in self.registry.in_state(RunnerState.READY)
            if runner.assignment is not None and runner.assignment.key in staying
        }

    def _note_cold_starts(self, judged: list[Judged], now: float, stood_by: frozenset[str], barred: set[Key]) -> None:
        """What may not start, for a limit, money or a failure, is not what a start takes."""
        for each in judged:
            inputs = dict(each.decision.inputs)
            waiting = bool(inputs.get("queued") or inputs.get("in_flight"))
            if each.key in barred:
                self.history.demand_gone(each.key)
            elif waiting and each.decision.desired > 0 and each.status.instances == 0:
                waited_s = 0.0 if each.key in self._barred else inputs.get("oldest_wait_s", 0.0)
                self.history.demand_at_zero(each.key, self.clock.wall(), now, waited_s, stood_by)
            elif each.decision.desired == 0:
                self.history.demand_gone(each.key)

    def _follow_plan(self, decided: Plan, now: float) -> None:
        self.standby.planned(decided, now)
        self._blocked = decided.blocked
        if not decided.refill_held:
            self._refill_held_since = None
        elif self._refill_held_since is None:
            self._refill_held_since = now
        for runner_id in decided.admitted:
            if (runner := self.registry.get(runner_id)) is not None:
                runner.admitted = True

    def _apply(self, action: Action) -> None:
        match action:
            case LoadOnStandby():
                self.placing.load(action, self.catalogue.model(action.model))
            case StartStandby(reason):
                self.lifecycle.start(reason)
            case DrainInstance(runner_id, reason):
                if (runner := self.registry.get(runner_id)) is not None:
                    model = runner.assignment.model if runner.assignment else ""
                    self.lifecycle.drain(runner, reason, self.treasury.drain_s(model))
            case StopJob(job, reason):
                self.jobs.stop(job, reason)
            case StopStandby(runner_id, reason):
                if (runner := self.registry.get(runner_id)) is not None:
                    self.lifecycle.stop(runner, reason)

    def _record(self, judged: list[Judged], decided: Plan, sized: Sized) -> None:
        for each, want in zip(judged, sized.wants, strict=True):
            said = (each.decision.reason, sized.reasons.get(each.key), decided.bound.get(each.key))
            record = DecisionRecord(
                at=self.clock.wall(),
                revision=each.revision.revision,
                current=each.status.instances,
                desired=want.desired,
                reason="; ".join(part for part in said if part),
                inputs=each.decision.inputs,
            )
            if self.history.decided(each.revision.model, record):
                self._log_decision(each, record)

    def _log_decision(self, each: Judged, record: DecisionRecord) -> None:
        get_logger().info(
            "decided",
            model=each.revision.model,
            tenant=each.model.spec.tenant,
            revision=record.revision,
            current=record.current,
            desired=record.desired,
            reason=record.reason,
        )

    def _refuse_verifications(self) -> None:
        """A deploy need not wait for runners that cannot be started."""
        starts = self.lifecycle.start_failures
        if starts.blocking and starts.waits(self.clock.monotonic()):
            for verification in self.verifications.waiting():
                verification.refuse(Unavailable(f"no runner can be started: {starts.reason}"))

    def _refuse_unpaid_verifications(self) -> None:
        """A first load costs what any other does."""
        for verification in self.verifications.waiting():
            error = refuse_spent(self.treasury.standings, verification.spec, self.clock.wall())
            if error is not None:
                verification.refuse(error)

    def _announce(self, models: tuple[Model, ...], wanted: tuple[Want, ...]) -> int:
        served = {key: revision for model in models for revision in model.revisions if (key := _key(revision))}
        keys = _served(models)
        placements = [
            _notice(runner, served[runner.assignment.key], self.shapes)
            for runner in self.registry
            if runner.assignment is not None and runner.assignment.key in keys and runner.state in _ANNOUNCED
        ]
        # What lacks only money is told as that: it is refused as a quota is, or waits.
        unpaid = {want.key for want in wanted if want.unpaid is not None}
        blocked = {key: reason for key, reason in self._blocked.items() if key not in unpaid}
        notices = self.treasury.notices(wanted, self._blocked)
        return self.announcements.announce(models, blocked, placements, self.catalogue.tenants(), notices)


def _key(revision: Revision) -> Key:
    return (revision.model, revision.revision)


def _served(models: tuple[Model, ...]) -> set[Key]:
    return {_key(revision) for model in models for revision in model.revisions if revision.state in SERVED}


def _notice(runner: Runner, revision: Revision, shapes: Shapes) -> PlacementNotice:
    held = runner.assignment
    if held is None:
        raise ValueError(f"runner {runner.id} holds nothing that could be announced")
    start = runner.cold_start
    return PlacementNotice(
        instance=runner.id,
        model=held.model,
        revision=held.revision,
        target=runner.target,
        state=runner.state.label,
        resources=held.resources,
        decide_s=start.decide_s if start else None,
        place_s=start.place_s if start else None,
        # Times of its own warm-up; of its shape's where it went without.
        profile_us=(runner.loaded.profile_us if runner.loaded else ()) or shapes.profile_of(revision, held.resources),
    )
