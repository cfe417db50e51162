"""The Sync stream: state down, demand up, through loss and replacement of the autoscaler."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from headrace.control.v1 import control_pb2
from headrace_common import errors
from headrace_common.clock import FakeClock, SystemClock
from headrace_router.plane import Plane

StartBench = Callable[..., Awaitable[Any]]
Eventually = Callable[..., Awaitable[None]]


async def test_before_the_first_state_nothing_is_known_and_that_is_said(make_context: Callable[..., Any]) -> None:
    plane = Plane(make_context(), SystemClock())
    await plane.start()
    assert not plane.catalogue.ready
    with pytest.raises(errors.Unavailable, match="not been told yet"):
        plane.catalogue.resolve("t", "m", "")
    await plane.stop()


async def test_the_first_request_of_a_model_at_zero_is_reported_at_once(
    start_bench: StartBench, eventually: Eventually
) -> None:
    bench = await start_bench(demand_period_s=10.0)
    waiting = [asyncio.create_task(bench.infer()) for _ in range(3)]
    await eventually(lambda: bool(bench.control.reports))
    report = bench.control.reports[0]
    assert report.urgent
    assert [(demand.tenant, demand.model, demand.revision) for demand in report.demands] == [("t", "m", 1)]
    assert report.demands[0].arrivals >= 1
    await bench.add_runner("r1")
    assert await asyncio.gather(*waiting) == [[1.0, 1.0]] * 3
    assert sum(report.urgent for report in bench.control.reports) == 1


async def test_the_first_answer_of_a_cold_start_is_told_at_once(
    start_bench: StartBench, eventually: Eventually
) -> None:
    bench = await start_bench(demand_period_s=10.0)
    waiting = asyncio.create_task(bench.infer())
    await eventually(lambda: any(report.urgent for report in bench.control.reports))
    decided = control_pb2.Placement(instance_id="x")
    decided.decide.FromMilliseconds(3)
    await bench.add_runner("r1", decide=decided.decide)
    await waiting
    await eventually(lambda: any(report.urgent and report.cold_starts for report in bench.control.reports))


async def test_a_cold_start_is_reported_with_its_first_answer(start_bench: StartBench, eventually: Eventually) -> None:
    bench = await start_bench()
    waiting = asyncio.create_task(bench.infer())
    await eventually(lambda: any(report.urgent for report in bench.control.reports))
    decided = control_pb2.Placement(instance_id="x")
    decided.decide.FromMilliseconds(3)
    await bench.add_runner("r1", decide=decided.decide)
    await waiting
    await bench.infer()
    await eventually(lambda: any(report.cold_starts for report in bench.control.reports))
    await eventually(lambda: bench.control.total("completed") == 2)
    starts = [start for report in bench.control.reports for start in report.cold_starts]
    assert [(start.instance_id, start.model) for start in starts] == [("r1", "m")]
    assert starts[0].load.ToMilliseconds() == 20
    assert starts[0].total.ToNanoseconds() > starts[0].first_answer.ToNanoseconds() > 0


async def test_counts_are_increments_and_survive_a_lost_stream(start_bench: StartBench, eventually: Eventually) -> None:
    bench = await start_bench()
    await bench.add_runner("r1")
    await bench.infer()
    await eventually(lambda: bench.control.total("completed") == 1)
    await bench.control.stop()
    await eventually(lambda: not bench.plane.connected)
    assert await asyncio.gather(*(bench.infer(float(n), rows=2) for n in range(5))) == [
        [float(n)] * 4 for n in range(5)
    ]
    await bench.control.start()
    await eventually(lambda: bench.control.total("completed") == 6)
    assert (bench.control.total("arrivals"), bench.control.total("rows")) == (6, 11)
    assert bench.control.total("service_time_us") > 0
    last = [demand for report in bench.control.reports for demand in report.demands][-1]
    assert (last.queued, last.in_flight) == (0, 0)
    assert [hello.router_id for hello in bench.control.hellos] == ["router-0", "router-0"]


async def test_refusals_are_reported_by_reason(start_bench: StartBench, eventually: Eventually) -> None:
    bench = await start_bench(max_queue_length=1)
    waiting = asyncio.create_task(bench.infer())
    await eventually(lambda: bench.plane.in_hand == 1)
    with pytest.raises(errors.QueueFull):
        await bench.infer()
    await eventually(lambda: any(d.refusals["queue_full"] for report in bench.control.reports for d in report.demands))
    await eventually(lambda: any(d.oldest_wait_us for report in bench.control.reports for d in report.demands))
    waiting.cancel()


async def test_an_autoscaler_with_a_lower_epoch_is_not_obeyed(
    start_bench: StartBench, eventually: Eventually, scripts: SimpleNamespace
) -> None:
    bench = await start_bench()
    bench.control.epoch = 5
    bench.control.send()
    await eventually(lambda: bench.control.version in bench.control.applied)
    bench.control.epoch = 4
    bench.control.send(removed_models=["m"])
    await eventually(lambda: len(bench.control.hellos) >= 2)
    assert bench.control.hellos[-1].highest_epoch == 5
    assert bench.plane.catalogue.resolve("t", "m", "").revision == 1
    await eventually(lambda: len(bench.control.hellos) >= 3)
    bench.control.epoch = 6
    bench.control.full.models[0].CopyFrom(scripts.model_entry(version="2"))
    await eventually(lambda: bench.plane.catalogue.resolve("t", "m", "").version == "2")


async def test_a_gap_in_the_versions_asks_for_the_full_state(start_bench: StartBench, eventually: Eventually) -> None:
    bench = await start_bench()
    bench.control.version += 1
    bench.control.send(removed_models=["m"])
    await eventually(lambda: len(bench.control.hellos) == 2)
    assert bench.plane.catalogue.resolve("t", "m", "").model == "m"


async def test_a_full_state_replaces_placements_and_leases(start_bench: StartBench, eventually: Eventually) -> None:
    bench = await start_bench()
    runner = await bench.add_runner("r1")
    limits = control_pb2.QuotaLimits(concurrency=0)
    bench.control.send(leases=[control_pb2.QuotaLease(tenant="t", limits=limits, weight=1.0)])
    await eventually(lambda: bench.control.version in bench.control.applied)
    with pytest.raises(errors.QuotaExceeded):
        await bench.infer()
    del bench.control.full.placements[:]
    await bench.control.stop()
    await eventually(lambda: not bench.plane.connected)
    await bench.control.start()
    await asyncio.wait_for(runner.half_closed.wait(), 5)
    await bench.add_runner("r2")
    assert await bench.infer(2.0) == [2.0, 2.0]


async def test_what_is_in_hand_beyond_a_smaller_lease_is_told_with_the_first_word_that_it_is_obeyed(
    start_bench: StartBench, eventually: Eventually
) -> None:
    bench = await start_bench()
    waiting = [asyncio.create_task(bench.infer()) for _ in range(3)]
    await eventually(lambda: bench.plane.in_hand == 3)
    limits = control_pb2.QuotaLimits(concurrency=1)
    bench.control.send(
        leases=[control_pb2.QuotaLease(tenant="t", model=m, limits=limits, weight=1.0) for m in ("", "m")]
    )
    await eventually(lambda: bench.control.version in bench.control.applied)
    assert dict(bench.control.excess)[bench.control.version] == {("t", ""): 3, ("t", "m"): 3}
    await bench.add_runner("r1")
    assert await asyncio.gather(*waiting) == [[1.0, 1.0]] * 3
    await eventually(lambda: bench.control.excess[-1][1] == {})


async def test_quotas_refuse_with_subject_dimension_and_time(start_bench: StartBench, eventually: Eventually) -> None:
    bench = await start_bench()
    limits = control_pb2.QuotaLimits(concurrency=1)
    lease = control_pb2.QuotaLease(tenant="t", model="m", limits=limits, weight=1.0)
    bench.control.send(leases=[lease])
    await eventually(lambda: bench.control.version in bench.control.applied)
    waiting = asyncio.create_task(bench.infer())
    await eventually(lambda: bench.plane.in_hand == 1)
    with pytest.raises(errors.QuotaExceeded) as refused:
        await bench.infer()
    assert (refused.value.subject, refused.value.dimension) == ("tenant:t/model:m", "concurrency")
    assert refused.value.retry_after_s is not None
    assert refused.value.retry_after_s > 0
    await bench.add_runner("r1")
    assert await waiting == [1.0, 1.0]
    assert await bench.infer(3.0) == [3.0, 3.0]
    bench.control.send(removed_leases=["t/m"])
    await eventually(lambda: bench.control.version in bench.control.applied)
    assert len(await asyncio.gather(*(bench.infer() for _ in range(3)))) == 3


async def test_a_spent_budget_may_hold_requests_until_there_is_a_new_one(
    start_bench: StartBench, eventually: Eventually
) -> None:
    bench = await start_bench()
    await bench.add_runner("r1")
    spent = control_pb2.BUDGET_STATE_EXHAUSTED_QUEUE
    bench.control.send(leases=[control_pb2.QuotaLease(tenant="t", budget_state=spent, weight=1.0)])
    await eventually(lambda: bench.control.version in bench.control.applied)
    held = asyncio.create_task(bench.infer(8.0))
    expiring = asyncio.create_task(bench.infer(deadline=1.0))
    with pytest.raises(errors.DeadlineExceeded):
        await expiring
    assert await bench.infer(9.0, tenant="other") == [9.0, 9.0]
    assert not held.done()
    within = control_pb2.BUDGET_STATE_WITHIN
    bench.control.send(leases=[control_pb2.QuotaLease(tenant="t", budget_state=within, weight=1.0)])
    assert await held == [8.0, 8.0]


async def test_requests_that_lost_their_last_runner_are_reported_at_once(
    start_bench: StartBench, eventually: Eventually
) -> None:
    bench = await start_bench(demand_period_s=10.0)
    runner = await bench.add_runner("r1")
    runner.gate.clear()
    waiting = asyncio.create_task(bench.infer())
    await eventually(lambda: len(runner.bundles) == 1)
    await runner.stop()
    await eventually(lambda: any(report.urgent for report in bench.control.reports))
    await bench.add_runner("r2")
    assert await waiting == [1.0, 1.0]


async def test_a_lease_runs_from_when_the_router_sent_what_it_answers(
    start_bench: StartBench, eventually: Eventually
) -> None:
    """However long it was on its way: only so can the autoscaler know when it is over."""
    bench = await start_bench()
    await bench.add_runner("r1")

    def lease(answers: int) -> control_pb2.QuotaLease:
        none, some = control_pb2.QuotaLimits(concurrency=0), control_pb2.QuotaLimits(concurrency=9)
        message = control_pb2.QuotaLease(tenant="t", limits=some, floor=none, weight=1.0, answers=answers)
        message.ttl.FromSeconds(60)
        return message

    bench.control.send(leases=[lease(bench.control.version)])
    await eventually(lambda: bench.control.version in bench.control.applied)
    await bench.infer()
    bench.control.send(leases=[lease(answers=1 << 40)])
    await eventually(lambda: bench.control.version in bench.control.applied)
    with pytest.raises(errors.QuotaExceeded, match="concurrency: 0 requests"):
        await bench.infer()


async def test_what_a_router_does_before_it_obeys_a_lease_does_not_make_it_longer(
    make_context: Callable[..., Any], make_request: Callable[..., Any], scripts: SimpleNamespace
) -> None:
    """A large catalogue comes first, and a process may be stopped at any moment."""
    clock = FakeClock()
    plane = Plane(make_context(), clock)
    lease = control_pb2.QuotaLease(tenant="t", limits=control_pb2.QuotaLimits(concurrency=9), weight=1.0)
    lease.floor.concurrency = 0
    lease.ttl.FromSeconds(10)
    read_at = clock.monotonic()
    clock.advance(10.0)
    plane.apply(control_pb2.StateUpdate(full=True, models=[scripts.model_entry()], leases=[lease]), read_at)
    with pytest.raises(errors.QuotaExceeded, match="concurrency: 0 requests"):
        plane.submit(make_request(entry=plane.catalogue.resolve("t", "m", "")), asyncio.Future())


async def test_a_catalogue_may_be_larger_than_any_tensor_message(
    start_bench: StartBench, eventually: Eventually
) -> None:
    bench = await start_bench(model={"model_config": bytes(5 << 20)})
    assert len(bench.plane.catalogue.resolve("t", "m", "").model_config) == 5 << 20
