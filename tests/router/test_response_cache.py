"""The response cache in front of the data plane, between a scripted autoscaler and scripted runners."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from headrace.control.v1 import control_pb2
from headrace.runner.v1 import runner_pb2
from headrace_common import errors
from headrace_common.clock import SystemClock
from headrace_common.config import RouterConfig
from headrace_router.cache import CachedPlane
from headrace_router.cache.memory import MemoryStore
from headrace_router.cache.redis_store import RedisStore
from headrace_router.cache.store import Answer, AnswerStore
from headrace_router.domain import InferenceResult

Eventually = Callable[..., Awaitable[None]]
CODES = runner_pb2.BundleErrorCode


class Front:
    """A bench whose requests pass the cache."""

    def __init__(self, bench: Any, cached: CachedPlane, eventually: Eventually) -> None:
        self.bench = bench
        self.cached = cached
        self.eventually = eventually

    async def infer(self, value: float = 1.0, **changes: Any) -> float:
        result = await self.cached.infer(self.bench.request(value, **changes))
        first, second = struct.unpack("<2f", result.outputs[0].data)
        assert first == second
        return float(first)

    def submit(self, value: float = 1.0, **changes: Any) -> asyncio.Future[InferenceResult]:
        """As a host does that has no coroutine for each request."""
        answer: asyncio.Future[InferenceResult] = asyncio.get_running_loop().create_future()
        self.cached.submit(self.bench.request(value, **changes), answer)
        return answer

    def begin(self, value: float = 1.0, **changes: Any) -> asyncio.Task[float]:
        return asyncio.create_task(self.infer(value, **changes))

    async def flight(self, runner: Any, followers: int, **leader: Any) -> tuple[asyncio.Task[float], list[Any]]:
        """A leader whose bundle is at the runner, and requests that follow it."""
        runner.gate.clear()
        sent = len(runner.bundles)
        first = self.begin(**leader)
        await self.eventually(lambda: len(runner.bundles) > sent)
        others = [self.begin() for _ in range(followers)]
        await self.eventually(lambda: self.cached.waiting == followers)
        return first, others

    async def change(self, **model: Any) -> None:
        """The autoscaler describes the model anew."""
        entry = self.bench.control.full.models[0]
        for name, value in model.items():
            setattr(entry, name, value)
        self.bench.control.send(models=[entry])
        await self.obeyed()

    async def lease(self, **limits: Any) -> None:
        lease = control_pb2.QuotaLease(tenant="t", limits=control_pb2.QuotaLimits(**limits))
        self.bench.control.send(leases=[lease])
        await self.obeyed()

    async def obeyed(self) -> None:
        control = self.bench.control
        await self.eventually(lambda: control.version in control.applied)

    @property
    def use(self) -> Any:
        """All tenants' use of the model."""
        uses = self.bench.plane.counters().uses
        total = uses[0].totals
        for other in uses[1:]:
            total.add(other.totals)
        return total

    def is_quiet(self) -> bool:
        """Nothing is in hand anywhere."""
        plane = self.bench.plane
        return (
            not plane.in_hand
            and not self.cached.waiting
            and all(
                not account.tenant_limit.in_hand and not account.model_limit.in_hand and not account.following
                for account in plane.limits
            )
        )


@pytest.fixture
async def start_front(start_bench: Any, eventually: Eventually) -> AsyncIterator[Callable[..., Awaitable[Front]]]:
    """Starts a bench whose model has a response cache; keywords are of RouterConfig."""
    started: list[CachedPlane] = []

    async def start(store: AnswerStore | None = None, model: dict[str, Any] | None = None, **router: Any) -> Front:
        bench = await start_bench(model, **router)
        config = RouterConfig(**{"sweep_period_s": 0.01, **router})
        kept = store or MemoryStore(config.cache_bytes, config.cache_entry_bytes, SystemClock())
        cached = CachedPlane(bench.plane, kept, config, SystemClock())
        await cached.start()
        started.append(cached)
        front = Front(bench, cached, eventually)
        await front.change(response_cache=True)
        return front

    yield start
    for cached in started:
        await cached.stop()


