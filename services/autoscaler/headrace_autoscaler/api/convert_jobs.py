"""Optimisations and variants between the API and the domain."""

from __future__ import annotations

from headrace.v1 import models_pb2 as pb
from headrace_autoscaler.api.convert_time import duration, seconds, timestamp
from headrace_autoscaler.core.jobs import Job, JobState, Optimization, Variant, serving_variant
from headrace_autoscaler.core.variant_choice import is_ours_to_choose
from headrace_autoscaler.domain import Model
from headrace_autoscaler.jobs.work import Progress

_STATES = {
    JobState.QUEUED: pb.JOB_STATE_QUEUED,
    JobState.RUNNING: pb.JOB_STATE_RUNNING,
    JobState.DONE: pb.JOB_STATE_DONE,
    JobState.FAILED: pb.JOB_STATE_FAILED,
    JobState.CANCELLED: pb.JOB_STATE_CANCELLED,
}
_DEFAULT = Optimization()


def optimization_of(asked: pb.Optimization) -> Optimization:
    """A validated request with its defaults settled."""
    return Optimization(
        labels=asked.labels,
        floor=asked.floor if asked.HasField("floor") else _DEFAULT.floor,
        latency_s=seconds(asked.latency) if asked.HasField("latency") else None,
        precisions=tuple(asked.precisions),
        prune=tuple(asked.prune),
        keep_original=asked.keep_original,
    )


def job_pb(job: Job, model: Model | None, progress: Progress | None) -> pb.OptimizeJob:
    """Progress: of its run, where it runs and has told of any."""
    asked = job.optimization
    shown = pb.OptimizeJob(
        model=job.model,
        state=_STATES[job.state],
        reason=job.reason,
        optimization=pb.Optimization(
            labels=asked.labels,
            floor=asked.floor,
            latency=None if asked.latency_s is None else duration(asked.latency_s),
            precisions=asked.precisions,
            prune=asked.prune,
            keep_original=asked.keep_original,
        ),
        created_at=timestamp(job.created_at),
        started_at=timestamp(job.started_at) if job.started_at else None,
        ended_at=timestamp(job.ended_at) if job.ended_at else None,
        attempts=job.attempts,
        chosen=job.chosen,
        automatic=model is not None and is_ours_to_choose(job, model),
        switched=job.moved,
    )
    if progress is not None:
        shown.stage, shown.stage_done, shown.stage_total = progress.stage, progress.done, progress.total
    return shown


def variants_pb(job: Job, model: Model) -> list[pb.Variant]:
    serves = serving_variant(job, model)
    return [_variant(each, each.name == job.chosen, each.name == serves) for each in job.variants]


def _variant(variant: Variant, chosen: bool, serves: bool) -> pb.Variant:
    cost_s = variant.cpu_s_per_row
    return pb.Variant(
        name=variant.name,
        what=variant.what,
        verdict=variant.verdict,
        reason=variant.reason,
        size_bytes=variant.size_bytes,
        quality=variant.quality,
        share=variant.share,
        lower=variant.lower,
        upper=variant.upper,
        samples=variant.samples,
        cpu_per_row=None if cost_s is None else duration(cost_s),
        timings=[
            pb.Variant.Timing(rows=each.rows, latency=duration(each.latency_s), rows_per_second=each.rows_per_s)
            for each in variant.timings
        ],
        on_front=variant.on_front,
        chosen=chosen,
        serves=serves,
        artifact=variant.artifact,
        engines=variant.engines,
    )
