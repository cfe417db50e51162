"""What counts as served."""

from __future__ import annotations

import subprocess

import pytest

from benchmarks import prometheus
from benchmarks.h2load import Load
from benchmarks.plan import Turn
from benchmarks.runs import closed_of, reason_of
from benchmarks.systems import Counts

TURN = Turn(0, "mlp", "headrace", (64,))
SEEN = Load(2.0, 1000, 1000, (1.0,))


@pytest.mark.parametrize(
    ("seen", "before", "after", "expected"),
    [
        (SEEN, Counts(50, 0), Counts(1060, 0), (500.0, 0)),
        (SEEN, Counts(50, 0), Counts(650, 400), (300.0, 400)),
        (Load(2.0, 1000, 900, (1.0,)), None, None, (450.0, 100)),
    ],
    ids=["what was under way at the end is not claimed", "errors hidden in HTTP 200 are not served", "HTTP statuses"],
)
def test_served(seen: Load, before: Counts | None, after: Counts | None, expected: tuple[float, int]) -> None:
    measured = closed_of(TURN, 64, seen, before, after)
    assert (measured.rate, measured.refused) == expected
    assert measured.seen_rate == seen.ok / 2.0


def test_counters_are_summed_over_processes_and_told_apart_by_labels() -> None:
    text = """# TYPE headrace_requests counter
headrace_requests_total{model="m",outcome="ok",process="router-0"} 10
headrace_requests_total{model="m",outcome="ok",process="router-1"} 5
headrace_requests_total{model="m",outcome="deadline",process="router-0"} 3
headrace_requests_total{model="other",outcome="ok",process="router-0"} 100
"""
    assert prometheus.total(text, "headrace_requests_total", model="m", outcome="ok") == 15
    assert prometheus.total(text, "headrace_requests_total", model="m", outcome="(?!ok$).*") == 3
    assert prometheus.total(text, "headrace_bundles_total", model="m") == 0


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (subprocess.TimeoutExpired(["/usr/bin/h2load", "-c", "512"], 38.0), "h2load did not end within 38 s"),
        (subprocess.CalledProcessError(2, ["h2load", "-c"]), "h2load ended with status 2"),
        (ValueError("first\nsecond"), "first"),
        (ValueError(), "ValueError"),
    ],
)
def test_a_failure_is_one_line(error: Exception, expected: str) -> None:
    assert reason_of(error) == expected
