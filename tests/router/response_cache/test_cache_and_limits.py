"""What hits and followers count against, and what demand they make."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from headrace_common import errors

Eventually = Callable[..., Awaitable[None]]


StartFront = Callable[..., Awaitable[Any]]


async def test_hits_count_against_the_rate_and_not_against_concurrency(
    start_front: StartFront, eventually: Eventually
) -> None:
    front = await start_front()
    runner = await front.bench.add_runner("r1")
    assert await front.infer(1.0) == 1.0
    await front.lease(concurrency=1)
    runner.gate.clear()
    busy = front.begin(2.0)
    await eventually(lambda: len(runner.bundles) == 2)
    assert [await front.infer(1.0) for _ in range(5)] == [1.0] * 5
    for value in (2.0, 3.0):
        with pytest.raises(errors.QuotaExceeded) as refusal:
            await front.infer(value)
        assert refusal.value.dimension == "concurrency"
    runner.gate.set()
    assert await busy == 2.0
    await front.lease(requests_per_second=0.001)
    assert await front.infer(1.0) == 1.0
    with pytest.raises(errors.QuotaExceeded) as refusal:
        await front.infer(1.0)
    assert refusal.value.dimension == "requests_per_second"
    [use] = front.bench.plane.counters().uses
    assert (use.totals.arrivals, use.totals.completed) == (11, 8)
    assert use.outcomes == {"concurrency": 2, "requests_per_second": 1}
    assert front.is_quiet()


async def test_a_hit_needs_no_room_in_the_queue_and_no_instance(start_front: StartFront) -> None:
    front = await start_front(max_queue_length=1)
    runner = await front.bench.add_runner("r1", slots=1)
    assert await front.infer(1.0) == 1.0
    runner.gate.clear()
    sent = front.begin(2.0)
    await front.eventually(lambda: len(runner.bundles) == 2)
    queued = front.begin(3.0)
    await front.eventually(lambda: front.bench.plane.counters().uses[0].queued == 1)
    with pytest.raises(errors.QueueFull):
        await front.infer(4.0)
    assert await front.infer(1.0) == 1.0
    entry = front.bench.control.full.models[0]
    entry.revisions[0].blocked_reason = "no room"
    runner.gate.set()
    assert await asyncio.gather(sent, queued) == [2.0, 3.0]
    await front.change()
    assert await front.infer(1.0) == 1.0
    with pytest.raises(errors.Unavailable, match="no room"):
        await front.infer(5.0)


async def test_followers_are_bounded_as_a_queue_is(start_front: StartFront) -> None:
    front = await start_front(max_queue_length=2)
    runner = await front.bench.add_runner("r1")
    first, others = await front.flight(runner, 2)
    with pytest.raises(errors.QueueFull):
        await front.infer()
    runner.gate.set()
    assert await asyncio.gather(first, *others) == [1.0] * 3
    assert front.is_quiet()


async def test_demand_reports_hits_beside_what_needs_an_instance(start_front: StartFront) -> None:
    front = await start_front()
    await front.bench.add_runner("r1")
    for _ in range(4):
        await front.infer()
    control = front.bench.control
    await front.eventually(lambda: control.total("cache_hits") == 3 and control.total("completed") == 1)
    assert (control.total("arrivals"), control.total("rows"), control.total("failed")) == (1, 1, 0)


async def test_demand_reports_who_follows_beside_what_instances_hold(start_front: StartFront) -> None:
    front = await start_front()
    runner = await front.bench.add_runner("r1")
    first, others = await front.flight(runner, 3)

    def last() -> list[tuple[int, int, int]]:
        reports = front.bench.control.reports
        return [(each.queued, each.in_flight, each.following) for each in reports[-1].demands] if reports else []

    await front.eventually(lambda: last() == [(0, 1, 3)])
    runner.gate.set()
    await asyncio.gather(first, *others)
    await front.eventually(lambda: last() == [(0, 0, 0)])


# --- Redis ---
