"""What is going to be late is refused at once, and nothing else: queue, cut and prediction in virtual time."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random

import pytest

from headrace_router.core.accounts import Totals
from headrace_router.core.band import Watch
from headrace_router.core.batching import BatchLimits, Bundle, cut
from headrace_router.core.comebacks import Comebacks
from headrace_router.core.latency import LatencyModel
from headrace_router.core.pace import Pace, Soonest
from headrace_router.core.queue import Queue
from headrace_router.core.shedding import STALE_S, Drain
from headrace_router.core.waiting import Waiting
from headrace_router.domain import RevisionEntry
from headrace_router.oip.caller import deadline

Make = Callable[..., Waiting]
BATCH = 8
ENGINE_S = 0.005
CAPACITY = BATCH / ENGINE_S
DEADLINE_S = 0.05
OUTSIDE_S = 0.002
"""What a caller waits besides: its way to the router and back."""
SLOTS = 2
LIMITS = BatchLimits(max_bundle_bytes=1 << 20, max_attempts=3)


@dataclass(frozen=True)
class Engine:
    base_s: float = ENGINE_S
    per_row_s: float = 0.0
    max_rows: int = BATCH
    runners: int = 1

    @property
    def capacity(self) -> float:
        """Rows per second in full batches."""
        return self.runners * self.max_rows / (self.base_s + self.per_row_s * self.max_rows)


@dataclass(eq=False)
class Serial:
    """A runner: executes one after the other what it holds."""

    pace: Pace
    held: list[Bundle] = field(default_factory=list)
    accepting: bool = True
    solo: bool = False
    watch: Watch = field(default_factory=Watch)


@dataclass
class World:
    """One lane: its queue, and runners with a serial engine each that holds two bundles.

    Attributes:
        engine: a test may change it on the way.
        took_s: of those that were answered in time.
        late: admitted, and answered late or given up.
    """

    entry: RevisionEntry
    engine: Engine = Engine()
    shedding: bool = True
    queue: Queue = field(default_factory=Queue)
    drain: Drain = field(default_factory=Drain)
    took_s: list[float] = field(default_factory=list)
    shed: int = 0
    late: int = 0

    def __post_init__(self) -> None:
        self.entry = replace(self.entry, max_batch_size=self.engine.max_rows)
        self.ends: list[tuple[float, int]] = []
        self.begin()

    def begin(self) -> None:
        """New runners, of which nothing is known."""
        prior = LatencyModel()
        self.runners = [Serial(Pace(prior)) for _ in range(self.engine.runners)]
        self.soonest = Soonest(self.runners) if len(self.runners) > 1 else None

    @property
    def outstanding(self) -> int:
        return sum(len(runner.held) for runner in self.runners)

    def run(self, arrivals: list[Waiting]) -> None:
        for item in arrivals:
            self.until(item.arrived)
            self.arrive(item, item.arrived)
        self.until(float("inf"))

    def until(self, when: float) -> None:
        while self.ends and self.ends[0][0] <= when:
            now, runner = heapq.heappop(self.ends)
            self.finish(runner, now)

    def arrive(self, item: Waiting, now: float) -> float:
        """By how much it would have been late; 0: it was let in."""
        late_s = 0.0
        if self.shedding and self.queue.count:
            late_s = self.drain.late_by(
                self.queue, item.level, item.tenant, item.rows, item.deadline, self.outstanding,
                self.engine.max_rows, now,
            )  # fmt: skip
        if late_s:
            self.shed += 1
        else:
            self.queue.push(item)
            self.flush(now)
        return late_s

    def flush(self, now: float) -> None:
        passed: list[Serial] = []
        while self.queue.count:
            free = [runner for runner in self.runners if len(runner.held) < SLOTS and runner not in passed]
            if not free:
                return
            runner = min(free, key=lambda each: len(each.held))
            decision = cut(self.queue, self.entry, now, runner.pace, LIMITS, soonest=self.soonest)
            self.late += len(decision.expired)
            if decision.expired and self.queue.count:
                self.drain.heed(late=True, outstanding=self.outstanding + 1)
            if decision.bundle is not None:
                runner.held.append(decision.bundle)
                runner.pace.sent(decision.bundle.rows, now)
                if len(runner.held) == 1:
                    self.execute(runner, now)
            elif decision.left:
                passed.append(runner)
            else:
                return

    def execute(self, runner: Serial, now: float) -> None:
        took_s = self.engine.base_s + self.engine.per_row_s * runner.held[0].rows
        heapq.heappush(self.ends, (now + took_s, self.runners.index(runner)))

    def finish(self, which: int, now: float) -> None:
        runner = self.runners[which]
        bundle = runner.held.pop(0)
        if runner.held:
            self.execute(runner, now)
        runner.pace.answered(bundle.rows, self.engine.base_s + self.engine.per_row_s * bundle.rows, now)
        self.drain.done(bundle.rows, len(bundle.items), now, waiting=self.queue.count > 0)
        self.drain.heed(late=now > bundle.deadline, outstanding=self.outstanding + 1)
        for item in bundle.items:
            if now > item.deadline:
                self.late += 1
            else:
                self.took_s.append(now - item.arrived)
        self.flush(now)


@pytest.fixture
def poisson(make_waiting: Make) -> Callable[..., list[Waiting]]:
    """Requests at random moments, as many per second as asked for."""

    def make(rate: float, for_s: float, start_s: float = 0.0, deadline_s: float = DEADLINE_S) -> list[Waiting]:
        random, now, items = Random(7), start_s, []
        first = make_waiting()
        while now < start_s + for_s:
            # Of one caller, as an account for each would take most of a test's time.
            item = Waiting(first.request, first.answer, first.account, first.group, first.level, now)
            until = deadline(now, deadline_s, None)
            assert until is not None
            item.deadline = until
            items.append(item)
            now += random.expovariate(rate)
        return items

    return make


@pytest.mark.parametrize(
    ("engine", "of_capacity"),
    [
        pytest.param(Engine(), 1.0, id="one runner"),
        pytest.param(Engine(runners=3), 1.0, id="three"),
        pytest.param(Engine(0.010, 0.0002, 32), 0.8, id="big batches"),
        pytest.param(Engine(0.005, 0.0005, 32, runners=2), 0.85, id="two runners, big batches"),
        pytest.param(Engine(0.005, 0.001, 16), 0.8, id="a batch takes half of the deadline"),
        pytest.param(Engine(0.005, 0.001, 32), 0.7, id="a full batch after another is too late"),
    ],
)
@pytest.mark.parametrize("overload", [1.2, 2.0, 5.0, 10.0])
def test_goodput_stays_at_its_peak_whatever_the_overload(
    entry: RevisionEntry, poisson: Callable[..., list[Waiting]], engine: Engine, of_capacity: float, overload: float
) -> None:
    """`of_capacity`: what the deadline leaves of full batches, one of which waits while another is executed."""
    world = World(entry, engine)
    for_s = 4000 / engine.capacity
    world.run(poisson(overload * engine.capacity, for_s))
    in_time = [took_s for took_s in world.took_s if took_s + OUTSIDE_S <= DEADLINE_S]
    assert len(in_time) >= 0.9 * of_capacity * engine.capacity * for_s
    assert len(in_time) >= 0.99 * len(world.took_s), "the caller gets in time what is ready in time"
    assert world.shed > 0


@pytest.mark.parametrize("runners", [1, 3])
@pytest.mark.parametrize("overload", [1.2, 2.0, 5.0, 10.0])
def test_next_to_nobody_is_let_in_and_then_late(
    entry: RevisionEntry, poisson: Callable[..., list[Waiting]], overload: float, runners: int
) -> None:
    world = World(entry, Engine(runners=runners))
    world.run(poisson(overload * runners * CAPACITY, 3.0 / runners))
    # It takes a few results to learn; until then everybody is let in.
    learning = 8 * BATCH * overload
    assert world.late <= learning + 0.02 * len(world.took_s)


def test_without_shedding_half_of_all_would_wait_to_die(
    entry: RevisionEntry, poisson: Callable[..., list[Waiting]]
) -> None:
    world = World(entry, shedding=False)
    world.run(poisson(2.0 * CAPACITY, 2.0))
    assert world.late >= 0.9 * 2.0 * CAPACITY


def test_below_capacity_next_to_nobody_is_shed(entry: RevisionEntry, poisson: Callable[..., list[Waiting]]) -> None:
    world = World(entry)
    world.run(poisson(0.8 * CAPACITY, 5.0))
    assert world.shed + world.late <= 0.001 * len(world.took_s)


def test_an_engine_that_was_slow_is_believed_to_be_quick_again(
    entry: RevisionEntry, poisson: Callable[..., list[Waiting]]
) -> None:
    world = World(entry, Engine(0.2))
    world.run(poisson(CAPACITY / 2, 3.0))
    assert not world.took_s, "no bundle can be in time"
    world.engine = Engine()
    world.begin()
    start_s = 3.0 + 2 * STALE_S
    world.run(poisson(CAPACITY / 2, 1.0, start_s))
    world.shed = world.late = 0
    world.run(poisson(CAPACITY / 2, 2.0, start_s + 1.0))
    assert world.shed + world.late <= 0.01 * CAPACITY


@dataclass
class User:
    totals: Totals = field(default_factory=Totals)


@pytest.mark.parametrize("load", [0.3, 0.5, 0.7])
def test_who_comes_back_when_told_is_let_in(
    entry: RevisionEntry, poisson: Callable[..., list[Waiting]], load: float
) -> None:
    """Each second comes a burst of a quarter of a second's work; whoever is refused returns once."""
    world, comebacks, user = World(entry), Comebacks(), User()
    items = poisson(load * CAPACITY, 20.0)
    for second in range(1, 20):
        items += poisson(1e6, 0.25 * CAPACITY / 1e6, float(second))
    events = [(item.arrived, number, item, False) for number, item in enumerate(items)]
    heapq.heapify(events)
    kept = broken = 0
    while events:
        now, number, item, returning = heapq.heappop(events)
        world.until(now)
        user.totals.arrivals += 1
        item.arrived, item.deadline = now, now + DEADLINE_S
        late_s = world.arrive(item, now)
        if returning:
            kept, broken = kept + (late_s == 0.0), broken + (late_s > 0.0)
        elif late_s:
            back = now + comebacks.promise(now, late_s, world.drain.pace(BATCH, now), [user])
            heapq.heappush(events, (back, number, item, True))
    assert kept + broken > 100
    assert kept >= 0.9 * (kept + broken)


