"""The optimisation of a model as a job: what is asked for, what state it is in, what it found. Pure.

A job has no effect before it ends, so one that was interrupted is begun anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from headrace_autoscaler.domain import Model, Resources, RevisionState, ShapeProfile

ORIGINAL = "original"
"""The variant that is the model as it was deployed."""
AUTO = "auto"
"""In place of a variant's name: the mesh chooses."""
BEFORE = "-before"
"""End of the name of a variant that the job before has found and that serves on, where another has its name now."""
MOST_ATTEMPTS = 3
"""How often a job is begun that interruptions keep from its end."""
JOB_CPU_MILLICORES = 1000


class JobState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class JobEvent(StrEnum):
    BEGIN = "begin"
    FINISH = "finish"
    FAIL = "fail"
    INTERRUPT = "interrupt"
    """Its process ended for no fault of its own; it is begun anew."""
    CANCEL = "cancel"


_NEXT: dict[tuple[JobState, JobEvent], JobState] = {
    (JobState.QUEUED, JobEvent.BEGIN): JobState.RUNNING,
    (JobState.QUEUED, JobEvent.FAIL): JobState.FAILED,
    (JobState.QUEUED, JobEvent.CANCEL): JobState.CANCELLED,
    (JobState.RUNNING, JobEvent.FINISH): JobState.DONE,
    (JobState.RUNNING, JobEvent.FAIL): JobState.FAILED,
    (JobState.RUNNING, JobEvent.INTERRUPT): JobState.QUEUED,
    (JobState.RUNNING, JobEvent.CANCEL): JobState.CANCELLED,
}
_ACTIVE = (JobState.QUEUED, JobState.RUNNING)


class IllegalTransition(Exception):
    """What was told of a job cannot happen to one in its state."""


@dataclass(frozen=True, slots=True)
class Optimization:
    """What a job is to find.

    Attributes:
        labels: array of the samples with right answers; empty: agreement with the original.
        floor: least share of right answers.
        latency_s: most that a batch may take; None: it does not matter.
        precisions: empty: all.
        prune: shares of weights to become zero.
        keep_original: nothing is deployed at the end.
    """

    labels: str = ""
    floor: float = 0.99
    latency_s: float | None = None
    precisions: tuple[str, ...] = ()
    prune: tuple[float, ...] = ()
    keep_original: bool = False


@dataclass(frozen=True, slots=True)
class VariantTiming:
    """Medians of a batch of `rows`."""

    rows: int
    latency_s: float
    rows_per_s: float


@dataclass(frozen=True, slots=True)
class Variant:
    """A form of the model and what was measured of it.

    Attributes:
        quality: "agreement" or "accuracy", of which share, lower and upper are.
        samples: it was measured with; 0: it was not.
        cpu_s_per_row: None: no batch size is inside the latency.
        artifact: its files, as they are deployed; empty: it cannot be.
        profiles: what its instances have measured where they ran.
    """

    name: str
    what: str
    verdict: str
    reason: str
    size_bytes: int
    quality: str
    share: float = 0.0
    lower: float = 0.0
    upper: float = 0.0
    samples: int = 0
    cpu_s_per_row: float | None = None
    timings: tuple[VariantTiming, ...] = ()
    on_front: bool = False
    engines: tuple[str, ...] = ()
    artifact: str = ""
    profiles: tuple[ShapeProfile, ...] = ()


@dataclass(frozen=True, slots=True)
class Job:
    """The one job of a model. Times are seconds since the epoch; 0: not yet.

    Attributes:
        artifact: of the revision that it makes variants of.
        entry_point: the model file in it.
        engine: that serves this revision.
        samples: artifact with the samples.
        served: artifact that was current when it was asked for: a variant of an earlier job, or the original.
        reason: why it waits, what it found, or what went wrong.
        attempts: how often it was begun; a begin that gave way to serving does not count.
        gave_way: how often it did.
        gives_way_since: when the first run began that gave way.
        chosen: name of the cheapest variant that fits; empty: there is none.
        variants: what it found; until it has, what the job before it did.
        found: it has.
        managed: artifact that the mesh has chosen to serve; empty: somebody else has, and the mesh leaves it at that.
        moving: artifact that the mesh is about to put in its place; empty: none.
        moved: why the mesh has changed the variant since the job, or could not.
    """

    model: str
    artifact: str
    entry_point: str
    samples: str
    optimization: Optimization
    state: JobState = JobState.QUEUED
    served: str = ""
    reason: str = ""
    created_at: float = 0.0
    started_at: float = 0.0
    ended_at: float = 0.0
    attempts: int = 0
    chosen: str = ""
    variants: tuple[Variant, ...] = ()
    found: bool = False
    engine: str = ""
    gave_way: int = 0
    gives_way_since: float = 0.0
    managed: str = ""
    moving: str = ""
    moved: str = ""

    @property
    def active(self) -> bool:
        return self.state in _ACTIVE

    @property
    def artifacts(self) -> frozenset[str]:
        """What has to be kept for it: the original to go back to, the samples until it has ended, the variants."""
        names = {self.artifact, *(each.artifact for each in self.variants), self.samples if self.active else ""}
        return frozenset(names - {""})

    def variant(self, name: str) -> Variant | None:
        return next((each for each in self.variants if each.name == name), None)


