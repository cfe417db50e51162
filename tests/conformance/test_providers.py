"""Every instance provider does the same: the fake one, and processes of this machine with the real runner."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from headrace.runner.v1 import runner_pb2, runner_pb2_grpc
from headrace_autoscaler.domain import Resources
from headrace_autoscaler.providers.base import InstanceProvider, StartedRunner, StartFailed
from headrace_autoscaler.providers.fake import FakeMachine, FakeProvider
from headrace_autoscaler.providers.local import LocalProvider
from headrace_common.config import ProcessContext

START_S = 20.0


@dataclass
class Setting:
    """`open` gives another provider over the same machine, as a restarted autoscaler would have; `end` kills a runner
    behind its back."""

    runtime_dir: Path
    open: Callable[[], InstanceProvider]
    end: Callable[[StartedRunner], Awaitable[None]]


@pytest.fixture
def directory() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="hr-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(params=["fake", "local"])
async def setting(request: pytest.FixtureRequest, directory: Path) -> AsyncIterator[Setting]:
    if request.param == "fake":
        machine = FakeMachine(directory)
        opened = Setting(
            directory, lambda: FakeProvider(machine), lambda each: machine.runners[each.runner_id].die("killed")
        )
    else:
        context = ProcessContext(process="autoscaler", state_dir=directory, runtime_dir=directory)
        opened = Setting(directory, lambda: LocalProvider(context), _kill)
    yield opened
    last = opened.open()
    for runner in await last.list():
        await last.kill(runner.runner_id)
    await last.close()


async def _kill(runner: StartedRunner) -> None:
    os.kill(runner.pid, signal.SIGKILL)


def _leftovers(directory: Path) -> list[str]:
    return [each.name for each in directory.glob("runner-*")]


def _is_served(target: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(target.removeprefix("unix:")) == 0


async def standby(target: str) -> runner_pb2.RunnerStatus:
    """The runner's status, once it stands by."""
    async with asyncio.timeout(START_S), grpc.aio.insecure_channel(target) as channel:
        stub = runner_pb2_grpc.RunnerServiceStub(channel)
        async for message in stub.WatchStatus(runner_pb2.WatchStatusRequest(), wait_for_ready=True):
            if message.status.state == runner_pb2.RUNNER_STATE_STANDBY:
                return message.status
    raise AssertionError("the stream ended before the runner stood by")


async def test_a_started_runner_stands_by_at_its_target(setting: Setting) -> None:
    provider = setting.open()
    started = await provider.start("runner-a")
    status = await standby(started.target)
    assert (started.runner_id, started.pid) == ("runner-a", status.pid)
    assert started.target == f"unix:{setting.runtime_dir / 'runner-a.sock'}"


async def test_a_killed_runner_is_gone_when_kill_answers(setting: Setting) -> None:
    provider = setting.open()
    started = await provider.start("runner-a")
    await standby(started.target)
    exited = asyncio.create_task(provider.wait_exit("runner-a"))
    await asyncio.sleep(0)
    await provider.kill("runner-a")
    assert (await exited).how == "killed by SIGKILL"
    assert await provider.list() == ()
    assert _leftovers(setting.runtime_dir) == []


async def test_a_runner_is_held_again_and_again_and_what_is_done_is_said(setting: Setting) -> None:
    provider = setting.open()
    started = await provider.start("runner-a")
    await standby(started.target)
    for millicores in (500, 2000):
        held = await provider.hold("runner-a", Resources(millicores, 1 << 30))
        assert held == provider.enforcement
    assert held.cpu.startswith(("cgroup", "threads only, millicores are not enforced on this machine: "))
    assert held.memory in ("cgroup and watchdog", "RLIMIT_DATA and watchdog")
    await provider.hold("runner-never", Resources())


async def test_killing_what_is_not_there_is_no_error(setting: Setting) -> None:
    provider = setting.open()
    await provider.kill("runner-never")
    assert (await provider.wait_exit("runner-never")).how == "not running"


