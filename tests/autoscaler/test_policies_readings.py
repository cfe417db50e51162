"""From routers' reports to what a policy is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_autoscaler.core.demand import Counts, DemandWindow, Level
from headrace_autoscaler.core.policies.base import Profile, Reading
from headrace_autoscaler.core.policies.readings import Meter, cold_start_p95_s, profile_of
from headrace_autoscaler.core.revision_status import RevisionStatus
from headrace_autoscaler.domain import ModelSpec


def test_a_reading_is_what_happened_since_the_one_before() -> None:
    window, meter = DemandWindow(10.0), Meter()
    window.count(Counts(arrivals=5, completed=1, service_time_us=200_000), 100.0)
    window.set_level("r1", Level(3, 1, 0.4), 100.0)
    meter.read(window, RevisionStatus(ready=1), 100.0)
    window.count(Counts(arrivals=2, completed=4, service_time_us=800_000), 101.0)
    window.set_level("r1", Level(1, 1, 0.2), 101.0)
    window.set_level("r2", Level(0, 2, 0.0), 101.0)
    assert meter.read(window, RevisionStatus(ready=3, starting=2), 102.0, wall=5.0) == Reading(
        now=102.0,
        wall=5.0,
        arrivals=2,
        completed=4,
        concurrency_s=2.0 * (4 + 4) / 2,
        busy_s=1.0,  # 0.2 of it were told when there had been no instance time yet.
        ready_s=2.0 * (1 + 3) / 2,
        queued=1,
        executing=3,
        oldest_wait_s=0.2,
        ready=3,
        starting=2,
        last_arrival=101.0,
    )


def test_nobody_has_ever_reported() -> None:
    assert Meter().read(None, RevisionStatus(ready=1), 3.0) == Reading(3.0, ready=1)


def test_what_is_inherited_from_a_predecessor_has_not_arrived_again() -> None:
    old, new, meter = DemandWindow(10.0), DemandWindow(10.0), Meter()
    old.count(Counts(arrivals=50), 1.0)
    new.inherit(old)
    assert meter.read(new, RevisionStatus(), 2.0).arrivals == 0


@given(st.lists(st.tuples(st.integers(0, 9), st.floats(0, 30)), max_size=30))
def test_every_arrival_is_read_once_however_the_window_expires(reports: list[tuple[int, float]]) -> None:
    window, meter, now, read = DemandWindow(10.0), Meter(), 0.0, 0
    for arrivals, pause_s in reports:
        now += pause_s
        window.count(Counts(arrivals=arrivals), now)
        if arrivals % 2:
            read += meter.read(window, RevisionStatus(), now).arrivals
    read += meter.read(window, RevisionStatus(), now).arrivals
    assert read == sum(arrivals for arrivals, _ in reports)


BATCHES = ((1, 4_000), (8, 8_000), (64, 80_000))
STATUS = RevisionStatus(max_batch_size=64, profile_us=BATCHES)


@pytest.mark.parametrize(
    ("spec", "status", "expected"),
    [
        (ModelSpec("m"), RevisionStatus(), (1, None, None)),
        (ModelSpec("m"), STATUS, (8, 0.001, 0.008)),
        (ModelSpec("m", slo_s=0.009), STATUS, (1, 0.004, 0.004)),
        (ModelSpec("m", instance_concurrency=3), STATUS, (3, 0.001, 0.008)),
    ],
    ids=["nothing measured", "the best batch", "the best that fits the objective", "the user's own concurrency"],
)
def test_the_profile_is_that_of_the_batch_that_still_meets_the_objective(
    spec: ModelSpec, status: RevisionStatus, expected: tuple[int, float | None, float | None]
) -> None:
    profile = profile_of(spec, status, DemandWindow(10.0).observe(0.0))
    assert (profile.concurrency, profile.service_s, profile.latency_s) == pytest.approx(expected)


def test_the_profile_has_the_user_s_bounds_and_what_was_measured() -> None:
    spec = ModelSpec(
        "m",
        min_instances=2,
        max_instances=9,
        slo_s=1.0,
        slo_credit_micros=50,
        idle_timeout_s=30.0,
        idle_timeout_asked=True,
    )
    demand = DemandWindow(10.0).observe(0.0)
    assert profile_of(
        spec, RevisionStatus(), demand, cold_start_s=0.06, starts_per_s=6.0, instance_micros_per_hour=85_000
    ) == Profile(
        slo_s=1.0,
        cold_start_s=0.06,
        starts_per_s=6.0,
        instance_micros_per_hour=85_000,
        credit_micros=50,
        min_instances=2,
        max_instances=9,
        idle_timeout_s=30.0,
    )
    assert profile_of(spec, RevisionStatus(current=False), demand).min_instances == 0
    assert profile_of(ModelSpec("m"), RevisionStatus(), demand).idle_timeout_s is None


@pytest.mark.parametrize(
    ("starts_s", "expected"), [([], None), ([0.2], 0.2), ([float(k) for k in range(1, 101)], 95.0), ([3.0, 1.0], 3.0)]
)
def test_the_95th_percentile_of_the_starts(starts_s: list[float], expected: float | None) -> None:
    assert cold_start_p95_s(starts_s) == expected
