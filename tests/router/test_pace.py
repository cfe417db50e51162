"""Latency per model and runner, and what a runner with bundles in hand can still promise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace_router.core.band import Watch
from headrace_router.core.batching import BatchLimits, cut
from headrace_router.core.judging import MOST_LEFT
from headrace_router.core.latency import LASTING, STALE_S, LatencyModel
from headrace_router.core.pace import Pace, Soonest
from headrace_router.core.queue import Queue
from headrace_router.core.waiting import Waiting
from headrace_router.domain import RevisionEntry

Make = Callable[..., Waiting]
LIMITS = BatchLimits(max_bundle_bytes=1 << 20, max_attempts=3)


@dataclass
class Fixed:
    """Promises a + b * rows; None: it knows nothing."""

    base_s: float | None
    per_row_s: float = 0.0
    accepting: bool = True
    solo: bool = False
    watch: Watch = field(default_factory=Watch)

    @property
    def pace(self) -> Fixed:
        return self

    def predict(self, rows: int, _now: float) -> float | None:
        return None if self.base_s is None else self.base_s + self.per_row_s * rows

    guess = predict


def trained(seconds: float, prior: LatencyModel | None = None) -> Pace:
    pace = Pace(prior or LatencyModel())
    for _ in range(8):
        pace.engine.observe(1, seconds, 0.0)
    return pace


# --- the model ---


def test_a_lasting_change_is_believed_after_a_few_and_a_single_stall_is_not() -> None:
    model = LatencyModel()
    for step in range(100):
        model.observe(4, 0.010, step * 0.01)
    for _ in range(LASTING - 1):
        model.observe(4, 0.200, 1.0)
        model.observe(4, 0.010, 1.0)
    assert model.predict(4, 1.0) == pytest.approx(0.010, rel=0.5)
    for _ in range(LASTING + 1):
        model.observe(4, 0.200, 1.0)
    assert model.predict(4, 1.0) == pytest.approx(0.200, rel=0.05)
    for _ in range(LASTING + 1):
        model.observe(4, 0.001, 1.0)
    assert model.predict(4, 1.0) == pytest.approx(0.001, rel=0.05)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 32), st.floats(1e-5, 2.0)), max_size=60), st.integers(1, 32))
def test_after_any_history_a_steady_line_is_found(seen: list[tuple[int, float]], rows: int) -> None:
    model = LatencyModel()
    for count, seconds in seen:
        model.observe(count, seconds, 0.0)
    for step in range(400):
        count = 1 + step * 7 % 32
        model.observe(count, 0.003 + 0.0002 * count, 0.0)
    assert model.predict(rows, 0.0) == pytest.approx(0.003 + 0.0002 * rows, rel=0.1)


def test_a_measured_profile_is_knowledge_until_there_is_better() -> None:
    model = LatencyModel()
    model.seed([], 0.0)
    assert model.predict(1, 0.0) is None
    model.seed([(1, 0.002), (8, 0.009)], 0.0)
    assert model.predict(4, 0.0) == pytest.approx(0.005)
    assert model.predict(4, STALE_S + 0.1) is None
    for _ in range(60):
        model.observe(4, 0.0055, 5.0)
    model.seed([(1, 9.0)], 5.0)
    assert model.predict(4, 5.0) == pytest.approx(0.0055, rel=0.05)


def test_a_guess_is_the_last_that_was_known_however_old() -> None:
    shared = LatencyModel()
    pace = Pace(shared)
    assert pace.guess(4, 0.0) is None
    shared.seed([(1, 0.002), (8, 0.009)], 0.0)
    assert pace.guess(4, 0.0) == pace.predict(4, 0.0)
    assert (pace.predict(4, 60.0), pace.guess(4, 60.0)) == (None, pytest.approx(0.005))
    for _ in range(8):
        pace.engine.observe(4, 0.050, 60.0)
    assert pace.guess(4, 120.0) == pytest.approx(0.050), "its own, not its model's"


def test_a_runner_that_knows_nothing_of_itself_goes_by_its_model() -> None:
    shared = LatencyModel()
    quick, new = trained(0.010, shared), Pace(shared)
    assert new.predict(1, 0.0) == pytest.approx(0.010)
    assert new.engine.learnt(1) is None
    for _ in range(8):
        new.engine.observe(1, 0.050, 0.0)
    assert new.predict(1, 0.0) == pytest.approx(0.050)
    assert quick.predict(1, 0.0) == pytest.approx(0.010)


# --- what is in hand ---


def test_a_bundle_waits_for_those_before_it() -> None:
    pace = trained(0.010)
    assert pace.predict(1, 0.0) == pytest.approx(0.010)
    pace.sent(1, 0.0)
    assert pace.predict(1, 0.0) == pytest.approx(0.020)
    assert pace.predict(1, 0.004) == pytest.approx(0.016)
    assert pace.predict(1, 0.500) == pytest.approx(0.010), "what is overdue comes at any moment"
    pace.sent(1, 0.004)
    assert pace.predict(1, 0.004) == pytest.approx(0.026)


def test_a_result_starts_the_next_and_a_loss_frees_all() -> None:
    pace = trained(0.010)
    pace.sent(1, 0.0)
    pace.sent(1, 0.0)
    pace.answered(1, 0.010, 0.012)
    assert pace.predict(1, 0.012) == pytest.approx(0.020, abs=0.001)
    pace.ended(1, 0.020)
    assert pace.predict(1, 0.020) == pytest.approx(0.010, abs=0.001)
    pace.sent(1, 0.020)
    pace.lost()
    assert pace.predict(1, 0.020) == pytest.approx(0.010, abs=0.001)


def test_the_way_there_and_back_counts_and_one_stall_on_it_does_not() -> None:
    pace = trained(0.010)
    now = 0.0
    for _ in range(60):
        pace.sent(1, now)
        now += 0.013
        pace.answered(1, 0.010, now)
    assert pace.predict(1, now) == pytest.approx(0.013, rel=0.02)
    pace.sent(1, now)
    now += 5.0
    pace.answered(1, 0.010, now)
    assert pace.predict(1, now) == pytest.approx(0.013, rel=0.1)


def paused() -> Watch:
    watch = Watch()
    watch.allowance = 0
    return watch


@pytest.mark.parametrize(
    ("runners", "promised"),
    [
        ([Fixed(0.3), Fixed(0.1)], 0.1),
        ([Fixed(0.3), Fixed(0.1, accepting=False)], 0.3),
        ([Fixed(0.3), Fixed(0.1, solo=True)], 0.3),
        ([Fixed(0.3), Fixed(0.1, watch=paused())], 0.3),
        ([Fixed(0.3), Fixed(None)], None),
        ([], None),
    ],
    ids=[
        "the best",
        "of those that take bundles",
        "and beside others",
        "and are not too slow",
        "an unknown one may be quick",
        "nobody",
    ],
)
def test_what_the_best_of_several_runners_promises(runners: list[Fixed], promised: float | None) -> None:
    assert Soonest(runners).predict(1, 0.0) == promised


# --- cutting by it ---


def queue_of(items: list[Waiting]) -> Queue:
    queue = Queue()
    for item in items:
        queue.push(item)
    return queue


def test_a_runner_that_is_busy_gets_a_smaller_bundle(make_waiting: Make, entry: RevisionEntry) -> None:
    idle, busy = trained(0.0), trained(0.0)
    for pace in (idle, busy):
        for rows in (1, 2, 4, 8) * 20:
            pace.engine.observe(rows, 0.010 * rows, 0.0)
    busy.sent(4, 0.0)
    for pace, rows in ((idle, 7), (busy, 3)):
        decision = cut(queue_of([make_waiting(deadline=0.075) for _ in range(8)]), entry, 0.0, pace, LIMITS)
        assert decision.bundle is not None
        assert decision.bundle.rows == rows


def test_what_only_another_runner_can_do_in_time_is_left_for_it(make_waiting: Make, entry: RevisionEntry) -> None:
    urgent, patient, hopeless = make_waiting(deadline=0.05), make_waiting(deadline=9.0), make_waiting(deadline=0.01)
    queue = queue_of([urgent, patient, hopeless])
    slow, quick = Fixed(0.1), Fixed(0.02)
    decision = cut(queue, entry, 0.0, slow, LIMITS, soonest=Soonest([slow, quick]))
    assert decision.bundle is not None
    assert (decision.bundle.items, decision.expired) == ([patient], [hopeless])
    assert cut(queue, entry, 0.0, slow, LIMITS, soonest=Soonest([slow, quick])).bundle is None
    assert (queue.count, queue.head()) == (1, urgent)
    decision = cut(queue, entry, 0.0, quick, LIMITS, soonest=Soonest([slow, quick]))
    assert decision.bundle is not None
    assert decision.bundle.items == [urgent]


def test_the_search_past_what_is_left_ends(make_waiting: Make, entry: RevisionEntry) -> None:
    urgent, patient = [make_waiting(deadline=0.05) for _ in range(MOST_LEFT)], make_waiting(deadline=9.0)
    slow, quick = Fixed(0.1), Fixed(0.02)
    decision = cut(queue_of([*urgent, patient]), entry, 0.0, slow, LIMITS, soonest=quick)
    assert decision.bundle is not None
    assert decision.bundle.items == [patient]
    queue = queue_of([make_waiting(deadline=0.05), *urgent, patient])
    assert cut(queue, entry, 0.0, slow, LIMITS, soonest=quick).bundle is None
    assert queue.count == MOST_LEFT + 2


def test_a_group_that_is_left_for_another_runner_does_not_hold_up_the_others(
    make_waiting: Make, entry: RevisionEntry
) -> None:
    urgent = make_waiting(group="a", deadline=0.05)
    patient = [make_waiting(group="b", deadline=9.0) for _ in range(3)]
    queue = queue_of([urgent, *patient])
    decision = cut(queue, entry, 0.0, Fixed(0.1), LIMITS, soonest=Fixed(0.02))
    assert decision.bundle is not None
    assert decision.bundle.items == patient
    assert cut(queue, entry, 0.0, Fixed(0.1), LIMITS, soonest=Fixed(0.02)).left


@pytest.mark.parametrize(
    ("head", "behind", "taken"),
    [
        pytest.param({}, {}, 8, id="who waited too long holds up as many as fill a bundle"),
        pytest.param({}, {"count": 2}, 3, id="not where little waits"),
        pytest.param({"now": 0.995}, {}, 3, id="not if it came with little time"),
        pytest.param({}, {"deadline": None}, 3, id="nobody who has all the time"),
        pytest.param({}, {"deadline": 1.5}, 3, id="nobody who has much more time"),
        pytest.param({}, {"level": 2}, 3, id="nobody less urgent"),
        pytest.param({"deadline": 1.0351}, {}, 7, id="seven rows of eight are enough"),
    ],
)
def test_what_would_hold_up_a_whole_bundle_is_dropped_early(
    make_waiting: Make, entry: RevisionEntry, head: dict[str, object], behind: dict[str, object], taken: int
) -> None:
    """Each row takes 5 ms; the first may be one of three rows, most of the others one of eight."""
    queue = Queue(levels=2)
    first = make_waiting(**{"now": 0.9, "deadline": 1.0199} | head)
    rest = {"now": 0.95, "deadline": 1.05} | behind
    count = rest.pop("count", 8)
    assert isinstance(count, int)
    for item in (first, *(make_waiting(**rest) for _ in range(count))):
        queue.push(item)
    decision = cut(queue, entry, 1.0, Fixed(0.0, 0.005), LIMITS)
    assert decision.bundle is not None
    assert (len(decision.bundle.items), first in decision.expired) == (taken, first not in decision.bundle.items)


def test_what_one_runner_drops_early_is_left_for_another_that_could_fill_its_bundle(
    make_waiting: Make, entry: RevisionEntry
) -> None:
    first = make_waiting(now=0.9, deadline=1.0199)
    queue = queue_of([first, *(make_waiting(now=0.95, deadline=1.05) for _ in range(8))])
    slow, quick = Fixed(0.0, 0.005), Fixed(0.0, 0.001)
    decision = cut(queue, entry, 1.0, slow, LIMITS, soonest=Soonest([slow, quick]))
    assert decision.bundle is not None
    assert (len(decision.bundle.items), decision.expired, queue.head()) == (8, [], first)
