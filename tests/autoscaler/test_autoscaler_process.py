"""The autoscaler as a process, with real runners: serve, be killed, come back, stop."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc
import pytest
from google.protobuf import duration_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from headrace.control.v1 import control_pb2, control_pb2_grpc, process_pb2, process_pb2_grpc
from headrace.v1 import mesh_pb2, mesh_pb2_grpc, models_pb2, models_pb2_grpc, usage_pb2, usage_pb2_grpc
from headrace_autoscaler.store import SqlStore, sqlite_url
from headrace_common.config import AutoscalerConfig, MeshConfig, ProcessContext, RunnerConfig
from headrace_common.life_sign import life_path

DEADLINE_S = 30.0
TICK_S = 1.0
MODEL = json.dumps(
    {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 4]}],
    }
).encode()


class Process:
    """One autoscaler process at a time, over one state directory."""

    def __init__(self, context: ProcessContext) -> None:
        self.context = context
        self.file = context.runtime_dir / "autoscaler.json"
        context.save(self.file)
        self.child: asyncio.subprocess.Process | None = None
        self.channel: grpc.aio.Channel | None = None

    async def start(self) -> float:
        """Seconds until it served."""
        begun = time.monotonic()
        command = (sys.executable, "-m", "headrace_autoscaler", "--context", str(self.file))
        self.child = await asyncio.create_subprocess_exec(*command)
        options = (("grpc.initial_reconnect_backoff_ms", 20), ("grpc.max_reconnect_backoff_ms", 50),
                   ("grpc.min_reconnect_backoff_ms", 20), ("grpc.use_local_subchannel_pool", 1))  # fmt: skip
        self.channel = grpc.aio.insecure_channel(self.context.autoscaler_target, options=options)
        health = health_pb2_grpc.HealthStub(self.channel)
        await health.Check(health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=DEADLINE_S)
        return time.monotonic() - begun

    async def end(self, number: signal.Signals) -> int:
        assert self.child is not None
        self.child.send_signal(number)
        async with asyncio.timeout(DEADLINE_S):
            code = await self.child.wait()
        if self.channel is not None:
            await self.channel.close()
        return code

    async def deploy(self, name: str, idle_s: int, content: bytes = MODEL) -> models_pb2.Model:
        async def parts() -> AsyncIterator[models_pb2.UploadArtifactRequest]:
            header = models_pb2.UploadArtifactRequest.FileHeader(
                path="model.fake.json", size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest()
            )
            yield models_pb2.UploadArtifactRequest(file=header)
            yield models_pb2.UploadArtifactRequest(chunk=content)

        stub = models_pb2_grpc.ModelServiceStub(self.channel)
        artifact = (await stub.UploadArtifact(parts())).artifact
        spec = models_pb2.ModelSpec(
            name=name, artifact=artifact, engine="fake", idle_timeout=duration_pb2.Duration(seconds=idle_s)
        )
        return (await stub.DeployModel(models_pb2.DeployModelRequest(model=spec, wait=True), timeout=DEADLINE_S)).model

    async def model(self, name: str) -> models_pb2.Model:
        stub = models_pb2_grpc.ModelServiceStub(self.channel)
        return (await stub.GetModel(models_pb2.GetModelRequest(name=name))).model

    async def status(self) -> mesh_pb2.GetStatusResponse:
        return await mesh_pb2_grpc.MeshServiceStub(self.channel).GetStatus(mesh_pb2.GetStatusRequest())

    async def instance_seconds(self, model: str) -> float:
        usage = await usage_pb2_grpc.UsageServiceStub(self.channel).GetUsage(usage_pb2.GetUsageRequest())
        return sum(row.instance_seconds for row in usage.rows if row.model == model)

    async def until_standby(self) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not any(each.state == "standby" for each in (await self.status()).standby):  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    async def until_cold_start(self, name: str) -> models_pb2.Model:
        """The runner's own word that it is ready may come before the answer to its load, which is what is booked."""
        async with asyncio.timeout(DEADLINE_S):
            while not (model := await self.model(name)).cold_starts.count:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        return model

    def runners(self) -> list[str]:
        return sorted(path.name for path in self.context.runtime_dir.glob("runner-*"))


