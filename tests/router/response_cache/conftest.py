"""A router with a response cache, between a scripted autoscaler and scripted runners."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from headrace.control.v1 import control_pb2
from headrace_common.clock import SystemClock
from headrace_common.config import RouterConfig
from headrace_router.cache import CachedPlane
from headrace_router.cache.memory import MemoryStore
from headrace_router.cache.store import AnswerStore
from headrace_router.domain import InferenceResult

Eventually = Callable[..., Awaitable[None]]


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
