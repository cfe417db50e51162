"""Ray Serve's autoscaler, step by step: two ongoing requests per replica."""

from headrace_autoscaler.core.policies.base import Profile, Reading, Wish
from headrace_autoscaler.core.policies.ray import RayPolicy

PROFILE = Profile(concurrency=1)


class Run:
    """A policy that is asked every second."""

    def __init__(self) -> None:
        self.policy = RayPolicy()
        self.now = 0.0

    def at_once(self, ready: int, ongoing: float = 0.0, present: int = 0) -> Wish:
        reading = Reading(now=self.now, concurrency_s=ongoing, ready=ready, queued=present)
        return self.policy.decide(reading, PROFILE)

    def on(self, seconds: int, ongoing: float, ready: int) -> Wish:
        for _ in range(seconds):
            self.now += 1
            wish = self.at_once(ready, ongoing, int(ongoing > 0))
        return wish

    def with_one_replica(self) -> "Run":
        self.at_once(ready=0, present=1)
        return self


def test_nothing_runs_until_something_comes_and_then_one_starts_at_once() -> None:
    run = Run()
    assert run.at_once(ready=0).desired == 0
    run.now = 17.3
    assert run.at_once(ready=0, present=9).desired == 1


def test_more_start_only_after_more_was_wanted_for_thirty_seconds() -> None:
    run = Run().with_one_replica()
    # 7 ongoing / 2 = 3.5, so 4, wanted from second 1 on.
    assert run.on(30, 7.0, ready=1).desired == 1
    assert run.on(1, 7.0, ready=1).desired == 4


def test_a_moment_without_the_wish_begins_the_delay_anew() -> None:
    run = Run().with_one_replica()
    run.on(20, 3.0, ready=1)
    # The mean over 30 s falls to 2 and under: 20 x 3 / 30 s = 2, which one replica serves.
    assert run.on(10, 0.0, ready=1).desired == 1
    assert run.on(30, 1.5, ready=1).desired == 1


def test_fewer_stay_only_after_fewer_were_wanted_for_six_hundred_seconds() -> None:
    run = Run().with_one_replica()
    assert run.on(31, 8.0, ready=1).desired == 4
    # The mean of 30 s is 8 x 29 / 30 = 7.7 after a second, which needs 4; at 8 x 22 / 30 = 5.9, after 8 s, it needs 3.
    assert run.on(7, 0.0, ready=4).desired == 4
    assert run.on(600, 0.0, ready=4).desired == 4
    # At last what is wanted then: never less than 1, however idle.
    assert run.on(1, 0.0, ready=4).desired == 1
    assert run.on(2000, 0.0, ready=1).desired == 1


def test_there_are_never_more_than_a_hundred() -> None:
    run = Run().with_one_replica()
    assert run.on(31, 1000.0, ready=1).desired == 100
