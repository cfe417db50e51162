"""The policies that people choose by name, step by step."""

import pytest

from headrace_autoscaler.core.policies.base import Policy, Profile, Reading, Wish
from headrace_autoscaler.core.policies.named import POLICIES, policy_factory
from headrace_autoscaler.core.policies.thresholds import (
    AGGRESSIVE,
    BALANCED,
    CONSERVATIVE,
    Sensitivity,
    ThresholdPolicy,
    Thresholds,
)
from headrace_common.errors import InvalidArgument

PROFILE = Profile(concurrency=1)


class Run:
    """A policy that is asked every five seconds."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.now = 0.0

    def at_once(self, ready: int, utilisation: float = 0.0, present: int = 0, passed: float = 5.0) -> Wish:
        ready_s = ready * passed
        return self.policy.decide(
            Reading(now=self.now, busy_s=utilisation * ready_s, ready_s=ready_s, ready=ready, executing=present),
            PROFILE,
        )

    def on(self, seconds: float, utilisation: float, ready: int) -> Wish:
        for _ in range(round(seconds / 5)):
            self.now += 5
            wish = self.at_once(ready, utilisation, int(utilisation > 0))
        return wish


@pytest.mark.parametrize(
    ("thresholds", "utilisation", "desired"),
    [
        pytest.param(CONSERVATIVE, 0.69, 10, id="conservative: 0.69 is not over 0.70"),
        pytest.param(CONSERVATIVE, 0.80, 16, id="conservative: 10 x 0.80 / 0.50 = 16"),
        pytest.param(BALANCED, 0.59, 10, id="balanced: 0.59 is not over 0.60"),
        pytest.param(BALANCED, 0.80, 19, id="balanced: 10 x 0.80 / 0.425 = 18.8"),
        pytest.param(AGGRESSIVE, 0.49, 10, id="aggressive: 0.49 is not over 0.50"),
        pytest.param(AGGRESSIVE, 0.80, 23, id="aggressive: 10 x 0.80 / 0.35 = 22.9"),
    ],
)
def test_over_the_upper_threshold_there_are_more_at_once(
    thresholds: Thresholds, utilisation: float, desired: int
) -> None:
    run = Run(ThresholdPolicy(thresholds))
    run.at_once(10, present=1)
    assert run.on(5, utilisation, ready=10).desired == desired


@pytest.mark.parametrize(
    ("thresholds", "cooldown_s", "low"),
    [(CONSERVATIVE, 300, 0.29), (BALANCED, 240, 0.24), (AGGRESSIVE, 180, 0.19)],
    ids=["conservative", "balanced", "aggressive"],
)
def test_under_the_lower_threshold_there_are_fewer_a_cooldown_after_the_last_change(
    thresholds: Thresholds, cooldown_s: int, low: float
) -> None:
    run = Run(ThresholdPolicy(thresholds))
    run.at_once(10, present=1)
    assert run.on(cooldown_s - 5, low, ready=10).desired == 10
    middle = (thresholds.up + thresholds.down) / 2
    fewer = {0.5: 6, 0.425: 6, 0.35: 6}[middle]  # 2.9 / 0.5 = 5.8; 2.4 / 0.425 = 5.6; 1.9 / 0.35 = 5.4
    assert run.on(5, low, ready=10).desired == fewer


def test_between_the_thresholds_nothing_changes() -> None:
    run = Run(ThresholdPolicy(BALANCED))
    run.at_once(10, present=1)
    assert run.on(2000, 0.30, ready=10).desired == 10


@pytest.mark.parametrize(
    ("sensitivity", "up", "down"),
    [("normal", 0.70, 0.30), ("cost", 0.84, 0.24), ("latency", 0.56, 0.36)],
    ids=["normal", "cost: x1.2 and x0.8", "latency: x0.8 and x1.2"],
)
def test_sensitivity_moves_the_thresholds(sensitivity: Sensitivity, up: float, down: float) -> None:
    moved = CONSERVATIVE.adjusted(sensitivity)
    assert (moved.up, moved.down) == (pytest.approx(up), pytest.approx(down))
    run = Run(ThresholdPolicy(CONSERVATIVE, sensitivity))
    run.at_once(10, present=1)
    assert run.on(5, up - 0.01, ready=10).desired == 10
    assert run.on(10, up + 0.01, ready=10).desired > 10


def test_a_model_without_requests_goes_to_zero_after_the_cooldown_and_back_at_once() -> None:
    run = Run(ThresholdPolicy(AGGRESSIVE))
    assert run.at_once(0).desired == 0
    run.now = 1000.0
    assert run.at_once(0, present=1).desired == 1
    assert run.on(175, 0.0, ready=1).desired == 1
    assert run.on(5, 0.0, ready=1).desired == 0


def test_thresholds_that_cross_are_refused() -> None:
    with pytest.raises(ValueError, match="0 < down < up"):
        Thresholds(up=0.3, down=0.5, cooldown_s=60)


def test_policies_have_names_and_each_call_makes_one_of_its_own() -> None:
    assert {"conservative", "balanced", "aggressive", "kpa", "ray", "hpa"} <= set(POLICIES)
    factory = policy_factory("kpa")
    assert factory() is not factory()
    with pytest.raises(InvalidArgument, match="policy 'kap' is not known"):
        policy_factory("kap")
