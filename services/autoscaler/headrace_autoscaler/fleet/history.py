"""What was decided and started, per model, bounded: the answer to "why"."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from headrace_autoscaler.core.plans import Key
from headrace_autoscaler.domain import ColdStart, DecisionRecord, DeployFailure, ModelPast

_DECISIONS = 64
_COLD_STARTS = 32
_FLICKER_S = 60.0
"""A reason that comes back within this, for the same number, is not told again: under load reasons take turns."""
_MOST_REASONS = 16
PHASES = ("decide_s", "place_s", "load_s", "warm_s", "first_answer_s", "total_s")


@dataclass(slots=True)
class _ModelHistory:
    decisions: deque[DecisionRecord] = field(default_factory=lambda: deque(maxlen=_DECISIONS))
    cold_starts: deque[tuple[str, ColdStart]] = field(default_factory=lambda: deque(maxlen=_COLD_STARTS))
    cold_start_count: int = 0
    starts_s: deque[float] = field(default_factory=lambda: deque(maxlen=_COLD_STARTS))
    first_load_s: float | None = None
    outgrown: DeployFailure | None = None


@dataclass(slots=True)
class _Said:
    """What was told last of a revision.

    Attributes:
        told: when each reason for this number was told last; wall-clock seconds.
    """

    desired: int
    reason: str = ""
    told: dict[str, float] = field(default_factory=dict)

    def is_new(self, reason: str, at: float) -> bool:
        last = self.told.get(reason)
        if reason == self.reason or (last is not None and 0 <= at - last < _FLICKER_S):
            return False
        if len(self.told) >= _MOST_REASONS:
            self.told.clear()
        self.reason, self.told[reason] = reason, at
        return True


@dataclass(frozen=True, slots=True)
class StartFromZero:
    """A cold start under way. Seconds; `decided_at` is monotonic, `at` is wall-clock.

    Attributes:
        stood_by: runners that stood by when it began.
    """

    at: float
    decided_at: float
    decide_s: float
    stood_by: frozenset[str]
    place_s: float = 0.0
    from_standby: bool = False


class History:
    """Decisions are kept where the number changed or there is another reason, cold starts from the first demand on."""

    def __init__(self) -> None:
        self._models: dict[str, _ModelHistory] = {}
        self._last: dict[Key, _Said] = {}
        self._pending: dict[Key, StartFromZero] = {}
        self._placed: dict[str, tuple[Key, StartFromZero]] = {}
        self._told: dict[str, tuple[float, float, float, float]] = {}
        self._changed: set[str] = set()
        self.decision_count = 0

    def decided(self, model: str, record: DecisionRecord) -> bool:
        """Whether it says something new."""
        if not self._says_new(model, record):
            return False
        self.decision_count += 1
        self._model(model).decisions.append(record)
        return True

    def _says_new(self, model: str, record: DecisionRecord) -> bool:
        key = (model, record.revision)
        said = self._last.get(key)
        if said is None or said.desired != record.desired:
            said = self._last[key] = _Said(record.desired)
        return said.is_new(record.reason, record.at)

    def outgrew(self, key: Key, said: str, instances: int, wall: float, memory_bytes: int) -> None:
        """An event among the decisions, and what is told as the model's last failure."""
        model, revision = key
        history = self._model(model)
        inputs = (("memory_bytes", float(memory_bytes)),)
        history.decisions.append(DecisionRecord(wall, revision, instances, instances, said, inputs))
        history.outgrown = DeployFailure(wall, said)

    def outgrown(self, model: str) -> DeployFailure | None:
        return self._models[model].outgrown if model in self._models else None

    def demand_at_zero(self, key: Key, wall: float, now: float, waited_s: float, stood_by: frozenset[str]) -> None:
        """Requests wait and nothing runs: a cold start begins, unless it has begun already."""
        if key not in self._pending:
            self._pending[key] = StartFromZero(wall - waited_s, now, waited_s, stood_by)

    def demand_gone(self, key: Key) -> None:
        self._pending.pop(key, None)

    def placed(self, key: Key, runner: str, now: float) -> StartFromZero | None:
        """The cold start that this runner's load belongs to, if it is one."""
        pending = self._pending.pop(key, None)
        if pending is None:
            return None
        start = replace(pending, place_s=now - pending.decided_at, from_standby=runner in pending.stood_by)
        self._placed[runner] = (key, start)
        return start

    def load_failed(self, runner: str) -> None:
        """The cold start goes on with another runner."""
        placed = self._placed.pop(runner, None)
        self._told.pop(runner, None)
        if placed is not None:
            self._pending.setdefault(placed[0], placed[1])

    def loaded(self, key: Key, runner: str, load_s: float, warm_s: float, runner_s: float = 0.0) -> bool:
        """Counts a cold start as soon as its instance is ready: no router need have seen its end. Whether it was one.

        Args:
            runner_s: that the load waited for its runner to start.
        """
        placed = self._placed.pop(runner, None)
        if placed is None:
            self._model(key[0]).starts_s.append(runner_s + load_s + warm_s)
            return False
        key, start = placed
        total_s = start.decide_s + start.place_s + load_s + warm_s
        cold = ColdStart(
            start.at, key[1], start.decide_s, start.place_s, load_s, warm_s, 0.0, total_s, start.from_standby
        )
        history = self._model(key[0])
        history.cold_start_count += 1
        history.cold_starts.append((runner, cold))
        if (told := self._told.pop(runner, None)) is not None:
            self.completed(key[0], runner, *told)
        return True

    def completed(self, model: str, runner: str, load_s: float, warm_s: float, answer_s: float, total_s: float) -> None:
        """A router saw the first answer: its times replace the estimate. It may know before we hear of the load."""
        if runner in self._placed:
            self._told[runner] = (load_s, warm_s, answer_s, total_s)
            return
        history = self._models.get(model)
        for index, (holder, cold) in enumerate(history.cold_starts if history else ()):
            if history is not None and holder == runner:
                known = replace(
                    cold,
                    load_s=load_s or cold.load_s,
                    warm_s=warm_s or cold.warm_s,
                    first_answer_s=answer_s,
                    total_s=total_s or cold.total_s + answer_s,
                )
                history.cold_starts[index] = (runner, known)
                self._changed.add(model)
                return

    def keep_only(self, keys: set[Key]) -> None:
        models = {model for model, _ in keys}
        self._changed |= self._models.keys() - models
        self._models = {model: history for model, history in self._models.items() if model in models}
        self._last = {key: said for key, said in self._last.items() if key in keys}
        self._pending = {key: start for key, start in self._pending.items() if key in keys}

    def decisions(self, model: str) -> tuple[DecisionRecord, ...]:
        return tuple(self._models[model].decisions) if model in self._models else ()

    def cold_starts(self, model: str) -> tuple[ColdStart, ...]:
        return tuple(cold for _, cold in self._models[model].cold_starts) if model in self._models else ()

    def cold_start_count(self, model: str) -> int:
        return self._models[model].cold_start_count if model in self._models else 0

    def cold_start_counts(self) -> list[tuple[str, int]]:
        return [(model, history.cold_start_count) for model, history in self._models.items()]

    def cold_start_p95(self, model: str) -> float | None:
        """Seconds from the request to its answer that 95 % of the recent cold starts did not exceed (nearest
        rank); None: there was none. It survives a restart of the autoscaler."""
        return self.phases_p95(model).get("total_s")

    def verified(self, model: str, load_s: float) -> None:
        """A deploy's first load has ended, which also tries what later ones need not: it counts as long as there was no
        other."""
        self._model(model).first_load_s = load_s

    def start_p95(self, model: str) -> float | None:
        """What a start takes: by the recent ones from zero; while there are none, by those beside other instances; or
        else as long as the first load took. None: nothing was ever loaded."""
        known = self._models.get(model)
        if known is None:
            return None
        if known.cold_starts:
            return self.cold_start_p95(model)
        return _p95(known.starts_s) if known.starts_s else known.first_load_s

    def phases_p95(self, model: str) -> Mapping[str, float]:
        """The same for each of `PHASES`; empty: there was no cold start."""
        starts = self.cold_starts(model)
        return {phase: _p95(getattr(start, phase) for start in starts) for phase in PHASES if starts}

    def recall(self, past: Mapping[str, ModelPast]) -> None:
        """What an earlier autoscaler knew. Call it before anything happens."""
        for model, known in past.items():
            history = self._model(model)
            history.cold_start_count = known.cold_start_count
            history.cold_starts.extend(known.cold_starts)
            history.starts_s.extend(known.starts_s)
            history.first_load_s = known.first_load_s
            history.decisions.extend(known.decisions)
            for record in known.decisions:
                self._says_new(model, record)
        self._changed.clear()

    def take_changed(self) -> dict[str, ModelPast | None]:
        """What is new since the last call, by model; None: the model is gone."""
        changed, self._changed = self._changed, set()
        return {model: self.past(model) for model in changed}

    def give_back(self, models: Iterable[str]) -> None:
        """They could not be written: they are still new."""
        self._changed.update(models)

    def past(self, model: str) -> ModelPast | None:
        """All that is kept of a model; None: nothing."""
        held = self._models.get(model)
        if held is None:
            return None
        return ModelPast(
            held.cold_start_count,
            tuple(held.cold_starts),
            tuple(held.decisions),
            starts_s=tuple(held.starts_s),
            first_load_s=held.first_load_s,
        )

    def _model(self, model: str) -> _ModelHistory:
        """For a change."""
        self._changed.add(model)
        if model not in self._models:
            self._models[model] = _ModelHistory()
        return self._models[model]


def _p95(values: Iterable[float]) -> float:
    ordered = sorted(values)
    return ordered[math.ceil(0.95 * len(ordered)) - 1]
