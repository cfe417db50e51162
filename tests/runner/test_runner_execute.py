"""Execute: slots, bundles, results, and everything that can be wrong with a bundle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from headrace.runner.v1 import runner_pb2 as pb
from tests.runner.harness import ATTACH, Router, RunnerProcess, attach, bundle, call, fake_model, granted, load_request

pytestmark = pytest.mark.parametrize("by", ["grpc", "frames"], indirect=True)
Refused = Callable[[Any], Any]
X = np.arange(6, dtype=np.float32).reshape(3, 2)


def tensor(**changes: Any) -> pb.Tensor:
    return pb.Tensor(**{"name": "x", "datatype": "FP32", "shape": [3, 2], "data": X.tobytes(), **changes})


async def test_slots_come_when_the_model_is_ready(runner: RunnerProcess, models: Path) -> None:
    """A router attaches before the load has come; one grant, with the load's times."""
    early = await attach(runner)
    fake_model(models, latency_ms=10)
    loaded = await runner.stub.Load(load_request(models, slots=5))
    grant = (await early.receive()).grant
    assert grant.slots == 5
    phases = {name: phase.ToNanoseconds() for name, phase in loaded.phases.items()}
    assert set(phases) == {"verify", "session", "probe", "warm"}
    assert grant.warm.ToNanoseconds() == phases.pop("warm") > 10_000_000
    assert grant.load.ToNanoseconds() == pytest.approx(sum(phases.values()), abs=10)
    late = await attach(runner)
    grant = (await late.receive()).grant
    assert grant.slots == 5
    assert not grant.HasField("load")


async def test_the_first_router_after_an_unwatched_load_gets_its_times(ready: RunnerProcess) -> None:
    first = await attach(ready)
    assert (await first.receive()).grant.HasField("load")
    second = await attach(ready)
    assert not (await second.receive()).grant.HasField("load")


async def test_a_bundle_comes_back_with_its_times(ready: RunnerProcess) -> None:
    router = await granted(ready)
    await router.send(pb.ExecuteRequest(bundle=pb.Bundle(bundle_id=7, rows=[1, 2], inputs=[tensor()])))
    result = await router.result()
    assert result.bundle_id == 7
    assert not result.HasField("error")
    assert [(t.name, t.datatype, list(t.shape), t.data) for t in result.outputs] == [("y", "FP32", [3, 2], X.tobytes())]
    stats = await ready.stub.GetStats(pb.GetStatsRequest())
    assert (stats.bundles, stats.requests, stats.rows, stats.failed_bundles) == (1, 2, 3, 0)
    assert (stats.wait_us, stats.compute_us) == (result.wait_us, result.compute_us)


async def test_a_bundle_of_no_rows_is_answered(shared: RunnerProcess) -> None:
    router = await granted(shared)
    empty = tensor(shape=[0, 2], data=b"")
    await router.send(pb.ExecuteRequest(bundle=pb.Bundle(bundle_id=1, rows=[0], inputs=[empty])))
    assert list((await router.result()).outputs[0].shape) == [0, 2]


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        pytest.param({"inputs": [tensor(data=b"\0" * 23)]}, "takes 24 bytes; 23 bytes came", id="a byte short"),
        pytest.param({"inputs": [tensor(datatype="INT32")]}, "expected FP32", id="another datatype"),
        pytest.param({"inputs": [tensor(shape=[3, 3])]}, r"expected FP32 \[-1, 2\]", id="another shape"),
        pytest.param({"inputs": [tensor(shape=[-3, 2])]}, "expected FP32", id="a negative size"),
        pytest.param({"inputs": [tensor(), tensor()]}, "'x' is given twice", id="an input twice"),
        pytest.param({"inputs": [tensor(name="q")]}, "'q' is unknown", id="an unknown input"),
        pytest.param({"inputs": []}, "'x' is missing", id="no input"),
        pytest.param({"rows": [2, 2]}, "has 3 rows; the bundle's requests have 4", id="rows that do not add up"),
        pytest.param({"rows": [65]}, "the maximum batch is 64", id="over the maximum batch"),
        pytest.param({"outputs": ["z"]}, "no output 'z'", id="an unknown output"),
        pytest.param(
            {"inputs": [tensor(region=pb.SharedMemoryRegion())]}, "came as region", id="shared memory, not offered here"
        ),
    ],
)
async def test_a_bad_bundle_fails_alone(shared: RunnerProcess, changes: dict[str, Any], detail: str) -> None:
    router = await granted(shared)
    fields = {"bundle_id": 1, "rows": [3], "inputs": [tensor()], **changes}
    await router.send(pb.ExecuteRequest(bundle=pb.Bundle(**fields)))
    result = await router.result()
    assert result.error.code == pb.BUNDLE_ERROR_CODE_INVALID_INPUT
    assert not result.outputs
    with pytest.raises(AssertionError, match=detail):
        raise AssertionError(result.error.detail)
    await router.send(bundle(2))
    assert not (await router.result()).HasField("error")


