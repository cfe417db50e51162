"""A model that crashes, hangs or exhausts its engine takes down its own runner, and nobody else's."""

from __future__ import annotations

import asyncio
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration

from headrace.runner.v1 import runner_pb2 as pb
from headrace.v1.resources_pb2 import InstanceShape
from tests.conformance.engines import onnx_models
from tests.conformance.engines.kits import CRASH, HANG, HOG, Kit
from tests.conformance.engines.registered import FAKE, KITS, each
from tests.runner.harness import PATIENCE_S, Router, RunnerProcess, bundle, granted, load_request, running

with_troubles = each([kit for kit in KITS if kit.troubles])
_MEMORY_BYTES = 512 << 20


@asynccontextmanager
async def two_runners(kit: Kit, trouble: float) -> AsyncIterator[tuple[RunnerProcess, RunnerProcess]]:
    """Both hold the same model, which only some values bring into trouble."""
    async with AsyncExitStack() as stack:
        runners = []
        for _ in range(2):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hr-")))
            runner = await stack.enter_async_context(running(folder))
            kit.write(folder / kit.file, kit.troubles[trouble]())
            shape = InstanceShape(cpu_millicores=1000, memory_bytes=_MEMORY_BYTES)
            await runner.stub.Load(load_request(folder, kit.file, engine=kit.engine, shape=shape))
            runners.append(runner)
        yield runners[0], runners[1]


class Neighbour:
    """Keeps asking a runner, in turn, until it is told to stop; every answer must be right."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._stopping = False
        self.answered = 0

    async def ask(self) -> None:
        expected = bundle(0).bundle.inputs[0].data
        while not self._stopping:
            self.answered += 1
            await self._router.send(bundle(self.answered))
            result = await self._router.result()
            assert not result.HasField("error"), result.error
            assert result.outputs[0].data == expected

    async def more(self, number: int = 5) -> None:
        """Waits for so many answers more."""
        enough = self.answered + number
        while self.answered < enough:  # noqa: ASYNC110 - answers are what is waited for
            await asyncio.sleep(0.005)

    def stop(self) -> None:
        self._stopping = True


@asynccontextmanager
async def asked_beside(runner: RunnerProcess) -> AsyncIterator[Neighbour]:
    neighbour = Neighbour(await granted(runner))
    async with asyncio.timeout(3 * PATIENCE_S), asyncio.TaskGroup() as tasks:
        tasks.create_task(neighbour.ask())
        await neighbour.more()
        yield neighbour
        await neighbour.more()
        neighbour.stop()


@asynccontextmanager
async def loading_beside(content: bytes) -> AsyncIterator[tuple[RunnerProcess, asyncio.Task[Any]]]:
    """A runner that loads what ONNX Runtime cannot bear, beside one that is asked all the while."""
    async with two_runners(FAKE, CRASH) as (_, well), asked_beside(well) as neighbour:
        with tempfile.TemporaryDirectory(prefix="hr-") as name:
            folder = Path(name)
            async with running(folder) as ill:
                (folder / "model.onnx").write_bytes(content)
                load = asyncio.ensure_future(_load(ill, load_request(folder, "model.onnx")))
                yield ill, load
                await neighbour.more()
                assert well.process.poll() is None


async def _load(runner: RunnerProcess, request: pb.LoadRequest) -> grpc.StatusCode:
    try:
        await runner.stub.Load(request)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def test_a_crash_while_a_model_is_loaded_ends_its_own_runner_only() -> None:
    async with loading_beside(onnx_models.crash_at_load()) as (ill, load):
        assert await ill.exit_code() == -signal.SIGABRT
        assert await load == grpc.StatusCode.UNAVAILABLE


async def test_a_runner_that_hangs_while_it_loads_listens_and_leaves_when_told() -> None:
    async with loading_beside(onnx_models.hang_at_load()) as (ill, load):
        await ill.reach(pb.RUNNER_STATE_LOADING)
        await ill.stub.Unload(pb.UnloadRequest(epoch=1, grace=Duration(seconds=1), reason="it takes too long"))
        assert await ill.exit_code() in (0, -signal.SIGKILL)
        assert await load != grpc.StatusCode.OK


@with_troubles
async def test_a_crash_in_the_engine_ends_its_own_runner_only(kit: Kit) -> None:
    async with two_runners(kit, CRASH) as (ill, well), asked_beside(well) as neighbour:
        router = await granted(ill)
        await router.send(bundle(1))
        assert not (await router.result()).HasField("error"), "other values are answered"
        await router.send(bundle(2, fill=CRASH))
        assert await ill.exit_code() == kit.crash_status
        await neighbour.more()
        assert well.process.poll() is None


@with_troubles
async def test_a_hang_in_the_engine_holds_up_its_own_runner_only_which_leaves_when_told(kit: Kit) -> None:
    async with two_runners(kit, HANG) as (ill, well), asked_beside(well) as neighbour:
        router = await granted(ill)
        # The first bundle of a size is given to the engine's thread, so the runner goes on listening.
        await router.send(bundle(1, fill=HANG))
        await router.send(bundle(2))
        await neighbour.more(20)
        assert (await ill.status()).state == pb.RUNNER_STATE_READY
        await ill.stub.Unload(pb.UnloadRequest(epoch=1, grace=Duration(seconds=1), reason="it hangs"))
        assert (await router.receive()).WhichOneof("message") == "draining", "and not an answer"
        assert await ill.exit_code() in (0, -signal.SIGKILL)
        assert well.process.poll() is None


@with_troubles
async def test_what_there_can_be_no_memory_for_is_refused_and_the_next_is_answered(kit: Kit) -> None:
    async with two_runners(kit, HOG) as (ill, well), asked_beside(well):
        router = await granted(ill)
        answers: list[Any] = []
        for number, fill in ((1, 0.5), (2, HOG), (3, 0.5)):
            await router.send(bundle(number, fill=fill))
            result = await router.result()
            answers.append(pb.BundleErrorCode.Name(result.error.code) if result.HasField("error") else "answered")
        assert answers == ["answered", "BUNDLE_ERROR_CODE_OUT_OF_MEMORY", "answered"]
        assert ill.process.poll() is None
