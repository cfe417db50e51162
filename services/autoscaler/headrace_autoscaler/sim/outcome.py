"""What happened in a run: every instance and every request, from which everything else is computed."""

from __future__ import annotations

import math
from dataclasses import dataclass

from headrace_autoscaler.sim.gate import NO_NODE
from headrace_autoscaler.sim.workload import Case, Indices, Seconds

NEVER = math.inf


@dataclass(slots=True, eq=False)
class Lifetime:
    """One instance. Seconds from the run's begin; NEVER: did not happen.

    Attributes:
        number: unique in the run, in order of starting.
        model: index.
        started: when the start was commanded; billing begins.
        ready: when it could answer.
        stopped: when the stop was commanded; it takes no new request.
        gone: when it had drained; billing ends.
        reason: the policy's, of the start.
        stop_reason: the policy's, of the stop; "end of the run" where that stopped it.
    """

    number: int
    model: int
    started: float
    ready: float
    reason: str
    node: int = NO_NODE
    stopped: float = NEVER
    gone: float = NEVER
    stop_reason: str = ""
    executing: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """Attributes:
    begin_s: [requests] when each began to execute; NaN: it never did.
    instance: [requests] number of the instance; -1: none.
    refused: request -> why.
    refused_at: request -> when, of those that were not refused as they came.
    starts_refused: starts that the gate refused; asked again at the next decision.
    ended_s: when the last instance was gone; the horizon at the least.
    """

    policy: str
    case: Case
    lifetimes: list[Lifetime]
    begin_s: Seconds
    instance: Indices
    refused: dict[int, str]
    refused_at: dict[int, float]
    starts_refused: int
    ended_s: float

    @property
    def answer_s(self) -> Seconds:
        """[requests] when each was answered; NaN: never."""
        answered: Seconds = self.begin_s + self.case.workload.service_s
        return answered


END_OF_RUN = "end of the run"
