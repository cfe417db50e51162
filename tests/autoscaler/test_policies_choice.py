"""Which policy a model has, its schedules and its targets."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from headrace_autoscaler.core.policies.base import Profile, Reading, Wish
from headrace_autoscaler.core.policies.choose import make_policy, policy_name
from headrace_autoscaler.core.policies.named import POLICIES
from headrace_autoscaler.core.policies.schedules import Schedule, ScheduledPolicy, parse_schedule
from headrace_autoscaler.core.policies.targets import TargetedPolicy, parse_target
from headrace_common.errors import InvalidArgument

PROFILE = Profile(service_s=0.1, latency_s=0.1)


@dataclass
class Always:
    """A policy that wants the same, inside its bounds."""

    count: int = 0
    holds_until: float = math.inf
    interval_s: float = 0.25

    def decide(self, reading: Reading, profile: Profile) -> Wish:
        if self.count < profile.min_instances:
            return Wish(profile.min_instances, "the model's minimum", (), self.holds_until)
        return Wish(self.count, "always", (), self.holds_until)


# The table.


@pytest.mark.parametrize(
    ("asked", "traffic", "cost", "expected"),
    [
        ("", "", "", "headrace"),
        ("", "", "normal", "headrace"),
        ("", "spiky", "", "aggressive"),
        ("", "steady", "", "conservative"),
        ("", "variable", "low", "balanced"),
        ("", "", "high", "balanced"),
        ("kpa", "spiky", "", "kpa"),
        ("headrace", "steady", "high", "headrace"),
    ],
)
def test_a_named_policy_wins_and_else_the_table_chooses(asked: str, traffic: str, cost: str, expected: str) -> None:
    assert policy_name(asked, traffic, cost) == expected


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (("magic", "", ""), "policy: expected headrace, conservative"),
        (("", "wild", ""), "traffic: expected spiky, steady, variable or none, got 'wild'"),
        (("", "", "some"), "cost_sensitivity: expected high, normal, low or none"),
        (("ray", "", "low"), "policy 'ray' has nothing to adjust"),
    ],
)
def test_what_is_not_in_the_table_is_refused(said: tuple[str, str, str], told: str) -> None:
    with pytest.raises(InvalidArgument, match=told):
        policy_name(*said)


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_by_name_answers(name: str) -> None:
    policy = make_policy(name)
    assert policy.decide(Reading(0.0, arrivals=1, queued=1), PROFILE).desired >= 1
    assert policy.interval_s > 0


@pytest.mark.parametrize(("cost", "up"), [("", 0.6), ("normal", 0.6), ("high", 0.72), ("low", 0.48)])
def test_sensitivity_to_cost_moves_the_thresholds(cost: str, up: float) -> None:
    wish = make_policy("balanced", cost).decide(Reading(0.0), PROFILE)
    assert dict(wish.inputs)["up"] == pytest.approx(up)


# Schedules.


def at(text: str, zone: str = "UTC") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone) if zone != "UTC" else UTC).timestamp()


OFFICE = [parse_schedule("0 8 * * 1-5 Europe/Paris=4"), parse_schedule("0 19 * * 1-5 Europe/Paris=0")]


@pytest.mark.parametrize(
    ("wall", "expected"),
    [
        (at("2026-11-24 07:59:59", "Europe/Paris"), 0),
        (at("2026-11-24 08:00:00", "Europe/Paris"), 4),
        (at("2026-11-24 18:59:59", "Europe/Paris"), 4),
        (at("2026-11-24 19:00:00", "Europe/Paris"), 0),
        (at("2026-11-28 12:00:00", "Europe/Paris"), 0),
        (at("2026-07-01 06:30:00"), 4),
        (at("2026-12-01 06:30:00"), 0),
    ],
    ids=["before", "from eight", "until seven", "after", "Saturday", "summer time", "winter time"],
)
def test_office_hours(wall: float, expected: int) -> None:
    wish = ScheduledPolicy(Always(), OFFICE).decide(Reading(5.0, wall=wall), PROFILE)
    assert wish.desired == expected
    assert ("(by its schedule)" in wish.reason) == bool(expected)


def test_a_decision_holds_no_longer_than_until_the_schedule_changes() -> None:
    policy = ScheduledPolicy(Always(), OFFICE)
    wall = at("2026-11-24 18:00:00", "Europe/Paris")
    assert policy.decide(Reading(50.0, wall=wall), PROFILE).holds_until == 80.0, "the wall clock may be set"
    soon = policy.decide(Reading(50.0 + 3590.0, wall=wall + 3590.0), PROFILE)
    assert (soon.desired, soon.holds_until) == (4, 50.0 + 3600.0)
    later = policy.decide(Reading(50.0 + 3600.0, wall=wall + 3600.0), PROFILE)
    assert later.desired == 0


def test_the_user_s_own_bounds_hold_over_a_schedule() -> None:
    noon = Reading(0.0, wall=at("2026-11-24 12:00:00", "Europe/Paris"))
    policy = ScheduledPolicy(Always(), OFFICE)
    assert policy.decide(noon, replace(PROFILE, max_instances=2)).desired == 2
    assert policy.decide(noon, replace(PROFILE, min_instances=6)).desired == 6


def test_a_schedule_without_a_zone_is_in_utc_and_one_that_never_comes_provisions_nothing() -> None:
    assert parse_schedule("30 6 * * *=1") == Schedule("30 6 * * *", UTC, 1)
    never = parse_schedule("0 0 29 2 1 UTC=3")
    assert ScheduledPolicy(Always(), [parse_schedule("0 0 1 1 * UTC=0"), never]).decide(
        Reading(0.0, wall=at("2026-11-24 12:00:00")), PROFILE
    ).desired in (0, 3)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("0 8 * * 1-5", "expected CRON=N such as"),
        ("0 8 * *=4", "expected CRON=N such as"),
        ("0 8 * * 1-5 UTC=many", "expected 0 to 10000 instances after the =; got 'many'"),
        ("0 8 * * 1-5 Mars/Base=4", "'Mars/Base' is no time zone of this machine"),
        ("0 99 * * * UTC=4", "'0 99 . . .' is no cron expression"),
    ],
)
def test_a_schedule_that_is_wrong_is_told_so(text: str, told: str) -> None:
    with pytest.raises(InvalidArgument, match=told):
        parse_schedule(text, "--schedule")


# Targets.


@pytest.mark.parametrize(
    ("metric", "value", "reading", "expected"),
    [
        ("concurrency", 4.0, {"concurrency_s": 10.0, "executing": 10, "ready": 1}, 3),
        ("rate", 5.0, {"arrivals": 21, "ready": 1}, 5),
        ("cpu", 0.5, {"busy_s": 1.8, "ready_s": 2.0, "ready": 2}, 4),
        ("gpu_memory", 0.6, {"gpu_memory_share": 0.9, "concurrency_s": 1.0, "ready": 2}, 3),
        ("queue_wait", 0.5, {"queued": 20, "oldest_wait_s": 0.1, "ready": 3}, 5),
        ("latency", 0.6, {"queued": 20, "oldest_wait_s": 0.1, "ready": 3}, 5),
        ("queue_wait", 0.5, {"ready": 3}, 0),
    ],
)
def test_a_target_asks_for_what_keeps_its_metric_there(
    metric: str, value: float, reading: dict[str, float], expected: int
) -> None:
    policy = TargetedPolicy(Always(), [parse_target(metric, value)])
    policy.decide(Reading(10.0), PROFILE)
    wish = policy.decide(Reading(11.0, **reading), PROFILE)  # type: ignore[arg-type]
    assert wish.desired == expected
    assert dict(wish.inputs)["target_wanted"] == expected
    assert wish.reason == ("always" if not expected else parse_target(metric, value).reason)


def test_the_highest_of_policy_and_targets_counts_and_the_maximum_holds() -> None:
    targets = [parse_target("concurrency", 1.0), parse_target("rate", 100.0)]
    policy = TargetedPolicy(Always(5), targets)
    policy.decide(Reading(10.0), PROFILE)
    load = Reading(11.0, arrivals=3, concurrency_s=3.0, executing=3, ready=3)
    assert policy.decide(load, PROFILE).reason == "always"
    more = Reading(12.0, arrivals=40, concurrency_s=40.0, executing=3, queued=37, ready=3)
    wish = policy.decide(more, PROFILE)
    assert (wish.desired, wish.reason) == (22, "the target on concurrency")
    assert policy.decide(replace(more, now=13.0), replace(PROFILE, max_instances=7)).desired == 7


def test_targets_let_a_model_go_to_zero() -> None:
    policy = TargetedPolicy(Always(), [parse_target("concurrency", 1.0)])
    policy.decide(Reading(0.0), PROFILE)
    assert policy.decide(Reading(1.0, concurrency_s=1.0, ready=1), PROFILE).holds_until == 0.0
    rested = policy.decide(Reading(30.0, ready=1), PROFILE)
    assert (rested.desired, rested.holds_until) == (0, math.inf)


@pytest.mark.parametrize(
    ("metric", "value", "told"),
    [
        ("speed", 1.0, "target: expected a metric of concurrency, queue_wait"),
        ("cpu", 70.0, "target cpu: expected a share from 0.001 to 1; got 70"),
        ("rate", 0.0, "target rate: expected 0.001 requests per second"),
    ],
)
def test_a_target_that_is_wrong_is_told_so(metric: str, value: float, told: str) -> None:
    with pytest.raises(InvalidArgument, match=told):
        parse_target(metric, value)
