"""Stateful models in the data plane, between a scripted autoscaler and scripted runners that add up what they get."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from headrace.control.v1 import control_pb2
from headrace.runner.v1 import runner_pb2
from headrace_common import errors
from headrace_router.domain import SequenceStep

StartBench = Callable[..., Awaitable[Any]]
Eventually = Callable[..., Awaitable[None]]
Say = Callable[..., Awaitable[float]]

POISON = 666.0
RULES = control_pb2.SequenceRules(
    states=[control_pb2.StateTensor(input="s", output="s_out", datatype="FP32", shape=[1, 1], size_bytes=4)],
    max_idle_us=60_000_000,
)


def floats(data: bytes) -> list[float]:
    return list(memoryview(data).cast("f"))


async def add_up(bundle: runner_pb2.Bundle) -> runner_pb2.BundleResult:
    """y is x and the state, and the new state is y's first column."""
    given = {tensor.name: tensor for tensor in bundle.inputs}
    sums = [x + s for x, s in zip(floats(given["x"].data)[::2], floats(given["s"].data), strict=True)]
    return result_of(bundle, sums, sums)


def result_of(bundle: runner_pb2.Bundle, sums: list[float], left: list[float]) -> runner_pb2.BundleResult:
    rows = len(bundle.rows)
    doubled = [value for value in sums for _ in range(2)]
    answer = runner_pb2.Tensor(name="y", datatype="FP32", shape=[rows, 2], data=struct.pack(f"<{2 * rows}f", *doubled))
    state = runner_pb2.Tensor(
        name="s_out", datatype="FP32", shape=[rows, len(left) // rows], data=struct.pack(f"<{len(left)}f", *left)
    )
    outputs = [tensor for tensor in (answer, state) if not bundle.outputs or tensor.name in bundle.outputs]
    return runner_pb2.BundleResult(bundle_id=bundle.bundle_id, outputs=outputs, compute_us=1000)


@pytest.fixture
def stateful(start_bench: StartBench) -> StartBench:
    """Starts a bench whose model "m" is stateful."""

    async def start(rules: control_pb2.SequenceRules = RULES, **router: Any) -> Any:
        return await start_bench(model={"sequences": rules}, **router)

    return start


def say(bench: Any, value: float, of: int | str = 1, *, start: bool = False, end: bool = False, **more: Any) -> Any:
    """One step; the sum so far."""

    async def ask() -> float:
        sums = await bench.infer(value, sequence=SequenceStep(of, start, end), **more)
        assert sums[0] == sums[1]
        return float(sums[0])

    return ask()


async def test_each_stream_gets_its_own_sums_and_they_share_bundles(stateful: StartBench) -> None:
    bench = await stateful()
    runner = await bench.add_runner("r1", add_up)

    async def stream(number: int) -> list[float]:
        return [await say(bench, float(number), number, start=turn == 0, end=turn == 9) for turn in range(10)]

    sums = await asyncio.gather(*(stream(number) for number in range(1, 17)))
    assert sums == [[number * turn for turn in range(1, 11)] for number in range(1, 17)]
    assert max(len(bundle.rows) for bundle in runner.bundles) == 8
    assert bench.plane.in_hand == 0
    assert bench.plane.sequences.bytes_of == {}


async def test_what_is_sent_ahead_goes_in_order_and_one_at_a_time(stateful: StartBench) -> None:
    bench = await stateful()
    runner = await bench.add_runner("r1", add_up)
    sums = await asyncio.gather(*(say(bench, 1.0, start=turn == 0) for turn in range(30)))
    assert sums == [float(turn) for turn in range(1, 31)]
    assert [list(bundle.rows) for bundle in runner.bundles] == [[1]] * 30


async def test_clients_see_neither_the_state_nor_its_bytes(stateful: StartBench) -> None:
    bench = await stateful()
    runner = await bench.add_runner("r1", add_up)
    for turn, wanted in enumerate([(), ("y",)]):
        request = bench.request(1.0, sequence=SequenceStep("a", turn == 0), outputs=wanted)
        result = await bench.plane.infer(request)
        assert [tensor.name for tensor in result.outputs] == ["y"]
    assert [list(bundle.outputs) for bundle in runner.bundles] == [[], ["y", "s_out"]]
    [use] = bench.plane.counters().uses
    assert (use.totals.input_bytes, use.totals.output_bytes) == (16, 16)


async def test_a_sequence_begins_as_it_is_declared(stateful: StartBench) -> None:
    rules = control_pb2.SequenceRules()
    rules.CopyFrom(RULES)
    rules.states[0].initial = struct.pack("<f", 40.0)
    bench = await stateful(rules)
    await bench.add_runner("r1", add_up)
    assert await say(bench, 2.0, start=True) == 42.0
    assert await say(bench, 1.0) == 43.0
    assert await say(bench, 2.0, start=True) == 42.0, "to start again is to begin anew"


async def test_a_lost_runner_costs_a_sequence_nothing(stateful: StartBench, eventually: Eventually) -> None:
    bench = await stateful()
    first = await bench.add_runner("r1", add_up)
    assert await say(bench, 1.0, start=True) == 1.0
    first.gate.clear()
    step = asyncio.create_task(say(bench, 2.0))
    await eventually(lambda: len(first.bundles) == 2)
    await bench.add_runner("r2", add_up)
    await first.stop()
    assert await step == 3.0
    assert await say(bench, 4.0, end=True) == 7.0


async def test_a_drained_runner_costs_a_sequence_nothing(stateful: StartBench, eventually: Eventually) -> None:
    bench = await stateful()
    first = await bench.add_runner("r1", add_up)
    assert await say(bench, 1.0, start=True) == 1.0
    first.drain()
    await eventually(first.half_closed.is_set)
    second = await bench.add_runner("r2", add_up)
    assert await say(bench, 2.0) == 3.0
    assert len(second.bundles) == 1


async def test_a_poison_step_is_refused_and_its_sequence_goes_on_without_it(
    stateful: StartBench, scripts: SimpleNamespace
) -> None:
    async def killed_by_poison(bundle: runner_pb2.Bundle) -> Any:
        return None if POISON in floats(bundle.inputs[0].data) else await add_up(bundle)

    bench = await stateful()
    await bench.add_runner("r1", killed_by_poison)
    assert await say(bench, 1.0, start=True) == 1.0
    poison, after, other = await asyncio.gather(
        say(bench, POISON), say(bench, 2.0), say(bench, 5.0, of=2, start=True), return_exceptions=True
    )
    assert isinstance(poison, errors.EngineFailed)
    assert (after, other) == (3.0, 5.0)


async def test_a_deadline_that_passes_in_the_queue_leaves_the_state(stateful: StartBench) -> None:
    bench = await stateful()
    runner = await bench.add_runner("r1", add_up)
    assert await say(bench, 1.0, start=True) == 1.0
    runner.gate.clear()
    with pytest.raises(errors.DeadlineExceeded):
        await say(bench, 2.0, deadline=time.monotonic() + 0.05)
    runner.gate.set()
    assert await say(bench, 4.0) == 5.0


async def test_a_step_whose_client_went_away_while_it_was_executed_did_not_happen(
    stateful: StartBench, eventually: Eventually
) -> None:
    bench = await stateful()
    runner = await bench.add_runner("r1", add_up)
    assert await say(bench, 1.0, start=True) == 1.0
    runner.gate.clear()
    gone = asyncio.create_task(say(bench, 2.0))
    await eventually(lambda: len(runner.bundles) == 2)
    behind = asyncio.create_task(say(bench, 4.0))
    gone.cancel()
    # It does not wait for the result that nobody wants.
    await eventually(lambda: len(runner.bundles) == 3)
    runner.gate.set()
    assert await behind == 5.0


async def test_a_result_that_comes_after_the_deadline_leaves_the_state(
    stateful: StartBench, eventually: Eventually
) -> None:
    # Nothing looks for deadlines that have passed before the result comes.
    bench = await stateful(sweep_period_s=10)
    runner = await bench.add_runner("r1", add_up)
    assert await say(bench, 1.0, start=True) == 1.0
    runner.gate.clear()
    deadline = time.monotonic() + 0.3
    late, behind = asyncio.create_task(say(bench, 2.0, deadline=deadline)), asyncio.create_task(say(bench, 4.0))
    await eventually(lambda: len(runner.bundles) == 2)
    await eventually(lambda: time.monotonic() > deadline)
    runner.gate.set()
    with pytest.raises(errors.DeadlineExceeded):
        await late
    assert await behind == 5.0


async def test_a_result_for_a_client_that_has_gone_leaves_the_state(
    stateful: StartBench, eventually: Eventually
) -> None:
    bench = await stateful(sweep_period_s=10)
    runner = await bench.add_runner("r1", add_up)
    assert await say(bench, 1.0, start=True) == 1.0
    runner.gate.clear()
    gone: list[bool] = []
    step = asyncio.create_task(say(bench, 2.0, is_gone=lambda: bool(gone)))
    await eventually(lambda: len(runner.bundles) == 2)
    gone.append(True)
    runner.gate.set()
    with pytest.raises(errors.Cancelled):
        await step
    assert await say(bench, 4.0) == 5.0


async def test_a_step_can_be_withdrawn_while_it_waits_for_the_one_before_it(
    stateful: StartBench, eventually: Eventually
) -> None:
    bench = await stateful()
    runner = await bench.add_runner("r1", add_up)
    runner.gate.clear()
    first = asyncio.create_task(say(bench, 1.0, start=True))
    await eventually(lambda: len(runner.bundles) == 1)
    gone = asyncio.create_task(say(bench, 2.0))
    last = asyncio.create_task(say(bench, 4.0))
    await eventually(lambda: bench.plane.in_hand == 3)
    # Who waits for another step asks for no instance.
    [demand] = bench.plane.demand().message.demands
    assert (demand.queued, demand.held, demand.in_flight) == (0, 2, 1)
    gone.cancel()
    await eventually(lambda: bench.plane.in_hand == 2)
    runner.gate.set()
    assert [await first, await last] == [1.0, 5.0]


@pytest.mark.parametrize("begun", [False, True], ids=["never begun", "ended"])
async def test_a_step_of_no_open_sequence_is_told_what_to_do(stateful: StartBench, begun: bool) -> None:
    bench = await stateful()
    await bench.add_runner("r1", add_up)
    if begun:
        await say(bench, 1.0, of="call-7", start=True, end=True)
    why = "it has ended" if begun else "no request with sequence_start has begun it at this router"
    with pytest.raises(errors.FailedPrecondition, match=f"sequence 'call-7' of model 'm' is not open: {why}"):
        await say(bench, 1.0, of="call-7")
    assert bench.plane.in_hand == 0


async def test_an_idle_sequence_is_dropped(stateful: StartBench, eventually: Eventually) -> None:
    rules = control_pb2.SequenceRules()
    rules.CopyFrom(RULES)
    rules.max_idle_us = 20_000
    bench = await stateful(rules)
    await bench.add_runner("r1", add_up)
    await say(bench, 1.0, start=True)
    await eventually(lambda: bench.plane.sequences.bytes_of == {})
    with pytest.raises(errors.FailedPrecondition, match=r"dropped after 0.02 s without a request"):
        await say(bench, 1.0)


async def test_state_is_bounded_by_tenant_and_of_all_and_sequences_by_tenant(stateful: StartBench) -> None:
    bench = await stateful(max_sequences=2, max_sequence_bytes=3000, max_all_sequence_bytes=3500)
    await bench.add_runner("r1", add_up)
    for number in (1, 2):
        await say(bench, 1.0, of=number, start=True)
    with pytest.raises(errors.QuotaExceeded, match="max_sequences"):
        await say(bench, 1.0, of=3, start=True)
    await say(bench, 1.0, of=1, start=True, tenant="other")
    with pytest.raises(errors.QuotaExceeded, match="max_all_sequence_bytes"):
        await say(bench, 1.0, of=2, start=True, tenant="other")
    assert await say(bench, 1.0) == 2.0


async def test_a_tenants_state_is_bounded(stateful: StartBench) -> None:
    bench = await stateful(max_sequence_bytes=1100)
    await bench.add_runner("r1", add_up)
    await say(bench, 1.0, start=True)
    with pytest.raises(errors.QuotaExceeded, match="max_sequence_bytes"):
        await say(bench, 1.0, of=2, start=True)
    await say(bench, 1.0, of=2, start=True, tenant="other")


async def test_no_more_wait_behind_a_step_than_may_wait_at_all(stateful: StartBench, eventually: Eventually) -> None:
    bench = await stateful(max_queue_length=3)
    runner = await bench.add_runner("r1", add_up)
    runner.gate.clear()
    tasks = [asyncio.create_task(say(bench, 1.0, start=turn == 0)) for turn in range(5)]
    await eventually(tasks[-1].done)
    with pytest.raises(errors.QueueFull, match="wait for the one before them"):
        await tasks[-1]
    # Whose turn it is waits for nobody.
    other = asyncio.create_task(say(bench, 7.0, of=2, start=True, tenant="other"))
    await eventually(lambda: other.done() or len(runner.bundles) == 2)
    runner.gate.set()
    assert [await task for task in tasks[:-1]] == [1.0, 2.0, 3.0, 4.0]
    assert await other == 7.0


async def test_a_new_version_ends_the_sequences_of_the_old_one_and_says_so(
    stateful: StartBench, eventually: Eventually
) -> None:
    bench = await stateful()
    runner = await bench.add_runner("r1", add_up)
    assert await say(bench, 1.0, start=True) == 1.0
    runner.gate.clear()
    in_flight = asyncio.create_task(say(bench, 2.0))
    await eventually(lambda: len(runner.bundles) == 2)
    entry = control_pb2.ModelEntry()
    entry.CopyFrom(bench.control.full.models[0])
    entry.revisions.add().CopyFrom(entry.revisions[0])
    entry.revisions[0].retiring, entry.revisions[0].current = True, False
    entry.revisions[1].revision, entry.revisions[1].version = 2, "2"
    bench.control.send(models=[entry])
    await eventually(lambda: bench.plane.catalogue.resolve("t", "m", "").revision == 2)
    runner.gate.set()
    assert await in_flight == 3.0, "what had been accepted is answered"
    with pytest.raises(errors.FailedPrecondition, match=r"version '1' \(revision 1\), on which it was, was replaced"):
        await say(bench, 4.0)


async def test_a_result_without_a_fitting_state_fails_its_step_only(stateful: StartBench) -> None:
    async def broken(bundle: runner_pb2.Bundle) -> Any:
        if floats(bundle.inputs[0].data)[0] == POISON:
            return result_of(bundle, [1.0], [1.0, 2.0])
        return await add_up(bundle)

    bench = await stateful()
    await bench.add_runner("r1", broken)
    assert await say(bench, 1.0, start=True) == 1.0
    with pytest.raises(errors.EngineFailed):
        await say(bench, POISON)
    assert await say(bench, 2.0) == 3.0


async def test_control_inputs_say_where_in_its_sequence_a_step_is(stateful: StartBench) -> None:
    rules = control_pb2.SequenceRules()
    rules.CopyFrom(RULES)
    off, on = struct.pack("<f", 0.0), struct.pack("<f", 1.0)
    kinds = {"START": 1, "END": 2, "READY": 3}
    for name, kind in kinds.items():
        rules.signals.add(input=name, kind=kind, datatype="FP32", shape=[1, 1], off=off, on=on)
    rules.signals.add(input="ID", kind=4, datatype="UINT64", shape=[1, 1])
    bench = await stateful(rules)
    runner = await bench.add_runner("r1", add_up)
    for turn in range(3):
        await say(bench, 1.0, of=77, start=turn == 0, end=turn == 2)
    given = [{tensor.name: tensor.data for tensor in bundle.inputs} for bundle in runner.bundles]
    assert [[each[name] for name in kinds] for each in given] == [[on, off, on], [off, off, on], [off, on, on]]
    assert {each["ID"] for each in given} == {struct.pack("<Q", 77)}


async def test_a_router_that_stops_answers_every_step(stateful: StartBench, eventually: Eventually) -> None:
    bench = await stateful()
    runner = await bench.add_runner("r1", add_up)
    runner.gate.clear()
    steps = [asyncio.create_task(say(bench, 1.0, start=turn == 0)) for turn in range(4)]
    await eventually(lambda: len(runner.bundles) == 1)
    await bench.plane.stop()
    answers = await asyncio.gather(*steps, return_exceptions=True)
    assert [type(answer) for answer in answers] == [errors.Unavailable] * 4
    assert bench.plane.in_hand == 0
