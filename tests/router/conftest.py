"""Builders of requests and revisions for the router's tests."""

from __future__ import annotations

import asyncio
import shutil
import struct
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from headrace.control.v1 import control_pb2, control_pb2_grpc
from headrace.runner.v1 import runner_pb2, runner_pb2_grpc
from headrace.v1 import models_pb2
from headrace_common.clock import SystemClock
from headrace_common.config import MeshConfig, ProcessContext, RouterConfig
from headrace_router.core.accounts import Account
from headrace_router.core.admission import Limiter
from headrace_router.core.waiting import Waiting
from headrace_router.domain import InferenceRequest, InferenceResult, RevisionEntry, TensorData, TensorSpec
from headrace_router.plane import Plane

ENTRY = RevisionEntry(
    model="m",
    owner="default",
    revision=1,
    version="1",
    inputs=(TensorSpec("x", "FP32", (-1, 2)),),
    outputs=(TensorSpec("y", "FP32", (-1, 2)),),
    batchable=True,
    max_batch_size=8,
)


class RecordedAnswer:
    """An answer that is looked at instead of awaited."""

    def __init__(self) -> None:
        self.result: InferenceResult | None = None
        self.error: Exception | None = None

    def done(self) -> bool:
        return self.result is not None or self.error is not None

    def set_result(self, result: InferenceResult, /) -> None:
        self.result = result

    def set_exception(self, exception: Any, /) -> None:
        self.error = exception

    def __await__(self) -> Generator[Any, None, InferenceResult]:
        raise RuntimeError("a recorded answer cannot be awaited")


@pytest.fixture
def entry() -> RevisionEntry:
    """Batchable, FP32 [-1, 2] to FP32 [-1, 2], at most 8 rows."""
    return ENTRY


@pytest.fixture(scope="session")
def make_request() -> Callable[..., InferenceRequest]:
    """A request for ENTRY of `rows` rows, each [value, value]."""

    def make(rows: int = 1, tenant: str = "t", entry: RevisionEntry = ENTRY, **changes: Any) -> InferenceRequest:
        data = changes.pop("data", b"\0\0\x80\x3f" * 2 * rows)
        tensor = TensorData("x", "FP32", (rows, 2), data)
        base = InferenceRequest(entry, tenant, [tensor], (), rows, changes.pop("arrived", 0.0), size_bytes=len(data))
        return replace(base, **changes)

    return make


@pytest.fixture(scope="session")
def make_waiting(make_request: Callable[..., InferenceRequest]) -> Callable[..., Waiting]:
    """What the cores handle: a request with an account of its own."""

    def make(now: float = 0.0, group: Any = (), level: int = 1, **changes: Any) -> Waiting:
        request = make_request(arrived=now, **changes)
        account = Account(request.tenant, "m", 1, Limiter("tenant"), Limiter("model"))
        return Waiting(request, RecordedAnswer(), account, group, level, now)

    return make


# --- peers of the router, scripted, in process ---

Script = Callable[[runner_pb2.Bundle], Awaitable[runner_pb2.BundleResult | None]]


async def echo(bundle: runner_pb2.Bundle) -> runner_pb2.BundleResult:
    """Answers output y with what input x held."""
    given = bundle.inputs[0]
    output = runner_pb2.Tensor(name="y", datatype=given.datatype, shape=given.shape, data=given.data)
    return runner_pb2.BundleResult(bundle_id=bundle.bundle_id, outputs=[output], compute_us=1000)


def failed(bundle: runner_pb2.Bundle, code: runner_pb2.BundleErrorCode) -> runner_pb2.BundleResult:
    error = runner_pb2.BundleError(code=code, detail="scripted")
    return runner_pb2.BundleResult(bundle_id=bundle.bundle_id, error=error)


