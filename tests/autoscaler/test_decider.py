"""How many instances: what holds whatever the policy, and when a policy is asked."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_autoscaler.core.decider import MAXIMUM, NO_DEMAND, TRUSTED, UNTOUCHED, Decider, Decision
from headrace_autoscaler.core.demand import Counts, DemandWindow, Level
from headrace_autoscaler.core.policies.named import POLICIES
from headrace_autoscaler.core.policies.targets import NO_GPU_MEMORY, OUT_OF_REACH
from headrace_autoscaler.core.revision_status import RevisionStatus, service_time_s
from headrace_autoscaler.domain import Learnt, ModelSpec

NOW = 1000.0
KEY = ("m", 1)


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


def new_decider() -> Decider:
    return Decider(lambda _model: 0.06, lambda _resources: 42_500)


def decide(spec: ModelSpec, window: DemandWindow | None, status: RevisionStatus, now: float = NOW) -> Decision:
    """Of a revision that nothing was decided for before."""
    return new_decider().decide(KEY, spec, window, status, now, now)


def watch(decider: Decider, spec: ModelSpec, window: DemandWindow, rate: int, service_ms: int) -> Decision:
    """The last decision of ten seconds of even demand that end at NOW, four a second."""
    for tick in range(40, -1, -1):
        now, count = NOW - tick * 0.25, rate // 4
        window.count(Counts(count, count, count, count, count * service_ms * 1000), now)
        decision = decider.decide(KEY, spec, window, SERVED, now, now)
    return decision


SERVED = RevisionStatus(ready=1, ready_for_s=100.0, max_batch_size=8)
ASKED_IDLE = ModelSpec("m", idle_timeout_s=60, idle_timeout_asked=True)


@pytest.mark.parametrize(
    ("spec", "window", "status", "desired", "reason"),
    [
        pytest.param(ModelSpec("m"), None, RevisionStatus(), 0, NO_DEMAND, id="nothing was ever reported"),
        pytest.param(
            ModelSpec("m"), window_of(queued=1), RevisionStatus(), 1, None, id="the first request starts one at once",
        ),
        pytest.param(
            ModelSpec("m"), window_of(queued=500), RevisionStatus(), 1, None,
            id="a guessed service time starts no more than one",
        ),
        pytest.param(
            ModelSpec("m"), window_of(queued=3), RevisionStatus(starting=1), 1, None,
            id="one that starts already counts",
        ),
        pytest.param(
            ModelSpec("m", max_instances=2), window_of(rate=200, service_ms=20, queued=900), SERVED, 2, MAXIMUM,
            id="the maximum holds",
        ),
        pytest.param(
            ModelSpec("m", min_instances=2), None, RevisionStatus(), 2, "the model's minimum",
            id="the minimum holds without any demand",
        ),
        pytest.param(
            ModelSpec("m", min_instances=2), None, RevisionStatus(current=False), 0, NO_DEMAND,
            id="the minimum is the current revision's only",
        ),
        pytest.param(
            ModelSpec("m"), None, RevisionStatus(ready=1, ready_for_s=5.0), 1, UNTOUCHED,
            id="a verified instance is kept for the idle timeout",
        ),
        pytest.param(
            ModelSpec("m"), None, RevisionStatus(ready=1, ready_for_s=61.0), 0, None, id="and not for longer",
        ),
        pytest.param(
            ModelSpec("m"), None, RevisionStatus(ready=3, ready_for_s=61.0, trusted=3), 3, TRUSTED,
            id="what an autoscaler before had is trusted",
        ),
        pytest.param(
            ModelSpec("m", max_instances=2), None, RevisionStatus(ready=3, ready_for_s=61.0, trusted=3), 2, MAXIMUM,
            id="no further than the maximum",
        ),
        pytest.param(
            ModelSpec("m"), None, RevisionStatus(ready=1, ready_for_s=61.0, trusted=3), 1, TRUSTED,
            id="trust starts nothing",
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
    decision = decide(spec, window, status)
    assert decision.desired == desired
    if reason is not None:
        assert decision.reason == reason


# An instance of the profile below serves a row in 2 ms at its best batch.
BATCHES = ((1, 20_000), (8, 16_000))


@pytest.mark.parametrize(
    ("spec", "window", "profile_us", "expected"),
    [
        pytest.param(ModelSpec("m"), window_of(), (), (0.01, False), id="unknown is a guess, and said to be one"),
        pytest.param(ModelSpec("m"), window_of(rate=100, service_ms=20), (), (0.02, True), id="measured by routers"),
        pytest.param(
            ModelSpec("m"), window_of(rate=100, service_ms=20), BATCHES, (0.002, True),
            id="small batches could grow, so the profile bounds it",
        ),
        pytest.param(
            ModelSpec("m"), window_of(rate=100, service_ms=20, rows_per_bundle=5), BATCHES, (0.02, True),
            id="what full batches took is believed",
        ),
        pytest.param(
            ModelSpec("m", slo_s=0.02), window_of(rate=100, service_ms=20), ((1, 8000), (8, 16_000)), (0.008, True),
            id="batches that would break the objective are not counted on",
        ),
    ],
)  # fmt: skip
def test_seconds_of_an_instance_per_request(
    spec: ModelSpec, window: DemandWindow, profile_us: tuple[tuple[int, int], ...], expected: tuple[float, bool]
) -> None:
    status = replace(SERVED, profile_us=profile_us)
    assert service_time_s(spec, window.observe(NOW), status) == (pytest.approx(expected[0]), expected[1])


def test_the_inputs_show_what_waits_and_what_the_policy_made_of_it() -> None:
    inputs = dict(decide(ModelSpec("m"), window_of(rate=100, service_ms=20, queued=3), SERVED).inputs)
    assert (inputs["queued"], inputs["ready"], inputs["service_time_s"]) == (3.0, 1.0, pytest.approx(0.02))


@pytest.mark.parametrize(("minimum", "spare"), [(0, True), (1, False)], ids=["no minimum", "a minimum of one"])
def test_what_the_minimum_asks_for_is_nobodys_spare(minimum: int, spare: bool) -> None:
    decision = decide(ModelSpec("m", min_instances=minimum), None, RevisionStatus(ready=1, ready_for_s=0.001))
    assert (decision.desired, decision.spare) == (1, spare)


def test_a_maximum_hides_nothing_of_what_is_asked_for() -> None:
    decision = watch(new_decider(), ModelSpec("m", max_instances=1), DemandWindow(10.0), 200, 20)
    assert decision.desired == 1 < decision.wanted


def test_an_idle_time_that_was_asked_for_is_kept() -> None:
    decider, window = new_decider(), window_of(rate=1, service_ms=1)
    desired = [decider.decide(KEY, ASKED_IDLE, window, SERVED, NOW + at, NOW).desired for at in (0, 30, 59, 61)]
    assert desired == [1, 1, 1, 0]


def test_without_one_the_policy_decides_how_long() -> None:
    decider, window = new_decider(), window_of(rate=1, service_ms=1)
    desired = [decider.decide(KEY, ModelSpec("m"), window, SERVED, NOW + at, NOW).desired for at in (0, 5)]
    assert desired == [1, 0], "starting again costs 60 ms"


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_is_asked_at_its_interval_but_for_the_first_request_at_zero(name: str) -> None:
    spec, window, decider = ModelSpec("m", policy=name), DemandWindow(10.0), new_decider()
    minimum = decider.decide(KEY, spec, window, RevisionStatus(), NOW, NOW).desired
    window.count(Counts(arrivals=1, rows=1), NOW + 0.01)
    window.set_level("router-0", Level(queued=1), NOW + 0.01)
    first = decider.decide(KEY, spec, window, RevisionStatus(), NOW + 0.01, NOW)
    assert first.desired == max(1, minimum)
    window.set_level("router-0", Level(queued=500), NOW + 0.02)
    again = decider.decide(KEY, spec, window, RevisionStatus(starting=1), NOW + 0.02, NOW)
    assert again.desired == first.desired
    assert dict(again.inputs)["queued"] == 500.0


def test_another_policy_begins_when_the_model_is_deployed_with_it() -> None:
    decider, window = new_decider(), window_of()
    assert decider.decide(KEY, ModelSpec("m"), window, RevisionStatus(), NOW, NOW).desired == 0
    kept = ModelSpec("m", schedules=("* * * * *=3",))
    assert decider.decide(KEY, kept, window, RevisionStatus(), NOW + 0.01, NOW).desired == 3


def test_a_new_revision_goes_on_with_what_the_one_before_had_learnt() -> None:
    decider, window = new_decider(), DemandWindow(10.0)
    before = watch(decider, ModelSpec("m"), window, 200, 20)
    successor = DemandWindow(10.0)
    successor.inherit(window)
    decider.inherit(KEY, ("m", 2))
    decider.keep_only({("m", 2)})
    after = decider.decide(("m", 2), ModelSpec("m"), successor, SERVED, NOW + 0.25, NOW)
    assert after.desired >= before.desired / 2 > 1


@given(
    name=st.sampled_from(sorted(POLICIES)),
    minimum=st.integers(0, 5),
    above=st.none() | st.integers(0, 5),
    rate=st.integers(0, 2000),
    service_ms=st.none() | st.integers(1, 1000),
    queued=st.integers(0, 5000),
    ready=st.integers(0, 10),
    starting=st.integers(0, 3),
    trusted=st.integers(0, 20),
    current=st.booleans(),
    retiring=st.booleans(),
)
def test_bounds_hold_for_any_demand(
    name: str, minimum: int, above: int | None, rate: int, service_ms: int | None, queued: int, ready: int,
    starting: int, trusted: int, current: bool, retiring: bool,
) -> None:  # fmt: skip
    maximum = None if above is None else max(1, minimum + above)
    spec = ModelSpec("m", min_instances=minimum, max_instances=maximum, policy=name)
    status = RevisionStatus(ready, starting, 10.0 if ready else None, trusted, current, retiring)
    window = window_of(rate=rate, service_ms=service_ms, queued=queued)
    decision = decide(spec, window, status)
    assert decision.desired >= 0
    assert maximum is None or decision.desired <= maximum
    if current and not retiring:
        assert decision.desired >= minimum
    if queued:
        assert decision.desired >= 1
    if not retiring:
        trust = min(trusted, ready + starting)
        assert decision.desired >= (trust if maximum is None else min(trust, maximum))


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


def test_a_first_request_is_heeded_before_the_interval_is_over() -> None:
    decider, window = new_decider(), DemandWindow(10.0)
    quick = RevisionStatus(ready=1, ready_for_s=5.0, profile_us=((1, 2000),))
    assert decider.decide(KEY, ModelSpec("m"), window, quick, NOW, NOW).reason == UNTOUCHED
    window.count(Counts(arrivals=1, rows=1), NOW + 0.1)
    assert decider.decide(KEY, ModelSpec("m"), window, quick, NOW + 0.1, NOW).desired == 1


@pytest.mark.parametrize("name", POLICIES)
def test_light_traffic_keeps_its_instance_though_no_report_sees_a_request(name: str) -> None:
    """Fifty requests a second of 2 ms each: mostly nobody is there when a report is written."""
    decider, window, spec = new_decider(), DemandWindow(10.0), ModelSpec("m", policy=name)
    status = RevisionStatus(ready=1, ready_for_s=100.0, profile_us=((1, 2000),))
    for tick in range(1, 200):
        now = NOW + tick * 0.25
        window.count(Counts(arrivals=12, rows=12, completed=12, bundles=12, service_time_us=24_000), now)
        assert decider.decide(KEY, spec, window, status, now, NOW).desired >= 1


@pytest.mark.parametrize("name", POLICIES)
def test_another_policy_takes_nothing_away_before_it_has_watched(name: str) -> None:
    decider, window = new_decider(), window_of(rate=10, service_ms=1)
    status = RevisionStatus(ready=8, ready_for_s=100.0)
    decider.decide(KEY, ModelSpec("m", policy="balanced", min_instances=8), window, status, NOW, NOW)
    changed = ModelSpec("m", policy=name, cost_sensitivity="low" if name == "balanced" else "")
    assert decider.decide(KEY, changed, window, status, NOW + 1.0, NOW).desired >= 8


def test_a_predecessor_that_serves_on_keeps_its_own_memory() -> None:
    decider, window = new_decider(), window_of(rate=100, service_ms=20)
    decider.decide(KEY, ModelSpec("m"), window, SERVED, NOW, NOW)
    decider.inherit(KEY, ("m", 2))
    idle = DemandWindow(10.0)
    for tick in range(1, 40):
        now = NOW + tick * 0.25
        window.count(Counts(25, 25, 25, 25, 500_000), now)
        decider.decide(("m", 2), ModelSpec("m"), idle, SERVED, now, NOW)
        busy = decider.decide(KEY, ModelSpec("m"), window, SERVED, now, NOW)
    assert busy.desired > 1, "it sees its own 100 requests a second of 20 ms"


def recalled(decider: Decider, spec: ModelSpec, now: float, later: float = 0.0) -> Decider:
    """Another decider, to which the first one's memory came by way of a file."""
    [(revision, learnt)] = json.loads(
        json.dumps([(number, asdict(each)) for number, each in decider.learnt("m", now, now)])
    )
    again = new_decider()
    again.recall(("m", revision), spec, True, Learnt(**learnt), now + later, now + later)
    return again


