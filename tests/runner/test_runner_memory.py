"""A runner is held to its memory: when it has outgrown it, what it does then, and what routers see of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.runner.v1 import runner_pb2 as pb
from headrace.v1.resources_pb2 import InstanceShape
from headrace_common.enforcement import OVER_MEMORY_STATUS
from headrace_runner.core.memory import (
    GRACE_S,
    HARD_SHARE,
    PERIOD_S,
    READINGS,
    MemoryWatch,
    Usage,
    Verdict,
    mapping_limit,
    too_small,
    usage_of,
)
from headrace_runner.core.threads import intra_op_threads
from tests.runner.harness import RunnerProcess, bundle, fake_model, granted, load_request

MIB = 1 << 20
STATUS = """Name:\tpython
VmSwap:\t      24 kB
VmRSS:\t  117992 kB
RssAnon:\t   62000 kB
RssFile:\t   55992 kB
RssShmem:\t  131072 kB
VmData:\t  212616 kB
"""


def limited(memory_mib: int) -> InstanceShape:
    return InstanceShape(cpu_millicores=1000, memory_bytes=memory_mib * MIB)


def test_rings_shared_with_routers_and_mapped_files_do_not_count() -> None:
    assert usage_of(STATUS) == Usage(private_bytes=62024 * 1024, mapped_bytes=212616 * 1024)


def test_what_the_system_does_not_say_counts_as_nothing() -> None:
    assert usage_of("Name:\tpython\nRssAnon:\n") == Usage(0, 0)


@pytest.mark.parametrize(
    ("readings", "verdicts"),
    [
        pytest.param([90, 100, 100], "stay stay stay", id="all-of-it-is-not-over-it"),
        pytest.param([101, 99, 101, 99], "stay stay stay stay", id="a-batch-on-its-way-is-not-a-reason"),
        pytest.param([101, 101, 101], "stay leave stay", id="twice-in-a-row-is-and-it-is-said-once"),
        pytest.param([101, 101, 90, 90], "stay leave stay stay", id="who-leaves-does-not-come-back"),
        pytest.param([151], "end", id="half-as-much-again-ends-at-once"),
        pytest.param([101, 101, 151], "stay leave end", id="also-while-it-drains"),
    ],
)
def test_when_a_runner_has_outgrown_its_memory(readings: list[int], verdicts: str) -> None:
    watch = MemoryWatch(100)
    said = [watch.observe(held, index * PERIOD_S) for index, held in enumerate(readings)]
    assert [str(each) for each in said] == verdicts.split()


def test_who_does_not_get_done_within_the_grace_ends() -> None:
    watch = MemoryWatch(100)
    verdicts = [watch.observe(101, now) for now in (0.0, 1.0, 1.0 + GRACE_S - 0.1, 1.0 + GRACE_S)]
    assert verdicts == [Verdict.STAY, Verdict.LEAVE, Verdict.STAY, Verdict.END]


@given(st.lists(st.integers(0, 140), max_size=30))
def test_it_leaves_exactly_where_enough_readings_in_a_row_are_over(readings: list[int]) -> None:
    watch = MemoryWatch(100)
    said = [watch.observe(held, 0.0) for held in readings]
    runs = [
        index for index in range(READINGS - 1, len(readings)) if min(readings[index - READINGS + 1 : index + 1]) > 100
    ]
    assert [index for index, verdict in enumerate(said) if verdict is Verdict.LEAVE] == runs[:1]
    assert Verdict.END not in said


@given(st.integers(1, 1 << 40), st.integers(0, 1 << 40), st.integers(0, 1 << 40))
def test_the_mapping_limit_leaves_room_for_all_its_memory(limit: int, private: int, mapped: int) -> None:
    usage = Usage(private, private + mapped)
    most = mapping_limit(limit, usage)
    assert most >= usage.mapped_bytes, "what is mapped already stays"
    assert bool(too_small(limit, usage)) == (private >= limit)
    if private < limit:
        assert most >= mapped + limit, "the watchdog speaks first"


@pytest.mark.parametrize(
    ("millicores", "cpus", "in_cgroup", "threads"),
    [
        (100, 4, False, 1),
        (1999, 4, False, 1),
        (2000, 4, False, 2),
        (16_000, 4, False, 4),
        (0, 4, False, 1),
        (100, 4, True, 1),
        (1001, 4, True, 2),
        (2000, 4, True, 2),
        (16_000, 4, True, 4),
    ],
)
def test_threads_by_cpu(millicores: int, cpus: int, in_cgroup: bool, threads: int) -> None:
    assert intra_op_threads(millicores, cpus, in_cgroup=in_cgroup) == threads


async def test_a_leak_makes_it_leave_and_all_it_holds_is_answered(runner: RunnerProcess, models: Path) -> None:
    fake_model(models, leak_bytes=2 * MIB, leak_on=1, latency_ms=20)
    await runner.stub.Load(load_request(models, shape=limited(192)))
    router = await granted(runner)
    asked, answered, draining = 0, 0, ""
    async with asyncio.timeout(30):
        while not draining or answered < asked:
            if not draining:
                asked += 1
                await router.send(bundle(asked, fill=1))
            message = await router.receive()
            if message.WhichOneof("message") == "draining":
                draining = message.draining.reason
            else:
                answered += 1
                assert not message.result.HasField("error"), message.result.error
    assert draining.startswith("over its memory: it holds "), draining
    assert "192Mi is its share" in draining
    status = await runner.status()
    assert (status.over_memory, status.state) == (True, pb.RUNNER_STATE_DRAINING)
    assert 192 * MIB < status.private_bytes < status.resident_bytes
    await router.half_close()
    assert await runner.exit_code() == 0


async def test_a_batch_for_which_there_is_no_memory_left_comes_back_after_the_word_to_leave(
    runner: RunnerProcess, models: Path
) -> None:
    fake_model(models, leak_bytes=30 * MIB, leak_on=1)
    await runner.stub.Load(load_request(models, shape=limited(128)))
    router = await granted(runner)
    number, message = 0, None
    async with asyncio.timeout(30):
        while message is None or message.WhichOneof("message") != "draining":
            number += 1
            await router.send(bundle(number, fill=1))
            message = await router.receive()
    if "an allocation failed" in message.draining.reason:  # Otherwise the watchdog was first.
        assert (await router.result()).error.code == pb.BUNDLE_ERROR_CODE_OUT_OF_MEMORY, "so that it runs elsewhere"
    assert (await runner.status()).over_memory
    await router.half_close()
    assert await runner.exit_code() == 0


async def test_one_batch_that_asks_for_more_than_there_could_be_costs_no_instance(
    runner: RunnerProcess, models: Path
) -> None:
    fake_model(models, leak_bytes=1024 * MIB, leak_on=1)
    await runner.stub.Load(load_request(models, shape=limited(192)))
    router = await granted(runner)
    for number, fill, code in ((1, 0, None), (2, 1, pb.BUNDLE_ERROR_CODE_OUT_OF_MEMORY), (3, 0, None)):
        await router.send(bundle(number, fill=fill))
        result = await router.result()
        assert (result.error.code if result.HasField("error") else None) == code
    assert not (await runner.status()).over_memory


async def test_what_grows_too_fast_to_drain_ends_at_once(runner: RunnerProcess, models: Path) -> None:
    fake_model(models, leak_bytes=int(128 * MIB * HARD_SHARE), leak_on=1)
    await runner.stub.Load(load_request(models, shape=limited(128), memory_in_cgroup=True))
    router = await granted(runner)
    await router.send(bundle(1, fill=1))
    assert await runner.exit_code() == OVER_MEMORY_STATUS
    await runner.says('"event":"over_memory_ended"')


async def test_a_model_that_outgrows_its_memory_while_it_loads_is_refused_with_the_reason(
    runner: RunnerProcess, models: Path, refused: Callable[[Any], Any]
) -> None:
    fake_model(models, leak_bytes=60 * MIB, latency_ms=300)
    error = await refused(runner.stub.Load(load_request(models, shape=limited(128))))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert error.details().startswith("over its memory: it holds 1")
    assert await runner.exit_code() == 0


async def test_memory_that_a_runner_needs_for_itself_is_said_to_be_too_little(
    runner: RunnerProcess, models: Path, refused: Callable[[Any], Any]
) -> None:
    fake_model(models)
    error = await refused(runner.stub.Load(load_request(models, shape=limited(16))))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert error.details().startswith("its memory of 16Mi is less than the ")
    assert await runner.exit_code() == 0