class Router:
    """Applies every update, reports what it is told to report."""

    def __init__(self, channel: grpc.aio.Channel | None) -> None:
        self.call = control_pb2_grpc.ControlServiceStub(channel).Sync()
        self.placements: dict[str, control_pb2.Placement] = {}
        self.seen: list[control_pb2.Placement] = []
        self.epoch = 0
        self._changed = asyncio.Condition()
        self._writing = asyncio.Lock()

    async def run(self) -> None:
        await self.call.write(control_pb2.SyncRequest(hello=control_pb2.Hello(router_id="router-0")))
        async for response in self.call:
            async with self._changed:
                self.epoch = response.epoch
                for placement in response.update.placements:
                    self.placements[placement.instance_id] = placement
                    self.seen.append(placement)
                for gone in response.update.removed_placements:
                    self.placements.pop(gone, None)
                self._changed.notify_all()
            await self._write(control_pb2.SyncRequest(applied_version=response.update.version))

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(DEADLINE_S), self._changed:
            await self._changed.wait_for(condition)

    async def report(self, **demand: int) -> None:
        entry = control_pb2.Demand(tenant="default", model="m", revision=1, **demand)
        report = control_pb2.DemandReport(demands=[entry], urgent=bool(demand.get("queued")))
        await self._write(control_pb2.SyncRequest(demand=report))

    async def _write(self, request: control_pb2.SyncRequest) -> None:
        """One at a time: gRPC refuses a write that begins before the last one ended."""
        async with self._writing:
            await self.call.write(request)


@pytest.fixture
async def two_meshes(runtime_dir: Path) -> AsyncIterator[list[Process]]:
    """Of one database."""
    both = [_of_one_database(runtime_dir, name) for name in ("a", "b")]
    yield both
    for each in both:
        if each.child is not None and each.child.returncode is None:
            await each.end(signal.SIGTERM)


def _of_one_database(directory: Path, name: str) -> Process:
    own = directory / name
    (own / "state").mkdir(parents=True)
    mesh = MeshConfig(
        autoscaler=AutoscalerConfig(database_url=sqlite_url(directory / "shared.db"), drain_timeout_s=5.0),
        runner=RunnerConfig(allow_fake_engine=True),
    )
    return Process(ProcessContext(process="autoscaler", state_dir=own / "state", runtime_dir=own, mesh=mesh))


@pytest.fixture
async def process(runtime_dir: Path) -> AsyncIterator[Process]:
    state = runtime_dir / "state"
    state.mkdir()
    mesh = MeshConfig(
        autoscaler=AutoscalerConfig(decision_period_s=0.1, drain_timeout_s=5.0),
        runner=RunnerConfig(allow_fake_engine=True),
    )
    process = Process(ProcessContext(process="autoscaler", state_dir=state, runtime_dir=runtime_dir, mesh=mesh))
    yield process
    if process.child is not None and process.child.returncode is None:
        await process.end(signal.SIGTERM)


async def test_it_serves_scales_to_zero_and_back_and_stops_clean(process: Process) -> None:
    await process.start()
    model = await process.deploy("m", idle_s=1)
    assert [each.version for each in model.versions] == ["1"]
    router = Router(process.channel)
    running = asyncio.create_task(router.run())
    await router.until(lambda: router.placements)
    await router.until(lambda: not router.placements)
    await process.until_standby()
    assert [each.state for each in router.seen][-1] == control_pb2.PLACEMENT_STATE_DRAINING

    await router.report(queued=1, arrivals=1, oldest_wait_us=3000)
    await router.until(lambda: [p for p in router.placements.values() if p.state == control_pb2.PLACEMENT_STATE_READY])
    [placement] = router.placements.values()
    assert placement.decide.ToNanoseconds() >= 3_000_000
    model = await process.until_cold_start("m")
    assert (model.cold_starts.count, model.cold_starts.recent[0].from_standby) == (1, True)
    assert [each.state for each in model.instances] == ["ready"]
    text = await process_pb2_grpc.ProcessServiceStub(process.channel).ScrapeMetrics(process_pb2.ScrapeMetricsRequest())
    assert b"headrace_instances{" in text.text

    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert await process.end(signal.SIGTERM) == 0
    assert process.runners() == []
    assert not process.context.socket.exists()


async def test_a_stop_tells_whoever_waits_for_a_deploy(process: Process) -> None:
    await process.start()
    hangs = json.dumps({**json.loads(MODEL), "behaviour": "hang"}).encode()
    deploy = asyncio.create_task(process.deploy("m", idle_s=1, content=hangs))
    async with asyncio.timeout(DEADLINE_S):
        while not any(each.instances for each in (await process.status()).models):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert process.child is not None
    process.child.send_signal(signal.SIGTERM)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await deploy
    assert error.value.code() is grpc.StatusCode.UNAVAILABLE
    assert error.value.details() == "the autoscaler stopped during the first load; deploy again"
    async with asyncio.timeout(DEADLINE_S):
        assert await process.child.wait() == 0
    assert process.runners() == []