@pytest.mark.parametrize("policy", POLICIES)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from([0.25, 0.25, 1.0, 20.0]), st.integers(0, 30), st.integers(0, 4)),
        min_size=2,
        max_size=40,
    ),
    cut=st.floats(0.0, 1.0),
)
def test_after_a_restart_it_decides_as_if_there_had_been_none(
    policy: str, steps: list[tuple[float, int, int]], cut: float
) -> None:
    """Against a decider that goes on. Routers count from nothing for the new one."""
    spec = ModelSpec("m", policy=policy, idle_timeout_s=60)
    lives, window, now = new_decider(), DemandWindow(10.0), NOW
    restarted, its_window = lives, window
    restart_at, status = max(1, int(cut * len(steps))), RevisionStatus(ready=1, ready_for_s=100.0)
    for number, (passed_s, arrivals, queued) in enumerate(steps):
        if number == restart_at:
            restarted, its_window = recalled(lives, spec, now), DemandWindow(10.0)
        now += passed_s
        for each in {id(window): window, id(its_window): its_window}.values():
            each.count(Counts(arrivals, arrivals, arrivals, arrivals, arrivals * 50_000), now)
            each.set_level("router-0", Level(queued, 0, 0.1 * queued), now)
        expected = lives.decide(KEY, spec, window, status, now, now)
        if restarted is not lives:
            found = restarted.decide(KEY, spec, its_window, status, now, now)
            assert (found.desired, found.reason, found.wanted, found.spare, found.needed) == (
                expected.desired, expected.reason, expected.wanted, expected.spare, expected.needed,
            )  # fmt: skip
        status = replace(status, ready=min(20, expected.desired), starting=0)