async def test_a_runner_that_unloads_ends_by_itself(setting: Setting) -> None:
    provider = setting.open()
    started = await provider.start("runner-a")
    await standby(started.target)
    exited = asyncio.create_task(provider.wait_exit("runner-a"))
    async with grpc.aio.insecure_channel(started.target) as channel:
        await runner_pb2_grpc.RunnerServiceStub(channel).Unload(runner_pb2.UnloadRequest(epoch=1))
    async with asyncio.timeout(START_S):
        assert (await exited).how == "exit status 0"
    assert await provider.list() == ()


async def test_another_provider_finds_and_owns_what_runs(setting: Setting) -> None:
    first = setting.open()
    started = [await first.start("runner-a"), await first.start("runner-b")]
    for each in started:
        await standby(each.target)
    await first.close()
    second = setting.open()
    assert list(await second.list()) == started
    exited = asyncio.create_task(second.wait_exit("runner-a"))
    await second.kill("runner-a")
    await exited
    assert [each.runner_id for each in await second.list()] == ["runner-b"]
    await standby(started[1].target)


async def test_a_runner_that_ends_while_nobody_watches_is_told_of_until_note_is_taken(setting: Setting) -> None:
    first, before = setting.open(), time.time()
    started = [await first.start("runner-a"), await first.start("runner-b")]
    for each in started:
        await standby(each.target)
    assert await first.departed() == ()
    signs = {each.runner_id: each.sign for each in await first.list()}
    await first.close()
    await setting.end(started[1])
    second = setting.open()
    async with asyncio.timeout(START_S):
        # Threads of a process that was killed may outlive its first.
        while _is_served(started[1].target):  # noqa: ASYNC110 - another process ends
            await asyncio.sleep(0.01)
        while not (gone := await second.departed()):  # noqa: ASYNC110 - another process ends
            await asyncio.sleep(0.01)
    [departed] = gone
    assert (departed.runner_id, departed.sign) == ("runner-b", signs["runner-b"])
    assert departed.started_at is not None
    # File systems keep coarser times than the clock.
    assert before - 0.1 <= departed.started_at <= departed.ended_at <= time.time() + 0.1
    assert [each.runner_id for each in await second.list()] == ["runner-a"]
    assert await second.departed() == gone
    await second.forget(["runner-b"])
    assert await second.departed() == ()
    assert not list(setting.runtime_dir.glob("runner-b*"))


async def test_a_socket_that_nobody_listens_on_is_removed(directory: Path) -> None:
    context = ProcessContext(process="autoscaler", state_dir=directory, runtime_dir=directory)
    server = await asyncio.start_unix_server(lambda _reader, _writer: None, directory / "runner-old.sock")
    server.close()
    await server.wait_closed()
    assert (directory / "runner-old.sock").exists()
    assert await LocalProvider(context).list() == ()
    assert not (directory / "runner-old.sock").exists()


async def test_local_runners_stay_in_our_process_group_and_log_to_a_file(directory: Path) -> None:
    context = ProcessContext(process="autoscaler", state_dir=directory, runtime_dir=directory)
    provider = LocalProvider(context)
    started = await provider.start("runner-a")
    try:
        await standby(started.target)
        assert os.getpgid(started.pid) == os.getpgid(os.getpid())
        assert '"process":"runner-a"' in (directory / "logs" / "runners.log").read_text()
    finally:
        await provider.kill("runner-a")


async def test_an_adopted_process_that_dies_is_noticed(directory: Path) -> None:
    context = ProcessContext(process="autoscaler", state_dir=directory, runtime_dir=directory)
    first, second = LocalProvider(context), LocalProvider(context)
    started = await first.start("runner-a")
    await standby(started.target)
    await second.list()
    os.kill(started.pid, signal.SIGKILL)
    async with asyncio.timeout(START_S):
        assert (await second.wait_exit("runner-a")).how == "ended"
        await first.wait_exit("runner-a")
    await second.close()


async def test_a_process_that_cannot_be_started_says_why(directory: Path) -> None:
    context = ProcessContext(process="autoscaler", state_dir=directory, runtime_dir=directory)
    provider = LocalProvider(context, command=(str(directory / "nothing-here"),))
    with pytest.raises(StartFailed, match="nothing-here"):
        await provider.start("runner-a")
    assert _leftovers(directory) == []