class ScriptedRunner(runner_pb2_grpc.RunnerServiceServicer):
    """A RunnerService whose answers a test writes. `gate` holds answers back while it is clear."""

    def __init__(self, target: str, script: Script = echo, slots: int = 2) -> None:
        self.target = target
        self.script = script
        self.slots = slots
        self.gate = asyncio.Event()
        self.gate.set()
        self.attached: list[runner_pb2.Attach] = []
        self.bundles: list[runner_pb2.Bundle] = []
        self.cancelled: list[int] = []
        self.half_closed = asyncio.Event()
        self.streams: list[asyncio.Queue[runner_pb2.ExecuteResponse | None]] = []
        self._server: grpc.aio.Server | None = None

    async def start(self) -> ScriptedRunner:
        self._server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
        runner_pb2_grpc.add_RunnerServiceServicer_to_server(self, self._server)
        self._server.add_insecure_port(self.target)
        await self._server.start()
        return self

    async def stop(self) -> None:
        """At once, as a killed process: streams break."""
        if self._server is not None:
            await self._server.stop(None)

    def drain(self) -> None:
        for stream in self.streams:
            stream.put_nowait(runner_pb2.ExecuteResponse(draining=runner_pb2.Draining(reason="unload")))

    def break_streams(self) -> None:
        for stream in self.streams:
            stream.put_nowait(None)

    async def Execute(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        out: asyncio.Queue[Any] = asyncio.Queue()
        self.streams.append(out)
        if self.slots:
            grant = runner_pb2.SlotGrant(slots=self.slots)
            grant.load.FromMilliseconds(20)
            out.put_nowait(runner_pb2.ExecuteResponse(grant=grant))
        async with asyncio.TaskGroup() as tasks:
            reader = tasks.create_task(self._read(requests, out, tasks))
            while (message := await out.get()) is not None:
                yield message
            if not reader.done():
                reader.cancel()
                await context.abort(grpc.StatusCode.UNAVAILABLE, "scripted break")
        self.streams.remove(out)

    async def _read(self, requests: AsyncIterator[Any], out: asyncio.Queue[Any], tasks: asyncio.TaskGroup) -> None:
        async for message in requests:
            kind = message.WhichOneof("message")
            if kind == "attach":
                self.attached.append(message.attach)
            elif kind == "cancel":
                self.cancelled.append(message.cancel.bundle_id)
            else:
                self.bundles.append(message.bundle)
                tasks.create_task(self._answer(message.bundle, out))
        self.half_closed.set()
        out.put_nowait(None)

    async def _answer(self, bundle: runner_pb2.Bundle, out: asyncio.Queue[Any]) -> None:
        await self.gate.wait()
        result = await self.script(bundle)
        out.put_nowait(None if result is None else runner_pb2.ExecuteResponse(result=result))


class ScriptedControl(control_pb2_grpc.ControlServiceServicer):
    """A ControlService that sends what a test tells it to, and keeps what it was told."""

    def __init__(self, target: str, epoch: int = 1) -> None:
        self.target = target
        self.epoch = epoch
        self.version = 0
        self.full = control_pb2.StateUpdate(full=True)
        self.hellos: list[control_pb2.Hello] = []
        self.reports: list[control_pb2.DemandReport] = []
        self.applied: list[int] = []
        self.excess: list[tuple[int, dict[tuple[str, str], int]]] = []
        self._streams: list[asyncio.Queue[control_pb2.SyncResponse | None]] = []
        self._server: grpc.aio.Server | None = None

    async def start(self) -> ScriptedControl:
        self._server = grpc.aio.server()
        control_pb2_grpc.add_ControlServiceServicer_to_server(self, self._server)
        self._server.add_insecure_port(self.target)
        await self._server.start()
        return self

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(None)

    def send(self, **parts: Any) -> None:
        """A delta."""
        self.version += 1
        update = control_pb2.StateUpdate(version=self.version, **parts)
        for stream in self._streams:
            stream.put_nowait(control_pb2.SyncResponse(epoch=self.epoch, update=update))

    async def Sync(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        out: asyncio.Queue[Any] = asyncio.Queue()
        self.full.version = self.version
        out.put_nowait(control_pb2.SyncResponse(epoch=self.epoch, update=self.full))
        self._streams.append(out)
        reader = asyncio.create_task(self._read(requests, out))
        try:
            while (message := await out.get()) is not None:
                yield message
        finally:
            reader.cancel()
            self._streams.remove(out)

    async def _read(self, requests: AsyncIterator[Any], out: asyncio.Queue[Any]) -> None:
        async for message in requests:
            kind = message.WhichOneof("message")
            excess = {(each.tenant, each.model): each.in_hand.concurrency for each in message.excess}
            self.excess.append((message.applied_version, excess))
            if kind == "hello":
                self.hellos.append(message.hello)
            elif kind == "demand":
                self.reports.append(message.demand)
            else:
                self.applied.append(message.applied_version)
        out.put_nowait(None)

    def total(self, field: str) -> int:
        return sum(getattr(demand, field) for report in self.reports for demand in report.demands)


def model_entry(**changes: Any) -> control_pb2.ModelEntry:
    """ENTRY as the autoscaler would send it. `changes` are of its one revision."""
    fields: dict[str, Any] = {"revision": 1, "version": "1", "current": True, "max_batch_size": 8, **changes}
    signature = models_pb2.Signature(batchable=fields.pop("batchable", True))
    signature.inputs.add(name="x", datatype="FP32", shape=[-1, 2])
    signature.outputs.add(name="y", datatype="FP32", shape=[-1, 2])
    revision = control_pb2.Revision(signature=signature, platform="fake", **fields)
    return control_pb2.ModelEntry(name="m", tenant="default", revisions=[revision])


def placement(instance_id: str, target: str, **changes: Any) -> control_pb2.Placement:
    fields: dict[str, Any] = {"model": "m", "revision": 1, "state": control_pb2.PLACEMENT_STATE_READY, **changes}
    return control_pb2.Placement(instance_id=instance_id, target=target, **fields)


@dataclass
class Bench:
    """A started plane between scripted peers."""

    plane: Plane
    control: ScriptedControl
    make_request: Callable[..., InferenceRequest]
    directory: Path
    runners: list[ScriptedRunner]

    async def add_runner(self, instance_id: str, script: Script = echo, **changes: Any) -> ScriptedRunner:
        """A runner, placed in the next state; the plane has its slots when this returns."""
        slots = changes.pop("slots", 2)
        runner = await ScriptedRunner(f"unix:{self.directory}/{instance_id}", script, slots).start()
        self.runners.append(runner)
        self.control.full.placements.append(placement(instance_id, runner.target, **changes))
        self.control.send(placements=[placement(instance_id, runner.target, **changes)])
        await until(lambda: self.serves(instance_id))
        return runner

    def serves(self, instance_id: str) -> bool:
        return any(
            health.instance_id == instance_id and health.connected for health in self.plane.demand().message.runners
        )

    def request(self, value: float = 1.0, rows: int = 1, **changes: Any) -> InferenceRequest:
        data = struct.pack("<2f", value, value) * rows
        entry = self.plane.catalogue.resolve("t", "m", "")
        return self.make_request(rows, entry=entry, data=data, arrived=time.monotonic(), **changes)

    async def infer(self, value: float = 1.0, rows: int = 1, **changes: Any) -> list[float]:
        result = await self.plane.infer(self.request(value, rows, **changes))
        assert [tensor.shape for tensor in result.outputs] == [(rows, 2)]
        return list(struct.unpack(f"<{2 * rows}f", result.outputs[0].data))


async def until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Waits for what other tasks bring about; fails if they do not."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "what was waited for did not come about"
        await asyncio.sleep(0.002)


@pytest.fixture
def eventually() -> Callable[..., Awaitable[None]]:
    return until


@pytest.fixture
def scripts() -> SimpleNamespace:
    return SimpleNamespace(
        echo=echo,
        failed=failed,
        model_entry=model_entry,
        placement=placement,
        runner=ScriptedRunner,
        control=ScriptedControl,
    )


@pytest.fixture
def directory() -> Iterator[Path]:
    """Short enough for the path of a unix socket."""
    path = Path(tempfile.mkdtemp(prefix="hr-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def make_context(directory: Path) -> Callable[..., ProcessContext]:
    def make(**router: Any) -> ProcessContext:
        config = RouterConfig(**{"sweep_period_s": 0.01, "demand_period_s": 0.02, "drain_timeout_s": 5.0, **router})
        return ProcessContext(
            process="router-0", state_dir=directory, runtime_dir=directory, mesh=MeshConfig(router=config)
        )

    return make


@pytest.fixture
async def start_bench(
    directory: Path, make_context: Callable[..., ProcessContext], make_request: Callable[..., InferenceRequest]
) -> AsyncIterator[Callable[..., Awaitable[Bench]]]:
    """Starts a plane that knows model "m"; keywords are of RouterConfig, `model` of its revision."""
    benches: list[Bench] = []

    async def start(model: dict[str, Any] | None = None, **router: Any) -> Bench:
        context = make_context(**router)
        control = ScriptedControl(context.autoscaler_target)
        control.full.models.append(model_entry(**(model or {})))
        await control.start()
        plane = Plane(context, SystemClock())
        await plane.start()
        benches.append(Bench(plane, control, make_request, directory, []))
        await until(lambda: plane.catalogue.ready)
        return benches[-1]

    yield start
    for bench in benches:
        await bench.plane.stop()
        await bench.control.stop()
        for runner in bench.runners:
            await runner.stop()
