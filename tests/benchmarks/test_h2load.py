"""What h2load prints and logs, as figures."""

from __future__ import annotations

import pytest

from benchmarks import h2load

PRINTED = """starting benchmark...
finished in 2.01s, 3.00 req/s, 3.60MB/s
requests: 9 total, 9 started, 6 done, 5 succeeded, 1 failed, 0 errored, 0 timeout
status codes: 5 2xx, 0 3xx, 0 4xx, 1 5xx
traffic: 2.50MB (2621440) total
"""


def log(*answers: tuple[int, int, int]) -> str:
    """Rows of (start in ms, status, duration in ms)."""
    return "".join(
        f"{1_700_000_000_000_000 + start * 1000}\t{status}\t{took * 1000}\n" for start, status, took in answers
    )


def test_only_answers_with_2xx_are_ok_and_only_they_have_latencies() -> None:
    answers = [(0, 200, 30), (0, 200, 10), (0, 503, 1), (30, 200, 20), (60, 200, 50), (1900, 200, 100)]
    load = h2load.parse(PRINTED, log(*answers))
    assert (load.done, load.ok) == (6, 5)
    assert load.latencies_ms == (10.0, 20.0, 30.0, 50.0, 100.0)
    assert (load.latency_ms(0.5), load.latency_ms(0.99)) == (30.0, 100.0)


def test_time_ends_with_the_last_answer_so_that_a_batch_cut_off_is_not_half_served() -> None:
    two_batches = [(0, 200, 800), (0, 200, 800), (800, 200, 800), (800, 200, 800)]
    assert h2load.parse(PRINTED, log(*two_batches)).seconds == pytest.approx(1.6)


def test_a_server_that_stops_answering_is_not_spared_the_silence() -> None:
    assert h2load.parse(PRINTED, log((0, 200, 10), (10, 200, 10))).seconds == pytest.approx(2.0)


def test_a_run_without_an_answer_lasted_as_long_as_it_ran() -> None:
    load = h2load.parse(PRINTED, "")
    assert (load.seconds, load.ok, load.latency_ms(0.5)) == (2.01, 0, 0.0)


def test_seconds_come_in_other_units_too() -> None:
    assert h2load.parse(PRINTED.replace("2.01s", "900.00ms"), "").seconds == pytest.approx(0.9)


def test_what_is_not_understood_is_shown() -> None:
    with pytest.raises(ValueError, match="connection refused"):
        h2load.parse("connection refused", "")


@pytest.mark.parametrize(
    ("in_flight", "http2", "expected"),
    [
        (1, True, (1, 1)),
        (16, True, (8, 2)),
        (64, True, (8, 8)),
        (512, True, (8, 64)),
        (1, False, (1, 1)),
        (512, False, (512, 1)),
    ],
)
def test_connections_times_streams_is_what_is_in_flight(in_flight: int, http2: bool, expected: tuple[int, int]) -> None:
    assert h2load.connections(in_flight, http2) == expected


def test_what_cannot_be_shared_evenly_is_refused() -> None:
    with pytest.raises(ValueError, match="evenly"):
        h2load.connections(20, True)
