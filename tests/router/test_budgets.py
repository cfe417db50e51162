"""A budget is spent: who is refused and told when to come back, who waits, and what is still answered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from headrace.control.v1 import control_pb2
from headrace_common import errors
from headrace_common.clock import SystemClock
from headrace_common.config import RouterConfig
from headrace_router.cache.memory import MemoryStore
from headrace_router.cache.plane import CachedPlane
from headrace_router.core.bounded_lru import BoundedLru
from headrace_router.core.queue import Queue
from headrace_router.core.waiting import Stage, Waiting
from headrace_router.measures import CacheUse

StartBench = Callable[..., Awaitable[Any]]
Eventually = Callable[..., Awaitable[None]]
WITHIN = control_pb2.BUDGET_STATE_WITHIN
REFUSE = control_pb2.BUDGET_STATE_EXHAUSTED_REFUSE
QUEUE = control_pb2.BUDGET_STATE_EXHAUSTED_QUEUE


def lease(state: Any, tenant: str = "t") -> control_pb2.QuotaLease:
    """Of a budget that is whole again in an hour."""
    message = control_pb2.QuotaLease(tenant=tenant, budget_state=state, weight=1.0, budget_reason="1 of 1 USD is spent")
    message.budget_returns_at.FromSeconds(int(time.time()) + 3600)
    return message


async def obey(bench: Any, eventually: Eventually, **parts: Any) -> None:
    bench.control.send(**parts)
    await eventually(lambda: bench.control.version in bench.control.applied)


def outcomes(bench: Any) -> dict[str, int]:
    [outcomes] = [use.outcomes for use in bench.plane.counters().uses if use.tenant == "t"]
    found: dict[str, int] = outcomes
    return found


async def test_a_refusal_names_the_budget_and_the_time_until_it_is_back(
    start_bench: StartBench, eventually: Eventually
) -> None:
    bench = await start_bench()
    await bench.add_runner("r1")
    await obey(bench, eventually, leases=[lease(REFUSE)])
    with pytest.raises(errors.QuotaExceeded, match="over its limit of budget: 1 of 1 USD is spent") as refusal:
        await bench.infer()
    assert (refusal.value.subject, refusal.value.dimension) == ("tenant:t", "budget")
    assert refusal.value.retry_after_s is not None
    assert 3500 < refusal.value.retry_after_s <= 3600
    assert await bench.infer(2.0, tenant="other") == [2.0, 2.0]
    assert outcomes(bench) == {"budget": 1}
    await obey(bench, eventually, leases=[lease(WITHIN)])
    assert await bench.infer() == [1.0, 1.0]


async def test_what_waited_when_the_budget_ran_out_waits_on_unsent(
    start_bench: StartBench, eventually: Eventually
) -> None:
    bench = await start_bench()
    waiting = [asyncio.create_task(bench.infer(float(number))) for number in range(20)]
    other = asyncio.create_task(bench.infer(99.0, tenant="other"))
    await eventually(lambda: bench.plane.in_hand == 21)
    await obey(bench, eventually, leases=[lease(QUEUE)])
    await bench.add_runner("r1")
    assert await other == [99.0, 99.0]
    assert not any(task.done() for task in waiting)
    gone = waiting.pop()
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    await obey(bench, eventually, leases=[lease(WITHIN)])
    assert await asyncio.gather(*waiting) == [[float(number)] * 2 for number in range(19)]
    assert bench.plane.in_hand == 0


async def test_what_waits_for_money_asks_for_no_instance_and_is_bounded(
    start_bench: StartBench, eventually: Eventually
) -> None:
    bench = await start_bench(max_queue_length=3)
    await obey(bench, eventually, leases=[lease(QUEUE)])
    waiting = [asyncio.create_task(bench.infer(float(number))) for number in range(3)]
    await eventually(lambda: bench.plane.in_hand == 3)
    [demand] = [each for each in bench.plane.demand().message.demands if each.tenant == "t"]
    assert (demand.arrivals, demand.queued, demand.oldest_wait_us) == (3, 0, 0)
    with pytest.raises(errors.QueueFull):
        await bench.infer()
    await obey(bench, eventually, leases=[lease(WITHIN)])
    [demand] = [each for each in bench.plane.demand().message.demands if each.tenant == "t"]
    assert demand.queued == 3
    await bench.add_runner("r1")
    assert await asyncio.gather(*waiting) == [[float(number)] * 2 for number in range(3)]


async def test_what_is_released_waits_for_an_instance_from_then_on(
    start_bench: StartBench, eventually: Eventually
) -> None:
    bench = await start_bench(start_timeout_s=0.2)
    await obey(bench, eventually, leases=[lease(QUEUE)])
    waiting = asyncio.create_task(bench.infer())
    late = asyncio.create_task(bench.infer(tenant="other"))
    with pytest.raises(errors.Unavailable, match="no instance has become ready"):
        await late
    assert not waiting.done(), "it waits for money, not for an instance"
    await obey(bench, eventually, leases=[lease(WITHIN)])
    bench.plane.sweep()
    assert not waiting.done()
    with pytest.raises(errors.Unavailable, match="no instance has become ready"):
        await waiting


async def test_where_the_owners_money_is_gone_what_waits_is_answered_and_new_ones_hear_whose_it_is(
    start_bench: StartBench, eventually: Eventually
) -> None:
    bench = await start_bench()
    runner = await bench.add_runner("r1", slots=1)
    runner.gate.clear()
    waiting = [asyncio.create_task(bench.infer(float(number))) for number in range(20)]
    await eventually(lambda: bench.plane.in_hand == 20)
    entry = bench.control.full.models[0]
    entry.budget_reason, entry.budget_subject = "all of it is spent", "tenant:owner"
    entry.budget_returns_at.FromSeconds(int(time.time()) + 60)
    await obey(bench, eventually, models=[entry])
    with pytest.raises(
        errors.QuotaExceeded, match="tenant:owner is over its limit of budget: all of it is spent"
    ) as refusal:
        await bench.infer()
    assert (refusal.value.subject, refusal.value.dimension) == ("tenant:owner", "budget")
    assert refusal.value.retry_after_s is not None
    assert 0 < refusal.value.retry_after_s <= 60
    assert outcomes(bench) == {"budget": 1}
    runner.gate.set()
    assert await asyncio.gather(*waiting) == [[float(number)] * 2 for number in range(20)]
    entry.budget_reason = ""
    await obey(bench, eventually, models=[entry])
    assert await bench.infer() == [1.0, 1.0]


async def test_cached_answers_cost_too(start_bench: StartBench, eventually: Eventually) -> None:
    bench = await start_bench()
    config = RouterConfig(sweep_period_s=0.01)
    cached = CachedPlane(
        bench.plane, MemoryStore(config.cache_bytes, config.cache_entry_bytes, SystemClock()), config, SystemClock()
    )
    await cached.start()
    entry = bench.control.full.models[0]
    entry.response_cache = True
    await obey(bench, eventually, models=[entry])
    runner = await bench.add_runner("r1")
    await cached.infer(bench.request())
    await cached.infer(bench.request())
    assert len(runner.bundles) == 1
    await obey(bench, eventually, leases=[lease(REFUSE)])
    with pytest.raises(errors.QuotaExceeded, match="budget"):
        await cached.infer(bench.request())
    await obey(bench, eventually, leases=[lease(QUEUE)])
    held = asyncio.ensure_future(cached.infer(bench.request()))
    submitted: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    cached.submit(bench.request(), submitted)
    await eventually(lambda: bench.plane.in_hand == 2)
    assert not held.done()
    await obey(bench, eventually, leases=[lease(WITHIN)])
    await held
    await submitted

    def held_by_cache() -> int:
        return sum(use.byte_seconds for report in bench.control.reports for use in report.caches if use.model == "m")

    await eventually(lambda: held_by_cache() > 0)
    await cached.stop()


async def test_only_what_is_answered_is_network(start_bench: StartBench, eventually: Eventually) -> None:
    bench = await start_bench()
    await bench.add_runner("r1")
    for value in (1.0, 2.0):
        await bench.infer(value)
    await obey(bench, eventually, leases=[lease(REFUSE)])
    with pytest.raises(errors.QuotaExceeded):
        await bench.infer()
    await eventually(lambda: bench.control.total("arrivals") == 3)
    assert (bench.control.total("input_bytes"), bench.control.total("output_bytes")) == (16, 16)


def test_what_is_held_back_comes_once_when_it_is_queued_again(make_waiting: Callable[..., Waiting]) -> None:
    queue = Queue()
    items = [make_waiting(tenant="a" if number % 2 else "b") for number in range(10)]
    for item in items:
        queue.push(item)
    held = queue.hold_back(lambda item: item.tenant == "b")
    assert [item.tenant for item in held] == ["a"] * 5
    assert {item.stage for item in held} == {Stage.HELD}
    assert (len(queue), queue.size_bytes) == (5, sum(item.size_bytes for item in items if item.tenant == "b"))
    for item in held:
        queue.push(item)
    assert sorted(map(id, queue)) == sorted(map(id, items))
    for item in items:
        queue.withdraw(item)
    assert (len(queue), queue.size_bytes, queue.head()) == (0, 0, None)


def test_a_cache_knows_what_each_group_takes() -> None:
    lru: BoundedLru[int] = BoundedLru(100)
    lru.put(b"1", 1, 30, 10.0, "a")
    lru.put(b"2", 2, 20, 10.0, "a")
    lru.put(b"3", 3, 40, 10.0, "b")
    assert lru.sizes() == {"a": 50, "b": 40}
    lru.put(b"1", 1, 10, 10.0, "b")
    assert lru.sizes() == {"a": 20, "b": 50}
    lru.put(b"4", 4, 60, 10.0, "c")
    assert sum(lru.sizes().values()) == lru.size_bytes
    lru.drop("c")
    assert "c" not in lru.sizes()


def test_memory_of_cached_answers_is_counted_until_it_is_reported() -> None:
    use = CacheUse(0.0)
    use.sizes = lambda: {"m": 1000}
    use.measure(0.0015)
    use.measure(2.0)
    taken = use.whole()
    assert taken == {"m": 2000}
    use.measure(2.0005)
    assert use.whole() == {"m": 2000}, "what was not sent stays due"
    use.commit(taken)
    assert use.whole() == {}
    use.measure(2.0015)
    assert use.whole() == {"m": 1}
