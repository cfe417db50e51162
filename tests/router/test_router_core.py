"""Batching, latency and dispatch: tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace_router.core import dispatch
from headrace_router.core.band import Watch
from headrace_router.core.batching import BatchLimits, Decision, cut, group_of, has_one_group
from headrace_router.core.latency import STALE_S, LatencyModel
from headrace_router.core.pace import Pace
from headrace_router.core.queue import AGEING_S, Queue
from headrace_router.core.waiting import Waiting
from headrace_router.domain import Batching, InferenceRequest, RevisionEntry, TensorSpec

Make = Callable[..., Waiting]
LIMITS = BatchLimits(max_bundle_bytes=1 << 20, max_attempts=3)


def trained(base_s: float, per_row_s: float, now: float = 0.0) -> LatencyModel:
    model = LatencyModel()
    for rows in (1, 2, 4, 8, 1, 2, 4, 8):
        model.observe(rows, base_s + per_row_s * rows, now)
    return model


def cut_from(
    items: list[Waiting],
    entry: RevisionEntry,
    now: float = 0.0,
    latency: LatencyModel | None = None,
    limits: BatchLimits = LIMITS,
) -> Decision:
    queue = Queue()
    for item in items:
        queue.push(item)
    return cut(queue, entry, now, Pace(latency or LatencyModel()), limits)


# --- batching ---


@pytest.mark.parametrize(
    ("rows", "taken"),
    [([1] * 20, 8), ([3, 3, 3], 2), ([8, 1], 1), ([1], 1), ([5, 4, 1], 1)],
    ids=[
        "at most the maximum batch",
        "rows count, not requests",
        "a full request goes alone",
        "one goes at once",
        "order is kept: nothing overtakes what does not fit",
    ],
)
def test_a_bundle_ends_at_the_maximum_batch(
    make_waiting: Make, entry: RevisionEntry, rows: list[int], taken: int
) -> None:
    items = [make_waiting(rows=count) for count in rows]
    decision = cut_from(items, entry)
    assert decision.bundle is not None
    assert decision.bundle.items == items[:taken]
    assert decision.bundle.rows == sum(rows[:taken])


def test_a_bundle_ends_at_its_bytes_but_holds_one_request_at_least(make_waiting: Make, entry: RevisionEntry) -> None:
    for max_bytes, taken in ((8 * 3, 3), (1, 1)):
        decision = cut_from([make_waiting() for _ in range(6)], entry, limits=BatchLimits(max_bytes, 3))
        assert decision.bundle is not None
        assert len(decision.bundle.items) == taken


def test_a_bundle_ends_where_it_would_miss_the_earliest_deadline(make_waiting: Make, entry: RevisionEntry) -> None:
    items = [make_waiting(deadline=0.0455), *(make_waiting(deadline=9.0) for _ in range(7))]
    decision = cut_from(items, entry, latency=trained(0.005, 0.010))
    assert decision.bundle is not None
    assert len(decision.bundle.items) == 4
    assert decision.bundle.deadline == 0.0455
    assert not decision.expired


def test_what_cannot_be_met_even_alone_is_dropped_before_it_costs(make_waiting: Make, entry: RevisionEntry) -> None:
    hopeless, passed, fine = make_waiting(deadline=1.010), make_waiting(deadline=0.9), make_waiting(deadline=2.0)
    decision = cut_from([hopeless, passed, fine], entry, now=1.0, latency=trained(0.02, 0.001, now=1.0))
    assert decision.bundle is not None
    assert decision.bundle.items == [fine]
    assert set(decision.expired) == {hopeless, passed}


def test_without_knowledge_only_passed_deadlines_are_dropped(make_waiting: Make, entry: RevisionEntry) -> None:
    tight, passed = make_waiting(deadline=1.0001), make_waiting(deadline=1.0)
    stale = trained(5.0, 5.0, now=1.0 - 2 * STALE_S)
    for latency in (LatencyModel(), stale):
        decision = cut_from([tight, passed], entry, now=1.0, latency=latency)
        assert decision.bundle is not None
        assert (decision.bundle.items, decision.expired) == ([tight], [passed])


def test_after_a_lull_the_first_bundle_is_as_large_as_what_was_known_says(
    make_waiting: Make, entry: RevisionEntry
) -> None:
    """Nothing is dropped by it: one that even a row alone would be late for goes, alone, which is how one learns."""
    measured = LatencyModel()
    measured.seed([(1, 0.010), (8, 0.080)], 0.0)
    for latency in (measured, trained(0.0, 0.010, now=0.0)):
        now = 100 * STALE_S
        for left_s, rows in ((0.035, 3), (0.005, 1), (1.0, 8)):
            items = [make_waiting(deadline=now + left_s) for _ in range(10)]
            decision = cut_from(items, entry, now=now, latency=latency)
            assert decision.bundle is not None
            assert (len(decision.bundle.items), decision.expired) == (rows, [])


def test_what_lingers_after_a_lull_goes_in_time_by_what_was_known(make_waiting: Make, entry: RevisionEntry) -> None:
    lingering = replace(entry, batching=Batching(max_queue_delay_s=0.050))
    now = 100 * STALE_S
    known = trained(0.0, 0.010, now=0.0)
    soon, later = make_waiting(now=now, deadline=now + 0.1), make_waiting(now=now, deadline=now + 0.2)
    assert cut_from([soon], lingering, now=now, latency=known).bundle is not None
    assert cut_from([later], lingering, now=now, latency=known).wait_until == pytest.approx(now + 0.05)


@pytest.mark.parametrize("came_back", [False, True], ids=["new ones", "a bundle that came back"])
def test_a_bundle_ends_where_the_runner_may_have_no_more_requests(
    make_waiting: Make, entry: RevisionEntry, came_back: bool
) -> None:
    queue, items = Queue(), [make_waiting(rows=1 + number % 2) for number in range(5)]
    if came_back:
        queue.put_back(items)
    else:
        for item in items:
            queue.push(item)
    taken = []
    while queue.count:
        decision = cut(queue, entry, 0.0, Pace(LatencyModel()), LIMITS, most=2)
        assert decision.bundle is not None
        taken.append(decision.bundle.items)
    assert taken == [items[:2], items[2:4], items[4:]]


@pytest.mark.parametrize(
    ("wanted", "outputs"),
    [((("y",), ("z",)), ("y", "z")), ((("y",), ()), ()), (((), ()), ()), ((("y",), ("y",)), ("y",))],
    ids=["union", "somebody wants all", "all want all", "the same"],
)
def test_outputs_are_what_anybody_wants(
    make_waiting: Make, entry: RevisionEntry, wanted: tuple[tuple[str, ...], ...], outputs: tuple[str, ...]
) -> None:
    decision = cut_from([make_waiting(outputs=names) for names in wanted], entry)
    assert decision.bundle is not None
    assert decision.bundle.outputs == outputs


@pytest.mark.parametrize(
    ("waiting", "now", "expected"),
    [(1, 0.0, "wait"), (4, 0.0, 4), (5, 0.0, 4), (8, 0.0, 8), (1, 0.1, 1), (3, 0.1, 3)],
    ids=[
        "waits for the delay",
        "a preferred size goes at once",
        "the largest preferred size that is full",
        "the maximum goes at once",
        "after the delay what there is",
        "after the delay no size is preferred",
    ],
)
def test_config_may_linger(
    make_waiting: Make, entry: RevisionEntry, waiting: int, now: float, expected: int | str
) -> None:
    lingering = replace(entry, batching=Batching(preferred_batch_sizes=(4,), max_queue_delay_s=0.1))
    decision = cut_from([make_waiting() for _ in range(waiting)], lingering, now=now)
    if expected == "wait":
        assert (decision.bundle, decision.wait_until) == (None, 0.1)
    else:
        assert decision.bundle is not None
        assert len(decision.bundle.items) == expected


def test_a_full_bundle_does_not_linger_behind_another_group_or_for_rows_when_its_bytes_are_full(
    make_waiting: Make, entry: RevisionEntry
) -> None:
    lingering = replace(entry, batching=Batching(max_queue_delay_s=0.1))
    first, full = make_waiting(group="a"), [make_waiting(group="b") for _ in range(8)]
    decision = cut_from([first, *full], lingering)
    assert decision.bundle is not None
    assert decision.bundle.items == full
    few = cut_from([make_waiting() for _ in range(3)], lingering, limits=BatchLimits(24, 3))
    assert few.bundle is not None
    later = [make_waiting(now=0.05, group="a"), make_waiting(now=0.02, group="b")]
    assert cut_from(later, lingering, now=0.06).wait_until == pytest.approx(0.12)


@pytest.mark.parametrize(("waiting", "taken"), [(3, 0), (4, 4), (6, 4)])
def test_nothing_lingers_for_company_that_its_runner_may_not_have(
    make_waiting: Make, entry: RevisionEntry, waiting: int, taken: int
) -> None:
    lingering = replace(entry, batching=Batching(max_queue_delay_s=0.1))
    queue = Queue()
    for _ in range(waiting):
        queue.push(make_waiting())
    decision = cut(queue, lingering, 0.0, Pace(LatencyModel()), LIMITS, most=4)
    assert len(decision.bundle.items if decision.bundle else []) == taken


def test_ageing_does_not_begin_the_delay_anew(make_waiting: Make, entry: RevisionEntry) -> None:
    queue = Queue(levels=2)
    queue.push(make_waiting(level=2))
    queue.age(AGEING_S)
    lingering = replace(entry, batching=Batching(max_queue_delay_s=6.0))
    assert cut(queue, lingering, AGEING_S, Pace(LatencyModel()), LIMITS).wait_until == 6.0


def test_nothing_lingers_into_its_deadline(make_waiting: Make, entry: RevisionEntry) -> None:
    lingering = replace(entry, batching=Batching(max_queue_delay_s=0.1))
    decision = cut_from([make_waiting(deadline=0.09)], lingering)
    assert decision.bundle is not None


def test_groups_tell_inputs_datatypes_and_shapes_apart(
    entry: RevisionEntry, make_request: Callable[..., InferenceRequest]
) -> None:
    assert group_of(make_request(rows=1)) == group_of(make_request(rows=5))
    other = make_request()
    other.inputs[0].shape = (1, 3)
    assert group_of(make_request()) != group_of(other)
    assert has_one_group(entry)
    free = TensorSpec("x", "FP32", (-1, -1))
    maybe = TensorSpec("z", "FP32", (-1, 2), optional=True)
    assert not any(has_one_group(replace(entry, inputs=(*entry.inputs, spec))) for spec in (free, maybe))


# --- latency ---


def test_the_line_is_found_and_unknown_before() -> None:
    assert LatencyModel().predict(4, 0.0) is None
    model = trained(0.004, 0.001)
    assert model.predict(16, 0.0) == pytest.approx(0.020, rel=0.01)
    assert model.predict(16, 2 * STALE_S) is None


def test_one_stall_does_not_bend_the_line_and_a_lasting_change_does() -> None:
    model = trained(0.010, 0.0)
    model.observe(4, 10.0, 0.0)
    assert model.predict(4, 0.0) == pytest.approx(0.010, rel=0.2)
    for _ in range(300):
        model.observe(4, 0.100, 0.0)
    assert model.predict(4, 0.0) == pytest.approx(0.100, rel=0.1)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 64), st.floats(1e-6, 10.0)), min_size=6, max_size=80))
def test_predictions_are_never_negative_and_never_fall_with_rows(seen: list[tuple[int, float]]) -> None:
    model = LatencyModel()
    for rows, seconds in seen:
        model.observe(rows, seconds, 0.0)
    predictions = [model.predict(rows, 0.0) for rows in (1, 2, 8, 64)]
    known = [value for value in predictions if value is not None]
    assert known == sorted(known)
    assert all(value >= 0 for value in known)


# --- dispatch ---


@dataclass
class Slots:
    free_slots: int = 2
    outstanding_bundles: int = 0
    accepting: bool = True
    solo: bool = False
    recent_s: float = 0.0
    watch: Watch = field(default_factory=Watch)


@pytest.mark.parametrize(
    ("runners", "chosen"),
    [
        ([], None),
        ([Slots(free_slots=0)], None),
        ([Slots(accepting=False)], None),
        ([Slots(solo=True)], None),
        ([Slots(1, 1), Slots(2, 0)], 1),
        ([Slots(recent_s=0.2), Slots(recent_s=0.1)], 1),
    ],
    ids=["nobody", "no free slot", "draining", "it executes a suspect", "least in hand", "then the quickest"],
)
def test_choice_of_a_runner(runners: list[Slots], chosen: int | None) -> None:
    assert dispatch.choose(runners) is (None if chosen is None else runners[chosen])


@pytest.mark.parametrize(
    ("runners", "picked", "suspect"),
    [
        ([Slots(2, 0), Slots(1, 1)], 0, True),
        ([Slots(1, 1)], None, False),
        ([Slots(1, 1), Slots(1, 2)], 1, False),
        ([Slots(1, 1, solo=True), Slots(1, 1), Slots(1, 3)], 2, False),
        ([Slots(accepting=False)], None, False),
    ],
    ids=[
        "an idle runner takes it alone",
        "the only runner is emptied for it first",
        "others go on meanwhile",
        "one suspect per runner",
        "a draining runner is no help",
    ],
)
def test_a_suspect_bundle_is_executed_alone_on_its_runner(
    runners: list[Slots], picked: int | None, suspect: bool
) -> None:
    expected = None if picked is None else runners[picked]
    runner, is_suspect = dispatch.pick(runners, suspect_waits=True)
    assert runner is expected
    assert is_suspect is suspect


def test_a_lost_bundle_is_halved_then_taken_apart_then_fails(make_waiting: Make) -> None:
    items = [make_waiting() for _ in range(5)]
    first = dispatch.after_loss(items, 3)
    assert (list(map(len, first.bundles)), first.failed) == ([3, 2], [])
    second = dispatch.after_loss(first.bundles[0], 3)
    assert second.bundles == [[item] for item in items[:3]]
    assert all(dispatch.is_suspect(item, 3) for item in items[:3])
    third = dispatch.after_loss(second.bundles[0], 3)
    assert (third.bundles, third.failed) == ([], [items[0]])


def test_with_one_attempt_a_loss_is_the_end(make_waiting: Make) -> None:
    items = [make_waiting(), make_waiting()]
    assert dispatch.after_loss(items, 1) == dispatch.Retry([], items)


@settings(deadline=None)
@given(st.integers(1, 200), st.data())
def test_halving_finds_every_culprit_and_only_culprits(make_waiting: Make, count: int, data: st.DataObject) -> None:
    items = [make_waiting() for _ in range(count)]
    culprits = {id(item) for item in items if data.draw(st.booleans())}
    bundles, failed, answered = [items], [], []
    while bundles:
        bundle = bundles.pop()
        if any(id(item) in culprits for item in bundle):
            retry = dispatch.after_error(bundle)
            bundles += retry.bundles
            failed += retry.failed
        else:
            answered += bundle
    assert {id(item) for item in failed} == culprits
    assert len(failed) + len(answered) == count


def test_a_bundle_that_comes_back_for_the_last_time_is_taken_apart(make_waiting: Make) -> None:
    items = [make_waiting(), make_waiting()]
    assert dispatch.after_return(items, 3) == dispatch.Retry([items], [])
    assert dispatch.after_return(items, 3) == dispatch.Retry([[item] for item in items], [])
    assert dispatch.after_return(items[:1], 3) == dispatch.Retry([], items[:1])