async def test_an_engine_that_fails_fails_its_bundle_only(ready: RunnerProcess) -> None:
    router = await granted(ready)
    await router.send(bundle(1, fill=13))
    await router.send(bundle(2))
    failed, passed = await router.result(), await router.result()
    assert failed.error.code == pb.BUNDLE_ERROR_CODE_ENGINE_FAILED
    assert "told to fail" in failed.error.detail
    assert not passed.HasField("error")
    assert (await ready.stub.GetStats(pb.GetStatsRequest())).failed_bundles == 1


async def test_an_engine_that_crashes_takes_the_process_along(ready: RunnerProcess) -> None:
    router = await granted(ready)
    await router.send(bundle(1, fill=66))
    assert await router.ended() in (grpc.StatusCode.UNAVAILABLE, None)
    assert await ready.exit_code() == 139


async def test_a_bundle_that_has_not_begun_can_be_cancelled(ready: RunnerProcess) -> None:
    router = await granted(ready)
    await router.send(bundle(1, fill=99))
    await router.send(bundle(2))
    await router.send(pb.ExecuteRequest(cancel=pb.CancelBundle(bundle_id=2)))
    result = await router.result()
    assert (result.bundle_id, result.error.code) == (2, pb.BUNDLE_ERROR_CODE_DROPPED)


async def test_cancelling_what_is_answered_changes_nothing(shared: RunnerProcess) -> None:
    router = await granted(shared)
    await router.send(bundle(1))
    await router.result()
    await router.send(pb.ExecuteRequest(cancel=pb.CancelBundle(bundle_id=1)))
    await router.send(bundle(2))
    assert (await router.result()).bundle_id == 2


async def test_a_bundle_whose_time_is_up_is_dropped(runner: RunnerProcess, models: Path) -> None:
    fake_model(models, per_row_ms=30)
    await runner.stub.Load(load_request(models))
    router = await granted(runner)
    await router.send(bundle(1))
    await router.send(bundle(2, time_left_us=1000))
    await router.send(bundle(3, time_left_us=60_000_000))
    first, second, third = [await router.result() for _ in range(3)]
    assert not first.HasField("error")
    assert (second.bundle_id, second.error.code) == (2, pb.BUNDLE_ERROR_CODE_DROPPED)
    assert not third.HasField("error")
    assert third.wait_us >= 1000


async def test_routers_take_turns(runner: RunnerProcess, models: Path) -> None:
    """A router with a full queue does not keep another one waiting for all of it."""
    fake_model(models, latency_ms=20)
    await runner.stub.Load(load_request(models))
    busy, other = await granted(runner), await granted(runner)
    for number in range(10):
        await busy.send(bundle(number))
    await other.send(bundle(100))
    assert (await other.result()).bundle_id == 100
    stats = await runner.stub.GetStats(pb.GetStatsRequest())
    assert stats.bundles < 10
    assert [(await busy.result()).bundle_id for _ in range(10)] == list(range(10))


