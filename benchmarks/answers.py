"""No system is loaded before its answers have been checked."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from benchmarks.systems import Running
from benchmarks.workloads import Workload

_TOGETHER = 8
_REQUESTS = 64


class WrongAnswer(Exception):
    """A system answered something else than ONNX Runtime does, or an error."""


class NoAnswer(Exception):
    """A system that had answered before does not now."""


def drain(running: Running, workload: Workload) -> None:
    """Returns when what a load left behind is worked off: a request that is queued behind it has its answer.

    Raises:
        NoAnswer: it did not come.
    """
    try:
        running.infer(workload.row(0))
    except Exception as error:  # each kind of client has errors of its own
        raise NoAnswer(f"no answer after a load: {error!r}") from error


def check(running: Running, workload: Workload) -> int:
    """Asks for every row, alone and then together so that batches are mixed. How many answers were right: all.

    Raises:
        WrongAnswer: names the row and what was wrong with it.
    """
    expected = workload.expected()
    count = len(workload.rows)

    def ask(number: int) -> None:
        index = number % count
        try:
            answer = running.infer(workload.row(index))
        except Exception as error:  # each kind of client has errors of its own
            raise WrongAnswer(f"row {index}: {error!r}") from error
        _compare(answer, expected[index : index + 1], index)

    for index in range(count):
        ask(index)
    with ThreadPoolExecutor(_TOGETHER) as pool:
        list(pool.map(ask, range(_REQUESTS)))
    return count + _REQUESTS


def _compare(answer: np.ndarray, expected: np.ndarray, index: int) -> None:
    if answer.shape != expected.shape:
        raise WrongAnswer(f"row {index}: shape {answer.shape}, expected {expected.shape}")
    if not np.allclose(answer, expected, rtol=1e-4, atol=1e-5):
        worst = float(np.abs(answer - expected).max())
        raise WrongAnswer(f"row {index}: differs from ONNX Runtime's answer by up to {worst:g}")
