"""How many instances of one revision.

Little's law (J. D. C. Little, "A proof for the queuing formula L = lambda W", 1961): arrivals per second
times engine seconds per request is the number of instances that are busy at any time. Instances are
provided so that they are busy `target_utilisation` of the time, plus what clears the backlog.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from headrace_autoscaler.core.demand import Demand, DemandWindow
from headrace_autoscaler.domain import ModelSpec

_GUESSED_SERVICE_TIME_S = 0.01
_CLEAR_BACKLOG_IN_S = 1.0
"""Without a latency objective, what waits should be gone after this."""


@dataclass(frozen=True, slots=True)
class Policy:
    """The mesh's part of the decision."""

    target_utilisation: float = 0.7


@dataclass(frozen=True, slots=True)
class RevisionStatus:
    """What runs of a revision, as far as the decision needs it.

    Attributes:
        ready, starting: instances; one that drains is neither.
        ready_for_s: since the newest instance became ready; None: none is ready.
        peak: highest `Decision.wanted` over the last window.
        current: requests that name no version go here; the model's minimum holds for it.
        retiring: replaced; it only answers what it had accepted.
        max_batch_size: rows.
        profile_us: batch size -> microseconds, measured at the load.
    """

    ready: int = 0
    starting: int = 0
    ready_for_s: float | None = None
    peak: int = 0
    current: bool = True
    retiring: bool = False
    max_batch_size: int = 1
    profile_us: tuple[tuple[int, int], ...] = ()

    @property
    def instances(self) -> int:
        return self.ready + self.starting


@dataclass(frozen=True, slots=True)
class Decision:
    """How many instances, and why.

    Attributes:
        wanted: what demand alone asks for now, before the window, the idle time and the bounds.
        spare: nobody needs the instances that this keeps; they may be taken where room is short.
        reason: without numbers, so that it changes only when the decision does.
        inputs: the numbers behind it.
    """

    desired: int
    reason: str
    wanted: int = 0
    spare: bool = False
    inputs: tuple[tuple[str, float], ...] = ()


