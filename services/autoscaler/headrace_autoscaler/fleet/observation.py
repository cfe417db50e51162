"""From what stands in the catalogue, the registry and the books to a snapshot that can be planned."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from headrace_autoscaler.core.backoff import Failures
from headrace_autoscaler.core.decider import Decider, Decision
from headrace_autoscaler.core.plans import Holding, Key, Want
from headrace_autoscaler.core.revision_status import RevisionStatus
from headrace_autoscaler.domain import Model, ModelSpec, Revision, RevisionState
from headrace_autoscaler.fleet.demand_book import DemandBook
from headrace_autoscaler.fleet.runners import Registry, Runner, RunnerState
from headrace_autoscaler.fleet.shapes import Counted, Shapes
from headrace_common.logs import get_logger

_FAILED = "its policy fails, so what runs stays and a first request starts one"
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


@dataclass(slots=True)
class Judge:
    """Decides every revision that serves or retires.

    Attributes:
        silent: whether the routers are known to have nothing left for a retiring revision.
    """

    registry: Registry
    book: DemandBook
    decider: Decider
    shapes: Shapes
    silent: Callable[[Key], bool]
    _trusted_until: float = -math.inf
    _failing: dict[Key, str] = field(default_factory=dict)

    def trust(self, until: float) -> None:
        """What runs stays until then: there are reasons for it that are not known here. Monotonic seconds."""
        self._trusted_until = until

    def keep_only(self, keys: set[Key]) -> None:
        self.decider.keep_only(keys)
        self.shapes.keep_only(keys)
        self._failing = {key: reason for key, reason in self._failing.items() if key in keys}

    def judge(self, models: tuple[Model, ...], now: float, wall: float) -> list[Judged]:
        """Times are monotonic, and seconds since the epoch."""
        held: dict[Key, list[Runner]] = {}
        for runner in self.registry:
            if runner.assignment is not None:
                held.setdefault(runner.assignment.key, []).append(runner)
        return [
            self._judge_one(model, revision, held.get((revision.model, revision.revision), []), now, wall)
            for model in models
            for revision in model.revisions
            if revision.state in SERVED
        ]

    def _judge_one(self, model: Model, revision: Revision, runners: list[Runner], now: float, wall: float) -> Judged:
        key = (revision.model, revision.revision)
        counted = self.shapes.counted(model, revision, runners, now)
        trusted = len(counted.runners) if now <= self._trusted_until else 0
        status = _status(revision, revision is model.current, counted, trusted, now)
        decision = self._decide(key, counted.spec, status, now, wall)
        settled = False
        if status.retiring:
            settled = decision.desired == 0 and self.silent(key)
            if not settled and decision.desired < status.instances:
                # Routers may still be sending: what runs goes on until they are known to have stopped.
                decision = Decision(status.instances, "replaced: routers are not known to be done with it yet")
        draining = sum(runner.state >= RunnerState.DRAINING for runner in runners)
        return Judged(model, revision, status, decision, draining, settled)

    def _decide(self, key: Key, spec: ModelSpec, status: RevisionStatus, now: float, wall: float) -> Decision:
        """One model's policy that fails must not keep all others from being decided."""
        window = self.book.window(key)
        try:
            decision = self.decider.decide(key, spec, window, status, now, wall)
        except Exception as error:  # noqa: BLE001 - whatever it is, the model is served on and somebody is told
            reason = str(error) or repr(error)
            if self._failing.get(key) != reason:
                self._failing[key] = reason
                get_logger().error("policy failed", model=key[0], revision=key[1], reason=reason, exc_info=error)
            present = window is not None and window.observe(now).present
            least = spec.min_instances if status.current else 0
            return Decision(max(status.instances, least, int(present)), f"{_FAILED}: {reason}")
        self._failing.pop(key, None)
        return decision


def _status(revision: Revision, current: bool, counted: Counted, trusted: int, now: float) -> RevisionStatus:
    ready = [runner for runner in counted.runners if runner.state is RunnerState.READY]
    starting = sum(runner.state < RunnerState.READY for runner in counted.runners)
    loaded = revision.loaded
    return RevisionStatus(
        ready=len(ready),
        starting=starting,
        ready_for_s=now - max(runner.state_since for runner in ready) if ready else None,
        trusted=trusted,
        current=current,
        retiring=revision.state is RevisionState.RETIRING,
        max_batch_size=loaded.max_batch_size if loaded else 1,
        profile_us=counted.profile_us,
        gpu_memory_share=_gpu_memory_share(ready),
    )


def _gpu_memory_share(ready: list[Runner]) -> float | None:
    """Of those that report it, since each knows only its own; None: none does."""
    measured = [runner.gpu_memory for runner in ready if runner.gpu_memory is not None]
    total = sum(each.total_bytes for each in measured)
    return min(1.0, sum(each.used_bytes for each in measured) / total) if total else None


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
        minimum=max(each.decision.needed, spec.min_instances if each.status.current else 0),
        idle_s=idle_s,
        retiring=each.status.retiring,
        paused=paused,
        held_back=held_back,
    )
