"""The table of a stateful model's sequences, against a slow one; and what it tells clients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace_common.errors import FailedPrecondition, QuotaExceeded
from headrace_router.core.sequences import OVERHEAD_BYTES, Sequence, SequenceBook, SequenceTable
from headrace_router.core.waiting import Waiting
from headrace_router.domain import SequenceRules, SequenceStep, StateSpec

INITIAL = b"\0\0\0\0"
RULES = SequenceRules((StateSpec("s", "s_out", "INT32", (1, 1), INITIAL),), max_idle_s=10.0)
COST = len(INITIAL) + OVERHEAD_BYTES

Make = Callable[..., Waiting]


@pytest.fixture
def make_step(make_waiting: Make) -> Callable[..., tuple[Waiting, SequenceStep]]:
    """A step, as `arrive` takes it."""

    def make(
        of: int | str = 1, *, start: bool = False, end: bool = False, tenant: str = "t"
    ) -> tuple[Waiting, SequenceStep]:
        step = SequenceStep(of, start, end)
        return make_waiting(tenant=tenant, sequence=step), step

    return make


@pytest.fixture
def book() -> SequenceBook:
    return SequenceBook(most=3, most_bytes=4 * COST, most_bytes_of_all=6 * COST)


@pytest.fixture
def table(book: SequenceBook) -> SequenceTable:
    return SequenceTable("m", RULES, book)


def succeed(table: SequenceTable, item: Waiting, step: SequenceStep, state: bytes, now: float = 0.0) -> Any:
    table.happened(item, step, (state,))
    return table.over(item, step, now)


def test_a_step_gets_what_the_one_before_it_left(table: SequenceTable, make_step: Any) -> None:
    first, second = make_step(start=True), make_step()
    assert table.arrive(*first, 0.0)
    assert table.state_for(*first) == (INITIAL,)
    succeed(table, *first, b"left")
    assert table.arrive(*second, 0.0)
    assert table.state_for(*second) == (b"left",)


def test_a_step_that_did_not_happen_leaves_the_state_as_it_was(table: SequenceTable, make_step: Any) -> None:
    steps = [make_step(start=True), make_step(), make_step()]
    table.arrive(*steps[0], 0.0)
    succeed(table, *steps[0], b"left")
    table.arrive(*steps[1], 0.0)
    assert not table.arrive(*steps[2], 0.0)
    assert table.over(*steps[1], 0.0) == ([], steps[2][0])
    assert table.state_for(*steps[2]) == (b"left",)


def test_what_waits_behind_a_beginning_that_fails_cannot_go(table: SequenceTable, make_step: Any) -> None:
    first, second, again = make_step(start=True), make_step(), make_step(start=True)
    for each in (first, second, again):
        table.arrive(*each, 0.0)
    assert table.over(*first, 0.0) == ([second[0]], again[0])
    assert "its first request failed" in table.stranded(*second).message
    assert table.over(*again, 0.0) == ([], None)
    assert len(table) == 0


def test_to_start_again_begins_anew(table: SequenceTable, make_step: Any) -> None:
    first, again = make_step(start=True), make_step(start=True)
    table.arrive(*first, 0.0)
    succeed(table, *first, b"left")
    table.arrive(*again, 0.0)
    assert table.state_for(*again) == (INITIAL,)


def test_what_follows_a_new_beginning_that_failed_does_not_go_on_from_what_was_before(
    table: SequenceTable, make_step: Any
) -> None:
    first, again, second = make_step(start=True), make_step(start=True), make_step()
    table.arrive(*first, 0.0)
    succeed(table, *first, b"left")
    table.arrive(*again, 0.0)
    table.arrive(*second, 0.0)
    assert table.over(*again, 0.0) == ([second[0]], None)
    with pytest.raises(FailedPrecondition, match="its first request failed"):
        table.arrive(*make_step(), 0.0)


def test_what_follows_a_new_beginning_that_was_withdrawn_does_not_go_on_from_what_was_before(
    table: SequenceTable, book: SequenceBook, make_step: Any
) -> None:
    first, before, again, second = make_step(start=True), make_step(), make_step(start=True), make_step()
    for each in (first, before, again, second):
        table.arrive(*each, 0.0)
    assert table.over(*again, 0.0) == ([], None)
    assert succeed(table, *first, b"left") == ([], before[0])
    assert succeed(table, *before, b"left") == ([second[0]], None)
    assert book.bytes_of == {}
    with pytest.raises(FailedPrecondition, match="its first request failed"):
        table.arrive(*make_step(), 0.0)


@pytest.mark.parametrize("order", list(permutations(range(3))), ids=str)
def test_beginnings_that_were_withdrawn_do_not_pile_up(make_step: Any, order: tuple[int, ...]) -> None:
    sequence = Sequence()
    for _ in range(3):
        items = [make_step(start=True)[0], make_step()[0], make_step(start=True)[0]]
        sequence.waiting.extend(items)
        for index in order:
            sequence.withdraw(items[index])
    assert list(sequence.waiting) == [None]


def test_what_comes_after_the_end_is_told_so_though_another_beginning_waits(
    table: SequenceTable, make_step: Any
) -> None:
    only, late, again = make_step(start=True, end=True), make_step(), make_step(start=True)
    for each in (only, late, again):
        table.arrive(*each, 0.0)
    assert succeed(table, *only, b"left") == ([late[0]], again[0])
    assert "it has ended, by a request with sequence_end" in table.stranded(*late).message


def test_after_its_end_a_sequence_is_not_open(table: SequenceTable, book: SequenceBook, make_step: Any) -> None:
    only, late = make_step(start=True, end=True), make_step()
    table.arrive(*only, 0.0)
    succeed(table, *only, b"left")
    assert book.bytes_of == {}
    with pytest.raises(FailedPrecondition, match="it has ended, by a request with sequence_end"):
        table.arrive(*late, 0.0)


@pytest.mark.parametrize("swept", [True, False], ids=["found by the sweep", "found by its next request"])
def test_an_idle_sequence_is_dropped(table: SequenceTable, make_step: Any, swept: bool) -> None:
    first = make_step(start=True)
    table.arrive(*first, 0.0)
    assert table.expire(100.0) == 0, "it has a step in hand"
    succeed(table, *first, b"left", now=100.0)
    assert table.expire(110.0) == 0
    if swept:
        assert table.expire(110.1) == 1
    with pytest.raises(
        FailedPrecondition, match=r"sequence '1' of model 'm' .* after 10 s without a request. Begin it"
    ):
        table.arrive(*make_step(), 110.1)


def test_the_sweep_finds_every_idle_one_whichever_was_begun_first(table: SequenceTable, make_step: Any) -> None:
    for number, tenant in ((1, "a"), (2, "b"), (3, "c")):
        step = make_step(number, start=True, tenant=tenant)
        table.arrive(*step, 0.0)
        succeed(table, *step, b"left")
    again = make_step(1, tenant="a")
    table.arrive(*again, 9.0)
    succeed(table, *again, b"left", now=9.0)
    assert table.expire(11.0) == 2
    assert table.arrive(*make_step(1, tenant="a"), 11.0)


def test_a_number_and_its_digits_are_two_sequences_and_so_are_those_of_two_tenants(
    table: SequenceTable, make_step: Any
) -> None:
    table.arrive(*make_step(1, start=True), 0.0)
    for stranger in (make_step("1"), make_step(1, tenant="other")):
        with pytest.raises(FailedPrecondition, match="no request with sequence_start has begun it at this router"):
            table.arrive(*stranger, 0.0)


@pytest.fixture
def other(book: SequenceBook) -> SequenceTable:
    return SequenceTable("other", RULES, book)


def test_a_tenants_sequences_of_a_model_are_bounded_and_anothers_are_not_touched_by_it(
    table: SequenceTable, other: SequenceTable, make_step: Any
) -> None:
    for number in (1, 2, 3):
        table.arrive(*make_step(number, start=True), 0.0)
    with pytest.raises(
        QuotaExceeded, match=r"max_sequences: tenant 't' has 3 open sequences of model 'm'; "
    ) as refused:
        table.arrive(*make_step(4, start=True), 0.0)
    assert (refused.value.subject, refused.value.dimension) == ("tenant:t", "sequences")
    table.arrive(*make_step(4, start=True, tenant="another"), 0.0)
    other.arrive(*make_step(4, start=True), 0.0)
    table.retire("it was replaced")


def test_a_tenants_state_is_bounded_over_all_models_and_anothers_is_not_touched_by_it(
    table: SequenceTable, other: SequenceTable, book: SequenceBook, make_step: Any
) -> None:
    for number in (1, 2):
        table.arrive(*make_step(number, start=True), 0.0)
        other.arrive(*make_step(number, start=True), 0.0)
    with pytest.raises(QuotaExceeded, match=r"max_sequence_bytes: .* may take 4112 bytes, and one more") as refused:
        table.arrive(*make_step(3, start=True), 0.0)
    assert (refused.value.subject, refused.value.dimension) == ("tenant:t", "sequence_bytes")
    table.arrive(*make_step(3, start=True, tenant="another"), 0.0)
    assert book.bytes_of == {"t": 4 * COST, "another": COST}


def test_the_state_of_all_tenants_is_bounded(table: SequenceTable, book: SequenceBook, make_step: Any) -> None:
    begun = [make_step(start=True, tenant=tenant) for tenant in "abcdef"]
    for each in begun:
        table.arrive(*each, 0.0)
    late = make_step(start=True, tenant="g")
    with pytest.raises(QuotaExceeded, match=r"max_all_sequence_bytes: the state of all open sequences may take 6168"):
        table.arrive(*late, 0.0)
    table.over(*begun[0], 0.0)
    assert "a" not in book.bytes_of
    table.arrive(*late, 0.0)


def test_a_revision_that_retires_ends_its_sequences_once_their_steps_are_answered(
    table: SequenceTable, book: SequenceBook, make_step: Any
) -> None:
    idle, busy, behind = make_step(1, start=True), make_step(2, start=True), make_step(2)
    table.arrive(*idle, 0.0)
    succeed(table, *idle, b"left")
    table.arrive(*busy, 0.0)
    table.arrive(*behind, 0.0)
    table.retire("it was replaced")
    assert len(table) == 1
    assert succeed(table, *busy, b"left") == ([behind[0]], None)
    assert book.bytes_of == {}
    # The table of the revision that came after it knows why.
    for number in (1, 2):
        with pytest.raises(FailedPrecondition, match="is not open: it was replaced"):
            SequenceTable("m", RULES, book).arrive(*make_step(number), 0.0)


# --- against a slow table: lists, and nothing kept that can be worked out ---


@dataclass
class SlowTable:
    """Each sequence is its history: the state of every step that happened, None for its end and for each beginning.

    A step that is withdrawn while it waits stays in its queue, with None for the item.
    """

    history: dict[int, list[bytes | None]] = field(default_factory=dict)
    queues: dict[int, list[tuple[Waiting | None, SequenceStep]]] = field(default_factory=dict)
    used_at: dict[int, float] = field(default_factory=dict)

    def state(self, of: int) -> bytes | None:
        return self.history.get(of, [None])[-1]

    def is_open(self, of: int, now: float) -> bool:
        if self.queues.get(of):
            return True
        return self.state(of) is not None and now - self.used_at[of] <= RULES.max_idle_s

    def runnable(self, of: int) -> Iterator[Waiting]:
        """Takes out what cannot go, up to what can."""
        while queue := self.queues.get(of):
            item, step = queue[0]
            if step.start:
                self.history.setdefault(of, []).append(None)
            if item is not None and (step.start or self.state(of) is not None):
                return
            queue.pop(0)
            if item is not None:
                yield item


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["start", "step", "end", "start and end", "succeed", "fail", "withdraw", "expire"]),
        st.integers(1, 2),
        st.floats(0.0, 8.0),
    ),
    max_size=60,
)


@settings(deadline=None, max_examples=500)
@given(actions=ACTIONS)
def test_the_table_does_as_the_slow_one(make_waiting: Make, actions: list[tuple[str, int, float]]) -> None:
    book = SequenceBook(most=100, most_bytes=1 << 20, most_bytes_of_all=1 << 20)
    table, slow = SequenceTable("m", RULES, book), SlowTable()
    now, count = 0.0, 0
    for action, of, passes in actions:
        now += passes
        queue = slow.queues.setdefault(of, [])
        if action in ("succeed", "fail", "withdraw"):
            behind = [index for index, (item, _) in enumerate(queue) if index and item is not None]
            if not queue or (action == "withdraw" and not behind):
                continue
            if action == "withdraw":
                at = behind[int(passes) % len(behind)]
                item, step = queue[at]
                queue[at] = None, step
            else:
                item, step = queue.pop(0)
            assert item is not None
            assert table.is_behind(item, step) == (action == "withdraw")
            if action == "succeed":
                count += 1
                left = count.to_bytes(4, "little")
                table.happened(item, step, (left,))
                slow.history.setdefault(of, []).append(None if step.end else left)
            slow.used_at[of] = now if action != "withdraw" else slow.used_at.get(of, 0.0)
            stranded, following = table.over(item, step, now)
            if action == "withdraw":
                assert (stranded, following) == ([], None)
            else:
                assert stranded == list(slow.runnable(of))
                assert following is (queue[0][0] if queue else None)
        elif action == "expire":
            table.expire(now)
        else:
            step = SequenceStep(of, "start" in action, "end" in action)
            item = make_waiting(sequence=step)
            if not slow.is_open(of, now) and not queue:
                slow.history.pop(of, None)
            if not slow.is_open(of, now) and not step.start:
                with pytest.raises(FailedPrecondition):
                    table.arrive(item, step, now)
                continue
            queue.append((item, step))
            if step.start and len(queue) == 1:
                slow.history.setdefault(of, []).append(None)
            assert table.arrive(item, step, now) == (len(queue) == 1)
        for number, waiting in slow.queues.items():
            if waiting:
                item, step = waiting[0]
                assert item is not None
                expected = INITIAL if step.start else slow.state(number)
                assert table.state_for(item, step) == (expected,)
    table.expire(now)
    still_open = sum(slow.is_open(of, now) for of in slow.queues)
    assert len(table) == still_open
    assert book.bytes_of == ({"t": still_open * COST} if still_open else {})
    assert table.size_bytes == still_open * COST
