"""What came for a model, counted for plans of its capacity."""

from __future__ import annotations

import pytest

from headrace_autoscaler.core.demand import Counts
from headrace_autoscaler.domain import TrafficView
from headrace_autoscaler.fleet.reports import DemandEntry, Report
from headrace_autoscaler.fleet.traffic import TrafficBook


def report(arrivals: int, hits: int = 0, bundles: int = 0, took_us: int = 0) -> Report:
    counts = Counts(arrivals, rows=arrivals, completed=arrivals, bundles=bundles, service_time_us=took_us)
    return Report("r", (DemandEntry("t", "m", 1, counts, cache_hits=hits),))


def test_of_nothing_nothing_is_known() -> None:
    assert TrafficBook().view("m", 0.0) == TrafficView()


def test_rates_are_of_the_mean_and_of_the_busiest_minute() -> None:
    book = TrafficBook()
    for second in range(180):
        book.apply(report(8 if 60 <= second < 120 else 1, hits=1), 100.0 + second)
    view = book.view("m", 280.0)
    assert (view.requests, view.cache_hits) == (780, 180)
    assert view.mean_rate == pytest.approx(780 / 180)
    assert view.busiest_rate == pytest.approx(9.0)


def test_a_first_burst_is_no_absurd_rate() -> None:
    book = TrafficBook()
    book.apply(report(10), 5.0)
    assert book.view("m", 5.001).busiest_rate == pytest.approx(10.0)


def test_what_a_batch_took_is_the_mean_over_batches() -> None:
    book = TrafficBook()
    book.apply(report(8, bundles=2, took_us=10_000), 0.0)
    book.apply(report(4, bundles=2, took_us=6_000), 1.0)
    view = book.view("m", 2.0)
    assert (view.mean_batch, view.mean_execution_s) == (3.0, pytest.approx(0.004))


def test_what_is_gone_is_forgotten() -> None:
    book = TrafficBook()
    book.apply(report(1), 0.0)
    book.keep_only(set())
    assert book.view("m", 1.0) == TrafficView()
