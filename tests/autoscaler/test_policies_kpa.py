"""Knative's autoscaler, step by step. With a container concurrency of 1 the target is 0.7 requests per instance."""

import pytest

from headrace_autoscaler.core.policies.base import Profile, Reading, Wish
from headrace_autoscaler.core.policies.kpa import KpaPolicy

ONE = Profile(concurrency=1)


class Run:
    """A policy that is asked every two seconds."""

    def __init__(self, profile: Profile = ONE, policy: KpaPolicy | None = None) -> None:
        self.policy = policy or KpaPolicy()
        self.profile = profile
        self.now = 0.0

    def at_once(self, *, concurrency: float = 0.0, ready: int = 0, present: int = 0) -> Wish:
        reading = Reading(now=self.now, concurrency_s=concurrency, ready=ready, executing=present, arrivals=present)
        return self.policy.decide(reading, self.profile)

    def on(self, seconds: float, concurrency: float, ready: int) -> Wish:
        """The last wish of so long at this concurrency."""
        for _ in range(round(seconds / 2)):
            self.now += 2
            wish = self.at_once(concurrency=2 * concurrency, ready=ready, present=int(concurrency > 0))
        return wish


def test_the_stable_mean_over_the_target_is_what_is_wanted() -> None:
    run = Run()
    run.at_once(ready=6, present=4)
    # 4 / 0.7 = 5.7
    assert run.on(60, 4.0, ready=6).desired == 6


def test_a_young_revision_divides_by_the_seconds_that_it_has() -> None:
    run = Run()
    run.at_once(ready=1, present=1)
    wish = run.on(2, 1.3, ready=2)
    # 2.6 request-seconds in 2 s: 1.3 / 0.7 = 1.9; over 60 s it would have been 0.04.
    assert wish.desired == 2
    assert dict(wish.inputs)["stable_concurrency"] == pytest.approx(1.3)


def test_panic_begins_at_twice_what_is_ready_and_takes_the_panic_windows_number() -> None:
    run = Run()
    run.at_once(ready=2, present=1)
    calm = run.on(60, 1.0, ready=2)
    assert (calm.desired, dict(calm.inputs)["panicking"]) == (2, 0.0)
    burst = run.on(6, 4.0, ready=2)
    # Stable: (54 x 1 + 6 x 4) / 60 = 1.3, so 2. Panic: 4 / 0.7 = 5.7, so 6; 6 / 2 ready = 3 is over 2.
    assert (burst.desired, dict(burst.inputs)["panicking"]) == (6, 1.0)


def test_panic_never_goes_down_and_ends_a_stable_window_after_it_was_last_over_the_threshold() -> None:
    run = Run()
    run.at_once(ready=2, present=1)
    run.on(60, 1.0, ready=2)
    run.on(6, 4.0, ready=2)
    # 6 are ready now: 6 / 6 = 1 is not over the threshold, so the 60 s count from the end of the burst.
    assert run.on(60, 0.5, ready=6).desired == 6
    # Then at most by half: floor(6 / 2) = 3, though 0.5 / 0.7 asks for 1.
    assert run.on(2, 0.5, ready=6).desired == 3
    assert run.on(2, 0.5, ready=3).desired == 1


def test_a_decision_at_most_halves() -> None:
    run = Run()
    run.at_once(ready=10, present=1)
    # 0.1 / 0.7 asks for 1; floor(10 / 2) = 5.
    assert run.on(60, 0.1, ready=10).desired == 5


def test_a_decision_is_at_most_a_thousand_times_what_is_ready() -> None:
    run = Run()
    run.at_once(ready=1, present=1)
    # 1,000 / 0.7 = 1,429; 1,000 x 1 ready.
    assert run.on(2, 1000.0, ready=1).desired == 1000


def test_the_first_request_at_zero_starts_one_at_once() -> None:
    run = Run()
    idle = run.at_once()
    assert (idle.desired, idle.holds_until) == (0, float("inf"))
    run.now = 1000.7
    assert run.at_once(present=1).desired == 1
    run.now = 1002.0
    # 1.3 request-seconds in 1.3 s, however long nothing ran before: 1 / 0.7 = 1.4.
    assert run.at_once(concurrency=1.3, present=1).desired == 2


def test_the_last_instance_of_a_small_revision_goes_after_the_stable_window() -> None:
    run = Run()
    run.at_once(ready=1, present=1)
    run.on(4, 0.5, ready=1)
    assert run.on(58, 0.0, ready=1).desired == 1
    # 1 x 1 - 211 is negative: the activator has had the route all the time, for longer than the grace period.
    assert run.on(2, 0.0, ready=1).desired == 0


def test_where_there_was_capacity_for_a_burst_the_grace_period_follows() -> None:
    run = Run(Profile(concurrency=1000))
    run.at_once(ready=1, present=1)
    run.on(4, 0.5, ready=1)
    assert run.on(58, 0.0, ready=1).desired == 1
    # 1 x 1000 - 211 is positive: only now does the activator take the route over.
    window_over = run.on(2, 0.0, ready=1)
    assert (window_over.desired, window_over.reason) == (1, "kept for the grace period")
    assert run.on(28, 0.0, ready=1).desired == 1
    assert run.on(2, 0.0, ready=1).desired == 0


def test_the_grace_period_counts_from_when_the_capacity_for_a_burst_was_gone() -> None:
    run = Run(Profile(concurrency=150))
    run.at_once(ready=2, present=1)
    run.on(4, 0.5, ready=2)
    # 2 x 150 - 211 is positive; 1 x 150 - 211 is not.
    run.on(50, 0.0, ready=2)
    run.on(10, 0.0, ready=1)
    assert run.on(18, 0.0, ready=1).reason == "kept for the grace period"
    assert run.on(4, 0.0, ready=1).desired == 0


def test_without_grace_the_last_instance_goes_after_the_stable_window() -> None:
    run = Run(Profile(concurrency=1000), policy=KpaPolicy(grace_s=0.0))
    run.at_once(ready=1, present=1)
    run.on(4, 0.5, ready=1)
    assert run.on(58, 0.0, ready=1).desired == 1
    assert run.on(2, 0.0, ready=1).desired == 0


def test_excess_burst_capacity_is_among_the_inputs() -> None:
    run = Run(Profile(concurrency=100))
    run.at_once(ready=3, present=1)
    wish = run.on(6, 20.5, ready=3)
    # 3 x 100 - 211 - 20.5 = 68.5
    assert dict(wish.inputs)["excess_burst_capacity"] == 68


def test_unlimited_concurrency_counts_as_a_hundred() -> None:
    run = Run(Profile(concurrency=0))
    run.at_once(ready=3, present=1)
    # 150 / (0.7 x 100) = 2.1
    assert run.on(60, 150.0, ready=3).desired == 3


@pytest.mark.parametrize(
    ("profile", "desired"),
    [(Profile(min_instances=8), 8), (Profile(max_instances=2), 2)],
    ids=["the minimum", "the maximum"],
)
def test_the_users_bounds_hold(profile: Profile, desired: int) -> None:
    run = Run(profile)
    run.at_once(ready=6, present=4)
    assert run.on(60, 4.0, ready=6).desired == desired
