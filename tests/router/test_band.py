"""A runner that is slower than its peers gets less, then next to nothing, and all of it back once it recovers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from headrace.runner.v1 import runner_pb2
from headrace_router.core import dispatch
from headrace_router.core.band import PROBE_S, UNLIMITED, Standing, Watch, review
from headrace_router.core.latency import LatencyModel
from headrace_router.core.pace import Pace

USUAL, REDUCED, PAUSED = Standing.USUAL, Standing.REDUCED, Standing.PAUSED


@dataclass(eq=False)
class Runner:
    """Takes `seconds` for a batch of `rows`."""

    seconds: float
    rows: int = 4
    pace: Pace = field(default_factory=lambda: Pace(LatencyModel()))
    watch: Watch = field(default_factory=Watch)
    accepting: bool = True
    solo: bool = False
    free_slots: int = 2
    outstanding_bundles: int = 0
    recent_s: float = 0.0


def live(runners: list[Runner], since: float, until: float) -> list[float]:
    """Each runner is busy all the time with what it is allowed; when the first of them got its bundles."""
    sent = []
    now = since
    while now < until:
        for runner in runners:
            if runner.watch.allowance > 0:
                if runner is runners[0]:
                    sent.append(now)
                runner.watch.sent(now)
                runner.pace.engine.observe(runner.rows, runner.seconds, now)
        review(runners, now)
        now += 0.1
    return sent


@pytest.mark.parametrize(
    ("seconds", "after_s", "standing"),
    [
        ([0.010, 0.010, 0.010], 9.0, USUAL),
        ([0.019, 0.010, 0.010], 9.0, USUAL),
        ([0.030, 0.010, 0.010], 0.9, USUAL),
        ([0.030, 0.010, 0.010], 2.0, REDUCED),
        ([0.030, 0.010, 0.010], 9.0, PAUSED),
        ([0.030, 0.010], 9.0, PAUSED),
        ([0.030, 0.025, 0.010], 9.0, USUAL),
        ([9.000], 9.0, USUAL),
        ([0.0003, 0.0001], 9.0, USUAL),
    ],
    ids=[
        "as quick as the others",
        "inside the band",
        "outside, and not for long enough yet",
        "outside for a second",
        "and for longer",
        "one peer is enough",
        "the median of its peers counts",
        "alone it serves, however slow",
        "what nobody notices is no trouble",
    ],
)
def test_how_a_runner_stands_with_its_peers(seconds: list[float], after_s: float, standing: Standing) -> None:
    runners = [Runner(each) for each in seconds]
    live(runners, 0.0, after_s)
    assert runners[0].watch.standing is standing
    assert all(peer.watch.standing is USUAL for peer in runners[1:])


def test_between_the_borders_nothing_changes_and_inside_all_comes_back() -> None:
    slow, *peers = runners = [Runner(0.030), Runner(0.010), Runner(0.010)]
    live(runners, 0.0, 9.0)
    assert (slow.watch.standing, round(slow.watch.slowdown)) == (PAUSED, 3)
    slow.seconds = 0.018
    live(runners, 9.0, 40.0)
    assert slow.watch.standing is PAUSED
    slow.seconds = 0.010
    live(runners, 40.0, 80.0)
    assert (slow.watch.standing, slow.watch.allowance) == (USUAL, UNLIMITED)
    assert all(peer.watch.standing is USUAL for peer in peers)


def test_a_paused_runner_is_probed_with_single_bundles() -> None:
    runners = [Runner(0.030), Runner(0.010)]
    live(runners, 0.0, 9.0)
    sent = live(runners, 9.0, 19.0)
    assert 8 <= len(sent) <= 10
    assert all(later - earlier >= PROBE_S - 1e-6 for earlier, later in pairwise(sent))


def test_when_its_peers_go_a_paused_runner_serves_again_at_once() -> None:
    slow, peer = runners = [Runner(0.030), Runner(0.010)]
    live(runners, 0.0, 9.0)
    peer.accepting = False
    review(runners, 9.0)
    assert (slow.watch.standing, slow.watch.allowance) == (USUAL, UNLIMITED)


def test_a_model_that_gets_slower_makes_nobody_slow() -> None:
    runners = [Runner(0.010), Runner(0.010)]
    live(runners, 0.0, 5.0)
    for runner in runners:
        runner.seconds = 0.200
    live(runners, 5.0, 15.0)
    assert [runner.watch.standing for runner in runners] == [USUAL, USUAL]


def test_bigger_batches_are_not_slowness() -> None:
    runners = [Runner(0.064, rows=64), Runner(0.001, rows=1)]
    live(runners, 0.0, 9.0)
    assert [runner.watch.standing for runner in runners] == [USUAL, USUAL]


def test_dispatch_keeps_to_the_allowance() -> None:
    one, other = Runner(0.0), Runner(0.0, outstanding_bundles=1)
    one.watch.allowance = 0
    assert dispatch.choose([one, other]) is other
    one.watch.allowance = 1
    assert dispatch.choose([one, other]) is one
    one.outstanding_bundles = other.outstanding_bundles = 1
    other.free_slots = 0
    assert dispatch.choose([one, other]) is None


async def test_a_slow_runner_loses_its_share_and_the_autoscaler_is_told(
    start_bench: Callable[..., Awaitable[Any]], eventually: Callable[..., Awaitable[None]], scripts: SimpleNamespace
) -> None:
    def taking(milliseconds: int) -> Any:
        async def answer(bundle: runner_pb2.Bundle) -> runner_pb2.BundleResult:
            result: runner_pb2.BundleResult = await scripts.echo(bundle)
            result.compute_us = milliseconds * 1000
            return result

        return answer

    bench = await start_bench()
    slow = await bench.add_runner("slow", taking(30))
    quick = await bench.add_runner("quick", taking(3))
    going = True

    async def load() -> None:
        while going:
            await bench.infer()

    def told(instance: str) -> Any:
        return next(each for each in bench.control.reports[-1].runners if each.instance_id == instance)

    tasks = [asyncio.create_task(load()) for _ in range(32)]
    await eventually(lambda: bench.control.reports and bench.control.reports[-1].runners and told("slow").slow)
    assert told("slow").slowdown == pytest.approx(10, rel=0.2)
    assert not told("quick").slow
    before = len(slow.bundles), len(quick.bundles)
    await eventually(lambda: len(quick.bundles) > before[1] + 100)
    assert len(slow.bundles) - before[0] < 10
    await quick.stop()
    await eventually(lambda: len(slow.bundles) > before[0] + 50)
    going = False
    await asyncio.gather(*tasks)
