"""What happened to a model, and what was learnt from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ColdStart:
    """One start from zero; seconds by phase."""

    at: float
    revision: int
    decide_s: float
    place_s: float
    load_s: float
    warm_s: float
    first_answer_s: float
    total_s: float
    from_standby: bool


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    at: float
    revision: int
    current: int
    desired: int
    reason: str
    inputs: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Learnt:
    """What something has learnt, as plain JSON values (`core.memory`).

    Attributes:
        form: which classes told it; what another form says is not understood.
        monotonic, wall: when it was told, by both clocks; seconds.
    """

    form: int
    monotonic: float
    wall: float
    told: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ModelPast:
    """What is kept of a model's past across a restart: bounded, newest last.

    Attributes:
        cold_starts: with the runner that each was on.
        policies: by revision.
        starts_s: what starts beside other instances took.
        first_load_s: what the last deploy's first load took.
    """

    cold_start_count: int = 0
    cold_starts: tuple[tuple[str, ColdStart], ...] = ()
    decisions: tuple[DecisionRecord, ...] = ()
    policies: tuple[tuple[int, Learnt], ...] = ()
    starts_s: tuple[float, ...] = ()
    first_load_s: float | None = None


@dataclass(frozen=True, slots=True)
class DeployFailure:
    at: float
    reason: str
