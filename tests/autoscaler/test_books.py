"""The books across kills, lost answers and clocks that are set: nothing twice, and no more lost than is said."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_autoscaler.core.pricing import LocalPrices
from headrace_autoscaler.core.rates import FREE
from headrace_autoscaler.domain import Resources, Tenant
from headrace_autoscaler.fleet.books import Books, Opening
from headrace_autoscaler.fleet.runners import Assignment, Runner, RunnerState
from headrace_autoscaler.providers.machine import process_started_at
from headrace_common.clock import FakeClock
from tests.autoscaler.bookkeeping import OpenWorld, Vault, World, serving


async def test_a_successor_books_on_from_where_the_books_end(open_world: OpenWorld) -> None:
    """A kill: ten seconds that were posted, five that were not, twenty without an autoscaler."""
    world = await serving(open_world, Tenant("acme"))
    await world.fleet.close()
    vault, start = Vault(), world.clock.wall()
    first = await world.successor(usage=vault, opening=Opening(int(start * 1e6)))
    world.clock.advance(10)
    await first.until(lambda: vault.seconds("m") == pytest.approx(10))
    world.clock.advance(5)
    vault.refusals = 1 << 30
    await first.fleet.close()
    vault.refusals = 0
    world.clock.advance(20)
    opening = Opening(vault.booked_until_us)
    second = await first.successor(usage=vault, opening=opening)
    await second.until(lambda: vault.seconds("m") == pytest.approx(35, abs=0.001))
    await second.fleet.close()
    assert vault.seconds("m") == pytest.approx(35, abs=0.001)


async def kept(open_world: OpenWorld, vault: Vault) -> World:
    """`m` is served, ten seconds of it are in the books, and its autoscaler has been killed five seconds later."""
    world = await serving(open_world, Tenant("acme"))
    await world.fleet.close()
    first = await world.successor(usage=vault, opening=Opening(int(world.clock.wall() * 1e6)))
    world.clock.advance(10)
    await first.until(lambda: vault.seconds("m") == pytest.approx(10))
    world.clock.advance(5)
    await killed(first, vault)
    return first


async def killed(world: World, vault: Vault) -> None:
    """Nothing of what it holds is written."""
    vault.refusals = 1 << 30
    await world.fleet.close()
    vault.refusals = 0


async def test_an_instance_that_ends_while_there_is_no_autoscaler_is_booked_to_its_end(open_world: OpenWorld) -> None:
    vault = Vault()
    world = await kept(open_world, vault)
    [instance] = world.instances("m")
    world.clock.advance(20)
    await world.machine.runners[instance].die("killed by SIGKILL")
    world.clock.advance(30)
    second = await world.successor(usage=vault, opening=Opening(vault.booked_until_us))
    await second.until(lambda: vault.seconds("m") == pytest.approx(35, abs=0.001))
    await second.until(lambda: not world.machine.departed)
    await second.fleet.close()
    third = await second.successor(usage=vault, opening=Opening(vault.booked_until_us))
    world.clock.advance(5)
    await third.until(lambda: sum(each.instance_seconds for each in vault.usage.values()) > vault.seconds("m"))
    await third.fleet.close()
    assert vault.seconds("m") == pytest.approx(35, abs=0.001), "once, whoever comes"


async def test_a_kill_before_its_end_is_written_books_it_once(open_world: OpenWorld) -> None:
    vault = Vault()
    world = await kept(open_world, vault)
    [instance] = world.instances("m")
    world.clock.advance(20)
    await world.machine.runners[instance].die("killed by SIGKILL")
    opening = Opening(vault.booked_until_us)
    second = await world.successor(usage=vault, opening=opening)
    await killed(second, vault)
    assert vault.seconds("m") == pytest.approx(10), "it had no time to write"
    third = await second.successor(usage=vault, opening=opening)
    await third.until(lambda: vault.seconds("m") == pytest.approx(35, abs=0.001))
    await third.fleet.close()


async def test_two_kills_in_a_row_lose_nothing_of_a_runner_that_does_not_answer(open_world: OpenWorld) -> None:
    """Twenty seconds without an autoscaler; then one that posts other things for a while, but never hears this runner;
    then one that does. What the runner holds is known from its sign of life."""
    vault = Vault()
    world = await kept(open_world, vault)
    [instance] = world.instances("m")
    runner = world.machine.runners[instance]
    runner.answers.clear()
    world.clock.advance(20)
    second = await world.successor(usage=vault, opening=Opening(vault.booked_until_us))
    world.clock.advance(7)
    await second.until(lambda: vault.booked_until_us == round(world.clock.wall() * 1e6))
    await killed(second, vault)
    runner.answers.set()
    third = await second.successor(usage=vault, opening=Opening(vault.booked_until_us))
    await third.until(lambda: third.instances("m"))
    await third.fleet.close()
    assert vault.seconds("m") == pytest.approx(10 + 5 + 20 + 7, abs=0.001)


@pytest.mark.parametrize("lost", [True, False], ids=["written, and the answer lost", "not written"])
async def test_a_posting_of_unknown_outcome_is_booked_once(open_world: OpenWorld, lost: bool) -> None:
    world = await serving(open_world, Tenant("acme"))
    await world.fleet.close()
    vault = Vault()
    other = await world.successor(usage=vault, opening=Opening(int(world.clock.wall() * 1e6)))
    vault.lost_answers, vault.refusals = (2, 0) if lost else (0, 2)
    world.clock.advance(10)
    await other.until(lambda: vault.seconds("m") == pytest.approx(10))
    world.clock.advance(3)
    await other.until(lambda: vault.seconds("m") == pytest.approx(13))
    await other.fleet.close()
    assert vault.seconds("m") == pytest.approx(13)


@pytest.mark.parametrize(
    ("booked_until", "started_at", "expected"),
    [
        pytest.param(None, None, 0.0, id="nothing is known"),
        pytest.param(None, -30.0, -30.0, id="no books: from its own start"),
        pytest.param(-10.0, -30.0, -10.0, id="it was in the books"),
        pytest.param(-10.0, -4.0, -4.0, id="it started after they end"),
        pytest.param(-10.0, None, -10.0, id="its start is not known"),
        pytest.param(-10.0, 5.0, 0.0, id="its start is ahead of the clock"),
        pytest.param(20.0, -30.0, 0.0, id="the clock was set back meanwhile: from now"),
    ],
)
def test_what_is_adopted_is_booked_from_where_the_books_end(
    fake_books: Callable[[float | None], tuple[Books, float]],
    booked_until: float | None,
    started_at: float | None,
    expected: float,
) -> None:
    books, now = fake_books(booked_until)
    own = None if started_at is None else now + started_at
    assert books.adopted_from_us(own) == books.mark_us() + round(expected * 1e6)


@pytest.fixture
def fake_books() -> Callable[[float | None], tuple[Books, float]]:
    def make(booked_until: float | None) -> tuple[Books, float]:
        clock = FakeClock()
        until = None if booked_until is None else round((clock.wall() + booked_until) * 1e6)
        return open_books(clock, Vault(), until), clock.wall()

    return make


def open_books(clock: FakeClock, vault: Vault, booked_until_us: int | None = None, epoch: int = 1) -> Books:
    prices = LocalPrices.parse("0.0425", "USD")
    return Books(prices, FREE, vault, clock, epoch, Opening(booked_until_us), lambda: None)


def runner_of(books: Books, from_us: int | None = None, **fields: Any) -> Runner:
    held = Assignment("m", 1, "1", "acme", Resources())
    since = books.mark_us() if from_us is None else from_us
    return Runner("runner-a", "", 1, 0.0, 0.0, since, RunnerState.READY, assignment=held, **fields)


def seconds_by_hour(vault: Vault, start: float) -> dict[int, float]:
    """Hours since the one that `start` is in -> instance seconds."""
    return {(key.hour - int(start)) // 3600: usage.instance_seconds for key, usage in vault.usage.items()}


TICK_S = 1.0
HOUR = 1_750_000_000 // 3600 * 3600.0


@pytest.mark.parametrize(
    ("to", "expected"),
    [
        pytest.param(HOUR + 7230.0, {0: 10.0, 2: 15.0}, id="two hours ahead"),
        pytest.param(HOUR - 1800.0, {0: 10.0, -1: 15.0}, id="back into the hour before"),
        pytest.param(HOUR + 15.0, {0: 25.0}, id="back inside the hour: it holds both"),
        pytest.param(HOUR + 3605.0, {0: 15.0, 1: 10.0}, id="just over the hour's end"),
    ],
)
async def test_a_clock_that_is_set_moves_what_follows_to_its_hour(to: float, expected: dict[int, float]) -> None:
    """Ten seconds, ten more that are booked after the clock was set and end there, and five."""
    clock, vault = FakeClock(wall=HOUR + 20.0), Vault()
    books = open_books(clock, vault)
    runner = runner_of(books)
    clock.advance(10)
    await books.flush([runner], [])
    clock.advance(10)
    clock.set_wall(to)
    books.settle(runner)
    clock.advance(5)
    await books.flush([runner], [])
    assert seconds_by_hour(vault, HOUR) == pytest.approx(expected)
    assert vault.booked_until_us == round((to + 5) * 1e6)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2_000_000),
            st.sampled_from(["settle", "flush", "flush fails", "set the clock", "killed"]),
            st.integers(-7200, 7200),
        ),
        max_size=40,
    )
)
def test_whatever_becomes_of_the_clock_time_is_booked_once(steps: list[tuple[int, str, int]]) -> None:
    """Against a stopwatch. A kill loses nothing here: the next one books what ran meanwhile."""
    vault = Vault()
    asyncio.run(play(steps, vault))
    assert all(usage.instance_seconds >= 0 for usage in vault.usage.values())
    # The clocks are floats: a microsecond is rounded at each end.
    lived_us = sum(passed_us + (event == "set the clock") * TICK_S * 1e6 for passed_us, event, _ in steps)
    assert vault.seconds("m") == pytest.approx(lived_us / 1e6, abs=1e-5 * (len(steps) + 1))


async def play(steps: list[tuple[int, str, int]], vault: Vault) -> None:
    clock, epoch = FakeClock(monotonic=0.0, wall=HOUR), 1
    vault.booked_until_us = round(HOUR * 1e6)
    books = open_books(clock, vault, vault.booked_until_us)
    runner = runner_of(books)
    for passed_us, event, step_s in steps:
        clock.advance(passed_us / 1e6)
        vault.refusals = int(event == "flush fails")
        if event == "settle":
            books.settle(runner)
        elif event == "killed":
            epoch += 1
            books = open_books(clock, vault, vault.booked_until_us, epoch)
            runner = runner_of(books, books.adopted_from_us(None))
        else:
            await books.flush([runner], [])
        if event == "set the clock":
            clock.set_wall(clock.wall() + step_s)
            clock.advance(TICK_S)
            # Set while nobody is there to see it, it could not be told from time that passes.
            await books.flush([runner], [])
    vault.refusals = 0
    for _ in range(2):
        await books.flush([runner], [])


async def test_what_is_settled_while_the_database_is_slow_is_in_the_next_posting() -> None:
    """A budget's review settles at any time. Had a posting taken that up and said an earlier moment for its end,
    whoever comes after a kill would book it again."""
    clock, vault = FakeClock(), Vault()
    books = open_books(clock, vault)
    runner = runner_of(books)
    vault.refusals = 1
    clock.advance(10)
    await books.flush([runner], [])

    def meanwhile() -> None:
        clock.advance(5)
        books.settle(runner)
        clock.advance(1)

    vault.meanwhile = meanwhile
    await books.flush([runner], [])
    successor = open_books(clock, vault, vault.booked_until_us, epoch=2)
    adopted = runner_of(successor, successor.adopted_from_us(None))
    await successor.flush([adopted], [])
    assert vault.seconds("m") == pytest.approx(10 + 2 * 6)


def test_a_process_tells_when_it_began() -> None:
    before = time.time()
    with subprocess.Popen(["sleep", "60"]) as child:
        started = process_started_at(child.pid)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert process_started_at(child.pid) is None, "its parent has not taken note yet"
    assert started is not None
    # The kernel keeps hundredths.
    assert before - 0.02 <= started <= time.time() + 0.02
    assert process_started_at(child.pid) is None
