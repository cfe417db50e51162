"""Runners inside this process, for tests: a real RunnerService on a unix socket, with no engine behind it.

What a test wants to go wrong is said to the `FakeMachine`.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

import grpc

from headrace.runner.v1 import runner_pb2, runner_pb2_grpc
from headrace.v1 import models_pb2
from headrace_autoscaler.core.enforcement import without_cgroup
from headrace_autoscaler.domain import Enforcement, Resources
from headrace_autoscaler.providers.base import Departed, Exit, StartedRunner, StartFailed
from headrace_common.life_sign import LifeSign

_STATES = runner_pb2.RunnerState
_PROFILE_US = {1: 1000, 8: 2000}
_FIRST_PID = 1_000_000
_EXIT_S = 0.05
"""A process takes a moment to end: its last answer is out by then."""


class FakeMachine:
    """What outlives a provider: the runners. Two providers over one machine see the same runners.

    Attributes:
        start_failure: not empty: starts fail with it.
        load_refusals: model -> the engine's reason.
        loads: every load that a runner was told, in order.
        unloads: runners that were told to unload, in order.
        graces: the seconds that they were given for it.
        may_load: cleared, loads hang.
        may_exit: cleared, runners that drain do not exit.
        signature: what loads find out.
        profiles: millicores -> what they measure, in microseconds by rows; the usual where there is none.
        held: what each runner was last held to.
        departed: runners that have ended and of which nobody has taken note.
        wall: what the time is, seconds since the epoch.
    """

    def __init__(self, runtime_dir: Path) -> None:
        self.runtime_dir = runtime_dir
        self.runners: dict[str, FakeRunner] = {}
        self.start_failure = ""
        self.load_refusals: dict[str, str] = {}
        self.loads: list[runner_pb2.LoadRequest] = []
        self.unloads: list[str] = []
        self.graces: dict[str, float] = {}
        self.may_load = asyncio.Event()
        self.may_load.set()
        self.may_exit = asyncio.Event()
        self.may_exit.set()
        self.signature = models_pb2.Signature(
            inputs=[models_pb2.TensorSpec(name="x", datatype="FP32", shape=[-1, 4])],
            outputs=[models_pb2.TensorSpec(name="y", datatype="FP32", shape=[-1, 2])],
            batchable=True,
        )
        self.pids = itertools.count(_FIRST_PID)
        self.held: dict[str, Resources] = {}
        self.departed: dict[str, Departed] = {}
        self.wall: Callable[[], float] = time.time
        self.profiles: dict[int, dict[int, int]] = {}

    async def close(self) -> None:
        """Ends every runner."""
        for runner in tuple(self.runners.values()):
            await runner.die("the test is over")


class FakeRunner(runner_pb2_grpc.RunnerServiceServicer):
    """One scripted runner.

    Attributes:
        answers: cleared, it says nothing of itself.
    """

    def __init__(self, machine: FakeMachine, runner_id: str) -> None:
        self._machine = machine
        self._id = runner_id
        self.pid = next(machine.pids)
        self.socket = machine.runtime_dir / f"{runner_id}.sock"
        self.exited: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self._server: grpc.aio.Server | None = None
        self._born = time.monotonic()
        self.started_at = machine.wall()
        self.answers = asyncio.Event()
        self.answers.set()
        self._status = runner_pb2.RunnerStatus(
            runner_id=runner_id, pid=self.pid, state=_STATES.RUNNER_STATE_STANDBY, engines=["fake"]
        )
        self._changed = asyncio.Condition()
        self._exiting: asyncio.Task[None] | None = None

    async def serve(self) -> None:
        self._server = grpc.aio.server()
        runner_pb2_grpc.add_RunnerServiceServicer_to_server(self, self._server)
        self._server.add_insecure_port(f"unix:{self.socket}")
        await self._server.start()

    async def outgrow(self, reason: str, private_bytes: int) -> None:
        """Drains by itself, as a runner over its memory does."""
        await self._become(
            state=_STATES.RUNNER_STATE_DRAINING, reason=reason, over_memory=True, private_bytes=private_bytes
        )
        self._exit_soon("exit status 0")

    async def measure(self, gpu_used_bytes: int, gpu_total_bytes: int) -> None:
        """Tells of GPU memory, as a runner whose engine measures it does."""
        await self._become(gpu_memory_used_bytes=gpu_used_bytes, gpu_memory_total_bytes=gpu_total_bytes)

    async def die(self, how: str, over_memory: bool = False) -> None:
        """As a process does: streams break, the socket stays behind."""
        if self._machine.runners.pop(self._id, None) is not None:
            # Let go of it here: a server that is collected after its loop has closed complains.
            server, self._server = self._server, None
            if server is not None:
                await server.stop(grace=None)
            self.socket.unlink(missing_ok=True)
            machine = self._machine
            machine.departed[self._id] = Departed(self._id, self.sign, self.started_at, machine.wall())
            self.exited.set_result(Exit(how, over_memory))

    @property
    def sign(self) -> LifeSign:
        status, shape = self._status, self._status.shape
        return LifeSign(
            self.pid, status.tenant, status.model, status.revision, status.version, shape.cpu_millicores,
            shape.memory_bytes, shape.gpu_millis, shape.gpu_memory_bytes,
        )  # fmt: skip

    async def GetStatus(self, _request: Any, _context: Any) -> runner_pb2.GetStatusResponse:
        return runner_pb2.GetStatusResponse(status=self._status)

    async def WatchStatus(self, _request: Any, _context: Any) -> AsyncIterator[runner_pb2.WatchStatusResponse]:
        while True:
            await self.answers.wait()
            sent = self._status
            yield runner_pb2.WatchStatusResponse(status=sent)
            async with self._changed:
                while self._status is sent:
                    await self._changed.wait()

    async def Load(self, request: runner_pb2.LoadRequest, context: Any) -> runner_pb2.LoadResponse:
        await self._obey(request.epoch, context)
        self._machine.loads.append(request)
        await self._become(
            state=_STATES.RUNNER_STATE_LOADING,
            epoch=request.epoch,
            instance_id=request.instance_id,
            tenant=request.tenant,
            model=request.model,
            revision=request.revision,
            version=request.version,
            shape=request.shape,
        )
        await self._machine.may_load.wait()
        refusal = self._machine.load_refusals.get(request.model)
        if refusal:
            await self._become(state=_STATES.RUNNER_STATE_GONE, reason=f"load failed: {refusal}")
            self._exit_soon("exit status 0")
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, refusal)
        await self._become(state=_STATES.RUNNER_STATE_READY, resident_bytes=1 << 20)
        response = runner_pb2.LoadResponse(
            signature=self._machine.signature,
            max_batch_size=8,
            batching="batchable: scripted",
            platform="fake",
            resident_bytes=1 << 20,
            profile_us=self._machine.profiles.get(request.shape.cpu_millicores, _PROFILE_US),
        )
        response.phases["session"].FromMilliseconds(20)
        response.phases["warm"].FromMilliseconds(10)
        return response

    async def Unload(self, request: runner_pb2.UnloadRequest, context: Any) -> runner_pb2.UnloadResponse:
        await self._obey(request.epoch, context)
        self._machine.unloads.append(self._id)
        self._machine.graces[self._id] = request.grace.ToNanoseconds() / 1e9
        await self._become(state=_STATES.RUNNER_STATE_DRAINING, epoch=request.epoch, reason="unload")
        self._exit_soon("exit status 0")
        return runner_pb2.UnloadResponse()

    async def GetStats(self, _request: Any, _context: Any) -> runner_pb2.GetStatsResponse:
        return runner_pb2.GetStatsResponse(resident_bytes=self._status.resident_bytes)

    async def _obey(self, epoch: int, context: Any) -> None:
        if epoch < self._status.epoch:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"fencing epoch {epoch} is over")

    async def _become(self, **fields: Any) -> None:
        status = runner_pb2.RunnerStatus()
        status.CopyFrom(self._status)
        shape = fields.pop("shape", None)
        for name, value in fields.items():
            setattr(status, name, value)
        if shape is not None:
            status.shape.CopyFrom(shape)
        status.age.FromNanoseconds(int((time.monotonic() - self._born) * 1e9))
        async with self._changed:
            self._status = status
            self._changed.notify_all()

    def _exit_soon(self, how: str) -> None:
        async def exit_when_allowed() -> None:
            await self._machine.may_exit.wait()
            await asyncio.sleep(_EXIT_S)
            await self.die(how)

        self._exiting = asyncio.create_task(exit_when_allowed(), name=f"exit {self._id}")


class FakeProvider:
    """`InstanceProvider` over a `FakeMachine`."""

    enforcement = without_cgroup("its runners are in one process")

    def __init__(self, machine: FakeMachine) -> None:
        self._machine = machine

    async def start(self, runner_id: str) -> StartedRunner:
        if self._machine.start_failure:
            raise StartFailed(self._machine.start_failure)
        runner = FakeRunner(self._machine, runner_id)
        self._machine.runners[runner_id] = runner
        await runner.serve()
        return _started(runner_id, runner)

    async def kill(self, runner_id: str) -> None:
        runner = self._machine.runners.get(runner_id)
        if runner is not None:
            await runner.die("killed by SIGKILL")

    async def list(self) -> tuple[StartedRunner, ...]:
        return tuple(_started(runner_id, runner) for runner_id, runner in sorted(self._machine.runners.items()))

    async def hold(self, runner_id: str, resources: Resources) -> Enforcement:
        if runner_id in self._machine.runners:
            self._machine.held[runner_id] = resources
        return self.enforcement

    async def wait_exit(self, runner_id: str) -> Exit:
        runner = self._machine.runners.get(runner_id)
        if runner is None:
            return Exit("not running")
        exited = await asyncio.shield(runner.exited)
        self._machine.departed.pop(runner_id, None)
        return exited

    async def departed(self) -> tuple[Departed, ...]:
        return tuple(self._machine.departed.values())

    async def forget(self, runner_ids: Iterable[str]) -> None:
        for runner_id in runner_ids:
            self._machine.departed.pop(runner_id, None)

    async def close(self) -> None:
        """Nothing is watched: the runners are in this process."""


def _started(runner_id: str, runner: FakeRunner) -> StartedRunner:
    return StartedRunner(runner_id, runner.pid, f"unix:{runner.socket}", runner.started_at, runner.sign)