def advanced(job: Job, event: JobEvent, now: float, reason: str = "") -> Job:
    """The job after what happened. `now` is seconds since the epoch.

    Raises:
        IllegalTransition: names the job, its state and the event.
    """
    state = _NEXT.get((job.state, event))
    if state is None:
        raise IllegalTransition(f"job of model {job.model!r} is {job.state.value}; it cannot {event.value}")
    moved = replace(job, state=state, reason=reason)
    if event is JobEvent.BEGIN:
        return replace(moved, started_at=now, attempts=job.attempts + 1)
    return moved if moved.active else replace(moved, ended_at=now)


def interrupted(job: Job, now: float, reason: str) -> Job:
    """A running job whose process is gone, through no fault of its own: queued again, or failed for the last time."""
    if job.attempts < MOST_ATTEMPTS:
        return advanced(job, JobEvent.INTERRUPT, now, f"{reason}; it is begun again")
    return advanced(job, JobEvent.FAIL, now, f"{reason}, {job.attempts} times; optimize again")


def gave_way(job: Job, now: float, reason: str, patience_s: float) -> Job:
    """A running job that was stopped for what has precedence: queued again, and no attempt is held against it; failed
    where it has given way for so long."""
    since = job.gives_way_since or job.started_at
    back = replace(job, attempts=job.attempts - 1, gave_way=job.gave_way + 1, gives_way_since=since)
    if now - since >= patience_s:
        return _out_of_patience(back, now, reason, patience_s)
    return advanced(back, JobEvent.INTERRUPT, now, _so_far(back, reason))


def kept_waiting(job: Job, now: float, reason: str, patience_s: float) -> Job:
    """A queued job that cannot begin, for this reason: it waits on. One that has given way and finds no room again is
    failed after so long."""
    if job.gave_way and now - job.gives_way_since >= patience_s:
        return _out_of_patience(job, now, reason, patience_s)
    return replace(job, reason=_so_far(job, reason))


def _so_far(job: Job, reason: str) -> str:
    if not job.gave_way:
        return reason
    return (
        f"{reason}; it has given way {_times(job)} and is begun again when there is room "
        f"(`headrace variants {job.model} --cancel` ends it)"
    )


def _out_of_patience(job: Job, now: float, reason: str, patience_s: float) -> Job:
    return advanced(
        job,
        JobEvent.FAIL,
        now,
        f"it gave way to serving {_times(job)} in {now - job.gives_way_since:.0f} s and never came to its end; the "
        f"last reason: {reason}. Leave room for one more instance in the tenant's quota and on the machine, or "
        f"optimize at a quieter hour (it tries for {patience_s:g} s: configuration key autoscaler.optimize_patience_s)",
    )


def _times(job: Job) -> str:
    return "once" if job.gave_way == 1 else f"{job.gave_way} times"


def outdated(job: Job, model: Model | None) -> str:
    """Why the job, or what it found, is of no more use; empty: it is of use."""
    if model is None or model.deleting:
        return "the model was deleted"
    current = model.current
    # Asked of every job several times a second; nearly always one of the first two serves.
    if current is None or current.artifact in (job.artifact, job.served):
        return ""
    if any(each.artifact == current.artifact for each in job.variants):
        return ""
    return "another version of the model was deployed"


def serving_variant(job: Job, model: Model) -> str:
    """Name of the variant that is current; empty: none of them is."""
    current = model.current
    if current is None:
        return ""
    if current.artifact == job.artifact:
        return ORIGINAL
    return next((each.name for each in job.variants if each.artifact == current.artifact), "")


def with_those_in_use(found: Iterable[Variant], job: Job, model: Model) -> tuple[Variant, ...]:
    """What a job has found, and of what the one before it had those that serve or are about to, where they are not
    found again: else nobody could tell any more what serves, and the next job took it for the original."""
    listed = list(found)
    in_use = {each.artifact for each in model.revisions if each.state is not RevisionState.RETIRING}
    for earlier in job.variants:
        if earlier.artifact in in_use - {each.artifact for each in listed}:
            name = earlier.name
            while any(each.name == name for each in listed):
                name += BEFORE
            listed.append(replace(earlier, name=name))
    return tuple(listed)


def is_to_be_deployed(job: Job, model: Model) -> bool:
    """The chosen variant takes the place of what served when the job was asked for; not of what somebody has chosen
    since."""
    chosen, current = job.variant(job.chosen), model.current
    if job.optimization.keep_original or chosen is None or not chosen.artifact or current is None:
        return False
    return current.artifact != chosen.artifact and current.artifact in (job.artifact, job.served)


def as_chosen(job: Job, model: Model | None) -> Job:
    """A job that has ended: where what it chose serves, the mesh goes on choosing among what it found."""
    chosen, current = job.variant(job.chosen), model.current if model is not None else None
    if job.state is not JobState.DONE or job.optimization.keep_original or chosen is None or current is None:
        return job
    if current.artifact != chosen.artifact:
        return job
    return replace(job, managed=chosen.artifact)


def job_resources(memory_bytes: int) -> Resources:
    """What a job counts for in quotas: one CPU, and the memory of an instance of its model."""
    return Resources(JOB_CPU_MILLICORES, memory_bytes)


def in_line(jobs: Iterable[Job]) -> tuple[Job, ...]:
    """Queued jobs, the longest waiting first."""
    waiting = [job for job in jobs if job.state is JobState.QUEUED]
    return tuple(sorted(waiting, key=lambda job: (job.created_at, job.model)))