def test_a_recalled_policy_waits_for_routers_to_connect() -> None:
    """That nobody is heard in the first seconds is not that nobody asks."""
    decider, spec = new_decider(), ModelSpec("m", policy="aggressive")
    busy = watch(decider, spec, DemandWindow(10.0), rate=40, service_ms=20)
    again = recalled(decider, spec, NOW, later=1.0)
    starved = replace(SERVED, ready=busy.desired)
    for later in (1.0, 5.0, 10.5):
        unheard = again.decide(KEY, spec, None, starved, NOW + later, NOW + later)
        assert (unheard.desired, unheard.reason) == (busy.desired, busy.reason)
    assert again.decide(KEY, spec, None, starved, NOW + 11.5, NOW + 11.5).reason != busy.reason


def test_where_nothing_runs_any_more_a_recalled_wish_starts_nothing() -> None:
    """The whole mesh was stopped for an hour; it had been busy."""
    decider, spec = new_decider(), ModelSpec("m")
    assert watch(decider, spec, DemandWindow(10.0), rate=40, service_ms=100).desired > 1
    again = recalled(decider, spec, NOW, later=3600.0)
    assert again.decide(KEY, spec, None, RevisionStatus(), NOW + 3600.0, NOW + 3600.0).desired == 0


def test_what_was_asked_before_a_restart_is_not_untouched_after_it() -> None:
    decider, spec = new_decider(), ASKED_IDLE
    watch(decider, spec, DemandWindow(10.0), rate=4, service_ms=10)
    again = recalled(decider, spec, NOW, later=61.0)
    fresh = replace(SERVED, ready_for_s=0.5)
    assert again.decide(KEY, spec, DemandWindow(10.0), fresh, NOW + 61.0, NOW + 61.0).desired == 0
    assert new_decider().decide(KEY, spec, None, fresh, NOW, NOW).reason == UNTOUCHED


