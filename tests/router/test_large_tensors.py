"""Large tensors between a router's plane and real runner processes: by shared memory, in chunks, and never twice."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import signal
import tempfile
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from headrace.runner.v1 import runner_pb2
from headrace_common.clock import FakeClock, SystemClock
from headrace_common.config import TelemetryConfig
from headrace_common.telemetry import Telemetry
from headrace_router.bundles import split_outputs
from headrace_router.core.batching import Bundle
from headrace_router.core.waiting import Waiting
from headrace_router.domain import InferenceRequest, RevisionEntry, TensorData, TensorSpec
from headrace_router.transport import Transport, Transports
from headrace_runner.domain import LoadPlan, ModelFile
from headrace_runner.engines.registry import import_engines
from headrace_runner.execution import Executor, Job
from headrace_runner.loading import load
from headrace_runner.measures import Measures
from headrace_runner.transport import Contents, memory_of
from tests.runner.harness import RunnerProcess, fake_model, load_request, running

IMAGE = (3, 224, 224)
IMAGE_BYTES = 4 * 3 * 224 * 224
SHAPE = [-1, *IMAGE]
TENSORS = {
    "inputs": [{"name": "x", "datatype": "FP32", "shape": SHAPE}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": SHAPE}],
}


@pytest.fixture
def shared_dir() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="hr-", dir="/dev/shm"))
    yield path
    shutil.rmtree(path)


def image(value: float) -> np.ndarray:
    return np.full((1, *IMAGE), value, np.float32)


class Camera:
    """A plane that knows the model "image", with runner processes that echo."""

    def __init__(self, bench: Any, scripts: SimpleNamespace, eventually: Any, stack: AsyncExitStack) -> None:
        self.bench = bench
        self.scripts = scripts
        self.eventually = eventually
        self.stack = stack
        self.runners: list[RunnerProcess] = []

    @property
    def transports(self) -> Transports:
        return self.bench.plane.transports  # type: ignore[no-any-return]

    async def know_the_model(self) -> None:
        model = self.scripts.model_entry()
        model.name = "image"
        signature = model.revisions[0].signature
        for tensor in (signature.inputs[0], signature.outputs[0]):
            tensor.shape[:] = SHAPE
        self.bench.control.send(models=[model])
        await self.eventually(lambda: self.bench.plane.catalogue.entry("image", 1) is not None)

    async def add_runner(self, **behaviour: Any) -> RunnerProcess:
        name = f"i-{len(self.runners) + 1}"
        directory = self.bench.directory / name
        directory.mkdir()
        fake_model(directory, **TENSORS, **behaviour)
        runner = await self.stack.enter_async_context(running(directory))
        await runner.stub.Load(load_request(directory, instance_id=name, model="image", max_batch_size=8))
        self.runners.append(runner)
        target = f"unix:{runner.context.socket}"
        self.bench.control.send(placements=[self.scripts.placement(name, target, model="image")])
        await self.eventually(lambda: self.bench.serves(name))
        return runner

    async def infer(self, value: float) -> np.ndarray:
        entry = self.bench.plane.catalogue.resolve("t", "image", "")
        tensor = TensorData("x", "FP32", (1, *IMAGE), image(value).tobytes())
        now = time.monotonic()
        request = InferenceRequest(entry, "t", [tensor], (), 1, now, size_bytes=IMAGE_BYTES)
        (output,) = (await self.bench.plane.infer(request)).outputs
        return np.frombuffer(output.data, np.float32).reshape(output.shape)

    async def check(self, count: int) -> None:
        answers = await asyncio.gather(*(self.infer(value) for value in range(count)))
        for value, answer in enumerate(answers):
            np.testing.assert_array_equal(answer, image(value))


@pytest.fixture
async def start_camera(start_bench: Any, scripts: SimpleNamespace, eventually: Any, shared_dir: Path) -> Any:
    async with AsyncExitStack() as stack:

        async def start(**router: Any) -> Camera:
            bench = await start_bench(shared_memory_dir=str(shared_dir), **router)
            camera = Camera(bench, scripts, eventually, stack)
            await camera.know_the_model()
            return camera

        yield start


Start = Callable[..., Awaitable[Camera]]


def names(directory: Path) -> list[Path]:
    return list(directory.iterdir())


def mapped(directory: Path) -> int:
    """Files of a directory that this process maps; they have no names any more."""
    return Path("/proc/self/maps").read_text().count(f" {directory}/")


async def test_images_pass_by_shared_memory(start_camera: Start, shared_dir: Path) -> None:
    camera = await start_camera()
    await camera.add_runner()
    for _ in range(3):
        await camera.check(12)
    assert camera.transports.bundles["shared"] > 0
    assert camera.transports.results["shared"] > 0
    others = [camera.transports.bundles[name] + camera.transports.results[name] for name in ("inline", "chunked")]
    assert others == [0, 0]
    assert not names(shared_dir)


async def test_small_tensors_stay_in_their_message(start_bench: Any, shared_dir: Path) -> None:
    bench = await start_bench(shared_memory_dir=str(shared_dir))
    await bench.add_runner("i-1")
    assert await bench.infer(2.0) == [2.0, 2.0]
    assert bench.plane.transports.bundles == {"inline": 1, "shared": 0, "chunked": 0}
    assert bench.plane.transports.results == {"inline": 1, "shared": 0, "chunked": 0}


async def test_without_shared_memory_images_come_in_chunks(start_camera: Start) -> None:
    camera = await start_camera(shared_memory_bytes=0)
    await camera.add_runner()
    await camera.check(12)
    assert camera.transports.bundles["shared"] == camera.transports.results["shared"] == 0
    assert camera.transports.bundles["chunked"] > 0
    assert camera.transports.results["chunked"] > 0


async def test_a_directory_that_does_not_exist_costs_no_request(start_camera: Start, shared_dir: Path) -> None:
    camera = await start_camera()
    camera.transports.directory = shared_dir / "none"
    await camera.add_runner()
    await camera.check(4)
    assert camera.transports.bundles["shared"] == 0


async def test_what_finds_no_room_goes_by_the_stream(start_camera: Start) -> None:
    """Room for one image at a time, each way; bundles hold up to eight."""
    camera = await start_camera(shared_memory_bytes=700_000)
    await camera.add_runner(latency_ms=5)
    await camera.check(1)
    assert camera.transports.bundles["shared"] == camera.transports.results["shared"] == 1
    await camera.check(30)
    assert camera.transports.bundles["chunked"] > 0
    assert camera.transports.results["chunked"] > 0
    await camera.check(1)
    assert camera.transports.bundles["shared"] >= 2


async def test_a_runner_killed_in_mid_flight_loses_no_request_and_leaves_no_segment(
    start_camera: Start, shared_dir: Path
) -> None:
    camera = await start_camera()
    victim = await camera.add_runner(latency_ms=40)
    await camera.add_runner(latency_ms=20)
    working = asyncio.create_task(camera.check(80))
    await camera.eventually(lambda: camera.transports.results["shared"] >= 2)
    victim.process.send_signal(signal.SIGKILL)
    await working
    runners = camera.bench.plane.demand().message.runners
    assert sum(runner.lost_bundles for runner in runners) > 0
    # One is mapped for the runner that lives, and none for the dead one, however often it is tried again.
    await camera.eventually(lambda: mapped(shared_dir) == 1 and not names(shared_dir))


# --- copies ---


class OneProcess:
    """Router and runner with a stream between them that is only bytes."""

    def __init__(self, directory: Path, shared_dir: Path, half_bytes: int = 16 << 20) -> None:
        path = fake_model(directory, **TENSORS)
        file = ModelFile(path.name, hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size)
        plan = LoadPlan(directory, (file,), path.name, "fake", max_batch_size=8)
        telemetry = Telemetry.start("runner-1", TelemetryConfig())
        measures = Measures(telemetry, FakeClock())
        self.executor = Executor(load(plan, import_engines(True), SystemClock()), FakeClock(), measures, lambda: None)
        self.transport = Transport(Transports(shared_dir, half_bytes), "unix:/a/socket")
        self.memory = memory_of(runner_pb2.Attach(shared_memory=self.transport.path))
        self.transport.answered()
        self.transport.granted(self.memory is not None)
        spec = TensorSpec("x", "FP32", tuple(SHAPE))
        self.entry = RevisionEntry("image", "t", 1, "1", (spec,), (TensorSpec("y", "FP32", spec.shape),), True, 8)

    def execute(self, bundle: Bundle) -> list[list[TensorData]]:
        encoded = self.transport.encode(1, bundle, self.entry, 0.0)
        request = runner_pb2.ExecuteRequest.FromString(encoded.message)
        job = Job(1, request.bundle, 0.0, lambda *_: None, Contents(self.memory))
        (sent,) = self.executor.execute(job).messages()
        received = self.transport.receive(runner_pb2.ExecuteResponse.FromString(sent.SerializeToString()).result)
        assert received is not None
        self.transport.done(1)
        return split_outputs(received.result.outputs, bundle, self.entry, received.read)


def test_an_image_is_copied_once_on_its_way_to_the_engine_and_once_on_its_way_back(
    directory: Path, shared_dir: Path, make_waiting: Callable[..., Waiting]
) -> None:
    """Into the segment, by the router and by the runner; nothing of its size is allocated anywhere."""
    process = OneProcess(directory, shared_dir)
    items = [make_waiting() for _ in range(8)]
    for value, item in enumerate(items):
        item.request.inputs = [TensorData("x", "FP32", (1, *IMAGE), image(value).tobytes())]
    bundle = Bundle(items, 8, (), float("inf"))
    process.execute(bundle)
    tracemalloc.start()
    try:
        answers = process.execute(bundle)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < IMAGE_BYTES // 4
    for value, (output,) in enumerate(answers):
        assert output.data == image(value).tobytes()


def test_regions_come_back_and_what_is_being_read_is_left_alone(
    directory: Path, shared_dir: Path, make_waiting: Callable[..., Waiting]
) -> None:
    process = OneProcess(directory, shared_dir)

    def run(value: float) -> TensorData:
        item = make_waiting()
        item.request.inputs = [TensorData("x", "FP32", (1, *IMAGE), image(value).tobytes())]
        ((output,),) = process.execute(Bundle([item], 1, (), float("inf")))
        return output

    kept = run(1)
    for value in range(2, 60):
        assert run(value).data == image(value).tobytes()
    assert kept.data == image(1).tobytes()
    assert process.transport.regions == 0
