import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.client.retry import Attempts, RetryBudget, RetryPolicy
from headrace.errors import DeadlineExceeded, InvalidArgument, NotFound, QuotaExceeded, Unavailable, Unreachable

DOWN = Unavailable("no instance")
QUOTA = QuotaExceeded("over", subject="tenant:a", dimension="concurrency", retry_after_s=0.01)


def attempts(policy: RetryPolicy, deadline_s: float | None = None) -> Attempts:
    return Attempts(policy, RetryBudget(policy), deadline_s)


def test_delays_double_up_to_the_longest_and_end_with_the_attempts() -> None:
    policy = RetryPolicy(max_attempts=5, first_delay_s=0.1, max_delay_s=0.35)
    call = attempts(policy)
    delays = [call.delay_s(DOWN, 0.0, 0.999999999) for _ in range(5)]
    assert delays[:4] == pytest.approx([0.1, 0.2, 0.35, 0.35])
    assert delays[4] is None


def test_jitter_takes_away_up_to_half_of_a_delay() -> None:
    assert attempts(RetryPolicy(first_delay_s=0.1)).delay_s(DOWN, 0.0, 0.0) == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("error", "retried"),
    [
        (DOWN, True),
        (Unreachable("nobody there"), True),
        (QUOTA, False),
        (NotFound("no"), False),
        (DeadlineExceeded("late"), False),
    ],
    ids=["unavailable", "unreachable", "over quota", "not found", "deadline"],
)
def test_only_unavailable_is_tried_again(error: Unavailable, retried: bool) -> None:
    assert (attempts(RetryPolicy()).delay_s(error, 0.0, 0.5) is not None) is retried


def test_no_retry_that_would_start_after_the_deadline() -> None:
    policy = RetryPolicy(first_delay_s=0.1)
    assert attempts(policy, deadline_s=10.0).delay_s(DOWN, 9.95, 0.9999) is None
    assert attempts(policy, deadline_s=10.0).delay_s(DOWN, 9.80, 0.9999) is not None
    assert attempts(policy, deadline_s=10.0).remaining_s(11.0) == 0.0


def test_a_retry_that_the_deadline_forbids_costs_no_budget() -> None:
    policy = RetryPolicy(budget_burst=1, budget_ratio=0)
    budget = RetryBudget(policy)
    assert Attempts(policy, budget, 0.01).delay_s(DOWN, 0.0, 0.5) is None
    assert Attempts(policy, budget, 10.0).delay_s(DOWN, 0.0, 0.5) is not None


@given(
    ratio=st.floats(0, 1),
    burst=st.integers(0, 20),
    calls=st.lists(st.integers(0, 6), max_size=100),
)
def test_retries_never_exceed_the_burst_and_their_share_of_requests(ratio: float, burst: int, calls: list[int]) -> None:
    policy = RetryPolicy(max_attempts=7, budget_ratio=ratio, budget_burst=burst)
    budget = RetryBudget(policy)
    retries = 0
    for wanted in calls:
        call = Attempts(policy, budget, None)
        retries += sum(call.delay_s(DOWN, 0.0, 0.5) is not None for _ in range(wanted))
    assert retries <= burst + ratio * len(calls) + 1e-6


def test_budget_comes_back_with_requests() -> None:
    policy = RetryPolicy(max_attempts=2, budget_ratio=0.5, budget_burst=1)
    budget = RetryBudget(policy)
    granted = [Attempts(policy, budget, None).delay_s(DOWN, 0.0, 0.5) is not None for _ in range(6)]
    assert granted == [True, False, True, False, True, False]


def test_a_policy_without_sense_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="max_attempts"):
        RetryPolicy(max_attempts=0)
    with pytest.raises(InvalidArgument, match="negative"):
        RetryPolicy(first_delay_s=-1)
