"""Kubernetes' autoscaler on CPU, step by step: 80 %, every 15 s."""

import pytest

from headrace_autoscaler.core.policies.base import Profile, Reading, Wish
from headrace_autoscaler.core.policies.hpa import HpaPolicy

PROFILE = Profile(concurrency=1)


class Run:
    def __init__(self, policy: HpaPolicy | None = None) -> None:
        self.policy = policy or HpaPolicy()
        self.now = 0.0

    def sync(self, utilisation: float, ready: int, starting: int = 0) -> Wish:
        self.now += 15
        reading = Reading(
            now=self.now, busy_s=utilisation * ready * 15, ready_s=ready * 15.0, ready=ready, starting=starting
        )
        return self.policy.decide(reading, PROFILE)


@pytest.mark.parametrize(
    ("utilisation", "ready", "starting", "desired"),
    [
        pytest.param(0.0, 0, 0, 1, id="at least one, though nothing has come"),
        pytest.param(0.90, 4, 0, 5, id="0.90 / 0.80 x 4 = 4.5"),
        pytest.param(0.87, 4, 0, 4, id="0.87 / 0.80 = 1.09 is inside the tolerance"),
        pytest.param(0.73, 4, 0, 4, id="0.73 / 0.80 = 0.91 is inside the tolerance"),
        pytest.param(1.00, 4, 0, 5, id="1.00 / 0.80 x 4 = 5: CPU cannot say more"),
        pytest.param(1.00, 4, 1, 5, id="one starts: 1.25 x 4 / 5 = 1 is inside the tolerance"),
        pytest.param(0.40, 4, 0, 2, id="0.40 / 0.80 x 4 = 2, and no higher wish is remembered"),
        pytest.param(0.00, 4, 0, 1, id="idle: the minimum"),
    ],
)
def test_one_sync(utilisation: float, ready: int, starting: int, desired: int) -> None:
    assert Run().sync(utilisation, ready, starting).desired == desired


def test_fewer_stay_when_every_wish_of_three_hundred_seconds_was_lower() -> None:
    run = Run()
    assert run.sync(1.0, 8).desired == 10
    # 0.4 / 0.8 x 10 = 5, from second 30 on; the wish for 10 was at second 15 and counts up to second 315.
    wishes = [run.sync(0.4, 10).desired for _ in range(20)]
    assert wishes == [10] * 20
    assert run.now == 315
    assert run.sync(0.4, 10).desired == 5


def test_growth_is_at_most_four_or_twofold() -> None:
    eager = HpaPolicy(target=0.1)
    # 1.0 / 0.1 x 2 = 20; the larger of 2 + 4 and 2 x 2.
    assert Run(eager).sync(1.0, 2).desired == 6
    # 1.0 / 0.1 x 10 = 100; the larger of 10 + 4 and 10 x 2.
    assert Run(HpaPolicy(target=0.1)).sync(1.0, 10).desired == 20


def test_its_own_bounds_hold() -> None:
    assert Run(HpaPolicy(target=0.7, fewest=2, most=10)).sync(0.0, 3).desired == 2
    assert Run(HpaPolicy(target=0.7, fewest=2, most=10)).sync(1.0, 9).desired == 10
