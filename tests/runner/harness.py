"""A real runner process on a unix socket, a router's end of its streams, and models for it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import grpc
import numpy as np

from headrace.runner.v1 import runner_pb2 as pb
from headrace.runner.v1 import runner_pb2_grpc
from headrace_common.config import MeshConfig, ProcessContext, RunnerConfig
from headrace_common.frames import FrameLink, frames_path

PATIENCE_S = 20.0
INSTANCE = {"instance_id": "i-1", "tenant": "acme", "model": "echo", "revision": 1, "version": "1"}
ATTACH = pb.Attach(router_id="router-0", instance_id="i-1", model="echo", revision=1)


@dataclass
class RunnerProcess:
    """A process and a channel to it. Only its own pid is ever signalled.

    Attributes:
        by: how routers reach Execute.
    """

    process: subprocess.Popen[bytes]
    context: ProcessContext
    channel: grpc.aio.Channel
    log: Path
    by: Literal["grpc", "frames"] = "grpc"
    stub: Any = field(init=False)

    def __post_init__(self) -> None:
        self.stub = runner_pb2_grpc.RunnerServiceStub(self.channel)

    async def status(self) -> pb.RunnerStatus:
        response: pb.GetStatusResponse = await self.stub.GetStatus(pb.GetStatusRequest(), wait_for_ready=True)
        return response.status

    async def reach(self, state: pb.RunnerState) -> pb.RunnerStatus:
        """Waits until it is in this state."""
        watch = self.stub.WatchStatus(pb.WatchStatusRequest())
        async with asyncio.timeout(PATIENCE_S):
            while (update := await watch.read()).status.state != state:
                assert update.status.state != pb.RUNNER_STATE_GONE, update
        watch.cancel()
        return update.status  # type: ignore[no-any-return]

    async def exit_code(self) -> int:
        """Waits for its end."""
        return await asyncio.to_thread(self.process.wait, PATIENCE_S)

    async def says(self, text: str) -> None:
        """Waits until its log has this."""
        async with asyncio.timeout(PATIENCE_S):
            while text not in self.log.read_text():  # noqa: ASYNC110 - another process writes it
                await asyncio.sleep(0.01)

    def logged(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]


def model_files(directory: Path, *paths: str) -> list[pb.ModelFile]:
    return [
        pb.ModelFile(
            path=path,
            sha256=hashlib.sha256((directory / path).read_bytes()).hexdigest(),
            size_bytes=(directory / path).stat().st_size,
        )
        for path in paths
    ]


def load_request(directory: Path, entry_point: str = "echo.fake.json", **changes: Any) -> pb.LoadRequest:
    """A load of one file in `directory`, which `changes` override."""
    engine = "fake" if entry_point.endswith(".fake.json") else "onnxruntime"
    fields: dict[str, Any] = {
        **INSTANCE,
        "epoch": 1,
        "directory": str(directory),
        "entry_point": entry_point,
        "engine": engine,
        **changes,
    }
    if "files" not in fields:
        fields["files"] = model_files(directory, entry_point)
    return pb.LoadRequest(**fields)


def fake_model(directory: Path, name: str = "echo.fake.json", **changes: Any) -> Path:
    spec = {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
        **changes,
    }
    path = directory / name
    path.write_text(json.dumps(spec))
    return path


def bundle(bundle_id: int, rows: Sequence[int] = (1,), fill: float = 0.5, **changes: Any) -> pb.ExecuteRequest:
    """A bundle for `fake_model`: x FP32 [sum of rows, 2], all elements `fill`."""
    total = sum(rows)
    data = np.full((total, 2), fill, np.float32).tobytes()
    tensor = pb.Tensor(name="x", datatype="FP32", shape=[total, 2], data=data)
    return pb.ExecuteRequest(bundle=pb.Bundle(**{"bundle_id": bundle_id, "rows": rows, "inputs": [tensor], **changes}))


class Router:
    """The other end of an Execute stream."""

    def __init__(self, call: Any) -> None:
        self.call = call

    async def send(self, request: pb.ExecuteRequest) -> None:
        await self.call.write(request)

    async def receive(self) -> pb.ExecuteResponse:
        async with asyncio.timeout(PATIENCE_S):
            response = await self.call.read()
        assert response is not grpc.aio.EOF, "the runner ended the stream"
        return response  # type: ignore[no-any-return]

    async def result(self) -> pb.BundleResult:
        response = await self.receive()
        assert response.WhichOneof("message") == "result", response
        return response.result

    async def ended(self) -> grpc.StatusCode | None:
        """Waits for the end that the runner gives the stream; the status, where gRPC has one."""
        async with asyncio.timeout(PATIENCE_S):
            try:
                assert await self.call.read() is grpc.aio.EOF
            except grpc.aio.AioRpcError as error:
                return error.code()
        return None

    async def half_close(self) -> None:
        """Closes this side and waits for the runner to close the other."""
        await self.call.done_writing()
        async with asyncio.timeout(PATIENCE_S):
            assert await self.call.read() is grpc.aio.EOF


class FrameCall:
    """A connection by frames, as a grpc.aio call looks."""

    def __init__(self) -> None:
        self._came: asyncio.Queue[Any] = asyncio.Queue()
        self.link = FrameLink(lambda message: self._came.put_nowait(pb.ExecuteResponse.FromString(bytes(message))))
        self.link.ended.add_done_callback(lambda _: self._came.put_nowait(grpc.aio.EOF))

    async def write(self, request: pb.ExecuteRequest) -> None:
        self.link.send(request.SerializeToString())

    async def read(self) -> Any:
        return await self._came.get()

    async def done_writing(self) -> None:
        self.link.finish()

    def cancel(self) -> None:
        self.link.abort("cancelled")


async def call(runner: RunnerProcess) -> Any:
    """A connection to Execute on which nothing has been said."""
    if runner.by == "grpc":
        return runner.stub.Execute()
    connection = FrameCall()
    path = frames_path(f"unix:{runner.context.socket}")
    await asyncio.get_running_loop().create_unix_connection(lambda: connection.link, path)
    return connection


async def attach(runner: RunnerProcess, message: pb.Attach = ATTACH) -> Router:
    router = Router(await call(runner))
    await router.send(pb.ExecuteRequest(attach=message))
    return router


async def granted(runner: RunnerProcess, message: pb.Attach = ATTACH) -> Router:
    """A router that has been given its slots."""
    router = await attach(runner, message)
    assert (await router.receive()).WhichOneof("message") == "grant"
    return router


def start(directory: Path, config: RunnerConfig) -> tuple[subprocess.Popen[bytes], ProcessContext]:
    """Starts a process; its log is `runner.log` in the directory."""
    mesh = MeshConfig(runner=config)
    context = ProcessContext(process="runner-1", state_dir=directory, runtime_dir=directory, mesh=mesh)
    context.save(directory / "context.json")
    with (directory / "runner.log").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "headrace_runner", "--context", str(directory / "context.json")],
            stderr=output,
            start_new_session=True,
        )
    return process, context


def stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
    process.wait(PATIENCE_S)


@asynccontextmanager
async def connected(process: subprocess.Popen[bytes], context: ProcessContext) -> AsyncIterator[RunnerProcess]:
    """A channel to a process, which is standing by or serving."""
    # Tries again at once: the socket appears when the runner is ready to stand by.
    options = (("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 200))
    async with grpc.aio.insecure_channel(f"unix:{context.socket}", options=options) as channel:
        runner = RunnerProcess(process, context, channel, context.state_dir / "runner.log")
        async with asyncio.timeout(PATIENCE_S):
            await runner.status()
        yield runner


@asynccontextmanager
async def running(directory: Path, config: RunnerConfig | None = None) -> AsyncIterator[RunnerProcess]:
    """A runner that stands by; killed at the end if it still lives."""
    process, context = start(directory, config or RunnerConfig(allow_fake_engine=True))
    try:
        async with connected(process, context) as runner:
            yield runner
    finally:
        stop(process)