async def test_another_revision_is_told_to_look_elsewhere(shared: RunnerProcess) -> None:
    other = pb.Attach(router_id="router-0", instance_id="i-1", model="echo", revision=2)
    router = await attach(shared, other)
    assert "holds instance i-1 of 'echo' revision 1" in (await router.receive()).draining.reason
    await router.send(bundle(1))
    assert (await router.result()).error.code == pb.BUNDLE_ERROR_CODE_WRONG_MODEL
    await router.half_close()


async def test_a_router_that_waited_for_another_instance_is_sent_away(runner: RunnerProcess, models: Path) -> None:
    router = await attach(runner, pb.Attach(router_id="router-0", instance_id="i-9", model="echo", revision=1))
    fake_model(models)
    await runner.stub.Load(load_request(models))
    assert await router.ended() in (grpc.StatusCode.FAILED_PRECONDITION, None)
    if runner.by == "frames":
        await runner.says("this runner is instance 'i-1', not 'i-9'")


@pytest.mark.parametrize(
    ("requests", "detail"),
    [
        pytest.param([bundle(1)], "first message must be attach", id="a bundle before attach"),
        pytest.param(
            [pb.ExecuteRequest(attach=ATTACH)] * 2, "attach is not expected after attach", id="attached twice"
        ),
        pytest.param([pb.ExecuteRequest(attach=ATTACH), pb.ExecuteRequest()], "an empty message", id="nothing"),
    ],
)
async def test_a_stream_that_breaks_the_protocol_is_ended(
    shared: RunnerProcess, requests: list[pb.ExecuteRequest], detail: str
) -> None:
    if shared.by == "frames":
        router = Router(await call(shared))
        for request in requests:
            await router.send(request)
        if len(requests) > 1:
            assert (await router.receive()).WhichOneof("message") == "grant"
        assert await router.ended() is None
        await shared.says(detail)
        return
    stream = shared.stub.Execute(iter(requests))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        [response async for response in stream]
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert detail in (caught.value.details() or "")


async def test_a_bundle_id_that_is_here_already_ends_the_stream(ready: RunnerProcess) -> None:
    router = await granted(ready)
    await router.send(bundle(1, fill=99))
    await router.send(bundle(1))
    assert await router.ended() in (grpc.StatusCode.INVALID_ARGUMENT, None)


async def test_a_router_that_dies_leaves_no_work_behind(ready: RunnerProcess) -> None:
    """Its stream ends, and the runner can drain without it."""
    dying = await granted(ready)
    await dying.send(bundle(1))
    await dying.result()
    dying.call.cancel()
    staying = await granted(ready)
    await staying.send(bundle(1))
    assert not (await staying.result()).HasField("error")
    await ready.stub.Unload(pb.UnloadRequest(epoch=1))
    assert (await staying.receive()).WhichOneof("message") == "draining"
    await staying.half_close()
    assert await ready.exit_code() == 0


async def test_strings_come_back_with_the_ends_of_their_rows(runner: RunnerProcess, models: Path) -> None:
    text = {"datatype": "BYTES", "shape": [-1, 1]}
    fake_model(models, inputs=[{"name": "x", **text}], outputs=[{"name": "y", **text}])
    await runner.stub.Load(load_request(models))
    router = await granted(runner)
    data = b"\x02\0\0\0hi" + b"\0\0\0\0" + b"\x01\0\0\0\xff"
    words = pb.Tensor(name="x", datatype="BYTES", shape=[3, 1], data=data)
    await router.send(pb.ExecuteRequest(bundle=pb.Bundle(bundle_id=1, rows=[3], inputs=[words])))
    output = (await router.result()).outputs[0]
    assert (output.data, list(output.row_ends)) == (data, [6, 10, 15])
