"""Whole scheduling decisions, over any history, against a slow oracle; shares and bounded waits over long runs."""

from __future__ import annotations

import itertools
from collections import Counter, deque
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from headrace_router.core import dispatch
from headrace_router.core.accounts import Account
from headrace_router.core.admission import Limiter
from headrace_router.core.backlog import PATIENCE_S
from headrace_router.core.band import Watch
from headrace_router.core.batching import BatchLimits, Bundle, Decision, cut, waiting_suspect
from headrace_router.core.latency import LatencyModel
from headrace_router.core.pace import Pace, Soonest
from headrace_router.core.queue import AGEING_S, Queue
from headrace_router.core.waiting import Waiting
from headrace_router.domain import InferenceRequest, RevisionEntry, TensorSpec
from tests.router.conftest import RecordedAnswer
from tests.router.oracle import Oracle, Round, parts

MAX_ROWS = 8
LIMITS = BatchLimits(max_bundle_bytes=100, max_attempts=3)
SPEC = TensorSpec("x", "FP32", (-1, -1))
ENTRY = RevisionEntry("m", "default", 1, "1", (SPEC,), (SPEC,), batchable=True, max_batch_size=MAX_ROWS)
TENANTS = ("a", "b", "c")


def waiting(
    now: float, tenant: str = "a", rows: int = 1, *, group: str = "g", level: int = 1,
    deadline: float | None = None, size: int = 8,
) -> Waiting:  # fmt: skip
    request = InferenceRequest(ENTRY, tenant, [], (), rows, now, deadline=deadline, size_bytes=size)
    account = Account(tenant, "m", 1, Limiter("tenant"), Limiter("model"))
    return Waiting(request, RecordedAnswer(), account, group, level, now)


@dataclass(eq=False)
class Runner:
    """Takes so many rows per second as it wants."""

    pace: Pace
    per_row_s: float
    slots: int = 2
    held: deque[Bundle] = field(default_factory=deque)
    accepting: bool = True
    recent_s: float = 0.0
    watch: Watch = field(default_factory=Watch)

    @property
    def free_slots(self) -> int:
        return self.slots - len(self.held)

    @property
    def outstanding_bundles(self) -> int:
        return len(self.held)

    @property
    def solo(self) -> bool:
        return any(bundle.suspect for bundle in self.held)


