"""A runner's life, through gRPC, in a real process."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from grpc_health.v1 import health_pb2, health_pb2_grpc

from headrace.control.v1 import process_pb2, process_pb2_grpc
from headrace.runner.v1 import runner_pb2 as pb
from headrace_common.config import RunnerConfig
from headrace_common.life_sign import LifeSign, life_path, read_life
from tests.runner.harness import (
    ATTACH,
    PATIENCE_S,
    RunnerProcess,
    attach,
    bundle,
    fake_model,
    granted,
    load_request,
    running,
)

Refused = Callable[[Any], Any]


def unload(epoch: int = 1, grace_s: int = 20, reason: str = "idle") -> pb.UnloadRequest:
    return pb.UnloadRequest(epoch=epoch, grace=Duration(seconds=grace_s), reason=reason)


async def test_a_life_from_standby_to_gone(runner: RunnerProcess, models: Path) -> None:
    watch = runner.stub.WatchStatus(pb.WatchStatusRequest())
    updates = aiter(watch)
    last = (await anext(updates)).status
    states: list[int] = [last.state]

    async def follow() -> None:
        nonlocal last
        async for update in updates:
            last = update.status
            if states[-1] != last.state:
                states.append(last.state)

    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as tasks:
        follower = tasks.create_task(follow())
        fake_model(models)
        loaded = await runner.stub.Load(load_request(models))
        assert loaded.max_batch_size == 64
        held = await runner.status()
        assert (held.instance_id, held.tenant, held.model, held.revision) == ("i-1", "acme", "echo", 1)
        await runner.stub.Unload(unload())
        await follower
    assert states == [
        pb.RUNNER_STATE_STANDBY,
        pb.RUNNER_STATE_LOADING,
        pb.RUNNER_STATE_READY,
        pb.RUNNER_STATE_DRAINING,
        pb.RUNNER_STATE_GONE,
    ]
    assert last.reason == "idle"
    assert await runner.exit_code() == 0
    assert not runner.context.socket.exists()


async def test_it_leaves_a_sign_of_what_it_held_and_when_it_lived(runner: RunnerProcess, models: Path) -> None:
    path = life_path(runner.context.socket)
    standing_by = read_life(path)
    assert standing_by is not None
    assert standing_by[0] == LifeSign(runner.process.pid)
    fake_model(models)
    await runner.stub.Load(load_request(models))
    shape = (await runner.status()).shape
    held = LifeSign(
        runner.process.pid, "acme", "echo", 1, "1", shape.cpu_millicores, shape.memory_bytes, shape.gpu_millis,
        shape.gpu_memory_bytes,
    )  # fmt: skip
    async with asyncio.timeout(PATIENCE_S):
        while (life := read_life(path)) is None or life[0] != held:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.01)
        while (later := read_life(path)) is not None and later[1] == life[1]:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)
    runner.process.kill()
    await runner.exit_code()
    left = read_life(path)
    assert left is not None, "it stays for whoever comes"
    assert left[0] == held


async def test_standby_says_what_can_run_here(runner: RunnerProcess) -> None:
    status = await runner.status()
    assert status.state == pb.RUNNER_STATE_STANDBY
    assert (status.runner_id, status.pid) == ("runner-1", runner.process.pid)
    assert list(status.engines) == ["fake", "onnxruntime", "torch"]
    assert status.resident_bytes > 1 << 20


async def test_the_fake_engine_is_not_there_unless_allowed(directory: Path, models: Path, refused: Refused) -> None:
    fake_model(models)
    async with running(directory, RunnerConfig()) as runner:
        error = await refused(runner.stub.Load(load_request(models)))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "engine 'fake' is not available on this runner" in error.details()
    assert "it has: onnxruntime" in error.details()


async def test_health_follows_the_life(ready: RunnerProcess) -> None:
    health = health_pb2_grpc.HealthStub(ready.channel)
    watch = health.Watch(health_pb2.HealthCheckRequest(service="headrace.runner.v1.RunnerService"))
    router = await granted(ready)
    seen = [(await watch.read()).status]
    await ready.stub.Unload(unload())
    async with asyncio.timeout(PATIENCE_S):
        while seen[-1] != health_pb2.HealthCheckResponse.NOT_SERVING:
            seen.append((await watch.read()).status)
    assert health_pb2.HealthCheckResponse.SERVING in seen
    assert (await router.receive()).draining.reason == "idle"
    await router.half_close()
    assert await ready.exit_code() == 0


@pytest.mark.parametrize("method", ["Load", "Unload"])
async def test_a_replaced_autoscaler_is_not_obeyed(
    runner: RunnerProcess, models: Path, refused: Refused, method: str
) -> None:
    fake_model(models)
    await runner.stub.Load(load_request(models, epoch=7))
    stale = load_request(models, epoch=6) if method == "Load" else unload(epoch=6)
    error = await refused(getattr(runner.stub, method)(stale))
    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert "fencing epoch 6 is over" in error.details()
    status = await runner.status()
    assert (status.state, status.epoch) == (pb.RUNNER_STATE_READY, 7)


async def test_a_repeated_load_answers_the_same(runner: RunnerProcess, models: Path) -> None:
    fake_model(models, latency_ms=20)
    first, joined = await asyncio.gather(
        runner.stub.Load(load_request(models)), runner.stub.Load(load_request(models, epoch=2))
    )
    again = await runner.stub.Load(load_request(models, epoch=3))
    assert first.phases == joined.phases == again.phases
    assert first.profile_us == joined.profile_us == again.profile_us
    assert (await runner.status()).epoch == 3


async def test_a_load_outlives_the_caller_that_asked_for_it(runner: RunnerProcess, models: Path) -> None:
    fake_model(models, latency_ms=100)
    call = runner.stub.Load(load_request(models))
    router = await attach(runner)
    await runner.reach(pb.RUNNER_STATE_LOADING)
    call.cancel()
    assert (await router.receive()).grant.slots == 2


async def test_another_model_is_refused_for_life(shared: RunnerProcess, models: Path, refused: Refused) -> None:
    fake_model(models)
    error = await refused(shared.stub.Load(load_request(models, instance_id="i-2", tenant="other")))
    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert "holds instance i-1" in error.details()
    assert (await shared.status()).tenant == "acme"


async def test_an_invalid_request_changes_nothing(runner: RunnerProcess, models: Path, refused: Refused) -> None:
    fake_model(models)
    error = await refused(runner.stub.Load(load_request(models, instance_id="")))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "instance_id" in error.details()
    assert (await runner.status()).state == pb.RUNNER_STATE_STANDBY


async def test_draining_waits_for_the_routers(ready: RunnerProcess) -> None:
    first, second = await granted(ready), await granted(ready)
    await first.send(bundle(1))
    await ready.stub.Unload(unload())
    messages = [(await first.receive()).WhichOneof("message") for _ in range(2)]
    assert sorted(messages) == ["draining", "result"]
    # What crosses the word to leave is answered still.
    await first.send(bundle(2))
    assert not (await first.result()).HasField("error")
    await first.half_close()
    assert (await ready.status()).state == pb.RUNNER_STATE_DRAINING
    assert (await second.receive()).draining.reason == "idle"
    await second.half_close()
    assert await ready.exit_code() == 0


async def test_a_draining_runner_gives_no_slots(ready: RunnerProcess) -> None:
    first = await granted(ready)
    await ready.stub.Unload(unload())
    late = await attach(ready)
    assert (await late.receive()).WhichOneof("message") == "draining"
    await late.send(bundle(1))
    assert (await late.result()).error.code == pb.BUNDLE_ERROR_CODE_WRONG_MODEL
    await late.half_close()
    await first.receive()
    await first.half_close()
    assert await ready.exit_code() == 0


async def test_the_grace_ends_what_hangs(ready: RunnerProcess) -> None:
    router = await granted(ready)
    await router.send(bundle(1, fill=99))
    await ready.stub.Unload(unload(grace_s=0))
    assert await ready.exit_code() == 0


async def test_a_second_unload_shortens_the_grace(ready: RunnerProcess) -> None:
    await granted(ready)
    await ready.stub.Unload(unload(grace_s=3600))
    assert (await ready.status()).state == pb.RUNNER_STATE_DRAINING
    await ready.stub.Unload(unload(grace_s=0))
    assert await ready.exit_code() == 0


async def test_sigterm_drains(ready: RunnerProcess) -> None:
    router = await granted(ready)
    await router.send(bundle(1))
    assert not (await router.result()).HasField("error")
    ready.process.send_signal(signal.SIGTERM)
    assert (await router.receive()).draining.reason == "SIGTERM"
    await router.half_close()
    assert await ready.exit_code() == 0


async def test_sigterm_ends_a_standby(runner: RunnerProcess) -> None:
    runner.process.send_signal(signal.SIGTERM)
    assert await runner.exit_code() == 0


async def test_an_unload_while_loading_ends_the_load(runner: RunnerProcess, models: Path, refused: Refused) -> None:
    fake_model(models, behaviour="hang")
    load = runner.stub.Load(load_request(models))
    router = await attach(runner)
    await runner.reach(pb.RUNNER_STATE_LOADING)
    await runner.stub.Unload(unload())
    assert (await router.receive()).draining.reason == "idle"
    await router.half_close()
    assert await runner.exit_code() == 0
    await refused(load)


async def test_the_process_service_scrapes_and_drains(ready: RunnerProcess) -> None:
    router = await granted(ready)
    await router.send(bundle(1, rows=(1, 2)))
    await router.result()
    process = process_pb2_grpc.ProcessServiceStub(ready.channel)
    text = (await process.ScrapeMetrics(process_pb2.ScrapeMetricsRequest())).text.decode()
    rows = next(line for line in text.splitlines() if line.startswith("headrace_runner_rows_total"))
    assert 'model="echo"' in rows
    assert rows.endswith(" 3.0")
    drain = process.Drain(process_pb2.DrainRequest())
    assert (await router.receive()).draining.reason == "drain"
    await router.half_close()
    assert (await drain).abandoned == 0
    assert await ready.exit_code() == 0


async def test_a_killed_runner_breaks_its_streams_at_once(ready: RunnerProcess) -> None:
    router = await granted(ready)
    await router.send(bundle(1, fill=99))
    ready.process.kill()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await router.receive()
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


async def test_a_context_that_cannot_be_read_is_one_line(directory: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "headrace_runner",
        "--context",
        str(directory / "none.json"),
        stderr=asyncio.subprocess.PIPE,
    )
    _, stderr = await process.communicate()
    assert process.returncode == 2
    assert stderr.decode().count("\n") == 1
    assert "cannot be read" in stderr.decode()


async def test_a_router_of_another_instance_is_sent_away(shared: RunnerProcess) -> None:
    other = pb.Attach(router_id="router-0", instance_id="i-9", model="echo", revision=1)
    router = await attach(shared, other)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await router.receive()
    assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert ATTACH.instance_id in (caught.value.details() or "")


@pytest.mark.parametrize(
    ("said", "told"),
    [({"used_bytes": 6, "total_bytes": 8}, (6, 8)), ({"used_bytes": 0, "total_bytes": 8}, (0, 8)), (None, None)],
    ids=["as the engine measures it", "nothing is used yet", "an engine without a GPU"],
)
async def test_gpu_memory_is_told_where_the_engine_measures_it(
    runner: RunnerProcess, models: Path, said: dict[str, int] | None, told: tuple[int, int] | None
) -> None:
    fake_model(models, gpu_memory=said)
    await runner.stub.Load(load_request(models))
    status = await runner.status()
    fields = ("gpu_memory_used_bytes", "gpu_memory_total_bytes")
    assert [status.HasField(field) for field in fields] == [told is not None] * 2
    assert tuple(getattr(status, field) for field in fields) == (told or (0, 0))
