"""ONNX Runtime alone in a loop: what a server could reach at most if it cost nothing."""

from __future__ import annotations

import time

import numpy as np

from benchmarks import workloads
from benchmarks.plan import Settings
from benchmarks.records import Special
from benchmarks.servers.onnx_session import open_session

BATCH = 8


def bare(settings: Settings, round_: int) -> Special:
    """magika at batch 8; `rate` is rows per second."""
    workload = workloads.load("magika")
    session = open_session(str(workload.model_path))
    feed = {workload.input: np.repeat(workload.row(0), BATCH, axis=0)}
    _loop(session, feed, settings.warm_up_s)
    return Special("bare", round_, {"rate": _loop(session, feed, settings.seconds)})


def _loop(session: object, feed: dict[str, np.ndarray], seconds: float) -> float:
    runs, began = 0, time.perf_counter()
    while (took := time.perf_counter() - began) < seconds or not runs:
        session.run(None, feed)  # type: ignore[attr-defined] # ONNX Runtime has no types
        runs += 1
    return runs * BATCH / took