def test_whoever_was_late_for_long_is_forgotten_after_a_hundred_in_time(make_waiting: Make) -> None:
    """However hopeless deadlines were, the margin is at most what it may add."""
    queue = queue_of(make_waiting, 8, deadline=1.0)

    def refused(drain: Drain) -> list[bool]:
        return [drain.late_by(queue, 1, "t", 1, step * 0.002, 2, BATCH, 0.0) > 0 for step in range(40)]

    drain, fresh = busy_drain(), busy_drain()
    for _ in range(10_000):
        drain.heed(late=True, outstanding=2)
    assert sum(refused(fresh)) < sum(refused(drain)) <= sum(refused(fresh)) + 3
    for _ in range(100):
        drain.heed(late=False, outstanding=2)
    assert refused(drain) == refused(fresh)


def busy_drain(gap_s: float = 0.01, rows: int = 8, requests: int = 8, now: float = 0.0) -> Drain:
    drain = Drain()
    for number in range(8):
        drain.done(rows, requests, now + gap_s * (number - 7), waiting=True)
    return drain


def queue_of(make_waiting: Make, count: int, **changes: object) -> Queue:
    queue = Queue(levels=2)
    for _ in range(count):
        queue.push(make_waiting(**changes))
    return queue


@pytest.mark.parametrize(
    ("waiting", "who", "late"),
    [
        pytest.param({"count": 40, "deadline": 1.0}, {"deadline": 0.05}, False, id="it overtakes later deadlines"),
        pytest.param({"count": 40, "deadline": 0.04}, {"deadline": 0.05}, True, id="it does not overtake earlier ones"),
        pytest.param({"count": 40, "level": 2}, {"deadline": 0.05}, False, id="it is more urgent"),
        pytest.param({"count": 40, "deadline": 1.0}, {"deadline": 0.05, "level": 2}, True, id="it is less urgent"),
        pytest.param({"count": 40, "tenant": "u"}, {"deadline": 0.05}, False, id="it has its own share"),
        pytest.param({"count": 4, "deadline": 0.04}, {"deadline": 0.05}, False, id="a short queue"),
        pytest.param({"count": 400, "deadline": 0.04}, {"deadline": float("inf")}, False, id="it has no deadline"),
    ],
)
def test_only_what_goes_before_it_makes_a_request_late(
    make_waiting: Make, waiting: dict[str, object], who: dict[str, object], late: bool
) -> None:
    queue = queue_of(make_waiting, **waiting)  # type: ignore[arg-type]
    item = make_waiting(**who)
    drain = busy_drain()
    assert (drain.late_by(queue, item.level, item.tenant, 1, item.deadline, 2, BATCH, 0.0) > 0) == late


