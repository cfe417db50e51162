"""Latency from when a request was due, whatever the generator managed."""

from __future__ import annotations

import math

import pytest

from benchmarks.generator.schedule import Done, Plan, summarise

PLAN = Plan(rate=10.0, warm_up_s=1.0, seconds=10.0)


def all_answered(plan: Plan, after_s: float) -> tuple[list[Done], list[float]]:
    return (
        [Done(number, plan.due(number) + after_s, True) for number in range(plan.count)],
        [plan.due(number) for number in range(plan.count)],
    )


def test_the_warm_up_is_sent_and_not_counted() -> None:
    outcome = summarise(PLAN, *all_answered(PLAN, 0.002))
    assert (PLAN.count, outcome.offered, outcome.ok) == (110, 100, 100)
    assert (outcome.p50_ms, outcome.p99_ms) == (pytest.approx(2.0), pytest.approx(2.0))


def test_a_stall_is_charged_to_every_request_that_was_due_in_it() -> None:
    # The server stalls from 5 s to 7 s: a closed loop would have seen one slow request.
    done = [Done(n, max(PLAN.due(n), 7.0) if PLAN.due(n) >= 5.0 else PLAN.due(n), True) for n in range(PLAN.count)]
    outcome = summarise(PLAN, done, [PLAN.due(number) for number in range(PLAN.count)], limit_s=0.5)
    assert outcome.p99_ms == pytest.approx(1900.0)
    assert outcome.ok - outcome.in_time == 15


def test_lateness_of_the_generator_is_part_of_the_latency_and_shown() -> None:
    done, _ = all_answered(PLAN, 0.010)
    outcome = summarise(PLAN, done, [PLAN.due(number) + 0.009 for number in range(PLAN.count)])
    assert outcome.p50_ms == pytest.approx(10.0)
    assert outcome.late_p99_ms == pytest.approx(9.0)


def test_what_is_never_answered_is_infinitely_late() -> None:
    done, sent = all_answered(PLAN, 0.001)
    outcome = summarise(PLAN, done[:-2], sent)
    assert (outcome.ok, outcome.unanswered, outcome.p99_ms) == (98, 2, -1.0)
    assert outcome.p50_ms == pytest.approx(1.0)


def test_failed_answers_are_counted_and_their_speed_is_no_merit() -> None:
    done, sent = all_answered(PLAN, 0.020)
    refused = [Done(item.number, item.at - 0.019, False) if item.number % 2 else item for item in done]
    outcome = summarise(PLAN, refused, sent, limit_s=0.015)
    assert (outcome.ok, outcome.failed, outcome.in_time) == (50, 50, 0)
    assert outcome.p50_ms == pytest.approx(20.0)


def test_nothing_answered_at_all() -> None:
    outcome = summarise(PLAN, [], [])
    assert (outcome.ok, outcome.unanswered, outcome.p50_ms, outcome.late_p99_ms) == (0, 100, -1.0, -1.0)
    assert not any(math.isinf(value) for value in outcome.as_dict().values())
