"""Equal requests in flight become one execution, and each keeps its own deadline, caller and luck."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from headrace.runner.v1 import runner_pb2
from headrace_common import errors

CODES = runner_pb2.BundleErrorCode


StartFront = Callable[..., Awaitable[Any]]


async def test_equal_requests_in_flight_become_one_execution(start_front: StartFront) -> None:
    front = await start_front()
    runner = await front.bench.add_runner("r1")
    first, others = await front.flight(runner, 20)
    runner.gate.set()
    assert await asyncio.gather(first, *others) == [1.0] * 21
    assert len(runner.bundles) == 1
    use = front.use
    assert (use.completed, use.coalesced, use.cache_misses, use.cache_hits) == (21, 20, 1, 0)
    assert front.is_quiet()


async def test_an_answer_too_large_to_keep_is_shared_in_flight_all_the_same(start_front: StartFront) -> None:
    front = await start_front(cache_entry_bytes=4)
    runner = await front.bench.add_runner("r1")
    first, others = await front.flight(runner, 2)
    runner.gate.set()
    assert await asyncio.gather(first, *others) == [1.0] * 3
    await front.infer()
    assert len(runner.bundles) == 2


async def test_a_leader_that_is_cancelled_does_not_poison_its_followers(start_front: StartFront) -> None:
    front = await start_front()
    runner = await front.bench.add_runner("r1")
    first, others = await front.flight(runner, 3)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await front.eventually(lambda: len(runner.bundles) == 2)
    runner.gate.set()
    assert await asyncio.gather(*others) == [1.0] * 3
    use = front.use
    assert (use.arrivals, use.completed, use.failed, use.coalesced) == (4, 3, 1, 2)
    assert front.is_quiet()


async def test_a_leaders_deadline_is_not_its_followers(start_front: StartFront) -> None:
    front = await start_front()
    runner = await front.bench.add_runner("r1")
    first, others = await front.flight(runner, 2, deadline=time.monotonic() + 0.2)
    with pytest.raises(errors.DeadlineExceeded):
        await first
    runner.gate.set()
    assert await asyncio.gather(*others) == [1.0] * 2


async def test_a_followers_deadline_and_caller_are_its_own(start_front: StartFront) -> None:
    front = await start_front()
    runner = await front.bench.add_runner("r1")
    first, [patient] = await front.flight(runner, 1)
    hasty, gone = front.begin(deadline=time.monotonic() + 0.02), front.begin(is_gone=lambda: True)
    with pytest.raises(errors.DeadlineExceeded):
        await hasty
    with pytest.raises(errors.Cancelled):
        await gone
    assert not patient.done()
    runner.gate.set()
    assert await asyncio.gather(first, patient) == [1.0] * 2
    assert len(runner.bundles) == 1
    [use] = front.bench.plane.counters().uses
    assert use.outcomes == {"deadline": 1, "cancelled": 1}
    assert front.is_quiet()


async def test_followers_that_are_cancelled_leave_without_a_trace(start_front: StartFront) -> None:
    front = await start_front()
    runner = await front.bench.add_runner("r1")
    first, others = await front.flight(runner, 4)
    # The second follower goes in the same moment in which it becomes the leader.
    first.cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    for task in others[:3]:
        task.cancel()
    runner.gate.set()
    assert await others[3] == 1.0
    assert all(
        isinstance(end, asyncio.CancelledError) for end in await asyncio.gather(*others[:3], return_exceptions=True)
    )
    assert front.is_quiet()


async def test_the_last_one_to_be_cancelled_leaves_no_flight_behind(start_front: StartFront) -> None:
    front = await start_front()
    runner = await front.bench.add_runner("r1")
    first, others = await front.flight(runner, 2)
    for task in (first, *others):
        task.cancel()
    await asyncio.gather(first, *others, return_exceptions=True)
    assert front.is_quiet()
    runner.gate.set()
    assert await front.infer() == 1.0


@pytest.mark.parametrize(
    ("code", "error", "bundles"),
    [
        (CODES.BUNDLE_ERROR_CODE_INVALID_INPUT, errors.InvalidArgument, 1),
        (CODES.BUNDLE_ERROR_CODE_ENGINE_FAILED, errors.EngineFailed, 2),
    ],
    ids=["a refused input is everyone's", "a failing engine is tried once more"],
)
async def test_what_would_befall_everyone_is_told_to_everyone(
    start_front: StartFront, scripts: SimpleNamespace, code: CODES, error: type[Exception], bundles: int
) -> None:
    async def failing(bundle: runner_pb2.Bundle) -> Any:
        return scripts.failed(bundle, code)

    front = await start_front()
    runner = await front.bench.add_runner("r1", failing)
    first, others = await front.flight(runner, 10)
    runner.gate.set()
    ends = await asyncio.gather(first, *others, return_exceptions=True)
    assert [type(end) for end in ends] == [error] * 11
    assert len(runner.bundles) == bundles
    assert (front.use.failed, front.use.arrivals, front.use.completed) == (11, 11, 0)
    assert front.cached.counts().entries == 0
    assert front.is_quiet()


async def test_an_engine_that_fails_once_costs_its_followers_nothing(
    start_front: StartFront, scripts: SimpleNamespace
) -> None:
    failures = iter([True])

    async def fails_once(bundle: runner_pb2.Bundle) -> Any:
        failing = next(failures, False)
        return scripts.failed(bundle, CODES.BUNDLE_ERROR_CODE_ENGINE_FAILED) if failing else await scripts.echo(bundle)

    front = await start_front()
    runner = await front.bench.add_runner("r1", fails_once)
    first, others = await front.flight(runner, 5)
    runner.gate.set()
    with pytest.raises(errors.EngineFailed):
        await first
    assert await asyncio.gather(*others) == [1.0] * 5
    assert front.is_quiet()


async def test_a_model_that_is_removed_is_gone_for_followers_too(start_front: StartFront) -> None:
    front = await start_front()
    tasks = [front.begin() for _ in range(3)]
    await front.eventually(lambda: front.cached.waiting == 2)
    front.bench.control.send(removed_models=["m"])
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(end) for end in ends] == [errors.NotFound] * 3
    assert front.is_quiet()


async def test_a_drain_waits_for_followers(start_front: StartFront) -> None:
    front = await start_front()
    runner = await front.bench.add_runner("r1")
    first, others = await front.flight(runner, 3)
    drain = asyncio.create_task(front.bench.plane.drain(10.0))
    await front.eventually(lambda: front.bench.plane.stopping)
    with pytest.raises(errors.Unavailable):
        await front.infer()
    first.cancel()
    await front.eventually(lambda: len(runner.bundles) == 2)
    assert not drain.done()
    runner.gate.set()
    assert await asyncio.gather(*others) == [1.0] * 3
    assert await drain == 0
