"""A run as `benchmarks.records` keeps it, without a benchmark."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.records import Closed, Open, Run, Special


@pytest.fixture
def closed() -> Callable[..., Closed]:
    """One closed-loop record; keywords are its fields."""

    def make(system: str, rate: float, **changes: Any) -> Closed:
        fields: dict[str, Any] = {
            "workload": "mlp",
            "in_flight": 64,
            "round": 0,
            "seconds": 8.0,
            "seen_rate": rate,
            "refused": 0,
            "p50_ms": 1.0,
            "p99_ms": 2.0,
            **changes,
        }
        return Closed(system=system, rate=rate, **fields)

    return make


@pytest.fixture
def opened() -> Callable[..., Open]:
    """One open-loop record at 4,000 req/s; keywords are its fields."""

    def make(system: str, p99_ms: float, **changes: Any) -> Open:
        fields: dict[str, Any] = {
            "workload": "mlp",
            "rate": 4000.0,
            "fraction": 0.0,
            "round": 0,
            "ok": 100,
            "failed": 0,
            "p50_ms": 1.0,
            "late_p99_ms": 0.1,
            **changes,
        }
        return Open(system=system, p99_ms=p99_ms, **fields)

    return make


@pytest.fixture
def run() -> Run:
    """Nothing measured yet."""
    return Run("2026-01-01 00:00 UTC", {"CPU": "a processor"}, {"headrace": "1", "triton": "2"}, {"rounds": 3})


@pytest.fixture
def special() -> Callable[..., Special]:
    def make(kind: str, **values: float) -> Special:
        return Special(kind, 0, values)

    return make
