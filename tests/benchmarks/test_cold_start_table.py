"""The table of `python -m benchmarks cold-start`."""

from __future__ import annotations

from benchmarks.cold_start import phases_ms, table
from headrace.v1 import models_pb2


def test_quantiles_are_ranks_of_what_was_measured() -> None:
    lines = table({"first_answer": [float(each) for each in range(100, 0, -1)]}).splitlines()
    assert lines[0] == "| phase | p50 | p99 | min | max |"
    assert lines[2] == "| first answer | 50.0 | 99.0 | 1.0 | 100.0 |"


def test_phases_are_in_milliseconds() -> None:
    start = models_pb2.ColdStart()
    start.load.FromMicroseconds(15_300)
    start.total.FromMicroseconds(34_250)
    assert (phases_ms(start)["load"], phases_ms(start)["total"], phases_ms(start)["warm"]) == (15.3, 34.25, 0.0)
