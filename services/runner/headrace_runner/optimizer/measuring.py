"""Runs models on samples: what they answer, and how long they take side by side."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace_runner.engines.base import EngineError, LoadedModel
from headrace_runner.optimizer.core.choice import Timing
from headrace_runner.optimizer.core.comparing import Answers, Comparison, answers

Inputs = Mapping[str, NDArray[Any]]
Progress = Callable[[int, int], None]

_RUNS = 3
_LEAST_ROUNDS, _MOST_ROUNDS = 5, 60


def batches(inputs: Inputs, rows: int, *, whole: bool) -> Iterator[dict[str, NDArray[Any]]]:
    """The samples in batches of `rows`.

    Args:
        whole: fill the last one up with its last row, where a batch must have one size.
    """
    count = len(next(iter(inputs.values())))
    for start in range(0, count, rows):
        places = np.arange(start, start + rows if whole else min(count, start + rows)).clip(max=count - 1)
        yield {name: array[places] for name, array in inputs.items()}


def answer_all(
    model: LoadedModel, inputs: Inputs, rows: int, comparison: Comparison, *, whole: bool, outputs: tuple[str, ...]
) -> dict[str, Answers]:
    """What the model answers to every sample, by output.

    Raises:
        EngineError: also for outputs without a row for each sample, and with rows of unlike shapes.
    """
    count = len(next(iter(inputs.values())))
    found: dict[str, list[Answers]] = {}
    for batch in batches(inputs, rows, whole=whole):
        size = len(next(iter(batch.values())))
        for name, output in model.run(batch, outputs).items():
            if output.ndim == 0 or len(output) != size:
                raise EngineError(f"output {name!r} is {list(output.shape)} for {size} rows: it has no row for each")
            found.setdefault(name, []).append(answers(output, comparison))
    for name, parts in found.items():
        if len(shapes := {part.values.shape[1:] for part in parts}) > 1:
            unlike = " and ".join(str(list(shape)) for shape in sorted(shapes)[:2])
            raise EngineError(f"output {name!r} has rows of {unlike}, which cannot be compared; compare another output")
    return {
        name: Answers(
            np.concatenate([part.values for part in parts])[:count],
            np.concatenate([part.finite for part in parts])[:count],
            max(part.classes for part in parts),
        )
        for name, parts in found.items()
    }


def time_all(
    models: Mapping[str, LoadedModel], inputs: Inputs, sizes: Sequence[int], budget_s: float, progress: Progress
) -> tuple[dict[str, tuple[Timing, ...]], dict[str, str]]:
    """Times models in rounds, each model and batch size once in each, so that a disturbance falls on all of them.

    Args:
        sizes: rows per batch.
        budget_s: about how long to measure; five rounds at the least, sixty at the most.

    Returns:
        Medians over the rounds by name, and by name why a model couldn't be timed.
    """
    feeds = {size: {name: _take(array, size) for name, array in inputs.items()} for size in sizes}
    latency: dict[tuple[str, int], list[float]] = {(name, size): [] for name in models for size in sizes}
    cpu: dict[tuple[str, int], list[float]] = {key: [] for key in latency}
    failed: dict[str, str] = {}
    start = time.monotonic()
    done, rounds = 0, _MOST_ROUNDS
    while done < rounds:
        for name, model in models.items():
            if name in failed:
                continue
            try:
                for size, feed in feeds.items():
                    seconds, processor = _once(model, feed)
                    latency[name, size].append(seconds)
                    cpu[name, size].append(processor)
            except EngineError as error:
                failed[name] = f"it failed while it was timed: {error}"
        done += 1
        each_s = (time.monotonic() - start) / done
        rounds = max(_LEAST_ROUNDS, min(_MOST_ROUNDS, int(budget_s / max(each_s, 1e-9))))
        progress(min(done, rounds), rounds)
    timings = {
        name: tuple(
            Timing(size, statistics.median(latency[name, size]), statistics.median(cpu[name, size])) for size in sizes
        )
        for name in models
        if name not in failed
    }
    return timings, failed


def _once(model: LoadedModel, feed: Inputs) -> tuple[float, float]:
    """Median seconds of three runs, after one that brings the model back into the caches; and the processor's."""
    model.run(feed)
    latency, cpu = [], []
    for _ in range(_RUNS):
        begun, used = time.perf_counter(), time.process_time()
        model.run(feed)
        cpu.append(time.process_time() - used)
        latency.append(time.perf_counter() - begun)
    return statistics.median(latency), statistics.median(cpu)


def _take(array: NDArray[Any], rows: int) -> NDArray[Any]:
    return np.ascontiguousarray(np.take(array, range(rows), axis=0, mode="wrap"))