@pytest.mark.parametrize(
    ("spec", "change"),
    [
        pytest.param(ModelSpec("m", policy="kpa"), {}, id="another policy by now"),
        pytest.param(ModelSpec("m"), {"form": 0}, id="an older form"),
        pytest.param(ModelSpec("m"), {"told": {}}, id="nothing in it"),
        pytest.param(ModelSpec("m"), {"told": {"choice": "", "held": {"policy": 3}}}, id="something else"),
    ],
)
def test_memory_that_does_not_fit_is_refused_and_the_policy_begins_anew(
    spec: ModelSpec, change: dict[str, Any]
) -> None:
    decider = new_decider()
    decider.decide(KEY, ModelSpec("m"), None, SERVED, NOW, NOW)
    [(_, learnt)] = decider.learnt("m", NOW, NOW)
    again = new_decider()
    with pytest.raises((ValueError, TypeError)):
        again.recall(KEY, spec, True, replace(learnt, **change), NOW, NOW)
    assert again.decide(KEY, spec, None, RevisionStatus(), NOW, NOW).reason == NO_DEMAND


@pytest.mark.parametrize("spec", [ModelSpec("m"), ModelSpec("m", max_instances=1), ModelSpec("m", min_instances=1)])
def test_what_a_target_cannot_do_is_said_beside_every_reason(spec: ModelSpec) -> None:
    spec = replace(spec, targets=(("gpu_memory", 0.7), ("latency", 0.001)))
    status = RevisionStatus(ready=1, ready_for_s=1.0, profile_us=((1, 5_000),))
    reason = decide(spec, window_of(rate=1, service_ms=5), status).reason
    assert reason.endswith(f"; {NO_GPU_MEMORY}; {OUT_OF_REACH}")
    measured = replace(status, gpu_memory_share=0.5, profile_us=())
    assert ";" not in decide(spec, None, measured).reason.removeprefix(MAXIMUM)


@pytest.mark.parametrize(
    "changes",
    [{"schedules": ("0 3 * * *=1",)}, {"policy": "aggressive"}, {"targets": (("concurrency", 50.0),)}],
    ids=["a schedule", "another policy", "a target"],
)
def test_what_came_before_a_policy_was_changed_does_not_come_again(changes: dict[str, Any]) -> None:
    decider = Decider(lambda _model: 0.06, lambda _resources: 42_500, starts_per_s=lambda: 2.0)
    window = DemandWindow(10.0)
    spec, known = ModelSpec("m", min_instances=1), replace(SERVED, profile_us=((1, 50_000),))
    watch(decider, spec, window, rate=40, service_ms=50)
    for second in range(1, 60):
        decider.decide(KEY, spec, window, known, NOW + second, NOW)
    changed = replace(spec, **changes)
    for second in range(60, 180):
        decision = decider.decide(KEY, changed, window, known, NOW + second, NOW)
        assert decision.desired == 1, decision
