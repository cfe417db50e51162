"""The runner: acts on what its lifecycle decides. Lives on the event loop."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import AsyncIterator, Mapping

from headrace.runner.v1 import runner_pb2 as pb
from headrace.v1.resources_pb2 import InstanceShape
from headrace_common.clock import Clock
from headrace_common.collector import spare_the_collector
from headrace_common.errors import FailedPrecondition, HeadraceError, InvalidArgument
from headrace_common.logs import get_logger
from headrace_common.outbox import Sending
from headrace_runner.core.lifecycle import LEAVING, Admission, Standing, State
from headrace_runner.core.memory import GRACE_S
from headrace_runner.domain import Loaded, LoadPlan
from headrace_runner.engines.base import Engine, Keeps
from headrace_runner.execution import Executor
from headrace_runner.loading import load
from headrace_runner.measures import Measures
from headrace_runner.memory_guard import MemoryGuard
from headrace_runner.process import memory_usage, resident_bytes
from headrace_runner.streams import ExecuteStream
from headrace_runner.wire import duration, gpu_facts, holding_of, load_response, plan_of, status
from headrace_runner.worker import EngineWorker

_AFTER_FAILED_LOAD_S = 1.0
"""Routers that attached early get this long to go once a load has failed."""
_SIZE_PERIOD_S = 1.0
_KEEP_S = 2.0
"""For what a model puts away for the next process; its thread may hang."""


class Runner:
    """One instance, for life.

    Args:
        runner_id: the process's name.
        default_slots, default_max_batch_size: for loads that name none.
    """

    def __init__(
        self,
        runner_id: str,
        engines: Mapping[str, Engine],
        worker: EngineWorker,
        measures: Measures,
        clock: Clock,
        default_slots: int,
        default_max_batch_size: int,
    ) -> None:
        self.standing = Standing()
        self.measures = measures
        self._runner_id = runner_id
        self._engines = engines
        self._worker = worker
        self._clock = clock
        self._default_slots = default_slots
        self._default_max_batch_size = default_max_batch_size
        self._slots = default_slots
        self._shape: InstanceShape | None = None
        self._loading: asyncio.Task[Loaded | Exception] | None = None
        self._loaded: Loaded | None = None
        self._streams: dict[int, ExecuteStream] = {}
        self._stream_count = 0
        self._cold_start_told = False
        self._watchers: set[asyncio.Queue[Standing]] = set()
        self._drain_by = math.inf
        self._stirred = asyncio.Event()
        self._gone = asyncio.Event()
        self._memory = MemoryGuard(clock, self._outgrew)
        self._over_memory: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def standby(self) -> None:
        """Engines are imported and the socket is open. No step back for one that was told to stop meanwhile."""
        if self.standing.state is State.STARTING:
            self._advance(State.STANDBY)

    async def load(self, request: pb.LoadRequest) -> pb.LoadResponse:
        """Loads what the request names; a repeated request joins the first.

        Raises:
            FailedPrecondition: fenced off, or the runner holds something else or is going.
            InvalidArgument: the model cannot be loaded, with the reason; the runner is gone.
        """
        self.standing = self.standing.obey(request.epoch)
        wanted = holding_of(request)
        if not self.standing.repeats(wanted):
            self._slots = request.slots or self._default_slots
            self._shape = request.shape if request.HasField("shape") else None
            self._advance_to(self.standing.begin_load(wanted))
            plan = plan_of(request, self._default_max_batch_size, self._slots)
            self._loading = asyncio.create_task(self._run_load(plan, request))
        if self._loading is None:
            raise FailedPrecondition("this runner is not loading")
        # The load outlives a caller that goes away: another one may ask for its outcome.
        outcome = await asyncio.shield(self._loading)
        if isinstance(outcome, Exception):
            raise outcome
        return load_response(outcome, resident_bytes())

    def unload(self, grace_s: float, reason: str, epoch: int | None = None) -> None:
        """Starts to drain, or shortens the grace of a drain under way. Answers at once.

        Raises:
            FailedPrecondition: fenced off.
        """
        if epoch is not None:
            self.standing = self.standing.obey(epoch)
        self._drain_by = min(self._drain_by, self._clock.monotonic() + grace_s)
        if self.standing.state not in LEAVING:
            self._advance(State.DRAINING, reason)
        self._stirred.set()

    async def drain(self, timeout_s: float | None) -> int:
        """Unloads and waits until it is done; answers how many bundles were given up."""
        self.unload(math.inf if timeout_s is None else timeout_s, "drain")
        await self._gone.wait()
        return sum(stream.in_hand for stream in self._streams.values())

    async def until_gone(self) -> None:
        """Returns when the runner has nothing more to do: drained, out of grace, or its load failed."""
        while self.standing.state not in LEAVING:
            await self._stir(math.inf)
        while self._streams and (left_s := self._drain_by - self._clock.monotonic()) > 0:
            await self._stir(left_s)
        if self.standing.state is State.DRAINING:
            self._advance(State.GONE)
        self._gone.set()

    async def close(self) -> None:
        """Leaves no task behind. A load that still runs on the engine's thread is abandoned."""
        self._memory.stop()
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.gather(self._loading, return_exceptions=True)
        if self._loaded is not None and isinstance(self._loaded.model, Keeps):
            kept = asyncio.gather(self._worker.call(self._loaded.model.keep), return_exceptions=True)
            await asyncio.wait((kept,), timeout=_KEEP_S)

    def attach(self, attach: pb.Attach, outbox: Sending[pb.ExecuteResponse]) -> ExecuteStream:
        """Takes a router in. Raises FailedPrecondition if this is not the instance it looks for."""
        self._stream_count += 1
        stream = ExecuteStream(self._stream_count, attach, outbox, self._worker, self._clock)
        self._settle(stream, record=not self._cold_start_told)
        self._streams[stream.number] = stream
        return stream

    def detach(self, stream: ExecuteStream) -> None:
        del self._streams[stream.number]
        self._stirred.set()

    def status(self) -> pb.RunnerStatus:
        return status(
            self.standing,
            runner_id=self._runner_id,
            pid=os.getpid(),
            shape=self._shape,
            age=duration(self.measures.uptime_s),
            resident_bytes=resident_bytes(),
            engines=sorted(self._engines),
            over_memory=self._over_memory.done(),
            private_bytes=memory_usage().private_bytes,
            **gpu_facts(self._loaded.model if self._loaded is not None else None),
        )

    async def watch(self) -> AsyncIterator[pb.RunnerStatus]:
        """The status now, at every change, and when memory has changed, at most once a second; until gone."""
        changes: asyncio.Queue[Standing] = asyncio.Queue()
        self._watchers.add(changes)
        try:
            last = self.status()
            yield last
            while last.state != pb.RUNNER_STATE_GONE:
                standing = await _next_within(changes, _SIZE_PERIOD_S)
                now = self.status()
                if standing is None and _size_of(now) == _size_of(last):
                    continue
                if standing is not None:
                    # As it was at that change: another one may have followed before this is sent.
                    now = _as_at(now, standing)
                last = now
                yield now
        finally:
            self._watchers.discard(changes)

    async def _run_load(self, plan: LoadPlan, request: pb.LoadRequest) -> Loaded | Exception:
        begun = self._clock.monotonic()
        try:
            self._memory.hold(request.shape.memory_bytes, in_cgroup=request.memory_in_cgroup)
            loaded = await self._loaded_within_memory(plan)
        except Exception as error:  # noqa: BLE001 - becomes the outcome that every caller of Load is given
            return self._load_failed(error)
        if self.standing.state is not State.LOADING or self.standing.holding is None:
            return FailedPrecondition(f"this runner was told to go while it loaded: {self.standing.reason}")
        self.measures.serve(self.standing.holding)
        self.measures.loaded(request.traceparent, begun, loaded.phases_s)
        self._loaded = loaded
        self._worker.use(Executor(loaded, self._clock, self.measures, self._memory.ran_out))
        self._advance(State.READY)
        spare_the_collector()
        return loaded

    async def _loaded_within_memory(self, plan: LoadPlan) -> Loaded:
        """Raises what the load raises; InvalidArgument also where it outgrows its memory before it ends."""
        loading = self._worker.call(lambda: load(plan, self._engines, self._clock))
        await asyncio.wait((loading, self._over_memory), return_when=asyncio.FIRST_COMPLETED)
        if self._over_memory.done():
            loading.cancel()
            raise InvalidArgument(self._over_memory.result())
        return loading.result()

    def _outgrew(self, reason: str) -> None:
        """Leaves, so that what waits is answered elsewhere."""
        if self._over_memory.done():
            return
        self._over_memory.set_result(reason)
        get_logger().warning("over_memory", reason=reason)
        if self.standing.state is not State.LOADING:
            self.unload(GRACE_S, reason)

    def _load_failed(self, error: Exception) -> Exception:
        known = isinstance(error, HeadraceError)
        reason = error.message if isinstance(error, HeadraceError) else "internal error"
        get_logger().error("load_failed", reason=reason, exc_info=None if known else error)
        if self.standing.state is State.LOADING:
            self._drain_by = self._clock.monotonic() + _AFTER_FAILED_LOAD_S
            self._advance(State.GONE, f"load failed: {reason}")
        return error

    def _advance(self, to: State, reason: str = "") -> None:
        self._advance_to(self.standing.advance(to, reason))

    def _advance_to(self, standing: Standing) -> None:
        self.standing = standing
        held = standing.holding
        get_logger().info(
            "runner_state",
            state=standing.state,
            reason=standing.reason,
            epoch=standing.epoch,
            **({"instance": held.instance_id, "model": held.model, "tenant": held.tenant} if held else {}),
        )
        for watcher in self._watchers:
            watcher.put_nowait(standing)
        # All that waited for this load get its times: each may have requests that it kept waiting.
        record = not self._cold_start_told
        for stream in self._streams.values():
            self._settle_or_fail(stream, record)
        self._stirred.set()

    def _settle_or_fail(self, stream: ExecuteStream, record: bool) -> None:
        try:
            self._settle(stream, record)
        except FailedPrecondition as error:
            stream.fail(error)
        except Exception as error:  # noqa: BLE001 - one router's connection must not keep the others from being told
            get_logger().error("router_not_told", error=repr(error), exc_info=error)
            stream.fail(error)

    def _settle(self, stream: ExecuteStream, record: bool) -> None:
        """Gives a router what it is due in the present standing. `record`: a grant carries the load's times."""
        attach = stream.attach
        verdict = self.standing.admit(attach.instance_id, attach.model, attach.revision)
        if verdict.admission is Admission.LEAVE:
            stream.leave(verdict.reason)
        elif verdict.admission is Admission.GRANT and self._loaded is not None and not stream.granted:
            self._cold_start_told = True
            stream.grant(self._slots, self._loaded if record else None)

    async def _stir(self, timeout_s: float) -> None:
        """Until something happens, or the time is up."""
        try:
            async with asyncio.timeout(None if math.isinf(timeout_s) else timeout_s):
                await self._stirred.wait()
        except TimeoutError:
            return
        self._stirred.clear()


async def _next_within(changes: asyncio.Queue[Standing], timeout_s: float) -> Standing | None:
    try:
        async with asyncio.timeout(timeout_s):
            return await changes.get()
    except TimeoutError:
        return None


def _size_of(status: pb.RunnerStatus) -> tuple[int, int]:
    return status.resident_bytes, status.gpu_memory_used_bytes


def _as_at(now: pb.RunnerStatus, standing: Standing) -> pb.RunnerStatus:
    now.MergeFrom(status(standing))
    return now
