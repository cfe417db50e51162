"""The central queue against a slow oracle, and its rules one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace_router.core.backlog import PATIENCE_S
from headrace_router.core.queue import AGEING_S, Queue, Verdict
from headrace_router.core.waiting import Stage, Waiting
from tests.router.oracle import Oracle, by_deadline

Make = Callable[..., Waiting]


def take_some(queue: Queue, group: Hashable, most: int) -> list[Waiting]:
    taken = 0

    def judge(_item: Waiting) -> Verdict:
        nonlocal taken
        taken += 1
        return Verdict.TAKE if taken <= most else Verdict.STOP

    return queue.take(group, judge)


def drain(queue: Queue) -> list[Waiting]:
    order = []
    while (head := queue.head()) is not None:
        order += take_some(queue, head.group, 1)
    return order


def test_a_request_is_given_once_and_in_order_of_arrival_without_deadlines(make_waiting: Make) -> None:
    queue = Queue()
    items = [make_waiting() for _ in range(5)]
    for item in items:
        queue.push(item)
    assert (queue.count, queue.size_bytes) == (5, 40)
    assert drain(queue) == items
    assert (queue.count, queue.size_bytes) == (0, 0)
    assert queue.head() is None


def test_the_earliest_deadline_goes_first_inside_a_tenant(make_waiting: Make) -> None:
    queue = Queue()
    late, none, soon = make_waiting(deadline=9.0), make_waiting(), make_waiting(deadline=1.0)
    for item in (late, none, soon):
        queue.push(item)
    assert drain(queue) == [soon, late, none]


def test_no_deadline_is_a_patience_and_not_for_ever(make_waiting: Make) -> None:
    queue = Queue()
    patient = make_waiting(now=0.0)
    queue.push(patient)
    newer = [make_waiting(now=PATIENCE_S - 1 + step, deadline=PATIENCE_S + step) for step in (0, 1)]
    for item in newer:
        queue.push(item)
    assert drain(queue)[0] is patient


def test_priorities_are_strict_and_the_default_is_the_models(make_waiting: Make) -> None:
    queue = Queue(levels=3, default_level=2)
    low, default, high = (make_waiting(level=queue.level_of(priority)) for priority in (3, 0, 1))
    for item in (low, default, high):
        queue.push(item)
    assert drain(queue) == [high, default, low]
    assert queue.level_of(7) == 3


def test_a_model_without_priorities_has_one_level(make_waiting: Make) -> None:
    queue = Queue(levels=0)
    assert [queue.level_of(priority) for priority in (0, 1, 5)] == [1, 1, 1]


def test_ageing_brings_low_priority_up(make_waiting: Make) -> None:
    queue = Queue(levels=2)
    low = make_waiting(level=2, now=0.0)
    queue.push(low)
    assert queue.age(AGEING_S - 0.1) == 0
    assert queue.age(AGEING_S) == 1
    queue.push(make_waiting(level=1, now=AGEING_S))
    assert queue.count == 2
    assert drain(queue)[0] is low


def test_only_one_group_is_taken_and_lower_levels_fill_it_up(make_waiting: Make) -> None:
    queue = Queue(levels=2)
    a, b, low_a = make_waiting(group="a"), make_waiting(group="b"), make_waiting(group="a", level=2)
    for item in (low_a, a, b):
        queue.push(item)
    assert take_some(queue, "a", 8) == [a, low_a]
    assert drain(queue) == [b]


@pytest.mark.parametrize(
    ("weights", "rows", "shares"),
    [
        ({"a": 1.0, "b": 1.0}, {"a": 1, "b": 1}, {"a": 40, "b": 40}),
        ({"a": 3.0, "b": 1.0}, {"a": 1, "b": 1}, {"a": 60, "b": 20}),
        ({"a": 1.0, "b": 1.0}, {"a": 4, "b": 1}, {"a": 16, "b": 64}),
        ({"a": 0.001, "b": 1.0}, {"a": 1, "b": 1}, {"a": 1, "b": 79}),
    ],
    ids=["equal weights share equally", "by weight", "rows are what is shared", "a tiny weight needs no rounds"],
)
def test_tenants_share_by_weight(
    make_waiting: Make, weights: dict[str, float], rows: dict[str, int], shares: dict[str, int]
) -> None:
    queue = Queue()
    for tenant, weight in weights.items():
        queue.set_weight(tenant, weight)
    for _ in range(100):
        for tenant in weights:
            queue.push(make_waiting(tenant=tenant, rows=rows[tenant]))
    got = Counter(item.tenant for item in take_some(queue, (), 80))
    assert all(abs(got[tenant] - share) <= 1 for tenant, share in shares.items()), got


def test_silence_earns_nothing(make_waiting: Make) -> None:
    queue = Queue()
    for _ in range(60):
        queue.push(make_waiting(tenant="busy"))
    take_some(queue, (), 50)
    for _ in range(10):
        queue.push(make_waiting(tenant="back"))
    got = Counter(item.tenant for item in take_some(queue, (), 10))
    assert got == {"busy": 5, "back": 5}


def test_what_came_back_goes_first_as_it_was(make_waiting: Make) -> None:
    queue = Queue()
    queue.push(make_waiting())
    lost = [make_waiting(), make_waiting()]
    queue.put_back(lost)
    assert queue.count == 3
    assert queue.returned() == lost
    assert queue.take_returned(lambda _item: Verdict.TAKE) == lost
    assert queue.returned() == []
    assert queue.count == 1


def test_withdrawn_requests_leave_nothing_behind(make_waiting: Make) -> None:
    queue = Queue()
    items = [make_waiting() for _ in range(1000)]
    for item in items:
        queue.push(item)
    queue.put_back(items_back := [make_waiting(), make_waiting()])
    for item in [*items[:999], items_back[0]]:
        queue.withdraw(item)
    assert (queue.count, queue.size_bytes) == (2, 16)
    assert set(queue) == {items[999], items_back[1]}
    assert queue.returned() == [items_back[1]]
    assert drain(queue) == [items[999]]


def test_the_next_group_is_that_of_the_earliest_deadline_still_there(make_waiting: Make) -> None:
    queue = Queue()
    first, later = make_waiting(group="a", deadline=1.0), make_waiting(group="a", deadline=9.0)
    between = make_waiting(group="b", deadline=5.0)
    for item in (first, later, between):
        queue.push(item)
    assert drain(queue) == [first, between, later]


def test_survey_counts_one_group_and_stops_when_there_is_enough(make_waiting: Make) -> None:
    queue = Queue()
    for now, group, rows in ((3.0, "a", 2), (1.0, "a", 1), (0.0, "b", 1)):
        queue.push(make_waiting(now=now, group=group, rows=rows))
    assert queue.survey("a", 10, 1000) == (False, 3, 1.0)
    assert queue.survey("a", 2, 1000)[0]
    assert queue.survey("a", 10, 20)[0]
    assert [item.group for item in queue.heads()] == ["b", "a"]


TENANTS = {"a": 1.0, "b": 2.0, "c": 0.25}
PUSH = st.tuples(
    st.just("push"),
    st.sampled_from(sorted(TENANTS)),
    st.sampled_from(["g", "h"]),
    st.integers(1, 2),
    st.sampled_from([None, 1.0, 2.0, 50.0, 100.0]),
    st.integers(1, 4),
)
STEPS = st.lists(
    st.one_of(
        PUSH,
        PUSH,
        st.tuples(st.just("take"), st.integers(1, 5)),
        st.tuples(st.just("withdraw"), st.integers(0, 1000)),
        st.tuples(st.just("drop"), st.integers(0, 1)),
        st.tuples(st.just("age"), st.sampled_from([1.0, AGEING_S])),
        st.tuples(st.just("tidy"), st.just(0)),
        st.tuples(st.just("give back"), st.integers(1, 3)),
    ),
    max_size=60,
)


class Run:
    """Queue and oracle side by side."""

    def __init__(self, make: Make) -> None:
        self.make = make
        self.now = 0.0
        self.queue = Queue(levels=2)
        for tenant, weight in TENANTS.items():
            self.queue.set_weight(tenant, weight)
        self.oracle = Oracle(TENANTS)
        self.back: list[Waiting] = []
        self.sent: list[Waiting] = []
        self.gone: list[Waiting] = []
        self.all: list[Waiting] = []

    def step(self, kind: str, *arguments: Any) -> None:
        getattr(self, kind.replace(" ", "_"))(*arguments)
        waiting = [*self.oracle.items, *self.back]
        assert sorted(map(id, self.queue)) == sorted(map(id, waiting))
        assert self.queue.count == len(waiting)
        assert self.queue.size_bytes == sum(item.size_bytes for item in waiting)
        assert len(self.all) == len(waiting) + len(self.sent) + len(self.gone)

    def push(self, tenant: str, group: str, level: int, deadline: float | None, rows: int) -> None:
        item = self.make(now=self.now, tenant=tenant, group=group, level=level, deadline=deadline, rows=rows)
        self.all.append(item)
        self.oracle.push(item)
        self.queue.push(item)

    def take(self, most: int, verdict: Verdict = Verdict.TAKE) -> None:
        head = self.queue.head()
        if head is None:
            assert not self.oracle.items
            return
        assert self._is_head(head)
        seen = 0

        def judge(item: Waiting) -> Verdict:
            nonlocal seen
            assert self.oracle.may_be_next(item, head.group)
            seen += 1
            if seen > most:
                return Verdict.STOP
            if verdict is Verdict.TAKE:
                self.oracle.serve(item)
                self.sent.append(item)
            else:
                self.oracle.remove(item)
                self.gone.append(item)
            return verdict

        taken = self.queue.take(head.group, judge)
        assert taken == (self.sent[len(self.sent) - len(taken) :] if verdict is Verdict.TAKE else [])

    def _is_head(self, head: Waiting) -> bool:
        first = min(item.level for item in self.oracle.items)
        rivals = [item for item in self.oracle.items if item.level == first]
        least = min(self.oracle.clocks[first, item.tenant] for item in rivals)
        mates = [item for item in rivals if item.tenant == head.tenant]
        return self.oracle.clocks[first, head.tenant] == least and head is min(mates, key=by_deadline)

    def drop(self, most: int) -> None:
        self.take(most, Verdict.DROP)

    def withdraw(self, index: int) -> None:
        waiting = [*self.oracle.items, *self.back]
        if not waiting:
            return
        item = waiting[index % len(waiting)]
        if item in self.back:
            self.back.remove(item)
        else:
            self.oracle.remove(item)
        self.gone.append(item)
        self.queue.withdraw(item)
        assert item.stage is Stage.DONE

    def age(self, seconds: float) -> None:
        self.now += seconds
        due = [item for item in self.oracle.items if item.level == 2 and self.now - item.enqueued >= AGEING_S]
        for item in due:
            self.oracle.remove(item)
        assert self.queue.age(self.now) == len(due)
        for item in due:
            assert item.level == 1
            self.oracle.push(item)

    def tidy(self, _nothing: int) -> None:
        self.queue.tidy(slack=-1000)

    def give_back(self, most: int) -> None:
        items, self.sent = self.sent[:most], self.sent[most:]
        self.back += items
        self.queue.put_back(items)


@settings(max_examples=300, deadline=None)
@given(steps=STEPS)
def test_nothing_is_lost_doubled_or_out_of_order(make_waiting: Make, steps: list[tuple[Any, ...]]) -> None:
    run = Run(make_waiting)
    for step in steps:
        run.step(*step)
    run.step("take", 1)
    while run.queue.head() is not None:
        run.step("take", 3)
    while run.queue.returned():
        run.sent += run.queue.take_returned(lambda _item: Verdict.TAKE)
    assert sorted(map(id, [*run.sent, *run.gone])) == sorted(map(id, run.all))
