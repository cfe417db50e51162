"""What may happen to an optimisation, and what of it is kept."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_autoscaler.core.jobs import (
    MOST_ATTEMPTS,
    ORIGINAL,
    IllegalTransition,
    Job,
    JobEvent,
    JobState,
    Optimization,
    Variant,
    advanced,
    gave_way,
    in_line,
    interrupted,
    outdated,
    serving_variant,
)
from headrace_autoscaler.domain import Model, ModelSpec, Revision, RevisionState

JOB = Job("m", "original-files", "model.onnx", "samples", Optimization(), created_at=1.0)
FOUND = (
    Variant(ORIGINAL, "", "fits", "", 10, "agreement", artifact="original-files"),
    Variant("int8", "", "fits", "", 3, "agreement", artifact="int8-files"),
    Variant("broken", "", "disqualified", "NaN", 3, "agreement"),
)
LEGAL = {
    (JobState.QUEUED, JobEvent.BEGIN): JobState.RUNNING,
    (JobState.QUEUED, JobEvent.FAIL): JobState.FAILED,
    (JobState.QUEUED, JobEvent.CANCEL): JobState.CANCELLED,
    (JobState.RUNNING, JobEvent.FINISH): JobState.DONE,
    (JobState.RUNNING, JobEvent.FAIL): JobState.FAILED,
    (JobState.RUNNING, JobEvent.INTERRUPT): JobState.QUEUED,
    (JobState.RUNNING, JobEvent.CANCEL): JobState.CANCELLED,
}


def model(artifact: str, *, deleting: bool = False) -> Model:
    current = Revision("m", 3, "1", RevisionState.SERVING, artifact, (), "model.onnx", "onnxruntime")
    return Model(ModelSpec("m"), 0.0, (current,), deleting)


@pytest.mark.parametrize(("state", "event"), list(itertools.product(JobState, JobEvent)))
def test_every_event_in_every_state_moves_the_job_or_is_refused_by_name(state: JobState, event: JobEvent) -> None:
    job = replace(JOB, state=state)
    if (state, event) in LEGAL:
        assert advanced(job, event, 5.0, "so it is").state is LEGAL[state, event]
        return
    with pytest.raises(IllegalTransition, match=f"'m' is {state.value}; it cannot {event.value}"):
        advanced(job, event, 5.0)


def test_a_job_knows_when_it_began_and_ended_and_why() -> None:
    running = advanced(replace(JOB, reason="waits for room"), JobEvent.BEGIN, 5.0)
    assert (running.started_at, running.ended_at, running.attempts, running.reason) == (5.0, 0.0, 1, "")
    done = advanced(running, JobEvent.FINISH, 9.0, "the cheapest")
    assert (done.started_at, done.ended_at, done.reason) == (5.0, 9.0, "the cheapest")


@given(st.lists(st.booleans(), max_size=12))
def test_interruptions_end_it_after_so_many_and_giving_way_never_does(gives_way: list[bool]) -> None:
    job, interruptions = JOB, 0
    for gave in gives_way:
        job = advanced(job, JobEvent.BEGIN, 1.0)
        job = gave_way(job, 2.0, "serving comes first") if gave else interrupted(job, 2.0, "restarted")
        interruptions += not gave
        if interruptions == MOST_ATTEMPTS:
            assert job.state is JobState.FAILED
            assert job.reason == f"restarted, {MOST_ATTEMPTS} times; optimize again"
            return
        assert (job.state, job.attempts) == (JobState.QUEUED, interruptions)


@pytest.mark.parametrize(
    ("state", "kept"),
    [
        (JobState.QUEUED, {"original-files", "samples", "int8-files"}),
        (JobState.RUNNING, {"original-files", "samples", "int8-files"}),
        (JobState.DONE, {"original-files", "int8-files"}),
        (JobState.FAILED, {"original-files", "int8-files"}),
    ],
)
def test_samples_are_kept_until_it_has_ended_and_variants_for_as_long_as_it_is_known(
    state: JobState, kept: set[str]
) -> None:
    assert replace(JOB, state=state, variants=FOUND).artifacts == kept


@pytest.mark.parametrize(
    ("now", "serves", "why"),
    [
        (model("original-files"), ORIGINAL, ""),
        (model("int8-files"), "int8", ""),
        (model("other-files"), "", "another version of the model was deployed"),
        (model("original-files", deleting=True), ORIGINAL, "the model was deleted"),
        (Model(ModelSpec("m"), 0.0), "", ""),
    ],
    ids=["the original serves", "a variant serves", "redeployed", "deleting", "its first load is under way"],
)
def test_what_serves_says_whether_the_job_is_of_use(now: Model, serves: str, why: str) -> None:
    job = replace(JOB, variants=FOUND)
    assert (serving_variant(job, now), outdated(job, now)) == (serves, why)


def test_a_model_that_is_gone_has_no_use_for_its_job() -> None:
    assert outdated(JOB, None) == "the model was deleted"


def test_the_longest_waiting_job_is_first_in_line() -> None:
    jobs = [replace(JOB, model=name, created_at=at, state=state) for name, at, state in (
        ("late", 9.0, JobState.QUEUED), ("b", 2.0, JobState.QUEUED), ("a", 2.0, JobState.QUEUED),
        ("runs", 1.0, JobState.RUNNING), ("done", 0.5, JobState.DONE),
    )]  # fmt: skip
    assert [job.model for job in in_line(jobs)] == ["a", "b", "late"]
