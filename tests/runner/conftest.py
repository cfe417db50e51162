"""Runner processes and places for their models."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from headrace.runner.v1 import runner_pb2 as pb
from headrace_common.config import RunnerConfig
from tests.runner.harness import RunnerProcess, connected, fake_model, load_request, running, start, stop


@pytest.fixture
def directory() -> Iterator[Path]:
    """Short enough for a unix socket's path."""
    path = Path(tempfile.mkdtemp(prefix="hr-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def by(request: pytest.FixtureRequest) -> Any:
    """How a test's routers reach Execute: "grpc", or what the module asks for."""
    return getattr(request, "param", "grpc")


@pytest.fixture
async def runner(directory: Path, by: Any) -> AsyncIterator[RunnerProcess]:
    async with running(directory) as started:
        started.by = by
        yield started


@pytest.fixture
def models(directory: Path) -> Path:
    path = directory / "models"
    path.mkdir()
    return path


@pytest.fixture
async def ready(runner: RunnerProcess, models: Path) -> RunnerProcess:
    """Holds a fake model that echoes, hangs on 99, fails on 13 and dies of 66."""
    fake_model(models, fail_on=13, crash_on=66, hang_on=99)
    await runner.stub.Load(load_request(models))
    return runner


def shared_load(models: Path) -> pb.LoadRequest:
    """The same every time: a repeated load changes nothing."""
    fake_model(models, fail_on=13)
    return load_request(models)


@pytest.fixture(scope="session")
def lasting() -> Iterator[tuple[Any, Any]]:
    """A process for tests that leave it as it was."""
    path = Path(tempfile.mkdtemp(prefix="hr-"))
    process, context = start(path, RunnerConfig(allow_fake_engine=True))
    yield process, context
    stop(process)
    shutil.rmtree(path)


@pytest.fixture
async def shared(lasting: tuple[Any, Any], by: Any) -> AsyncIterator[RunnerProcess]:
    """Holds a fake model that echoes and fails on 13. Shared: do not unload, hang or kill it."""
    async with connected(*lasting) as runner:
        runner.by = by
        models = runner.context.state_dir
        await runner.stub.Load(shared_load(models))
        yield runner


@pytest.fixture
def refused() -> Callable[[Any], Any]:
    """Awaits a call that must fail; answers its error."""

    async def expect(call: Any) -> grpc.aio.AioRpcError:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        return caught.value

    return expect
