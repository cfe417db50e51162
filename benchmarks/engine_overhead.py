"""`python -m benchmarks.engine_overhead`: what our engine, and what a whole runner, adds to ONNX Runtime.

Bare is `session.run` on a session with the same settings; engine is `LoadedModel.run`; runner is a bundle to a runner
process and its result back, as a router does it. They take turns, each for a moment and in every order, so that what
the machine does meanwhile falls on all.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from benchmarks import workloads
from benchmarks.one_runner import OneRunner, running
from headrace_runner.core.ort_options import OrtSettings
from headrace_runner.engines.base import ModelSource
from headrace_runner.engines.ort import OnnxRuntimeEngine
from headrace_runner.engines.ort_session import open_session

BATCHES = (1, 32)
TARGET = 0.05
"""At a batch of 32."""
_MOMENT_S = 0.02
_LEAST_TURNS = 12
Call = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Row:
    """Medians of a call, in microseconds.

    Attributes:
        turns: of each.
        engine_share, runner_share: what they take more than bare, as a share of it: the median over turns.
    """

    workload: str
    batch: int
    turns: int
    bare_us: float
    engine_us: float
    runner_us: float
    engine_share: float
    runner_share: float


def measure(workload: workloads.Workload, runner: OneRunner, seconds: float) -> Iterator[Row]:
    session = open_session(workload.model_path, OrtSettings())
    model = OnnxRuntimeEngine().load(ModelSource(workload.model_path, workload.model_path.name))
    for batch in BATCHES:
        rows = np.resize(workload.rows, (batch, *workload.input_shape))
        ask = runner.asking(workload, rows)
        bare, engine = _bare(session, workload, rows), _engine(model, workload, rows)
        np.testing.assert_allclose(ask(), bare()[0], rtol=1e-4, atol=1e-5)  # type: ignore[index]
        yield _row(workload.name, batch, in_turn((bare, engine, ask), seconds))


def in_turn(calls: tuple[Call, ...], seconds: float) -> list[list[float]]:
    """Microseconds of a call, the median of each turn; turns are taken in every order. The first call is warm-up."""
    turns: list[list[float]] = [[] for _ in calls]
    for call in calls:
        call()
    end = time.perf_counter() + seconds
    for order in itertools.cycle(itertools.permutations(range(len(calls)))):
        if time.perf_counter() > end and len(turns[0]) >= _LEAST_TURNS:
            return turns
        for number in order:
            turns[number].append(statistics.median(_moment(calls[number])))
    raise AssertionError("a cycle does not end")


def _moment(call: Call) -> list[float]:
    """A call's times for a moment, but at least twice, without the first: it finds caches as another left them."""
    times = []
    end = time.perf_counter() + _MOMENT_S
    while time.perf_counter() < end or len(times) < 2:
        begun = time.perf_counter_ns()
        call()
        times.append((time.perf_counter_ns() - begun) / 1000)
    return times[1:]


def _row(name: str, batch: int, turns: list[list[float]]) -> Row:
    bare, engine, runner = turns
    shares = [
        statistics.median(each / base - 1 for each, base in zip(others, bare, strict=True))
        for others in (engine, runner)
    ]
    medians = [statistics.median(each) for each in turns]
    return Row(name, batch, len(bare), *medians, *shares)


def _bare(session: object, workload: workloads.Workload, rows: object) -> Call:
    names, feed = [workload.output], {workload.input: rows}
    return lambda: session.run(names, feed)  # type: ignore[attr-defined] # ONNX Runtime has no types


def _engine(model: object, workload: workloads.Workload, rows: object) -> Call:
    feed = {workload.input: rows}
    return lambda: model.run(feed)  # type: ignore[attr-defined]


def table(rows: list[Row]) -> str:
    """Markdown."""
    lines = [
        "| model | batch | turns | bare, us | engine, us | engine adds | runner, us | runner adds |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        lines.append(
            f"| {row.workload} | {row.batch} | {row.turns} | {row.bare_us:.1f} | {row.engine_us:.1f} | "
            f"{row.engine_share:+.1%} | {row.runner_us:.1f} | {row.runner_share:+.1%} |"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine_overhead", description=__doc__)
    parser.add_argument("--seconds", type=float, default=6.0, help="Of each model and batch.")
    parser.add_argument("--workloads", nargs="+", choices=workloads.NAMES, default=workloads.NAMES, metavar="NAME")
    options = parser.parse_args()
    rows = []
    for name in options.workloads:
        workload = workloads.load(name)
        with running(workload) as runner:
            rows += measure(workload, runner, options.seconds)
    print(table(rows))
    worst = max(row.engine_share for row in rows if row.batch == max(BATCHES))
    print(f"\nThe engine adds {worst:+.1%} at most to a batch of {max(BATCHES)}; the target is {TARGET:.0%}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
