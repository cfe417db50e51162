"""Which variant of a model serves, by what each measured where it ran."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_autoscaler.core.jobs import Job, JobState, Optimization, Variant, VariantTiming, as_chosen
from headrace_autoscaler.core.variant_choice import (
    APART_S,
    CONFIRM_S,
    Better,
    Load,
    Patience,
    better_variant,
    is_ours_to_choose,
    with_profile,
)
from headrace_autoscaler.domain import Model, ModelSpec, Resources, Revision, RevisionState, ShapeProfile

ONE, TWO = Resources(1000, 1 << 30), Resources(2000, 1 << 30)


def variant(name: str, single_ms: float, eight_ms: float, verdict: str = "fits", **rest: object) -> Variant:
    timings = tuple(VariantTiming(rows, ms / 1e3, rows * 1e3 / ms) for rows, ms in ((1, single_ms), (8, eight_ms)))
    return Variant(name, "how", verdict, "", 100, "agreement", timings=timings, artifact=f"of {name}", **rest)  # type: ignore[arg-type]


ORIGINAL = variant("original", 10.0, 80.0)
INT8 = variant("int8", 5.0, 40.0)
JOB = Job("m", "of original", "f", "", Optimization(), JobState.DONE, chosen="int8", variants=(ORIGINAL, INT8))


def serving(name: str) -> Model:
    revision = Revision("m", 1, "1", RevisionState.SERVING, f"of {name}", (), "f", "onnxruntime")
    return Model(ModelSpec("m"), 0.0, (revision,))


def ran(one: Variant, single_ms: float, eight_ms: float, resources: Resources = TWO) -> Variant:
    profile = ((1, int(single_ms * 1e3)), (8, int(eight_ms * 1e3)))
    return replace(one, profiles=(*one.profiles, ShapeProfile(resources, profile)))


def load(single_ms: float, eight_ms: float, rate: float, slo_ms: float | None = None, room: int = 99) -> Load:
    profile, slo_s = ((1, int(single_ms * 1e3)), (8, int(eight_ms * 1e3))), None if slo_ms is None else slo_ms / 1e3
    return Load(TWO, profile, slo_s, rate, (0, None), 85_000, lambda most: min(most, room))


@pytest.mark.parametrize(
    ("variants", "name", "now", "better", "why"),
    [
        pytest.param((ORIGINAL, INT8), "original", load(10, 80, rate=50), None, "", id="one is enough of both"),
        pytest.param((ORIGINAL, INT8), "original", load(10, 80, rate=300), "int8",
                     "300 rows per second take 2 instances of it, and 3 of original",
                     id="a guess by the ratio of what the job measured"),
        pytest.param((ORIGINAL, ran(INT8, 20, 80)), "original", load(10, 80, rate=300), None, "",
                     id="it ran here, and was no faster"),
        pytest.param((ORIGINAL, ran(INT8, 20, 80, ONE)), "original", load(10, 80, rate=300), "int8",
                     "300 rows per second take 2 instances of it, and 3 of original", id="it ran in another shape"),
        pytest.param((ran(ORIGINAL, 4, 32), INT8), "int8", load(9, 64, rate=400), "original",
                     "400 rows per second take 2 instances of it, and 4 of int8",
                     id="with two threads the original is the faster one"),
        pytest.param((ORIGINAL, INT8), "original", load(10, 80, rate=500, room=2), "int8",
                     "of 500 rows per second that are wanted, 2 instances of it serve 400, and of original 200",
                     id="there is room for two"),
        pytest.param((ORIGINAL, INT8), "original", load(10, 80, rate=50, slo_ms=9), "int8",
                     "a request alone takes 5 ms, and with original 10 ms, which misses the objective",
                     id="only one meets the objective"),
        pytest.param((ORIGINAL, INT8), "original", load(10, 80, rate=50, slo_ms=4), None, "",
                     id="none meets the objective, and one is enough"),
        pytest.param((ORIGINAL, variant("int8", 5, 40, "below floor")), "original", load(10, 80, rate=300), None, "",
                     id="below the floor"),
        pytest.param((ORIGINAL, replace(INT8, artifact="")), "original", load(10, 80, rate=300), None, "",
                     id="it cannot be served"),
        pytest.param((ORIGINAL, replace(INT8, timings=())), "original", load(10, 80, rate=300), None, "",
                     id="nothing was measured of it"),
        pytest.param((variant("original", 10, 80, "too slow"), INT8), "int8", load(10, 80, rate=300), None, "",
                     id="what was twice as slow apart is not taken for faster"),
        pytest.param((ORIGINAL, INT8), "something else", load(10, 80, rate=300), None, "", id="none of them serves"),
    ],
)  # fmt: skip
def test_the_variant_that_should_serve(
    variants: tuple[Variant, ...], name: str, now: Load, better: str | None, why: str
) -> None:
    found = better_variant(replace(JOB, variants=variants), serving(name), now)
    assert found == (None if better is None else Better(better, why))


def test_the_limit_of_the_job_on_a_batch_holds_as_well() -> None:
    in_large_batches = variant("int8", 12.0, 20.0)
    job = replace(JOB, variants=(ORIGINAL, in_large_batches))
    assert better_variant(job, serving("original"), load(10, 80, rate=350)) == Better(
        "int8", "350 rows per second take 1 instance of it, and 4 of original"
    )
    limited = replace(job, optimization=Optimization(latency_s=0.015))
    assert better_variant(limited, serving("original"), load(10, 80, rate=350)) is None


single, batch = st.floats(0.5, 50.0), st.floats(0.5, 400.0)


@given(st.lists(st.tuples(single, batch), min_size=1, max_size=4), st.floats(1.0, 1000.0), st.integers(1, 20))
def test_who_was_better_once_it_has_measured_what_was_guessed_is_not_left_again(
    drawn: list[tuple[float, float]], rate: float, room: int
) -> None:
    variants = tuple(variant(f"v{place}", *times) for place, times in enumerate(drawn))
    job, name, seen = replace(JOB, variants=variants), "v0", []
    while True:
        seen.append(name)
        of = next(each for each in variants if each.name == name)
        now = load(of.timings[0].latency_s * 1e3, of.timings[1].latency_s * 1e3, rate, room=room)
        job = with_profile(job, serving(name), now)
        better = better_variant(job, serving(name), now)
        if better is None:
            break
        name = better.variant
        assert name not in seen


def test_what_is_measured_again_only_ever_gets_less() -> None:
    model = serving("int8")
    job = with_profile(JOB, model, load(5, 60, rate=1))
    again = with_profile(job, model, load(7, 40, rate=1))
    assert again.variants[1].profiles == (ShapeProfile(TWO, ((1, 5000), (8, 40_000))),)
    assert with_profile(again, model, load(7, 40, rate=1)) is again
    assert with_profile(JOB, serving("something else"), load(1, 1, rate=1)) is JOB


def test_the_mesh_leaves_what_somebody_has_chosen() -> None:
    managed = as_chosen(JOB, serving("int8"))
    assert is_ours_to_choose(managed, serving("int8"))
    assert not is_ours_to_choose(managed, serving("original")), "somebody has put it back since"
    assert not is_ours_to_choose(JOB, serving("int8"))
    assert not is_ours_to_choose(replace(managed, state=JobState.QUEUED), serving("int8"))


@pytest.mark.parametrize(
    "job",
    [
        replace(JOB, state=JobState.FAILED),
        replace(JOB, chosen=""),
        replace(JOB, optimization=Optimization(keep_original=True)),
    ],
    ids=["it failed", "nothing fits", "the original is to be kept"],
)
def test_a_job_that_put_nothing_in_place_leaves_nothing_to_choose(job: Job) -> None:
    assert as_chosen(job, serving("int8")) == job
    assert as_chosen(JOB, serving("original")) == JOB
    assert as_chosen(JOB, None) == JOB


def test_a_change_waits_until_it_is_sure_and_the_next_one_longer() -> None:
    patience, better, other = Patience(), Better("int8", ""), Better("fp16", "")
    assert not patience.is_time("m", better, 0.0)
    assert not patience.is_time("m", None, CONFIRM_S - 1)
    assert not patience.is_time("m", better, CONFIRM_S), "it was not better for a moment"
    assert not patience.is_time("m", other, 2 * CONFIRM_S - 1)
    assert patience.is_time("m", other, 3 * CONFIRM_S - 1)
    patience.changed("m", 100.0)
    for apart, at in ((APART_S, 100.0), (2 * APART_S, 1000.0), (4 * APART_S, 2000.0)):
        assert not patience.is_time("m", better, at + 1)
        assert not patience.is_time("m", better, at + apart - 1)
        assert patience.is_time("m", better, at + apart)
        patience.changed("m", {100.0: 1000.0, 1000.0: 2000.0}.get(at, 3000.0))
    patience.keep_only([])
    patience.is_time("m", better, 3001.0)
    assert patience.is_time("m", better, 3001.0 + CONFIRM_S), "another model of that name"