class Scheduling(RuleBasedStateMachine):
    """Queue, dispatch and cut as a lane puts them together, and the oracle beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.queue = Queue(levels=3, default_level=2)
        self.weights = dict.fromkeys(TENANTS, 1.0)
        self.oracle = Oracle(self.weights)
        self.back: list[list[Waiting]] = []
        prior = LatencyModel()
        self.runners = [Runner(Pace(prior), speed) for speed in (0.001, 0.005, 0.03)]
        for which in range(2):
            self.change_speed(which, self.runners[which].per_row_s)
        self.soonest = Soonest(self.runners)
        self.everything: list[Waiting] = []
        self.over: list[Waiting] = []

    @rule(
        tenant=st.sampled_from(TENANTS),
        group=st.sampled_from("ggh"),
        level=st.sampled_from([1, 1, 2, 3]),
        within=st.sampled_from([None, 0.004, 0.01, 0.02, 0.05, 0.1, 40.0]),
        rows=st.sampled_from([1, 1, 2, MAX_ROWS]),
        size=st.sampled_from([1, 1, 30, 200]),
        count=st.sampled_from([1, 4, 9]),
        spread=st.sampled_from([0.0, 0.05, 1.0]),
    )
    def push(
        self, tenant: str, group: str, level: int, within: float | None, rows: int, size: int, count: int, spread: float
    ) -> None:
        for number in range(count):
            deadline = None if within is None else self.now + within * (1 + number * spread)
            item = waiting(self.now, tenant, rows, group=group, level=level, deadline=deadline, size=size)
            self.everything.append(item)
            self.queue.push(item)
            self.oracle.push(item)

    @rule()
    def send_one(self) -> None:
        passed: list[Runner] = []
        while (runner := self.try_one(passed)) is not None:
            passed.append(runner)

    def try_one(self, passed: list[Runner]) -> Runner | None:
        """The runner that all waiting requests were left by."""
        suspect_waits = waiting_suspect(self.queue, LIMITS.max_attempts)
        runner, suspect = dispatch.pick(self.runners, suspect_waits=suspect_waits, passed=passed)
        if runner is None:
            free = [each for each in self.runners if each.free_slots and not each.solo and each not in passed]
            assert suspect_waits or not free
            return None
        decision = cut(self.queue, ENTRY, self.now, runner.pace, LIMITS, soonest=self.soonest, suspect=suspect)
        self.check(decision, runner, suspect)
        self.over += decision.expired
        if decision.bundle is not None:
            runner.held.append(decision.bundle)
            runner.pace.sent(decision.bundle.rows, self.now)
        if decision.bundle is None and decision.expired and not decision.left:
            return self.try_one(passed)
        if not suspect_waits:
            assert decision.left == (decision.bundle is None and self.queue.count > 0)
        return runner if decision.left else None

    def check(self, decision: Decision, runner: Runner, suspect: bool) -> None:
        taken, dropped = parts(decision)
        round_ = Round(
            self.now,
            lambda rows: runner.pace.predict(rows, self.now),
            lambda rows: self.soonest.predict(rows, self.now),
            lambda rows: runner.pace.guess(rows, self.now),
            MAX_ROWS,
            LIMITS.max_bundle_bytes,
        )
        dropped, from_back = self.check_returned(round_, taken, dropped, suspect)
        if not from_back:
            after = round_.explain(self.oracle, taken, dropped)
            assert after is not None, "no order that the rules allow gives this bundle"
            self.oracle = after
        if decision.bundle is not None:
            self.check_promise(decision.bundle, runner)

    def check_returned(
        self, round_: Round, taken: list[Waiting], dropped: list[Waiting], suspect: bool
    ) -> tuple[list[Waiting], bool]:
        """What came back goes first. What is dropped besides, and whether that was all."""
        while self.back and (suspect or not dispatch.is_suspect(self.back[0][0], LIMITS.max_attempts)):
            items = self.back.pop(0)
            fate = round_.returned(items)
            kept = [item for item in items if item in fate["leave"] or item in fate["stop"]]
            if kept:
                self.back.insert(0, kept)
            assert dropped[: len(fate["drop"])] == fate["drop"]
            dropped = dropped[len(fate["drop"]) :]
            if fate["take"]:
                assert (taken, dropped) == (fate["take"], [])
                return [], True
            if fate["leave"]:
                break
        return dropped, False

    def check_promise(self, bundle: Bundle, runner: Runner) -> None:
        assert bundle.rows == sum(item.rows for item in bundle.items)
        assert bundle.deadline == min(item.deadline for item in bundle.items)
        assert len({item.group for item in bundle.items}) == 1
        promised = runner.pace.predict(bundle.rows, self.now)
        assert promised is None or self.now + promised <= bundle.deadline
        assert not bundle.suspect or (len(bundle.items) == 1 and not runner.held)

    @precondition(lambda self: any(runner.held for runner in self.runners))
    @rule(which=st.integers(0, 2), stall=st.sampled_from([1.0, 1.0, 1.0, 10.0]))
    def answer(self, which: int, stall: float) -> None:
        runner = self.busy(which)
        bundle = runner.held.popleft()
        took_s = runner.per_row_s * bundle.rows * stall
        self.now += took_s
        runner.pace.answered(bundle.rows, took_s, self.now)
        self.over += bundle.items

    @precondition(lambda self: any(runner.held for runner in self.runners))
    @rule(which=st.integers(0, 2))
    def lose(self, which: int) -> None:
        runner = self.busy(which)
        lost = list(runner.held)
        runner.held.clear()
        runner.pace.lost()
        for bundle in lost:
            self.give_back(dispatch.after_loss(bundle.items, LIMITS.max_attempts))

    @precondition(lambda self: any(runner.held for runner in self.runners))
    @rule(which=st.integers(0, 2), unexecuted=st.booleans())
    def refuse(self, which: int, unexecuted: bool) -> None:
        runner = self.busy(which)
        bundle = runner.held.popleft()
        runner.pace.ended(bundle.rows, self.now)
        if unexecuted:
            self.give_back(dispatch.after_return(bundle.items, LIMITS.max_attempts))
        else:
            self.give_back(dispatch.after_error(bundle.items))

    def busy(self, which: int) -> Runner:
        busy = [runner for runner in self.runners if runner.held]
        return busy[which % len(busy)]

    def give_back(self, retry: dispatch.Retry) -> None:
        self.over += retry.failed
        for items in retry.bundles:
            self.back.append(list(items))
            self.queue.put_back(items)

    @precondition(lambda self: self.queue.count)
    @rule(index=st.integers(0, 1000))
    def withdraw(self, index: int) -> None:
        held = [*self.oracle.items, *itertools.chain(*self.back)]
        item = held[index % len(held)]
        if item in self.oracle.items:
            self.oracle.remove(item)
        self.back = [left for items in self.back if (left := [each for each in items if each is not item])]
        self.queue.withdraw(item)
        self.over.append(item)

    @rule(seconds=st.sampled_from([0.003, 0.003, 0.015, 0.05, AGEING_S]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        due = [item for item in self.oracle.items if item.level > 1 and self.now - item.enqueued >= AGEING_S]
        due.sort(key=lambda item: item.level)
        for item in due:
            self.oracle.remove(item)
        assert self.queue.age(self.now) == len(due)
        for item in due:
            self.oracle.push(item)

    @rule(tenant=st.sampled_from(TENANTS), weight=st.sampled_from([0.25, 1.0, 3.0]))
    def weigh(self, tenant: str, weight: float) -> None:
        self.weights[tenant] = weight
        self.queue.set_weight(tenant, weight)

    @rule(which=st.integers(0, 2), per_row_s=st.sampled_from([0.0005, 0.004, 0.05]))
    def change_speed(self, which: int, per_row_s: float) -> None:
        self.runners[which].per_row_s = per_row_s
        for rows in (1, 2, 4, 8) * 3:
            self.runners[which].pace.engine.observe(rows, per_row_s * rows, self.now)

    @rule()
    def tidy(self) -> None:
        self.queue.tidy(slack=-1000)

    @invariant()
    def nothing_is_lost_or_doubled(self) -> None:
        queued = [*self.oracle.items, *itertools.chain(*self.back)]
        sent = [item for runner in self.runners for bundle in runner.held for item in bundle.items]
        assert Counter(map(id, self.queue)) == Counter(map(id, queued))
        assert Counter(map(id, [*queued, *sent, *self.over])) == Counter(map(id, self.everything))
        assert self.queue.count == len(queued)
        assert self.queue.size_bytes == sum(item.size_bytes for item in queued)

    def teardown(self) -> None:
        """Whatever happened: with runners that answer, all is over after as many rounds as there are requests."""
        for _ in range(2 * len(self.everything) + 1):
            self.send_one()
            for runner in self.runners:
                if runner.held:
                    self.answer(self.runners.index(runner), 1.0)
        assert self.queue.count == 0
        self.nothing_is_lost_or_doubled()


Scheduling.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestScheduling = pytest.mark.timeout(120)(Scheduling.TestCase)


# --- long runs ---

FLOODS = st.dictionaries(
    st.sampled_from("abcd"),
    st.tuples(st.sampled_from([0.5, 1.0, 2.0, 3.0, 7.0]), st.integers(1, 4), st.sampled_from(["g", "gh", "own"])),
    min_size=2,
)


def top_up(queue: Queue, tenant: str, rows: int, groups: str, now: float, serial: int) -> None:
    group = tenant if groups == "own" else groups[serial % len(groups)]
    queue.push(waiting(now, tenant, rows, group=group))


@settings(max_examples=40, deadline=None)
@given(floods=FLOODS)
def test_tenants_that_flood_get_their_weights_within_five_percent(
    floods: dict[str, tuple[float, int, str]],
) -> None:
    queue, serials, served = Queue(), itertools.count(), Counter[str]()
    for tenant, (weight, rows, groups) in floods.items():
        queue.set_weight(tenant, weight)
        for _ in range(24):
            top_up(queue, tenant, rows, groups, 0.0, next(serials))
    total_weight = sum(weight for weight, _, _ in floods.values())
    while sum(served.values()) < 6000:
        decision = cut(queue, ENTRY, 0.0, Pace(LatencyModel()), replace(LIMITS, max_bundle_bytes=1 << 20))
        assert decision.bundle is not None
        for item in decision.bundle.items:
            served[item.tenant] += item.rows
            _, rows, groups = floods[item.tenant]
            top_up(queue, item.tenant, rows, groups, 0.0, next(serials))
        # Start-time fair queueing's bound, with a bundle's rows for what fills a bundle out of turn.
        lags = {
            tenant: (served[tenant] / weight, (rows + MAX_ROWS) / weight)
            for tenant, (weight, rows, _) in floods.items()
        }
        for (one, most), (other, also) in itertools.combinations(lags.values(), 2):
            assert abs(one - other) <= most + also + 1e-9
    for tenant, (weight, _, _) in floods.items():
        share = weight / total_weight
        assert served[tenant] / sum(served.values()) == pytest.approx(share, rel=0.05)


@settings(max_examples=25, deadline=None)
@given(
    level=st.integers(1, 3),
    same_tenant=st.booleans(),
    group=st.sampled_from("gh"),
    weight=st.sampled_from([0.2, 1.0]),
    within=st.sampled_from([0.5, 5.0]),
)
def test_nothing_starves_under_a_flood_of_urgent_requests(
    level: int, same_tenant: bool, group: str, weight: float, within: float
) -> None:
    """A flood of the highest priority with early deadlines, as much as is served: 8 rows every 50 ms."""
    queue, step_s = Queue(levels=3), 0.05
    queue.set_weight("b", weight)
    victim = waiting(0.0, "a" if same_tenant else "b", group=group, level=level)
    queue.push(victim)
    now, served_rows = 0.0, 0
    ageing_s = AGEING_S * (level - 1)
    in_line_s = max(ageing_s, PATIENCE_S - within) if same_tenant else ageing_s + step_s / weight
    while True:
        for _ in range(MAX_ROWS):
            queue.push(waiting(now, "a", deadline=now + within))
        decision = cut(queue, ENTRY, now, Pace(LatencyModel()), LIMITS)
        assert decision.bundle is not None
        served_rows += decision.bundle.rows
        if victim in decision.bundle.items:
            break
        now += step_s
        queue.age(now)
        assert served_rows <= (in_line_s / step_s + 3) * MAX_ROWS