@pytest.mark.parametrize(
    ("drain", "now"),
    [
        pytest.param(Drain(), 0.0, id="nothing was measured"),
        pytest.param(busy_drain(), 2 * STALE_S, id="what was measured is old"),
    ],
)
def test_who_knows_nothing_admits(make_waiting: Make, drain: Drain, now: float) -> None:
    queue = queue_of(make_waiting, 1000, deadline=now + 0.001)
    assert drain.late_by(queue, 1, "t", 1, now + 0.001, 2, BATCH, now) == 0.0
    assert drain.pace(BATCH, now) is None


def test_times_of_an_idle_lane_are_not_measured() -> None:
    drain = Drain()
    for number in range(20):
        drain.done(1, 1, float(number), waiting=False)
    assert drain.pace(1, 20.0) is None


def test_the_pace_is_in_requests_and_of_full_bundles() -> None:
    drain = busy_drain(gap_s=0.01, rows=8, requests=4)
    for number in range(40):
        drain.done(8, 4, 0.01 * (number + 1), waiting=True)
    assert drain.pace(8, 0.4) == pytest.approx(400.0, rel=0.05)


def test_a_slow_engine_is_not_forgotten_between_two_results(make_waiting: Make) -> None:
    drain = busy_drain(gap_s=3.0)
    queue = queue_of(make_waiting, 8, deadline=9.0)
    assert drain.late_by(queue, 1, "t", 1, 6.0, 2, BATCH, 2.9) > 0.0
