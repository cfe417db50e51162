"""How many instances: by hand, and what holds for any demand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_autoscaler.core.decider import Peak, Policy, RevisionStatus, decide
from headrace_autoscaler.core.demand import Counts, DemandWindow, Level
from headrace_autoscaler.domain import ModelSpec

NOW = 1000.0
POLICY = Policy(target_utilisation=0.7)


def window_of(
    *, rate: float = 0.0, service_ms: float | None = None, queued: int = 0, in_flight: int = 0, ago: float = 0.0,
    rows_per_bundle: int = 1,
) -> DemandWindow:  # fmt: skip
    """Ten seconds of even demand that ended `ago` seconds before NOW."""
    window = DemandWindow(10.0)
    window.count(Counts(), NOW - ago - 10.0)
    for second in range(10):
        arrived = int(rate)
        done = arrived if service_ms is not None else 0
        counts = Counts(arrived, arrived, done, done // rows_per_bundle, int((service_ms or 0) * 1000 * done))
        window.count(counts, NOW - ago - 9.5 + second)
    if queued or in_flight:
        window.set_level("router-0", Level(queued, in_flight), NOW)
    return window


SERVED = RevisionStatus(ready=1, ready_for_s=100.0, max_batch_size=8)


@pytest.mark.parametrize(
    ("spec", "window", "status", "desired", "reason"),
    [
        pytest.param(ModelSpec("m"), None, RevisionStatus(), 0, "no demand yet", id="nothing was ever reported"),
        pytest.param(
            ModelSpec("m"), window_of(queued=1), RevisionStatus(), 1, "first demand: nothing runs",
            id="the first request starts one at once",
        ),
        pytest.param(
            ModelSpec("m"), window_of(queued=500), RevisionStatus(), 1, "first demand: nothing runs",
            id="a guessed service time starts no more than one",
        ),
        pytest.param(
            ModelSpec("m"), window_of(queued=3), RevisionStatus(starting=1), 1,
            "demand, and no service time is known yet: one instance until it is measured",
            id="one that starts already counts",
        ),
        # 100/s x 20 ms = 2.0 busy instances; 2.0 / 0.7 = 2.86.
        pytest.param(
            ModelSpec("m"), window_of(rate=100, service_ms=20), SERVED, 3,
            "as many as the offered load keeps busy at the target utilisation", id="littles law over the target",
        ),
        # Profile: 8 rows in 16 ms are 2 ms a row; 100/s x 2 ms = 0.2. Batches were far from full.
        pytest.param(
            ModelSpec("m"), window_of(rate=100, service_ms=20),
            RevisionStatus(ready=1, ready_for_s=100.0, max_batch_size=8, profile_us=((1, 20000), (8, 16000))), 1,
            "demand: one instance is enough for it",
            id="small batches could grow, so the profile bounds the service time",
        ),
        pytest.param(
            ModelSpec("m"), window_of(rate=100, service_ms=20, rows_per_bundle=5),
            RevisionStatus(ready=1, ready_for_s=100.0, max_batch_size=8, profile_us=((1, 20000), (8, 16000))), 3, None,
            id="what full batches took is believed",
        ),
        # An objective of 20 ms leaves 10 ms to execute: only the batch of 1 fits, at 8 ms a row: 0.8 / 0.7.
        pytest.param(
            ModelSpec("m", slo_s=0.02), window_of(rate=100, service_ms=20),
            RevisionStatus(ready=1, ready_for_s=100.0, max_batch_size=8, profile_us=((1, 8000), (8, 16000))), 2, None,
            id="batches that would break the objective are not counted on",
        ),
        # 2.0 offered; the backlog of 1000 x 20 ms would be 20 instances, and counts as at most the 1 there is.
        pytest.param(
            ModelSpec("m"), window_of(rate=100, service_ms=20, queued=1000), SERVED, 5,
            "as many as the offered load and what waits keep busy at the target utilisation",
            id="the backlog term is bounded",
        ),
        pytest.param(
            ModelSpec("m", max_instances=2), window_of(rate=100, service_ms=20), SERVED, 2,
            "the model's maximum; demand asks for more", id="the maximum holds",
        ),
        pytest.param(
            ModelSpec("m", min_instances=2), None, RevisionStatus(), 2, "the model's minimum",
            id="the minimum holds without any demand",
        ),
        pytest.param(
            ModelSpec("m", min_instances=2), None, RevisionStatus(current=False), 0, "no demand yet",
            id="the minimum is the current revision's only",
        ),
        pytest.param(
            ModelSpec("m", idle_timeout_s=60), window_of(rate=1, service_ms=1, ago=30), SERVED, 1,
            "kept until the idle timeout", id="idle, but not for long enough",
        ),
        pytest.param(
            ModelSpec("m", idle_timeout_s=60), window_of(rate=1, service_ms=1, ago=70), SERVED, 0,
            "idle for the idle timeout", id="idle for long enough",
        ),
        pytest.param(
            ModelSpec("m", idle_timeout_s=1), window_of(rate=10, service_ms=1, ago=2), SERVED, 0,
            "idle for the idle timeout", id="an idle time shorter than the window counts as it is",
        ),
        pytest.param(
            ModelSpec("m", idle_timeout_s=60), None, RevisionStatus(ready=1, ready_for_s=5.0), 1,
            "kept until the idle timeout", id="a verified instance is kept for the idle timeout",
        ),
        pytest.param(
            ModelSpec("m", idle_timeout_s=60), window_of(rate=1, service_ms=1, ago=70, in_flight=1), SERVED, 1, None,
            id="work in flight is not idle",
        ),
        pytest.param(
            ModelSpec("m"), window_of(rate=10, service_ms=1), RevisionStatus(ready=4, ready_for_s=50.0, peak=3), 3,
            "less is enough, but not yet for the whole window", id="less only after the window agrees",
        ),
        pytest.param(
            ModelSpec("m"), window_of(rate=10, service_ms=1), RevisionStatus(ready=2, ready_for_s=50.0, peak=5), 2,
            "less is enough, but not yet for the whole window", id="an old peak starts nothing",
        ),
        pytest.param(
            ModelSpec("m"), window_of(queued=7), RevisionStatus(ready=3, retiring=True), 1,
            "replaced: answers what it had accepted", id="a replaced revision with a queue keeps one",
        ),
        pytest.param(
            ModelSpec("m", min_instances=3), window_of(), RevisionStatus(ready=3, retiring=True), 0,
            "replaced: nothing is left to answer", id="a replaced revision without work keeps none",
        ),
    ],
)  # fmt: skip
def test_decision(
    spec: ModelSpec, window: DemandWindow | None, status: RevisionStatus, desired: int, reason: str | None
) -> None:
    decision = decide(spec, window, status, NOW, POLICY)
    assert decision.desired == desired
    if reason is not None:
        assert decision.reason == reason


def test_the_inputs_show_the_arithmetic() -> None:
    inputs = dict(decide(ModelSpec("m"), window_of(rate=100, service_ms=20), SERVED, NOW, POLICY).inputs)
    assert inputs["arrival_rate"] == 100.0
    assert inputs["service_time_s"] == pytest.approx(0.02)
    assert inputs["offered_load"] == pytest.approx(2.0)
    assert inputs["service_time_known"] == 1.0


def test_only_what_nobody_uses_is_spare() -> None:
    idle = decide(ModelSpec("m"), window_of(rate=1, service_ms=1, ago=30), SERVED, NOW, POLICY)
    busy = decide(ModelSpec("m"), window_of(rate=1, service_ms=1), SERVED, NOW, POLICY)
    minimum = decide(ModelSpec("m", min_instances=1), None, SERVED, NOW, POLICY)
    assert (idle.spare, busy.spare, minimum.spare) == (True, False, False)


@given(
    minimum=st.integers(0, 5),
    above=st.none() | st.integers(0, 5),
    rate=st.integers(0, 2000),
    service_ms=st.none() | st.integers(1, 1000),
    queued=st.integers(0, 5000),
    ready=st.integers(0, 10),
    starting=st.integers(0, 3),
    peak=st.integers(0, 20),
    current=st.booleans(),
    retiring=st.booleans(),
)
def test_bounds_hold_for_any_demand(
    minimum: int, above: int | None, rate: int, service_ms: int | None, queued: int, ready: int, starting: int,
    peak: int, current: bool, retiring: bool,
) -> None:  # fmt: skip
    maximum = None if above is None else max(1, minimum + above)
    spec = ModelSpec("m", min_instances=minimum, max_instances=maximum)
    status = RevisionStatus(ready, starting, 10.0 if ready else None, peak, current, retiring)
    window = window_of(rate=rate, service_ms=service_ms, queued=queued)
    decision = decide(spec, window, status, NOW, POLICY)
    assert decision.desired >= 0
    assert maximum is None or decision.desired <= maximum
    if current and not retiring:
        assert decision.desired >= minimum
    if queued:
        assert decision.desired >= 1
    if service_ms is None and not retiring:
        assert decision.desired <= max(1, minimum, ready + starting)


@given(st.lists(st.tuples(st.floats(0, 3), st.integers(0, 9)), min_size=1, max_size=40))
def test_the_peak_is_the_highest_of_the_window(steps: list[tuple[float, int]]) -> None:
    peak, now, seen = Peak(5.0), 0.0, []
    for pause, value in steps:
        now += pause
        seen.append((now, value))
        peak.add(value, now)
        assert peak.highest(now) == max(each for at, each in seen if now - at <= 5.0)


@given(st.lists(st.tuples(st.floats(0, 4), st.integers(0, 50)), max_size=40))
def test_the_window_counts_what_is_in_it_within_a_bucket(steps: list[tuple[float, int]]) -> None:
    window, now, seen = DemandWindow(10.0), 0.0, []
    window.count(Counts(), now)
    for pause, arrivals in steps:
        now += pause
        seen.append((now, arrivals))
        window.count(Counts(arrivals=arrivals), now)
    rate = window.observe(now).arrival_rate
    assert rate is not None
    length = max(1.0, min(10.0, now))
    inside = sum(arrivals for at, arrivals in seen if now - at < 9.5)
    reach = sum(arrivals for at, arrivals in seen if now - at <= 10.0)
    assert inside - 1e-6 <= rate * length <= reach + 1e-6


def test_levels_are_summed_over_routers_and_go_with_them() -> None:
    window = DemandWindow(10.0)
    window.set_level("router-0", Level(2, 1, 0.5), NOW)
    window.set_level("router-1", Level(3, 0, 1.5), NOW)
    seen = window.observe(NOW)
    assert (seen.queued, seen.in_flight, seen.oldest_wait_s) == (5, 1, 1.5)
    window.forget("router-1")
    assert window.observe(NOW).queued == 2


@pytest.mark.parametrize(("minimum", "spare"), [(0, True), (1, False)], ids=["no minimum", "a minimum of one"])
def test_what_the_minimum_asks_for_is_nobodys_spare(minimum: int, spare: bool) -> None:
    status = RevisionStatus(ready=1, ready_for_s=0.001)
    decision = decide(ModelSpec("m", min_instances=minimum), None, status, 100.0, Policy())
    assert (decision.desired, decision.spare) == (1, spare)
