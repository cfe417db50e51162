"""From what stands in the catalogue, the registry and the books to a snapshot that can be planned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from headrace_autoscaler.core.backoff import Failures
from headrace_autoscaler.core.decider import Decision, Policy, RevisionStatus, decide
from headrace_autoscaler.core.plans import Holding, Key, Want
from headrace_autoscaler.domain import Model, Revision, RevisionState
from headrace_autoscaler.fleet.demand_book import DemandBook
from headrace_autoscaler.fleet.runners import Registry, Runner, RunnerState

SERVED = (RevisionState.SERVING, RevisionState.RETIRING)


@dataclass(frozen=True, slots=True)
class Judged:
    """One revision with its decision.

    Attributes:
        settled: retiring, and the routers are known to have nothing left for it.
    """

    model: Model
    revision: Revision
    status: RevisionStatus
    decision: Decision
    draining: int
    settled: bool

    @property
    def key(self) -> Key:
        return (self.revision.model, self.revision.revision)


def holdings(registry: Registry, slow: frozenset[str]) -> tuple[Holding, ...]:
    """Runners that hold something, until their processes are gone. Those in `slow` are to be replaced."""
    return tuple(
        Holding(
            id=runner.id,
            model=runner.assignment.model,
            revision=runner.assignment.revision,
            tenant=runner.assignment.tenant,
            resources=runner.assignment.resources,
            ready=runner.state is RunnerState.READY,
            draining=runner.state >= RunnerState.DRAINING,
            started_at=runner.started_at,
            admitted=runner.admitted,
            slow=runner.id in slow,
            answer_due=runner.cold_start is not None and not runner.answered,
        )
        for runner in registry
        if runner.assignment is not None
    )


def judge(
    models: tuple[Model, ...],
    registry: Registry,
    book: DemandBook,
    policy: Policy,
    now: float,
    silent: Callable[[Key], bool],
) -> list[Judged]:
    """Decides every revision that serves or retires.

    Args:
        silent: whether the routers are known to have nothing left for a retiring revision.
    """
    held: dict[Key, list[Runner]] = {}
    for runner in registry:
        if runner.assignment is not None:
            held.setdefault(runner.assignment.key, []).append(runner)
    judged = []
    for model in models:
        current = model.current
        for revision in model.revisions:
            if revision.state in SERVED:
                runners = held.get((revision.model, revision.revision), [])
                judged.append(_judge_one(model, revision, revision is current, runners, book, policy, now, silent))
    return judged


def _judge_one(
    model: Model,
    revision: Revision,
    current: bool,
    runners: list[Runner],
    book: DemandBook,
    policy: Policy,
    now: float,
    silent: Callable[[Key], bool],
) -> Judged:
    key = (revision.model, revision.revision)
    status = _status(revision, current, runners, book, now)
    decision = decide(model.spec, book.window(key), status, now, policy)
    settled = False
    if status.retiring:
        settled = decision.desired == 0 and silent(key)
        if not settled and decision.desired < status.instances:
            # Routers may still be sending: what runs goes on until they are known to have stopped.
            decision = Decision(status.instances, "replaced: routers are not known to be done with it yet")
    else:
        book.peak(key).add(decision.wanted, now)
    draining = sum(runner.state >= RunnerState.DRAINING for runner in runners)
    return Judged(model, revision, status, decision, draining, settled)


def _status(revision: Revision, current: bool, runners: list[Runner], book: DemandBook, now: float) -> RevisionStatus:
    ready = [runner for runner in runners if runner.state is RunnerState.READY]
    starting = sum(runner.state < RunnerState.READY for runner in runners)
    loaded = revision.loaded
    return RevisionStatus(
        ready=len(ready),
        starting=starting,
        ready_for_s=now - max(runner.state_since for runner in ready) if ready else None,
        peak=book.peak((revision.model, revision.revision)).highest(now),
        current=current,
        retiring=revision.state is RevisionState.RETIRING,
        max_batch_size=loaded.max_batch_size if loaded else 1,
        profile_us=loaded.profile_us if loaded else (),
    )


def wants(judged: list[Judged], failures: Mapping[Key, Failures], now: float) -> tuple[Want, ...]:
    return tuple(_want(each, failures.get(each.key), now) for each in judged)


def _want(each: Judged, failures: Failures | None, now: float) -> Want:
    paused = failures is not None and failures.waits(now)
    held_back = ""
    if failures is not None and paused and failures.blocking:
        held_back = f"model '{each.revision.model}' {failures.reason}"
    spec = each.model.spec
    idle_s = dict(each.decision.inputs).get("idle_s", 0.0)
    return Want(
        model=each.revision.model,
        revision=each.revision.revision,
        tenant=spec.tenant,
        resources=spec.resources,
        desired=each.decision.desired,
        limits=spec.limits,
        spare=each.decision.spare,
        minimum=spec.min_instances if each.status.current else 0,
        idle_s=idle_s,
        retiring=each.status.retiring,
        paused=paused,
        held_back=held_back,
    )
