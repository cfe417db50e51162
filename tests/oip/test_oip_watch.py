"""Clients that stall or leave while their request is in hand, found without a timer for each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from headrace_common.errors import Cancelled, DeadlineExceeded
from headrace_router.oip.http import read_watched
from headrace_router.oip.watch import ClientWatch

Event = dict[str, Any]
Receive = Callable[[], Awaitable[Event]]
PART: Event = {"type": "http.request", "body": b"{", "more_body": True}
WHOLE: Event = {"type": "http.request", "body": b"{}", "more_body": False}


def script(*events: Event, then: Receive) -> Receive:
    left = list(events)

    async def receive() -> Event:
        return left.pop(0) if left else await then()

    return receive


async def silence() -> Event:
    await asyncio.Event().wait()
    raise AssertionError


async def broken() -> Event:
    raise OSError("the stream is closed")


async def at_once() -> Event:
    return WHOLE


async def answer(watch: ClientWatch, receive: Receive, work: Receive) -> Any:
    async with asyncio.timeout(5), watch.visit(receive) as visit:
        await read_watched({}, visit.receive, 100)
        return await work()


async def test_a_body_that_stops_coming_is_given_up() -> None:
    watch = ClientWatch(0.001, stalled_s=0.01)
    with pytest.raises(DeadlineExceeded, match=r"0\.01 s"):
        await answer(watch, script(PART, then=silence), silence)


async def test_an_answer_may_take_longer_than_a_body_may_stall() -> None:
    watch = ClientWatch(0.001, stalled_s=0.005)
    asked = 0

    async def again() -> Event:
        nonlocal asked
        asked += 1
        return WHOLE

    async def until_asked_often() -> Event:
        while asked < 10:  # noqa: ASYNC110 - the watch asks behind our back
            await asyncio.sleep(0)
        return WHOLE

    assert await answer(watch, script(WHOLE, then=again), until_asked_often) == WHOLE


async def test_a_connection_that_breaks_is_a_client_that_left() -> None:
    with pytest.raises(Cancelled, match="went away"):
        await answer(ClientWatch(0.001), script(WHOLE, then=broken), silence)


async def test_a_quick_request_is_not_looked_at() -> None:
    watch = ClientWatch(0.001)
    for _ in range(100):
        assert await answer(watch, script(WHOLE, then=broken), at_once) == WHOLE


async def test_who_cancels_from_outside_is_not_told_of_the_client() -> None:
    watch = ClientWatch(0.001)
    task: asyncio.Task[Any]

    async def leaves() -> Event:
        task.cancel()
        return {"type": "http.disconnect"}

    task = asyncio.create_task(answer(watch, script(WHOLE, then=leaves), silence))
    with pytest.raises(asyncio.CancelledError):
        await task
