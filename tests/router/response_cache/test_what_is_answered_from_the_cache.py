"""Who is answered with what was kept, and what is executed anew."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from headrace.runner.v1 import runner_pb2
from headrace_common import errors

StartFront = Callable[..., Awaitable[Any]]


async def test_a_repeated_request_is_executed_once(start_front: StartFront) -> None:
    front = await start_front()
    runner = await front.bench.add_runner("r1")
    assert [await front.infer(3.0) for _ in range(5)] == [3.0] * 5
    assert await front.infer(4.0) == 4.0
    assert len(runner.bundles) == 2
    use = front.use
    assert (use.arrivals, use.completed, use.cache_hits, use.cache_misses, use.bundles) == (6, 6, 4, 2, 2)
    assert front.cached.counts().entries == 2
    statistics = front.cached.statistics(front.bench.request().revision)
    assert (statistics.requests, statistics.cache_hits, statistics.cache_misses) == (2, 4, 2)
    assert statistics.cache_hit_ns > 0
    assert front.is_quiet()


async def test_what_is_kept_here_is_answered_where_it_is_submitted(start_front: StartFront) -> None:
    front = await start_front()
    runner = await front.bench.add_runner("r1")
    first = front.submit(3.0)
    assert not first.done()
    await first
    tasks = asyncio.all_tasks()
    again = [front.submit(3.0) for _ in range(3)]
    assert [answer.result().outputs for answer in again] == [first.result().outputs] * 3
    assert asyncio.all_tasks() == tasks
    assert (len(runner.bundles), front.use.cache_hits, front.use.cache_misses) == (1, 3, 1)
    assert front.is_quiet()


async def test_requests_that_are_submitted_together_become_one_execution(start_front: StartFront) -> None:
    front = await start_front()
    runner = await front.bench.add_runner("r1")
    answers = [front.submit(3.0) for _ in range(10)]
    assert front.bench.plane.in_hand == 10
    assert [struct.unpack("<2f", result.outputs[0].data)[0] for result in await asyncio.gather(*answers)] == [3.0] * 10
    assert (len(runner.bundles), front.use.coalesced) == (1, 9)
    assert front.is_quiet()


async def test_what_is_refused_at_the_door_is_raised_where_it_is_submitted(start_front: StartFront) -> None:
    front = await start_front()
    await front.bench.add_runner("r1")
    await front.lease(requests_per_second=0.001)
    await front.submit()
    with pytest.raises(errors.QuotaExceeded):
        front.submit()
    assert await front.bench.plane.drain(10.0) == 0
    with pytest.raises(errors.Unavailable):
        front.submit()
    assert (front.use.arrivals, front.use.completed) == (3, 1)


async def test_what_is_refused_later_and_who_has_gone_are_told_by_the_answer(start_front: StartFront) -> None:
    front = await start_front()
    await front.lease(concurrency=0)
    with pytest.raises(errors.QuotaExceeded):
        await front.submit()
    gone = front.submit()
    gone.cancel()
    await front.eventually(front.is_quiet)


async def test_a_model_without_a_cache_is_executed_every_time(start_front: StartFront) -> None:
    front = await start_front()
    runner = await front.bench.add_runner("r1")
    await front.change(response_cache=False)
    assert [await front.infer() for _ in range(3)] == [1.0] * 3
    assert len(runner.bundles) == 3
    assert (front.use.cache_hits, front.use.cache_misses) == (0, 0)


@pytest.mark.parametrize(("shared", "bundles"), [(False, 2), (True, 1)], ids=["each its own", "shared"])
async def test_tenants_are_answered_with_their_own_unless_the_model_is_shared(
    start_front: StartFront, shared: bool, bundles: int
) -> None:
    front = await start_front()
    await front.change(cache_shared=shared)
    runner = await front.bench.add_runner("r1")
    for tenant in ("a", "b", "a", "b"):
        assert await front.infer(tenant=tenant) == 1.0
    assert len(runner.bundles) == bundles
    runner.gate.clear()
    at_once = [front.begin(2.0, tenant=tenant) for tenant in ("a", "b", "a", "b")]
    await front.eventually(lambda: front.cached.waiting == 4 - bundles)
    runner.gate.set()
    assert await asyncio.gather(*at_once) == [2.0] * 4


async def test_a_redeploy_is_never_answered_with_what_the_old_revision_said(
    start_front: StartFront, scripts: SimpleNamespace
) -> None:
    async def negated(bundle: runner_pb2.Bundle) -> Any:
        result = await scripts.echo(bundle)
        result.outputs[0].data = struct.pack("<2f", -1.0, -1.0)
        return result

    front = await start_front()
    await front.bench.add_runner("r1")
    assert await front.infer() == 1.0
    entry = front.bench.control.full.models[0]
    entry.revisions[0].current, entry.revisions[0].retiring = False, True
    entry.revisions.append(scripts.model_entry(revision=2).revisions[0])
    await front.change()
    await front.bench.add_runner("r2", negated, revision=2)
    assert await front.infer() == -1.0
    await front.eventually(lambda: front.cached.counts().entries == 1)
    front.bench.control.send(removed_models=["m"])
    await front.eventually(lambda: front.cached.counts().entries == 0)
    assert front.cached.counts().size_bytes == 0


async def test_an_answer_is_kept_as_long_as_the_model_says(start_front: StartFront) -> None:
    front = await start_front(cache_ttl_s=1000.0)
    entry = front.bench.control.full.models[0]
    entry.cache_ttl.FromMilliseconds(1)
    await front.change()
    runner = await front.bench.add_runner("r1")
    deadline = time.monotonic() + 10
    while len(runner.bundles) < 3:
        assert await front.infer() == 1.0
        assert time.monotonic() < deadline
        await asyncio.sleep(0.002)
    entry.ClearField("cache_ttl")
    await front.change()
    await front.infer(2.0)
    await front.infer(2.0)
    assert front.use.cache_hits >= 1


# --- coalescing ---
