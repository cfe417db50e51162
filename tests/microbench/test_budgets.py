"""The hot route costs no more operations than its budget (benchmarks/micro/budgets.py). Nothing here is timed."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.micro import budgets
from benchmarks.micro.budgets import over
from benchmarks.micro.counting import Operations, count, counted, counted_tasks
from benchmarks.micro.route import route
from headrace_router import compiled

pytestmark = pytest.mark.skipif(
    compiled.count() > 0, reason="operations of compiled code cannot be counted: `make test-interpreted` counts them"
)

MLP = (64,)
IMAGE = (3, 224, 224)
TOGETHER = 64
ROUNDS = 4


def hold_to(name: str, measured: Operations) -> None:
    problem = over(name, measured)
    if problem:
        pytest.fail(problem, pytrace=False)


async def test_a_request_by_the_filter() -> None:
    async with route(MLP) as asked:
        await asked.ask_by_filter(TOGETHER)
        with counted() as calls:
            for _ in range(ROUNDS):
                await asked.ask_by_filter(TOGETHER)
    hold_to("request by the filter", calls.per(ROUNDS * TOGETHER))


async def test_a_request_by_asgi() -> None:
    async with route(MLP) as asked:
        await asked.ask(TOGETHER)
        with counted() as calls:
            for _ in range(ROUNDS):
                await asked.ask(TOGETHER)
    hold_to("request by ASGI", calls.per(ROUNDS * TOGETHER))


async def test_no_task_per_request() -> None:
    async with route(MLP) as asked:
        await asked.ask_by_filter(TOGETHER)
        with counted_tasks() as made:
            for _ in range(ROUNDS):
                await asked.ask_by_filter(TOGETHER)
    assert made.total() / (ROUNDS * TOGETHER) <= budgets.TASKS_PER_REQUEST, made


async def test_a_request_leaves_nothing_behind() -> None:
    async with route(MLP) as asked:
        tracemalloc.start()
        try:
            kept = []
            for _ in range(3):
                for _ in range(ROUNDS):
                    await asked.ask_by_filter(TOGETHER)
                gc.collect()
                kept.append(tracemalloc.get_traced_memory()[0])
        finally:
            tracemalloc.stop()
    per_request = (kept[-1] - kept[-2]) / (ROUNDS * TOGETHER)
    assert per_request <= budgets.RETAINED_BYTES_PER_REQUEST, f"{per_request:.1f} bytes per request stay: {kept}"


async def test_a_large_tensor_is_not_copied_more_often_than_it_must() -> None:
    async with route(IMAGE) as asked:
        await asked.ask_by_filter(1)
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            await asked.ask_by_filter(1)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    copies = (peak - before) / len(asked.body)
    most = budgets.COPIES_OF_A_LARGE_TENSOR + 0.25
    assert copies <= most, f"{copies:.2f} copies of {len(asked.body)} bytes were alive at once; budget {most:.2f}"


def test_step(step: tuple[str, Callable[[], Any]]) -> None:
    name, function = step
    function()
    measured = count(function)
    hold_to(name, measured)


def test_a_broken_budget_says_what_to_do() -> None:
    dear = Operations(1000.0, 0.0, 0.0, [("wire.ResponseTemplate.encode", 990.0)])
    message = over("header split", dear)
    assert "calls 1000.0, budget" in message
    assert "raise the figure in benchmarks/micro/budgets.py" in message
    assert "wire.ResponseTemplate.encode" in message


@pytest.mark.benchmark(group="hot route")
def test_step_timed(benchmark: Any, step: tuple[str, Callable[[], Any]]) -> None:
    """`make microbench` prints this; elsewhere it is one call."""
    name, function = step
    benchmark.name = name
    benchmark(function)
