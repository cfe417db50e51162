"""What runs of a revision, and what one instance of it can do."""

from __future__ import annotations

from dataclasses import dataclass

from headrace_autoscaler.core.demand import Demand
from headrace_autoscaler.domain import ModelSpec

_GUESSED_SERVICE_TIME_S = 0.01


@dataclass(frozen=True, slots=True)
class RevisionStatus:
    """What runs of a revision, as far as the decision needs it.

    Attributes:
        ready, starting: instances; one that drains is neither.
        ready_for_s: since the newest instance became ready; None: none is ready.
        trusted: so many instances were there when this autoscaler began, for reasons that it does not know.
        current: requests that name no version go here; the model's minimum holds for it.
        retiring: replaced; it only answers what it had accepted.
        max_batch_size: rows.
        profile_us: batch size -> microseconds, measured at the load.
        gpu_memory_share: of the GPU memory that ready instances report, what is used; None: none of them reports it.
    """

    ready: int = 0
    starting: int = 0
    ready_for_s: float | None = None
    trusted: int = 0
    current: bool = True
    retiring: bool = False
    max_batch_size: int = 1
    profile_us: tuple[tuple[int, int], ...] = ()
    gpu_memory_share: float | None = None

    @property
    def instances(self) -> int:
        return self.ready + self.starting


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