StartFront = Callable[..., Awaitable[Front]]


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


class SlowStore(MemoryStore):
    """Knows nothing at once.

    Attributes:
        asked: somebody has.
        gate: cleared: lookups wait.
    """

    def __init__(self) -> None:
        super().__init__(1 << 20, 1 << 20, SystemClock())
        self.asked, self.gate = asyncio.Event(), asyncio.Event()

    def peek(self, key: bytes) -> Answer | None:
        return None

    async def get(self, key: bytes) -> Answer | None:
        self.asked.set()
        await self.gate.wait()
        return super().peek(key)


@pytest.mark.parametrize("asked", [True, False], ids=["while it is looked up", "before it is looked up"])
async def test_a_drain_waits_for_what_is_not_looked_up_yet(start_front: StartFront, asked: bool) -> None:
    store = SlowStore()
    front = await start_front(store)
    answer = front.submit()
    if asked:
        await store.asked.wait()
    drain = asyncio.create_task(front.bench.plane.drain(10.0))
    await front.eventually(lambda: front.bench.plane.stopping)
    await store.asked.wait()
    assert not drain.done()
    store.gate.set()
    with pytest.raises(errors.Unavailable):
        await answer
    assert await drain == 0
    assert front.is_quiet()


@pytest.mark.parametrize("asked", [True, False], ids=["while it is looked up", "before it is looked up"])
async def test_a_stop_leaves_nobody_without_an_answer(start_front: StartFront, asked: bool) -> None:
    store = SlowStore()
    front = await start_front(store)
    answer = front.submit()
    if asked:
        await store.asked.wait()
    await front.cached.stop()
    assert isinstance(answer.exception(), errors.Unavailable)
    assert front.is_quiet()


# --- what counts ---


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


async def test_a_redis_that_dies_under_load_costs_misses_and_no_errors(
    start_front: StartFront, redis_server: Any, eventually: Eventually
) -> None:
    store = RedisStore(redis_server.url, "mesh", 20.0, 1 << 20, pause_s=0.05)
    front = await start_front(store)
    runner = await front.bench.add_runner("r1")
    await eventually(lambda: store.up)
    assert await front.infer(0.0) == 0.0
    await eventually(lambda: store.counts().stored == 1)
    assert await front.infer(0.0) == 0.0
    assert front.use.cache_hits == 1

    stopping = asyncio.Event()
    answered = 0

    async def ask(value: float) -> None:
        nonlocal answered
        while not stopping.is_set():
            assert await front.infer(value) == value
            answered += 1
            # A hit does not let anybody else run.
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as tasks:
        for n in range(8):
            tasks.create_task(ask(float(n % 4)))
        await eventually(lambda: front.use.cache_hits > 50)
        redis_server.kill()
        await eventually(lambda: not store.up)
        goal, sent = answered + 100, len(runner.bundles)
        await eventually(lambda: answered > goal)
        assert len(runner.bundles) > sent
        redis_server.start()
        await eventually(lambda: store.up)
        hits = front.use.cache_hits
        await eventually(lambda: front.use.cache_hits > hits + 50)
        stopping.set()
    assert front.use.failed == 0
    assert front.is_quiet()


async def test_two_routers_share_answers_through_redis(
    start_front: StartFront, redis_server: Any, eventually: Eventually
) -> None:
    config = RouterConfig(sweep_period_s=0.01)
    store = RedisStore(redis_server.url, "mesh", 20.0, 1 << 20)
    front = await start_front(store)
    runner = await front.bench.add_runner("r1")
    await eventually(lambda: store.up)
    assert await front.infer() == 1.0
    await eventually(lambda: store.counts().stored == 1)
    other = RedisStore(redis_server.url, "mesh", 20.0, 1 << 20)
    second = CachedPlane(front.bench.plane, other, config, SystemClock())
    await second.start()
    try:
        await eventually(lambda: other.up)
        result = await second.infer(front.bench.request(1.0))
        assert struct.unpack("<2f", result.outputs[0].data) == (1.0, 1.0)
        assert len(runner.bundles) == 1
    finally:
        await second.stop()
