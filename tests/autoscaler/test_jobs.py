"""What may happen to an optimisation, and what of it is kept."""

from __future__ import annotations

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
    kept_waiting,
    outdated,
    serving_variant,
)
from headrace_autoscaler.domain import Model, ModelSpec, Revision, RevisionState

DAY_S = 86400.0
JOB = Job("m", "original-files", "model.onnx", "samples", Optimization(), created_at=1.0)
FOUND = (
    Variant(ORIGINAL, "", "fits", "", 10, "agreement", artifact="original-files"),
    Variant("int8", "", "fits", "", 3, "agreement", artifact="int8-files"),
    Variant("broken", "", "disqualified", "NaN", 3, "agreement"),
)


def model(artifact: str, *, deleting: bool = False) -> Model:
    current = Revision("m", 3, "1", RevisionState.SERVING, artifact, (), "model.onnx", "onnxruntime")
    return Model(ModelSpec("m"), 0.0, (current,), deleting)


def told(*events: JobEvent) -> Job:
    """The job after all of this."""
    job = JOB
    for at, event in enumerate(events):
        job = advanced(job, event, float(at), event.value)
    return job


BEGIN, FINISH, FAIL, INTERRUPT, CANCEL = JobEvent


@pytest.mark.parametrize(
    ("events", "state"),
    [
        ((), JobState.QUEUED),
        ((BEGIN,), JobState.RUNNING),
        ((BEGIN, FINISH), JobState.DONE),
        ((BEGIN, FAIL), JobState.FAILED),
        ((BEGIN, INTERRUPT), JobState.QUEUED),
        ((BEGIN, INTERRUPT, BEGIN, FINISH), JobState.DONE),
        ((BEGIN, INTERRUPT, FAIL), JobState.FAILED),
        ((BEGIN, CANCEL), JobState.CANCELLED),
        ((CANCEL,), JobState.CANCELLED),
    ],
    ids=[
        "waits",
        "runs",
        "comes to its end",
        "goes wrong",
        "is cut off",
        "is cut off and begun again",
        "is cut off and given up while it waits",
        "is cancelled",
        "is cancelled while it waits",
    ],
)
def test_what_a_job_can_go_through(events: tuple[JobEvent, ...], state: JobState) -> None:
    assert told(*events).state is state


@pytest.mark.parametrize("end", [FINISH, FAIL, CANCEL])
@pytest.mark.parametrize("event", JobEvent)
def test_nothing_happens_any_more_to_a_job_that_has_ended(end: JobEvent, event: JobEvent) -> None:
    job = told(BEGIN, end)
    with pytest.raises(IllegalTransition, match=f"'m' is {job.state.value}; it cannot {event.value}"):
        advanced(job, event, 5.0)


@pytest.mark.parametrize(
    ("events", "event"),
    [((), FINISH), ((), INTERRUPT), ((BEGIN,), BEGIN)],
    ids=["it never ran", "it does not run", "it runs already"],
)
def test_only_what_runs_comes_to_an_end_or_is_cut_off_and_only_what_waits_is_begun(
    events: tuple[JobEvent, ...], event: JobEvent
) -> None:
    job = told(*events)
    with pytest.raises(IllegalTransition, match=f"'m' is {job.state.value}; it cannot {event.value}"):
        advanced(job, event, 5.0)


def test_a_job_knows_when_it_began_and_ended_and_why() -> None:
    running = advanced(replace(JOB, reason="waits for room"), JobEvent.BEGIN, 5.0)
    assert (running.started_at, running.ended_at, running.attempts, running.reason) == (5.0, 0.0, 1, "")
    done = advanced(running, JobEvent.FINISH, 9.0, "the cheapest")
    assert (done.started_at, done.ended_at, done.reason) == (5.0, 9.0, "the cheapest")


@given(st.lists(st.booleans(), max_size=12))
def test_interruptions_end_it_after_so_many_and_giving_way_counts_as_none(gives_way: list[bool]) -> None:
    job, interruptions = JOB, 0
    for gave in gives_way:
        job = advanced(job, JobEvent.BEGIN, 1.0)
        job = gave_way(job, 2.0, "serving comes first", DAY_S) if gave else interrupted(job, 2.0, "restarted")
        interruptions += not gave
        if interruptions == MOST_ATTEMPTS:
            assert job.state is JobState.FAILED
            assert job.reason == f"restarted, {MOST_ATTEMPTS} times; optimize again"
            return
        assert (job.state, job.attempts) == (JobState.QUEUED, interruptions)


@given(st.lists(st.tuples(st.floats(0.1, 30_000), st.floats(0.1, 30_000)), min_size=1, max_size=12))
def test_it_gives_way_for_a_day_at_most_from_when_it_first_began(stints: list[tuple[float, float]]) -> None:
    job, now, first = JOB, 1000.0, 0.0
    for waits_s, runs_s in stints:
        now += waits_s
        job = kept_waiting(job, now, "no room", DAY_S)
        late = bool(first) and now - first >= DAY_S
        assert (job.state is JobState.FAILED) == late
        if late:
            return
        job = advanced(job, JobEvent.BEGIN, now)
        first, now = first or now, now + runs_s
        job = gave_way(job, now, "gave way to model 'n'", DAY_S)
        assert (job.state is JobState.FAILED) == (now - first >= DAY_S)
        if job.state is JobState.FAILED:
            return


def test_how_often_it_has_given_way_is_said_while_it_waits_and_when_it_is_given_up() -> None:
    assert kept_waiting(JOB, 10 * DAY_S, "no room", DAY_S).reason == "no room", "that alone ends no job"
    job = gave_way(advanced(JOB, JobEvent.BEGIN, 100.0), 200.0, "gave way to model 'n'", DAY_S)
    ends = "and is begun again when there is room (`headrace variants m --cancel` ends it)"
    assert job.reason == f"gave way to model 'n'; it has given way once {ends}"
    job = kept_waiting(job, 300.0, "waits for room", DAY_S)
    assert job.reason == f"waits for room; it has given way once {ends}"
    assert kept_waiting(job, 400.0, "waits for room", DAY_S) == job, "what stays the same is not written again"
    job = gave_way(advanced(job, JobEvent.BEGIN, 500.0), 100.0 + DAY_S, "gave way to model 'n'", DAY_S)
    assert (job.state, job.ended_at) == (JobState.FAILED, 100.0 + DAY_S)
    assert job.reason == (
        "it gave way to serving 2 times in 86400 s and never came to its end; the last reason: gave way to model 'n'. "
        "Leave room for one more instance in the tenant's quota and on the machine, or optimize at a quieter hour "
        "(it tries for 86400 s: configuration key autoscaler.optimize_patience_s)"
    )


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
