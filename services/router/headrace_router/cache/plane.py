"""A `ports.DataPlane` that answers equal requests from one execution."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Hashable, Mapping
from typing import cast

from headrace_common import errors
from headrace_common.clock import Clock
from headrace_common.config import RouterConfig
from headrace_router.cache.doorway import Doorway, Follower
from headrace_router.cache.store import AnswerStore, StoreCounts
from headrace_router.core.flights import Flight, Handover, scope_of
from headrace_router.core.response_key import response_key
from headrace_router.core.waiting import Answer
from headrace_router.domain import InferenceRequest, InferenceResult, RevisionEntry, TensorData
from headrace_router.lanes import Lane
from headrace_router.plane import STOPPING, Plane
from headrace_router.ports import Statistics

FORGET_PERIOD_S = 1.0
"""Between looks for revisions whose answers nobody can ask for any more."""


class CachedPlane:
    """Over a `Plane`, for the models whose entry says `response_cache`. Works between `start` and `stop`.

    A request is looked up first; then it follows an equal one in flight; else it leads: it is executed as
    if there were no cache, and its answer is kept and given to its followers.
    """

    def __init__(self, plane: Plane, store: AnswerStore, config: RouterConfig, clock: Clock) -> None:
        self._plane = plane
        self._store = store
        plane.cache_use.sizes = lambda: _by_model(store.sizes())
        self._config = config
        self._now = clock.monotonic
        self._doorway = Doorway(plane, config.max_queue_length, config.max_queue_bytes)
        self._flights: dict[bytes, Flight[Follower]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._answering: set[asyncio.Task[None]] = set()

    def infer(self, request: InferenceRequest) -> Awaitable[InferenceResult]:
        """See `ports.DataPlane.infer`. A model without a cache pays for one look at its entry."""
        if request.revision.response_cache and not self._plane.waits_for_money(request):
            return self._infer(request)
        return self._plane.infer(request)

    def submit(self, request: InferenceRequest, answer: Answer) -> object:
        """See `ports.DataPlane.submit`. What is kept here is answered at once; all else takes a task."""
        if not request.revision.response_cache or self._plane.waits_for_money(request):
            return self._plane.submit(request, answer)
        arrived = self._now()
        lane, key, result = self._meet(request, arrived)
        if result is not None:
            answer.set_result(result)
            return None
        self._doorway.hold(lane)
        task = asyncio.create_task(self._answer(request, answer, lane, key, arrived))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)
        return task

    def statistics(self, entry: RevisionEntry) -> Statistics:
        """See `ports.DataPlane.statistics`."""
        return self._plane.statistics(entry)

    def counts(self) -> StoreCounts:
        """Of the store, for telemetry."""
        return self._store.counts()

    @property
    def waiting(self) -> int:
        """Requests that follow another one."""
        return self._doorway.waiting

    async def start(self) -> None:
        await self._store.start()
        self._tasks = [
            asyncio.create_task(self._sweep_on(), name="cache sweep"),
            asyncio.create_task(self._forget_on(), name="cache forget"),
        ]

    async def stop(self) -> None:
        # A task that is cancelled before it has begun would leave its request without an answer.
        await asyncio.sleep(0)
        tasks = [*self._tasks, *self._answering]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._store.stop()

    async def _answer(self, request: InferenceRequest, answer: Answer, lane: Lane, key: bytes, arrived: float) -> None:
        try:
            result = await self._look_up(request, lane, key, arrived)
        except asyncio.CancelledError:
            _fail(answer, errors.Unavailable(STOPPING))
        except Exception as error:  # noqa: BLE001 - it is the answer
            _fail(answer, error)
        else:
            if not answer.done():
                answer.set_result(result)

    async def _infer(self, request: InferenceRequest) -> InferenceResult:
        arrived = self._now()
        lane, key, result = self._meet(request, arrived)
        if result is not None:
            return result
        self._doorway.hold(lane)
        return await self._look_up(request, lane, key, arrived)

    def _meet(self, request: InferenceRequest, arrived: float) -> tuple[Lane, bytes, InferenceResult | None]:
        """Where it belongs, its key, and its answer if that is kept here. Raises as `Doorway.check_rate` does."""
        # What comes too often is refused before it costs a hash of all its bytes.
        lane, account = self._doorway.check_rate(request, arrived)
        key = response_key(request)
        kept = self._store.peek(key)
        if kept is None:
            return lane, key, None
        return lane, key, self._doorway.hit(lane, account, request, kept, arrived, self._now())

    async def _look_up(self, request: InferenceRequest, lane: Lane, key: bytes, arrived: float) -> InferenceResult:
        """Answers a request that is held in hand until it is known what becomes of it."""
        try:
            answer = await self._store.get(key)
        finally:
            self._doorway.release(lane)
        now = self._now()
        if answer is not None:
            # The rates may have been used up meanwhile.
            return self._doorway.hit(*self._doorway.check_rate(request, now), request, answer, arrived, now)
        flight = self._flights.get(key)
        if flight is not None:
            return await self._follow(key, flight, request, arrived, now)
        self._doorway.miss(request, now - arrived)
        flight = self._flights[key] = Flight()
        return await self._lead(key, flight, request, self._plane.infer(request))

    async def _lead(
        self, key: bytes, flight: Flight[Follower], request: InferenceRequest, execution: Awaitable[InferenceResult]
    ) -> InferenceResult:
        try:
            result = await execution
            self._land(key, flight, request, result)
        except BaseException as error:
            self._hand_over(key, flight, error)
            raise
        return result

    def _land(self, key: bytes, flight: Flight[Follower], request: InferenceRequest, result: InferenceResult) -> None:
        """The leader has an answer: it is kept, and everyone's."""
        # Views of a whole batch's buffer would keep all of it alive.
        answer = [TensorData(out.name, out.datatype, out.shape, bytes(out.data)) for out in result.outputs]
        entry = request.revision
        ttl_s = self._config.cache_ttl_s if entry.cache_ttl_s is None else entry.cache_ttl_s
        self._store.put(key, answer, ttl_s, entry.key)
        del self._flights[key]
        for follower in flight.landed():
            follower.turn.set_result(answer)

    async def _follow(
        self, key: bytes, flight: Flight[Follower], request: InferenceRequest, arrived: float, now: float
    ) -> InferenceResult:
        follower = self._doorway.follow(request, arrived, now)
        flight.join(follower)
        try:
            answer = await follower.turn
        except BaseException as error:
            flight.leave(follower)
            self._doorway.failed(follower, error, self._now())
            if follower.leads:
                self._hand_over(key, flight, error)
            raise
        if answer is not None:
            return self._doorway.answered(follower, answer, self._now())
        return await self._lead(key, flight, request, self._doorway.take_over(follower))

    def _hand_over(self, key: bytes, flight: Flight[Follower], error: BaseException) -> None:
        handover: Handover[Follower] = flight.failed(scope_of(error))
        for follower in handover.told:
            follower.turn.set_exception(error)
        if handover.leader is None:
            del self._flights[key]
        else:
            handover.leader.leads = True
            handover.leader.turn.set_result(None)

    async def _sweep_on(self) -> None:
        while True:
            await asyncio.sleep(self._config.sweep_period_s)
            if self._doorway.waiting:
                self._sweep(self._now())

    def _sweep(self, now: float) -> None:
        """Followers whose deadline has passed or whose caller has gone: a leader may have more time than they."""
        for flight in list(self._flights.values()):
            for follower in flight:
                is_gone = follower.request.is_gone
                if follower.deadline <= now:
                    model = follower.request.revision.model
                    follower.turn.set_exception(errors.DeadlineExceeded(f"model {model!r}: the deadline passed"))
                elif is_gone is not None and now - follower.arrived >= self._config.sweep_period_s and is_gone():
                    follower.turn.set_exception(errors.Cancelled("the caller went away"))

    async def _forget_on(self) -> None:
        while True:
            await asyncio.sleep(FORGET_PERIOD_S)
            self._store.forget(self._is_alive)

    def _is_alive(self, group: Hashable) -> bool:
        """Somebody may still ask for this revision and be answered from the cache."""
        model, revision = cast("tuple[str, int]", group)
        entry = self._plane.catalogue.entry(model, revision)
        return entry is not None and entry.response_cache and not entry.retiring


def _fail(answer: Answer, error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)


def _by_model(sizes: Mapping[Hashable, int]) -> dict[str, int]:
    """The groups are revisions."""
    models: dict[str, int] = {}
    for group, size_bytes in sizes.items():
        model, _ = cast("tuple[str, int]", group)
        models[model] = models.get(model, 0) + size_bytes
    return models
