"""What running jobs hold of quotas and the machine, who pays for it, and when they give way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from headrace_autoscaler.core.jobs import job_resources
from headrace_autoscaler.core.plans import Holding, Want
from headrace_autoscaler.core.room import MACHINE, Room, why
from headrace_autoscaler.domain import ModelSpec, Resources
from headrace_autoscaler.fleet.books import Books


@dataclass(slots=True)
class _Held:
    spec: ModelSpec
    resources: Resources
    began_at: float
    booked_until_us: int
    must_stop: str = ""


class JobDesk:
    """
    Args:
        over_budget: of a tenant and model, why its money is gone; empty: it is not.
    """

    def __init__(self, books: Books, over_budget: Callable[[str, str], str]) -> None:
        self._books = books
        self._over_budget = over_budget
        self._held: dict[str, _Held] = {}

    def claim(self, spec: ModelSpec, room: Room, now: float) -> str:
        """Takes what a job needs; or why there is none of it. `room` is with all that is held. Monotonic seconds."""
        resources = job_resources(spec.resources.memory_bytes)
        if reason := self._over_budget(spec.tenant, spec.name):
            return reason
        refusal = room.refusal(Want(_job_of(spec.name), 0, spec.tenant, resources, 1))
        if refusal is not None:
            return why(refusal) if refusal.tenant != MACHINE else f"waits for room: {why(refusal)}"
        self._held[spec.name] = _Held(spec, resources, now, self._books.mark_us())
        return ""

    def release(self, model: str) -> None:
        if (held := self._held.get(model)) is not None:
            self._settle(held)
            del self._held[model]

    def must_stop(self, model: str) -> str:
        held = self._held.get(model)
        if held is None:
            return ""
        return held.must_stop or self._over_budget(held.spec.tenant, model)

    def stop(self, holding: str, reason: str) -> None:
        """What the job holds is needed for serving."""
        for model, held in self._held.items():
            if _job_of(model) == holding:
                held.must_stop = reason

    def settle(self) -> None:
        """Books the time of all jobs until now."""
        for held in self._held.values():
            self._settle(held)

    def holdings(self) -> tuple[Holding, ...]:
        """Of jobs that go on. No model has such a name, so no model's own limit counts them."""
        return tuple(
            Holding(
                id=_job_of(model),
                model=_job_of(model),
                revision=0,
                tenant=held.spec.tenant,
                resources=held.resources,
                ready=True,
                draining=False,
                started_at=held.began_at,
            )
            for model, held in self._held.items()
            if not held.must_stop
        )

    def _settle(self, held: _Held) -> None:
        held.booked_until_us = self._books.job(held.spec.tenant, held.spec.name, held.resources, held.booked_until_us)


def _job_of(model: str) -> str:
    return f"{model} (optimize)"
