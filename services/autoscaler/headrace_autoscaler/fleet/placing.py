"""Puts revisions on standby runners, and remembers how their loads ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from headrace.v1 import resources_pb2
from headrace_autoscaler.core.backoff import Failures
from headrace_autoscaler.core.plans import Key, LoadOnStandby
from headrace_autoscaler.core.pricing import LocalPrices
from headrace_autoscaler.domain import Model, ModelSpec, Resources, Revision
from headrace_autoscaler.fleet.books import Books
from headrace_autoscaler.fleet.history import History
from headrace_autoscaler.fleet.lifecycle import EARLY_S, Lifecycle
from headrace_autoscaler.fleet.link import LoadAnswer
from headrace_autoscaler.fleet.loading import LoadOrder
from headrace_autoscaler.fleet.runners import Assignment, Registry, Runner, RunnerState
from headrace_autoscaler.fleet.shapes import Shapes
from headrace_autoscaler.fleet.verification import Verifications
from headrace_common.clock import Clock

_LEAKED_EARLY_S = 60.0
"""An instance that lasts so long is worth its start, even if it has to be replaced in the end."""
_AT_ONCE_S = 0.05
"""A runner that is told to load within this after it stands by was waited for."""


class Placing:
    """Loads for traffic and for verification; failures in a row by revision."""

    def __init__(
        self, registry: Registry, lifecycle: Lifecycle, verifications: Verifications, history: History, books: Books,
        shapes: Shapes, prices: LocalPrices, clock: Clock, artifacts: Path, deaths_of_poison: int,
    ) -> None:  # fmt: skip
        """
        Args:
            deaths_of_poison: so many runners in a row one poison request may kill before the router
                refuses it. They are replaced at once: their model is not to blame.
        """
        self._registry = registry
        self._lifecycle = lifecycle
        self._verifications = verifications
        self._history = history
        self._books = books
        self._shapes = shapes
        self._prices = prices
        self._clock = clock
        self._artifacts = artifacts
        self._deaths_of_poison = deaths_of_poison
        self._failures: dict[Key, Failures] = {}
        self._deaths: Counter[Key] = Counter()
        self._leaky: set[Key] = set()
        self.failed_count = 0
        self.outgrown: Counter[tuple[str, str]] = Counter()
        """By tenant and model."""
        lifecycle.died_early = self._died_early
        lifecycle.outgrew = self._outgrew

    @property
    def failures(self) -> Mapping[Key, Failures]:
        return self._failures

    def keep_only(self, keys: set[Key]) -> None:
        self._failures = {key: each for key, each in self._failures.items() if key in keys}
        self._deaths = Counter({key: count for key, count in self._deaths.items() if key in keys})
        self._leaky &= keys

    def forgive(self, now: float) -> None:
        """Forgets the failures of what has stayed up."""
        for runner in self._registry.in_state(RunnerState.READY):
            if runner.assignment is None:
                continue
            key = runner.assignment.key
            if now - runner.state_since >= (_LEAKED_EARLY_S if key in self._leaky else EARLY_S):
                self._failures.pop(key, None)
                self._deaths.pop(key, None)
                self._leaky.discard(key)

    def load(self, action: LoadOnStandby, model: Model | None) -> None:
        runner = self._registry.get(action.runner)
        if runner is None:
            return
        now = self._clock.monotonic()
        if runner.started_here and now - runner.state_since <= _AT_ONCE_S:
            runner.awaited_s = now - runner.started_at
        if action.verification:
            self._verify(runner, (action.model, action.revision))
        elif model is not None:
            revision = next(each for each in model.revisions if each.revision == action.revision)
            key = (revision.model, revision.revision)
            runner.cold_start = self._history.placed(key, runner.id, now)
            self._load(
                runner, model.spec, revision, self._loaded, self._load_failed, resources=action.resources
            )  # fmt: skip

    def _verify(self, runner: Runner, key: Key) -> None:
        verification = self._verifications.get(key)
        if verification is not None:
            verification.placed.set()
            runner.admitted = False

            def loaded(runner: Runner, answer: LoadAnswer) -> None:
                self._history.verified(key[0], answer.load_s)
                verification.succeed(runner, answer)

            self._load(runner, verification.spec, verification.revision, loaded, verification.fail, verification=True)

    def _load(
        self, runner: Runner, spec: ModelSpec, revision: Revision, loaded: Callable[[Runner, LoadAnswer], None],
        failed: Callable[[Runner, Exception], None], verification: bool = False, resources: Resources | None = None,
    ) -> None:  # fmt: skip
        resources = resources or spec.resources
        order = LoadOrder(
            assignment=Assignment(revision.model, revision.revision, revision.version, spec.tenant, resources),
            revision=revision,
            directory=str(self._artifacts / revision.artifact),
            shape=shape_message(self._prices, resources),
            loaded=loaded,
            failed=failed,
            verification=verification,
        )
        self._lifecycle.load(runner, order)

    def _loaded(self, runner: Runner, answer: LoadAnswer) -> None:
        if runner.assignment is None:
            return
        if runner.cold_start is None:  # A load that requests wait for goes without the runs that are timed.
            self._shapes.measured(runner.assignment, answer.loaded.profile_us)
        key = runner.assignment.key
        if self._history.loaded(key, runner.id, answer.load_s, answer.warm_s, runner.awaited_s):
            self._books.cold_start(runner.assignment)

    def _load_failed(self, runner: Runner, error: Exception) -> None:
        if runner.assignment is None:
            return
        self._failed(runner.assignment.key, f"cannot be loaded: {error}")
        self._history.load_failed(runner.id)

    def _died_early(self, runner: Runner, ended: str) -> None:
        """One that dies as soon as it serves, say for want of memory, would otherwise be replaced without end."""
        if runner.assignment is None:
            return
        self._deaths[runner.assignment.key] += 1
        if self._deaths[runner.assignment.key] > self._deaths_of_poison:
            why = f"its runner ended within {EARLY_S:g} s of being ready ({ended}); runners.log may say why"
            self._failed(runner.assignment.key, f"does not keep running: {why}")

    def _outgrew(self, runner: Runner, reason: str) -> None:
        """Replaced at once, unless its model does so again and again: the machine would do nothing but start it."""
        held, now = runner.assignment, self._clock.monotonic()
        if held is None or runner.ready_at is None:
            return
        self.outgrown[held.tenant, held.model] += 1
        said = f"instance {runner.id} is replaced: {reason}"
        instances = len(self._registry.holding(held.key))
        self._history.outgrew(held.key, said, instances, self._clock.wall(), held.resources.memory_bytes)
        if now - runner.ready_at >= _LEAKED_EARLY_S:
            return
        self._leaky.add(held.key)
        self._deaths[held.key] += 1
        if self._deaths[held.key] > self._deaths_of_poison:
            self._failed(held.key, f"outgrows its memory within {_LEAKED_EARLY_S:g} s of being ready: {reason}")

    def _failed(self, key: Key, reason: str) -> None:
        self.failed_count += 1
        self._failures[key] = self._failures.get(key, Failures()).failed(reason, self._clock.monotonic())


def shape_message(prices: LocalPrices, resources: Resources) -> resources_pb2.InstanceShape:
    shape = prices.shape(resources)
    return resources_pb2.InstanceShape(
        name=shape.name,
        cpu_millicores=resources.cpu_millicores,
        memory_bytes=resources.memory_bytes,
        gpu_millis=resources.gpu_millis,
        gpu_memory_bytes=resources.gpu_memory_bytes,
        capacity_class=resources_pb2.CAPACITY_CLASS_ON_DEMAND,
        price=resources_pb2.Price(currency=prices.currency, micros_per_hour=shape.micros_per_hour),
    )