class Peak:
    """Highest value over a sliding window; amortised constant time. Monotonic seconds."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._falling: deque[tuple[float, int]] = deque()

    def add(self, value: int, now: float) -> None:
        while self._falling and self._falling[-1][1] <= value:
            self._falling.pop()
        self._falling.append((now, value))

    def highest(self, now: float) -> int:
        while self._falling and now - self._falling[0][0] > self._window_s:
            self._falling.popleft()
        return self._falling[0][1] if self._falling else 0


def decide(
    spec: ModelSpec, window: DemandWindow | None, status: RevisionStatus, now: float, policy: Policy
) -> Decision:
    """The number of instances that one revision should have now.

    Args:
        window: None: no router has ever reported on the revision.
        now: monotonic seconds, of the clock that filled the window.
    """
    demand = Demand() if window is None else window.observe(now)
    if status.retiring:
        return _decide_retiring(demand, status)
    load = _load(spec, demand, status, policy)
    unbounded = _settle(spec, demand, status, load)
    return _bound(spec, status, unbounded)


@dataclass(frozen=True, slots=True)
class _Load:
    wanted: int
    measured: bool
    backlog: bool
    inputs: tuple[tuple[str, float], ...]


def service_time_s(spec: ModelSpec, demand: Demand, status: RevisionStatus) -> tuple[float, bool]:
    """Engine seconds per request at the batches that load would form, and whether that is known.

    Dispatch is work-conserving: at low load batches are small, and an instance that looks busy could
    take more. What was measured therefore counts as it is only where batches were near their maximum;
    otherwise the best known time per row bounds it.
    """
    best = _best_row_s(spec, status)
    measured = demand.service_time_s
    if measured is None:
        return (best * demand.rows_per_request, True) if best is not None else (_GUESSED_SERVICE_TIME_S, False)
    if best is None or demand.rows_per_bundle * 2 >= status.max_batch_size:
        return measured, True
    return min(measured, best * demand.rows_per_request), True


def _best_row_s(spec: ModelSpec, status: RevisionStatus) -> float | None:
    """Least seconds per row among the batches that fit."""
    batch = batch_that_fits(spec, status)
    return None if batch is None else batch[1] / batch[0]


def batch_that_fits(spec: ModelSpec, status: RevisionStatus) -> tuple[int, float] | None:
    """(rows, seconds) of the measured batch with the least time per row whose execution leaves half of the objective
    for waiting; the smallest one where none does; None: nothing was measured."""
    profile = [(rows, us / 1e6) for rows, us in status.profile_us if rows > 0 and us > 0]
    if not profile:
        return None
    fitting = [(rows, s) for rows, s in profile if spec.slo_s is None or s <= spec.slo_s / 2]
    return min(fitting or [min(profile)], key=lambda batch: batch[1] / batch[0])


def _load(spec: ModelSpec, demand: Demand, status: RevisionStatus, policy: Policy) -> _Load:
    each_s, known = service_time_s(spec, demand, status)
    rate = demand.arrival_rate or 0.0
    offered = rate * each_s
    bound = max(1, status.instances)
    backlog = min(float(bound), demand.queued * each_s / (spec.slo_s or _CLEAR_BACKLOG_IN_S))
    by_rate = math.ceil(offered / policy.target_utilisation - 1e-9)
    wanted = math.ceil((offered + backlog) / policy.target_utilisation - 1e-9)
    if demand.present:
        wanted = max(1, wanted)
    if not known:
        # A guess may start the first instance; only a measurement may start more.
        wanted = min(wanted, bound)
    inputs = (
        ("arrival_rate", rate),
        ("service_time_s", each_s),
        ("service_time_known", float(known)),
        ("offered_load", offered),
        ("backlog_load", backlog),
        ("queued", float(demand.queued)),
        ("in_flight", float(demand.in_flight)),
        ("oldest_wait_s", demand.oldest_wait_s),
        ("ready", float(status.ready)),
        ("starting", float(status.starting)),
        ("peak", float(status.peak)),
    )
    return _Load(wanted, known, wanted > by_rate, inputs)


def _settle(spec: ModelSpec, demand: Demand, status: RevisionStatus, load: _Load) -> Decision:
    """Applies time: zero only when idle for long enough, less only when the window agrees."""
    idle_s = _idle_s(demand, status)
    inputs = (*load.inputs, ("idle_s", idle_s if idle_s is not None else -1.0))
    if not demand.present and (idle_s is None or idle_s >= spec.idle_timeout_s):
        why = "no demand yet" if idle_s is None else "idle for the idle timeout"
        return Decision(0, why, 0, False, inputs)
    if status.instances == 0 and load.wanted > 0:
        return Decision(load.wanted, "first demand: nothing runs", load.wanted, False, inputs)
    held = min(status.peak, status.instances)
    if load.wanted >= max(held, 1):
        return Decision(load.wanted, _load_reason(load), load.wanted, False, inputs)
    if held > 1:
        return Decision(held, "less is enough, but not yet for the whole window", load.wanted, False, inputs)
    if status.instances == 0:
        return Decision(0, "no demand now", 0, False, inputs)
    return Decision(1, "kept until the idle timeout", 0, True, inputs)


def _load_reason(load: _Load) -> str:
    if not load.measured:
        return "demand, and no service time is known yet: one instance until it is measured"
    if load.wanted == 1:
        return "demand: one instance is enough for it"
    if load.backlog:
        return "as many as the offered load and what waits keep busy at the target utilisation"
    return "as many as the offered load keeps busy at the target utilisation"


def _idle_s(demand: Demand, status: RevisionStatus) -> float | None:
    """An instance that has just become ready is not idle yet, whatever was before."""
    known = [s for s in (demand.idle_s, status.ready_for_s) if s is not None]
    if status.starting:
        known.append(0.0)
    return min(known, default=None)


def _bound(spec: ModelSpec, status: RevisionStatus, decision: Decision) -> Decision:
    if status.current and (decision.desired < spec.min_instances or _is_minimum(spec, decision)):
        return _replace(decision, spec.min_instances, "the model's minimum")
    if spec.max_instances is not None and decision.desired > spec.max_instances:
        return _replace(decision, spec.max_instances, "the model's maximum; demand asks for more")
    return decision


def _is_minimum(spec: ModelSpec, decision: Decision) -> bool:
    """What the minimum asks for is nobody's spare."""
    return decision.spare and decision.desired == spec.min_instances


def _replace(decision: Decision, desired: int, reason: str) -> Decision:
    return Decision(desired, reason, decision.wanted, False, decision.inputs)


def _decide_retiring(demand: Demand, status: RevisionStatus) -> Decision:
    inputs = (("queued", float(demand.queued)), ("in_flight", float(demand.in_flight)), ("ready", float(status.ready)))
    if demand.present:
        return Decision(1, "replaced: answers what it had accepted", 1, False, inputs)
    return Decision(0, "replaced: nothing is left to answer", 0, False, inputs)