async def test_killed_it_comes_back_with_everything_it_knew(process: Process) -> None:
    await process.start()
    await process.deploy("m", idle_s=600)
    await process.until_standby()
    before, status = await process.model("m"), await process.status()
    assert await process.end(signal.SIGKILL) == -signal.SIGKILL
    os.kill(before.instances[0].pid, 0)

    await process.start()
    after, status_after = await process.model("m"), await process.status()
    assert [each.pid for each in after.instances] == [each.pid for each in before.instances]
    assert [each.pid for each in status_after.standby] == [each.pid for each in status.standby]
    assert status_after.epoch == status.epoch + 1
    router = Router(process.channel)
    running = asyncio.create_task(router.run())
    await router.until(lambda: router.placements)
    assert (router.epoch, [p.state for p in router.placements.values()]) == (
        status_after.epoch, [control_pb2.PLACEMENT_STATE_READY],
    )  # fmt: skip
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert await process.end(signal.SIGTERM) == 0
    assert process.runners() == []


async def test_the_books_are_whole_after_kill_9(process: Process) -> None:
    """What ran without an autoscaler is booked, from where the books end or an instance's own start: once."""
    earliest = time.time()
    await process.start()
    await process.deploy("m", idle_s=600)
    [instance] = (await process.model("m")).instances
    held_since = time.time()
    for _ in range(3):
        assert await process.end(signal.SIGKILL) == -signal.SIGKILL
        await process.start()
        back = time.time()
        async with asyncio.timeout(DEADLINE_S):
            while await process.instance_seconds("m") < back - held_since - TICK_S:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert [each.pid for each in (await process.model("m")).instances] == [instance.pid]
        assert await process.instance_seconds("m") <= time.time() - earliest


async def test_an_instance_that_ends_unseen_is_in_the_books_until_its_end(process: Process) -> None:
    earliest = time.time()
    await process.start()
    await process.deploy("m", idle_s=600)
    [instance] = (await process.model("m")).instances
    held_since = time.time()
    assert await process.end(signal.SIGKILL) == -signal.SIGKILL
    killed_at, sign = time.time(), life_path(process.context.runtime_dir / f"{instance.id}.sock")
    async with asyncio.timeout(DEADLINE_S):
        while sign.stat().st_mtime < killed_at + 2 * TICK_S:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)
    os.kill(instance.pid, signal.SIGKILL)
    ended_at = time.time()
    await process.start()
    async with asyncio.timeout(DEADLINE_S):
        while await process.instance_seconds("m") < ended_at - held_since - 2 * TICK_S or sign.exists():  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert await process.instance_seconds("m") <= ended_at - earliest


async def test_a_replaced_one_ends_and_leaves_the_runners(process: Process) -> None:
    await process.start()
    await process.until_standby()
    call = control_pb2_grpc.ControlServiceStub(process.channel).Sync()
    await call.write(control_pb2.SyncRequest(hello=control_pb2.Hello(router_id="router-0", highest_epoch=99)))
    assert process.child is not None
    async with asyncio.timeout(DEADLINE_S):
        assert await process.child.wait() == 1
    assert len([name for name in process.runners() if name.endswith(".sock")]) == 1
    await process.start()
    usage = await usage_pb2_grpc.UsageServiceStub(process.channel).GetUsage(usage_pb2.GetUsageRequest())
    assert [row.tenant for row in usage.rows] == ["operator"]


async def test_one_whose_books_another_keeps_ends_and_lets_its_routers_go(process: Process) -> None:
    """No router need have heard of the other one."""
    await process.start()
    await process.until_standby()
    call = control_pb2_grpc.ControlServiceStub(process.channel).Sync()
    await call.write(control_pb2.SyncRequest(hello=control_pb2.Hello(router_id="router-0")))
    update = await call.read()
    store = SqlStore.open(sqlite_url(process.context.state_dir / "headrace.db"))
    assert store.begin_epoch() > update.epoch
    assert process.child is not None
    async with asyncio.timeout(DEADLINE_S):
        assert await process.child.wait() == 1
        while await call.read() is not grpc.aio.EOF:
            pass
    store.close()
    assert len([name for name in process.runners() if name.endswith(".sock")]) == 1
    # Its supervisor starts it again: the other one posts nothing, so it has gone.
    await process.start()
    assert len((await process.status()).standby) == 1, "what it left is its own again"


async def test_two_meshes_do_not_take_one_database_from_each_other(two_meshes: list[Process]) -> None:
    first, second = two_meshes
    await first.start()
    await first.until_standby()
    command = (sys.executable, "-m", "headrace_autoscaler", "--context", str(second.file))
    refused = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    async with asyncio.timeout(DEADLINE_S):
        _, said = await refused.communicate()
    assert refused.returncode == 2
    assert b"one database is for one mesh; stop that mesh, or give this one another autoscaler.database_url" in said
    assert (await first.deploy("ocr", 60)).state == models_pb2.MODEL_STATE_READY
    assert await first.end(signal.SIGTERM) == 0
    await second.start()
    assert (await second.model("ocr")).name == "ocr"
