"""What a runner makes of regions and chunks, good and bad ones, and how it shares itself among routers."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from headrace.runner.v1 import runner_pb2 as pb
from headrace_common.shared_memory import Placer, Region, Segment, read_result
from headrace_runner.core.brevity import OBSERVATIONS, SHORT_S, Brevity
from tests.runner.harness import ATTACH, Router, RunnerProcess, attach, bundle, fake_model, granted, load_request

X = np.arange(6, dtype=np.float32).reshape(3, 2)
HALF = 1 << 20


@pytest.fixture
def segment() -> Iterator[Segment]:
    path = Path(tempfile.mkdtemp(prefix="hr-", dir="/dev/shm"))
    yield Segment.make(path, HALF)
    shutil.rmtree(path)


def attach_with(path: str) -> pb.Attach:
    message = pb.Attach(shared_memory=path)
    message.MergeFrom(ATTACH)
    return message


async def sharing(runner: RunnerProcess, segment: Segment) -> Router:
    router = await attach(runner, attach_with(str(segment.path)))
    assert (await router.receive()).grant.shared_memory
    return router


def region_bundle(bundle_id: int, region: Region) -> pb.ExecuteRequest:
    where = pb.SharedMemoryRegion(offset=region.offset, size_bytes=region.size_bytes)
    tensor = pb.Tensor(name="x", datatype="FP32", shape=[3, 2], region=where)
    return pb.ExecuteRequest(bundle=pb.Bundle(bundle_id=bundle_id, rows=[3], inputs=[tensor]))


def chunked_bundle(bundle_id: int, size: int = X.nbytes) -> pb.ExecuteRequest:
    tensor = pb.Tensor(name="x", datatype="FP32", shape=[3, 2], chunked_bytes=size)
    return pb.ExecuteRequest(bundle=pb.Bundle(bundle_id=bundle_id, rows=[3], inputs=[tensor]))


def chunk(bundle_id: int, offset: int, data: bytes, tensor_index: int = 0) -> pb.ExecuteRequest:
    return pb.ExecuteRequest(
        chunk=pb.BundleChunk(bundle_id=bundle_id, tensor_index=tensor_index, offset=offset, data=data)
    )


async def test_a_region_is_read_where_it_lies(shared: RunnerProcess, segment: Segment) -> None:
    router = await sharing(shared, segment)
    region = Placer(segment, segment.bundles()).place([X.tobytes()], X.nbytes)
    assert region is not None
    await router.send(region_bundle(1, region))
    assert (await router.result()).outputs[0].data == X.tobytes()


@pytest.mark.parametrize(
    ("region", "says"),
    [
        (Region(0, 24), "24 bytes at 0 are not within"),
        (Region(4096 + HALF, 24), "are not within"),
        (Region(4096 + HALF - 8, 24), "are not within"),
        (Region((1 << 64) - 1, 24), "are not within"),
        (Region(4096, 20), "takes 24 bytes; 20 bytes came"),
    ],
    ids=["the head", "the results' half", "over the end", "far away", "too short"],
)
async def test_a_wrong_region_fails_its_bundle_alone(
    shared: RunnerProcess, segment: Segment, region: Region, says: str
) -> None:
    router = await sharing(shared, segment)
    await router.send(region_bundle(1, region))
    error = (await router.result()).error
    assert error.code == pb.BUNDLE_ERROR_CODE_INVALID_INPUT
    assert says in error.detail
    await router.send(bundle(2))
    assert not (await router.result()).HasField("error")


@pytest.mark.parametrize("name", ["none", "context.json"])
async def test_a_segment_that_is_none_is_not_granted(shared: RunnerProcess, name: str) -> None:
    path = shared.context.state_dir / name
    router = await attach(shared, attach_with(str(path)))
    assert not (await router.receive()).grant.shared_memory
    await router.send(bundle(1))
    assert not (await router.result()).HasField("error")


async def test_large_results_lie_in_the_segment_until_they_are_read(
    runner: RunnerProcess, models: Path, segment: Segment
) -> None:
    wide = {"datatype": "FP32", "shape": [-1, 50_000]}
    fake_model(models, inputs=[{"name": "x", **wide}], outputs=[{"name": "y", **wide}])
    await runner.stub.Load(load_request(models))
    router = await sharing(runner, segment)
    views = []
    for number in range(8):
        data = np.full((1, 50_000), number, np.float32).tobytes()
        tensor = pb.Tensor(name="x", datatype="FP32", shape=[1, 50_000], data=data)
        await router.send(pb.ExecuteRequest(bundle=pb.Bundle(bundle_id=number, rows=[1], inputs=[tensor])))
        output = (await router.result()).outputs[0]
        if output.WhichOneof("content") == "region":
            views.append((read_result(segment, Region(output.region.offset, output.region.size_bytes)), data))
        else:
            assert output.data == data
    # 1 MiB holds five results of 200 KB; the others came inside their messages.
    assert len(views) == 5
    assert all(view == data for view, data in views)


async def test_chunks_of_two_bundles_may_alternate(shared: RunnerProcess) -> None:
    router = await granted(shared)
    data, other = X.tobytes(), (X + 1).tobytes()
    for message in (
        chunked_bundle(1),
        chunked_bundle(2),
        chunk(1, 0, data[:7]),
        chunk(2, 0, other[:20]),
        bundle(3),
        chunk(2, 20, other[20:]),
        chunk(1, 7, data[7:]),
    ):
        await router.send(message)
    results = {result.bundle_id: result.outputs[0].data for result in [await router.result() for _ in range(3)]}
    assert results[1] == data
    assert results[2] == other
    assert set(results) == {1, 2, 3}


async def test_a_bundle_can_be_cancelled_between_its_chunks(shared: RunnerProcess) -> None:
    router = await granted(shared)
    await router.send(chunked_bundle(1))
    await router.send(chunk(1, 0, b"x" * 8))
    await router.send(pb.ExecuteRequest(cancel=pb.CancelBundle(bundle_id=1)))
    result = await router.result()
    assert (result.bundle_id, result.error.code) == (1, pb.BUNDLE_ERROR_CODE_DROPPED)
    await router.send(bundle(2))
    assert (await router.result()).bundle_id == 2


@pytest.mark.parametrize(
    ("requests", "says"),
    [
        ([chunk(9, 0, b"x")], "bundle 9, of which none is due"),
        ([chunked_bundle(1), chunk(1, 1, b"x")], "byte 0 of tensor 0 was due"),
        ([chunked_bundle(1), chunk(1, 0, b"x" * 25)], "of which 24 are due"),
        ([chunked_bundle(1, size=1 << 40)], "at most"),
    ],
    ids=["an unknown bundle", "a gap", "too much", "more than anybody sends"],
)
async def test_chunks_out_of_order_end_the_stream(
    shared: RunnerProcess, requests: list[pb.ExecuteRequest], says: str
) -> None:
    router = await granted(shared)
    for request in requests:
        await router.send(request)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await router.receive()
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert says in (caught.value.details() or "")


@pytest.mark.parametrize("latency_ms", [0, 2], ids=["on the event loop", "on the engine's thread"])
async def test_two_routers_that_flood_get_half_each(runner: RunnerProcess, models: Path, latency_ms: int) -> None:
    fake_model(models, latency_ms=latency_ms)
    await runner.stub.Load(load_request(models))
    answered = {"a": 0, "b": 0}

    async def flood(name: str) -> None:
        router = await granted(runner)
        for number in range(4):
            await router.send(bundle(number))
        number = 4
        while sum(answered.values()) < 200:
            await router.result()
            answered[name] += 1
            await router.send(bundle(number))
            number += 1

    await asyncio.gather(flood("a"), flood("b"))
    assert min(answered.values()) >= 80, answered


class TestBrevity:
    def test_what_was_short_every_time_is_short(self) -> None:
        brevity = Brevity()
        for _ in range(OBSERVATIONS):
            assert not brevity.short(4)
            brevity.observe(4, SHORT_S / 10)
        assert brevity.short(4)
        assert brevity.short(7)

    def test_a_larger_batch_is_not_known(self) -> None:
        brevity = Brevity()
        for _ in range(OBSERVATIONS):
            brevity.observe(4, SHORT_S / 10)
        assert not brevity.short(8)

    def test_a_long_one_is_remembered_for_a_while(self) -> None:
        brevity = Brevity()
        for _ in range(OBSERVATIONS):
            brevity.observe(1, SHORT_S / 10)
        brevity.observe(1, SHORT_S * 4)
        assert not brevity.short(1)
        waited = 0
        while not brevity.short(1):
            brevity.observe(1, SHORT_S / 10)
            waited += 1
        assert 10 < waited < 50
