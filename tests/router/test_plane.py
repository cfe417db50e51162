"""The data plane between a scripted autoscaler and scripted runners, over unix sockets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from headrace.control.v1 import control_pb2
from headrace.runner.v1 import runner_pb2
from headrace_common import errors

StartBench = Callable[..., Awaitable[Any]]
Eventually = Callable[..., Awaitable[None]]

POISON = 666.0


def values_of(bundle: runner_pb2.Bundle) -> list[float]:
    return list(memoryview(bundle.inputs[0].data).cast("f"))[::2]


async def test_a_request_is_answered_with_its_own_rows(start_bench: StartBench) -> None:
    bench = await start_bench()
    await bench.add_runner("r1")
    assert await bench.infer(7.0, rows=3) == [7.0] * 6
    statistics = bench.plane.statistics(bench.plane.catalogue.resolve("t", "m", ""))
    assert (statistics.requests, statistics.rows, statistics.bundles, statistics.failures) == (1, 3, 1, 0)
    assert statistics.batches == {3: (1, 1_000_000)}
    assert bench.plane.in_hand == 0


async def test_under_load_requests_share_bundles_and_each_gets_its_own(start_bench: StartBench) -> None:
    bench = await start_bench()
    runner = await bench.add_runner("r1")
    answers = await asyncio.gather(*(bench.infer(float(n), rows=1 + n % 3) for n in range(200)))
    assert all(set(answer) == {float(n)} for n, answer in enumerate(answers))
    assert [len(answer) // 2 for answer in answers] == [1 + n % 3 for n in range(200)]
    assert max(sum(bundle.rows) for bundle in runner.bundles) == 8
    assert len(runner.bundles) < 80


async def test_the_first_bundle_is_as_large_as_the_load_of_its_runner_says(start_bench: StartBench) -> None:
    """Nothing has been executed yet: the times of the load, which a placement carries, are all that is known. By them
    the other four cannot be met behind the first."""
    bench = await start_bench()
    runner = await bench.add_runner("r1", profile_us={1: 10_000_000, 8: 80_000_000})
    deadline = time.monotonic() + 45.0
    await asyncio.gather(*(bench.infer(deadline=deadline) for _ in range(8)), return_exceptions=True)
    assert len(runner.bundles[0].rows) == 4


async def test_unlike_shapes_never_share_a_bundle(start_bench: StartBench, make_request: Any) -> None:
    bench = await start_bench()
    entry = control_pb2.ModelEntry()
    entry.CopyFrom(bench.control.full.models[0])
    entry.revisions[0].signature.inputs[0].shape[1] = -1
    bench.control.send(models=[entry])
    runner = await bench.add_runner("r1")

    async def infer(width: int) -> None:
        request = bench.request()
        request.inputs[0].shape = (1, width)
        request.inputs[0].data = b"\0\0\x80\x3f" * width
        result = await bench.plane.infer(request)
        assert result.outputs[0].shape == (1, width)

    await asyncio.gather(*(infer(1 + n % 2) for n in range(20)))
    assert {tuple(bundle.inputs[0].shape)[1] for bundle in runner.bundles} == {1, 2}
    assert max(len(bundle.rows) for bundle in runner.bundles) > 1


async def test_a_model_that_is_not_batchable_gets_one_request_per_bundle(start_bench: StartBench) -> None:
    bench = await start_bench(model={"batchable": False, "max_batch_size": 1})
    runner = await bench.add_runner("r1")
    await asyncio.gather(*(bench.infer(float(n)) for n in range(10)))
    assert [list(bundle.rows) for bundle in runner.bundles] == [[1]] * 10


async def test_sampled_traces_travel_with_the_bundle(start_bench: StartBench) -> None:
    bench = await start_bench()
    runner = await bench.add_runner("r1")
    trace = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    await asyncio.gather(bench.infer(), bench.infer(traceparent=trace))
    assert [dict(bundle.traceparents) for bundle in runner.bundles] == [{1: trace}]


async def test_a_killed_runner_costs_nobody_an_answer(start_bench: StartBench, eventually: Eventually) -> None:
    bench = await start_bench()
    first = await bench.add_runner("r1")
    first.gate.clear()
    tasks = [asyncio.create_task(bench.infer(float(n))) for n in range(30)]
    await eventually(lambda: len(first.bundles) == 2)
    await bench.add_runner("r2")
    await first.stop()
    answers = await asyncio.gather(*tasks)
    assert [set(answer) for answer in answers] == [{float(n)} for n in range(30)]
    assert [(use.queued, use.in_flight) for use in bench.plane.counters().uses] == [(0, 0)]


async def test_a_broken_stream_is_made_anew(start_bench: StartBench, eventually: Eventually) -> None:
    bench = await start_bench()
    runner = await bench.add_runner("r1")
    assert await bench.infer(1.0) == [1.0, 1.0]
    runner.break_streams()
    assert await bench.infer(2.0) == [2.0, 2.0]
    await eventually(lambda: len(runner.attached) == 2)


async def test_a_request_that_kills_runners_dies_alone(start_bench: StartBench, scripts: SimpleNamespace) -> None:
    async def killed_by_poison(bundle: runner_pb2.Bundle) -> Any:
        return None if POISON in values_of(bundle) else await scripts.echo(bundle)

    bench = await start_bench()
    runner = await bench.add_runner("r1", killed_by_poison)
    given = [float(n) for n in range(20)] + [POISON]
    answers = await asyncio.gather(*(bench.infer(value) for value in given), return_exceptions=True)
    assert isinstance(answers[-1], errors.EngineFailed)
    assert answers[:-1] == [[value, value] for value in given[:-1]]
    last = [bundle for bundle in runner.bundles if POISON in values_of(bundle)]
    assert [bundle.attempt for bundle in last] == [0, 1, 2]
    assert list(last[-1].rows) == [1]


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (runner_pb2.BUNDLE_ERROR_CODE_INVALID_INPUT, errors.InvalidArgument),
        (runner_pb2.BUNDLE_ERROR_CODE_ENGINE_FAILED, errors.EngineFailed),
        (runner_pb2.BUNDLE_ERROR_CODE_OUT_OF_MEMORY, errors.QueueFull),
    ],
    ids=["input refused", "engine failed", "out of memory"],
)
async def test_an_engine_error_hits_only_its_cause(
    start_bench: StartBench, scripts: SimpleNamespace, code: runner_pb2.BundleErrorCode, error: type[Exception]
) -> None:
    async def fails_on_poison(bundle: runner_pb2.Bundle) -> Any:
        return scripts.failed(bundle, code) if POISON in values_of(bundle) else await scripts.echo(bundle)

    bench = await start_bench()
    await bench.add_runner("r1", fails_on_poison)
    given = [1.0, 2.0, POISON, 3.0, 4.0, 5.0]
    answers = await asyncio.gather(*(bench.infer(value) for value in given), return_exceptions=True)
    assert isinstance(answers[2], error)
    assert "scripted" not in str(answers[2])
    assert [answer for answer in answers if isinstance(answer, list)] == [[v, v] for v in given if v != POISON]


async def test_a_batch_that_is_too_big_for_memory_is_halved(start_bench: StartBench, scripts: SimpleNamespace) -> None:
    async def small_memory(bundle: runner_pb2.Bundle) -> Any:
        if len(bundle.rows) > 2:
            return scripts.failed(bundle, runner_pb2.BUNDLE_ERROR_CODE_OUT_OF_MEMORY)
        return await scripts.echo(bundle)

    bench = await start_bench()
    await bench.add_runner("r1", small_memory)
    answers = await asyncio.gather(*(bench.infer(float(n)) for n in range(8)))
    assert answers == [[float(n)] * 2 for n in range(8)]


async def test_a_runner_of_another_model_is_left_for_one_of_ours(
    start_bench: StartBench, scripts: SimpleNamespace
) -> None:
    async def stranger(bundle: runner_pb2.Bundle) -> Any:
        return scripts.failed(bundle, runner_pb2.BUNDLE_ERROR_CODE_WRONG_MODEL)

    bench = await start_bench()
    wrong = await bench.add_runner("r1", stranger)
    task = asyncio.create_task(bench.infer(3.0))
    await asyncio.wait_for(wrong.half_closed.wait(), 5)
    wrong.slots = 0
    await bench.add_runner("r2")
    assert await task == [3.0, 3.0]


async def test_a_result_that_does_not_fit_is_an_engine_failure(start_bench: StartBench) -> None:
    async def too_short(bundle: runner_pb2.Bundle) -> Any:
        output = runner_pb2.Tensor(name="y", datatype="FP32", shape=[9, 2], data=b"\0" * 8)
        return runner_pb2.BundleResult(bundle_id=bundle.bundle_id, outputs=[output])

    bench = await start_bench()
    await bench.add_runner("r1", too_short)
    with pytest.raises(errors.EngineFailed):
        await bench.infer()


async def test_a_draining_runner_answers_what_it_has_and_gets_no_more(
    start_bench: StartBench, eventually: Eventually
) -> None:
    bench = await start_bench()
    old = await bench.add_runner("r1")
    old.gate.clear()
    first = asyncio.create_task(bench.infer(1.0))
    await eventually(lambda: len(old.bundles) == 1)
    new = await bench.add_runner("r2")
    old.drain()
    await eventually(lambda: bench.plane.counters().runner_slots == {"m": (2, 1)})
    assert await asyncio.gather(*(bench.infer(2.0) for _ in range(50))) == [[2.0, 2.0]] * 50
    assert not old.half_closed.is_set()
    assert sum(sum(bundle.rows) for bundle in new.bundles) == 50
    old.gate.set()
    assert await first == [1.0, 1.0]
    await asyncio.wait_for(old.half_closed.wait(), 5)
    assert len(old.bundles) == 1
    assert len(old.attached) == 1


@pytest.mark.parametrize("how", ["marked draining", "removed"])
async def test_a_placement_that_ends_is_left_politely(
    start_bench: StartBench, eventually: Eventually, how: str
) -> None:
    bench = await start_bench()
    runner = await bench.add_runner("r1")
    runner.gate.clear()
    first = asyncio.create_task(bench.infer(1.0))
    await eventually(lambda: len(runner.bundles) == 1)
    if how == "removed":
        bench.control.send(removed_placements=["r1"])
    else:
        state = control_pb2.PLACEMENT_STATE_DRAINING
        bench.control.send(placements=[control_pb2.Placement(instance_id="r1", model="m", revision=1, state=state)])
    await eventually(lambda: bench.control.version in bench.control.applied)
    runner.gate.set()
    assert await first == [1.0, 1.0]
    await asyncio.wait_for(runner.half_closed.wait(), 5)


async def test_a_deadline_expires_in_the_queue_and_at_the_runner(
    start_bench: StartBench, eventually: Eventually
) -> None:
    bench = await start_bench()
    with pytest.raises(errors.DeadlineExceeded):
        await bench.infer(deadline=time.monotonic() + 0.05)
    runner = await bench.add_runner("r1")
    runner.gate.clear()
    with pytest.raises(errors.DeadlineExceeded):
        await bench.infer(deadline=time.monotonic() + 0.05)
    await eventually(lambda: runner.cancelled == [runner.bundles[0].bundle_id])
    assert 0 < runner.bundles[0].time_left_us <= 50_000
    assert bench.plane.in_hand == 0
    runner.gate.set()
    assert await bench.infer(5.0) == [5.0, 5.0]


async def test_a_deadline_that_passes_at_the_runner_costs_its_mates_no_attempt(
    start_bench: StartBench, eventually: Eventually, scripts: SimpleNamespace
) -> None:
    """More often than a request may be sent, one beside it is too late."""

    async def late(bundle: runner_pb2.Bundle) -> runner_pb2.BundleResult:
        if not bundle.time_left_us:
            answer: runner_pb2.BundleResult = await scripts.echo(bundle)
            return answer
        await asyncio.sleep(bundle.time_left_us / 1e6)
        return scripts.failed(bundle, runner_pb2.BUNDLE_ERROR_CODE_DROPPED)  # type: ignore[no-any-return]

    bench = await start_bench()
    runner = await bench.add_runner("r1", late, slots=1)
    blocking = asyncio.create_task(bench.infer(deadline=time.monotonic() + 0.02))
    await eventually(lambda: len(runner.bundles) == 1)
    hasty = [asyncio.create_task(bench.infer(deadline=time.monotonic() + 0.05 * number)) for number in range(2, 8)]
    patient = asyncio.create_task(bench.infer(7.0))
    assert await patient == [7.0, 7.0]
    results = await asyncio.gather(blocking, *hasty, return_exceptions=True)
    assert [type(result) for result in results] == [errors.DeadlineExceeded] * 7
    assert {bundle.attempt for bundle in runner.bundles} == {0}


async def test_the_models_own_default_timeout_counts_where_the_caller_set_none(start_bench: StartBench) -> None:
    batching = control_pb2.BatchingPolicy(default_timeout_us=20_000)
    bench = await start_bench(model={"batching": batching})
    with pytest.raises(errors.DeadlineExceeded):
        await bench.infer()


async def test_a_cancelled_caller_withdraws_and_spares_its_mates(
    start_bench: StartBench, eventually: Eventually
) -> None:
    bench = await start_bench()
    queued = asyncio.create_task(bench.infer(1.0))
    await eventually(lambda: bench.plane.in_hand == 1)
    queued.cancel()
    with pytest.raises(asyncio.CancelledError):
        await queued
    assert bench.plane.in_hand == 0
    assert [(use.queued, use.in_flight) for use in bench.plane.counters().uses] == [(0, 0)]
    runner = await bench.add_runner("r1")
    runner.gate.clear()
    sent = [asyncio.create_task(bench.infer(float(n))) for n in range(3)]
    await eventually(lambda: len(runner.bundles) == 1)
    sent[1].cancel()
    await eventually(lambda: bench.plane.in_hand == 2)
    assert [(use.queued, use.in_flight) for use in bench.plane.counters().uses] == [(0, 2)]
    runner.gate.set()
    assert [await sent[0], await sent[2]] == [[0.0, 0.0], [2.0, 2.0]]
    assert len(runner.bundles[0].rows) == 3


async def test_a_caller_that_went_away_is_found_by_asking(start_bench: StartBench) -> None:
    bench = await start_bench()
    with pytest.raises(errors.Cancelled):
        await bench.infer(is_gone=lambda: True)
    assert bench.plane.in_hand == 0


async def test_a_blocked_model_says_why_to_who_waits_and_who_comes(
    start_bench: StartBench, eventually: Eventually, scripts: SimpleNamespace
) -> None:
    bench = await start_bench()
    waiting = asyncio.create_task(bench.infer())
    await eventually(lambda: bench.plane.in_hand == 1)
    bench.control.send(models=[scripts.model_entry(blocked_reason="no memory is left")])
    with pytest.raises(errors.Unavailable, match="no memory is left"):
        await waiting
    with pytest.raises(errors.Unavailable, match="no memory is left"):
        await bench.infer()
    bench.control.send(models=[scripts.model_entry()])
    await eventually(lambda: bench.control.version in bench.control.applied)
    await bench.add_runner("r1")
    assert await bench.infer(4.0) == [4.0, 4.0]


async def test_a_removed_model_is_not_found_by_who_waits(start_bench: StartBench, eventually: Eventually) -> None:
    bench = await start_bench()
    request = bench.request()
    waiting = asyncio.create_task(bench.infer())
    await eventually(lambda: bench.plane.in_hand == 1)
    bench.control.send(removed_models=["m"])
    with pytest.raises(errors.NotFound):
        await waiting
    with pytest.raises(errors.NotFound):
        await bench.plane.infer(request)


async def test_a_start_that_takes_too_long_is_said_to(start_bench: StartBench) -> None:
    bench = await start_bench(start_timeout_s=0.05)
    with pytest.raises(errors.Unavailable, match=r"no instance has become ready within 0\.05 s"):
        await bench.infer()


async def test_drain_answers_what_is_in_hand_and_refuses_what_is_new(
    start_bench: StartBench, eventually: Eventually
) -> None:
    bench = await start_bench()
    runner = await bench.add_runner("r1")
    runner.gate.clear()
    accepted = asyncio.create_task(bench.infer(1.0))
    await eventually(lambda: len(runner.bundles) == 1)
    draining = asyncio.create_task(bench.plane.drain(5.0))
    await asyncio.sleep(0)
    with pytest.raises(errors.Unavailable, match="stopping"):
        await bench.infer()
    runner.gate.set()
    assert await draining == 0
    assert await accepted == [1.0, 1.0]


async def test_drain_gives_up_when_its_time_is_over(start_bench: StartBench, eventually: Eventually) -> None:
    bench = await start_bench()
    left = asyncio.create_task(bench.infer())
    await eventually(lambda: bench.plane.in_hand == 1)
    assert await bench.plane.drain(0.02) == 1
    await bench.plane.stop()
    with pytest.raises(errors.Unavailable, match="stopping"):
        await left


async def test_config_may_ask_to_linger_for_a_bigger_batch(start_bench: StartBench) -> None:
    batching = control_pb2.BatchingPolicy(max_queue_delay_us=50_000, preferred_batch_sizes=[4])
    bench = await start_bench(model={"batching": batching})
    runner = await bench.add_runner("r1")
    tasks: list[asyncio.Task[Any]] = []
    for n in range(4):
        tasks.append(asyncio.create_task(bench.infer(float(n))))
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    assert [len(bundle.rows) for bundle in runner.bundles] == [4]
    began = time.monotonic()
    await bench.infer()
    assert time.monotonic() - began >= 0.049


async def test_what_is_full_or_asks_for_no_delay_is_sent_at_once(start_bench: StartBench) -> None:
    minute = control_pb2.BatchingPolicy(max_queue_delay_us=60_000_000)
    bench = await start_bench(model={"batching": minute})
    runner = await bench.add_runner("r1")
    await asyncio.wait_for(asyncio.gather(*(bench.infer() for _ in range(16))), 10)
    assert [len(bundle.rows) for bundle in runner.bundles] == [8, 8]


async def test_preferred_sizes_without_a_delay_never_wait(start_bench: StartBench) -> None:
    bench = await start_bench(model={"batching": control_pb2.BatchingPolicy(preferred_batch_sizes=[4])})
    runner = await bench.add_runner("r1")
    await asyncio.gather(*(bench.infer() for _ in range(6)))
    assert [len(bundle.rows) for bundle in runner.bundles] == [4, 2]


@pytest.mark.parametrize("delay_us", [300, 1500, 5000])
async def test_a_lone_request_lingers_for_its_delay_and_not_less(start_bench: StartBench, delay_us: int) -> None:
    bench = await start_bench(model={"batching": control_pb2.BatchingPolicy(max_queue_delay_us=delay_us)})
    await bench.add_runner("r1")
    for _ in range(5):
        request = bench.request()
        result = await bench.plane.infer(request)
        assert result.queue_s >= delay_us / 1e6


async def test_counters_tell_what_became_of_every_request(start_bench: StartBench) -> None:
    bench = await start_bench()
    await bench.add_runner("r1")
    await asyncio.gather(*(bench.infer(tenant="a") for _ in range(5)))
    with pytest.raises(errors.DeadlineExceeded):
        await bench.infer(tenant="b", deadline=time.monotonic() - 1)
    counters = bench.plane.counters()
    uses = {use.tenant: use for use in counters.uses}
    assert (uses["a"].totals.arrivals, uses["a"].totals.completed) == (5, 5)
    assert uses["b"].outcomes == {"deadline": 1}
    assert sum(counters.measures.queue_seconds.counts) == 5
    assert counters.runner_slots == {"m": (2, 0)}


async def test_an_answer_is_set_where_it_was_asked_to_be(start_bench: StartBench) -> None:
    bench = await start_bench()
    await bench.add_runner("r1")
    answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    bench.plane.submit(bench.request(), answer)
    assert len((await answer).outputs) == 1
    await bench.plane.drain(0)
    unasked: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    with pytest.raises(errors.Unavailable):
        bench.plane.submit(bench.request(), unasked)
    assert not unasked.done()


async def test_a_request_that_would_be_late_is_refused_at_once_and_told_when_to_return(
    start_bench: StartBench, eventually: Eventually
) -> None:
    bench = await start_bench()
    runner = await bench.add_runner("r1")
    await asyncio.gather(*(bench.infer(float(n), rows=8) for n in range(40)))
    runner.gate.clear()
    waiting = [asyncio.create_task(bench.infer(rows=8)) for _ in range(400)]
    await eventually(lambda: len(runner.bundles) == 42)
    with pytest.raises(errors.QueueFull, match="overloaded") as refusal:
        await bench.infer(deadline=time.monotonic() + 1e-6)
    assert refusal.value.retry_after_s > 0
    patient = asyncio.create_task(bench.infer())
    in_time = asyncio.create_task(bench.infer(deadline=time.monotonic() + 600))
    await eventually(lambda: bench.plane.in_hand == 402)
    assert [use.outcomes for use in bench.plane.counters().uses] == [{"shed": 1}]
    runner.gate.set()
    await asyncio.gather(*waiting, patient, in_time)


async def test_a_tenant_over_its_limit_is_told_which_and_when(start_bench: StartBench, eventually: Eventually) -> None:
    bench = await start_bench()
    runner = await bench.add_runner("r1")
    bench.control.send(
        leases=[
            control_pb2.QuotaLease(
                tenant="t", limits=control_pb2.QuotaLimits(concurrency=2, queue_length=9), weight=1.0
            ),
            control_pb2.QuotaLease(tenant="u", limits=control_pb2.QuotaLimits(requests_per_second=0.01), weight=1.0),
        ]
    )
    await eventually(lambda: bench.control.version in bench.control.applied)
    runner.gate.clear()
    held = [asyncio.create_task(bench.infer()) for _ in range(2)]
    await eventually(lambda: bench.plane.in_hand == 2)
    with pytest.raises(errors.QuotaExceeded, match="concurrency: 2 requests"):
        await bench.infer()
    runner.gate.set()
    await asyncio.gather(*held)
    await bench.infer()
    await bench.infer(tenant="u")
    with pytest.raises(errors.QuotaExceeded, match=r"requests_per_second: 0\.01 requests") as refusal:
        await bench.infer(tenant="u")
    assert refusal.value.retry_after_s is not None
    assert await bench.infer(tenant="other") == [1.0, 1.0]


async def test_an_instance_gets_no_more_requests_at_once_than_its_model_allows(
    start_bench: StartBench, eventually: Eventually
) -> None:
    """What is over it is not refused: it waits."""
    bench = await start_bench(model={"instance_concurrency": 3})
    runners = [await bench.add_runner(f"r{number}") for number in range(2)]
    for runner in runners:
        runner.gate.clear()
    waiting = [asyncio.create_task(bench.infer(float(n))) for n in range(40)]
    await eventually(lambda: sum(len(runner.bundles) for runner in runners) == 2)
    assert [[list(bundle.inputs[0].shape) for bundle in runner.bundles] for runner in runners] == [[[3, 2]], [[3, 2]]]
    assert bench.plane.in_hand == 40
    for runner in runners:
        runner.gate.set()
    assert await asyncio.gather(*waiting) == [[float(n)] * 2 for n in range(40)]
    assert all(bundle.inputs[0].shape[0] <= 3 for runner in runners for bundle in runner.bundles)
