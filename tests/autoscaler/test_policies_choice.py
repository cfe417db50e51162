"""Which policy a model has, its schedules and its targets."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from headrace_autoscaler.core.policies.base import Profile, Reading, Wish
from headrace_autoscaler.core.policies.choose import make_policy, policy_name
from headrace_autoscaler.core.policies.named import POLICIES
from headrace_autoscaler.core.policies.schedules import Schedule, ScheduledPolicy, parse_schedule
from headrace_autoscaler.core.policies.targets import NO_GPU_MEMORY, OUT_OF_REACH, TargetedPolicy, parse_target
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


PARIS_SET_BACK = at("2026-10-25 01:00")
"""Summer time ends: from 02:59:59 the clock shows 02:00:00 again."""


@pytest.mark.parametrize(
    ("cron", "fires"),
    [
        ("30 2 * * *", ["00:30"]),
        ("0,30 1-3 * * *", ["23:00", "23:30", "00:00", "00:30", "02:00", "02:30"]),
        ("30 * * * *", ["22:30", "23:30", "00:30", "01:30", "02:30"]),
        ("*/30 2 * * *", ["00:00", "00:30", "01:00", "01:30"]),
    ],
    ids=["a time that occurs twice", "a list around it", "every hour", "a minute that begins with a star"],
)
def test_a_local_time_that_occurs_twice_fires_once_unless_it_goes_by_the_clock_s_hand(
    cron: str, fires: list[str]
) -> None:
    schedule = parse_schedule(f"{cron} Europe/Paris=1")
    found, wall = [], PARIS_SET_BACK - 3 * 3600 + 1
    while (wall := schedule.next(wall)) <= PARIS_SET_BACK + 2 * 3600:
        found.append(f"{datetime.fromtimestamp(wall, UTC):%H:%M}")
    assert found == fires


def test_what_a_schedule_has_set_stays_while_the_clock_shows_its_time_again() -> None:
    entries = [parse_schedule("30 2 * * * Europe/Paris=3"), parse_schedule("0 1 * * * Europe/Paris=0")]
    policy = ScheduledPolicy(Always(), entries)
    minutes = range(0, 181, 5)
    wanted = [policy.decide(Reading(60.0 * m, wall=PARIS_SET_BACK + 60.0 * (m - 60)), PROFILE).desired for m in minutes]
    assert wanted == [0 if m < 30 else 3 for m in minutes]


def _fires(minutes: str, hours: str, zone: ZoneInfo, begin: float, days: int) -> list[float]:
    """Debian cron's rule from its words, minute by minute: fixed times once, the rest by the clock."""
    listed = [{int(each) for each in text.split(",")} if text[0] != "*" else None for text in (minutes, hours)]
    every = int(minutes[2:]) if minutes.startswith("*/") else 1

    def shows(local: datetime) -> bool:
        by_minute = local.minute in listed[0] if listed[0] is not None else local.minute % every == 0
        return by_minute and (listed[1] is None or local.hour in listed[1])

    moments = [begin + 60.0 * k for k in range(days * 1440)]
    if None in listed:
        return [moment for moment in moments if shows(datetime.fromtimestamp(moment, zone))]
    found: dict[float, None] = {}
    local = datetime.fromtimestamp(begin, zone).replace(tzinfo=None)
    for _ in range(days * 1440):
        if shows(local):
            real = local
            while datetime.fromtimestamp(real.replace(tzinfo=zone).timestamp(), zone).replace(tzinfo=None) != real:
                real += timedelta(minutes=1)
            found[real.replace(tzinfo=zone).timestamp()] = None
        local += timedelta(minutes=1)
    return list(found)


@settings(max_examples=60, deadline=None)
@given(
    change=st.sampled_from(
        [
            ("Europe/Paris", at("2026-10-25 01:00")),
            ("Europe/Paris", at("2026-03-29 01:00")),
            ("America/New_York", at("2026-11-01 06:00")),
            ("America/New_York", at("2026-03-08 07:00")),
            ("Australia/Lord_Howe", at("2026-04-04 15:00")),
            ("Australia/Lord_Howe", at("2026-10-03 15:30")),
        ]
    ),
    minutes=st.sampled_from(["0", "30", "0,15", "10,40,59", "*/20", "*"]),
    hours=st.sampled_from(["1", "2", "3", "1,2", "2,3", "*"]),
    offset_s=st.integers(-5 * 3600, 5 * 3600),
)
def test_last_and_next_are_those_of_the_rule_s_words_around_every_change_of_the_clock(
    change: tuple[str, float], minutes: str, hours: str, offset_s: int
) -> None:
    zone, at_change = change
    # The library goes by whole hours where there is a star, and Lord Howe's clock is set by half of one.
    assume("Lord_Howe" not in zone or not (minutes + hours).count("*"))
    fires = _fires(minutes, hours, ZoneInfo(zone), at_change - 2 * 86_400, 4)
    schedule = parse_schedule(f"{minutes} {hours} * * * {zone}=1")
    wall = at_change + offset_s
    assert schedule.last(wall) == max(each for each in fires if each <= wall)
    assert schedule.next(wall) == min(each for each in fires if each > wall)


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


def test_a_latency_below_the_execution_itself_says_so_and_asks_for_no_more_than_the_load_and_the_queue() -> None:
    policy = TargetedPolicy(Always(1), [parse_target("latency", 0.05)])
    profile = Profile(concurrency=8, service_s=0.0125, latency_s=0.1)
    ready = most = 1
    for step in range(100):  # Under a steady load something waits at every reading, however many instances there are.
        load = Reading(step * 0.25, arrivals=80, executing=16, queued=64, oldest_wait_s=0.01, ready=ready)
        wish = policy.decide(load, profile)
        assert wish.note == OUT_OF_REACH
        ready = max(ready, wish.desired)
        most = max(most, wish.desired)
    # 320 requests a second of 12.5 ms keep 4 busy, and 64 within ten seconds a little of another one.
    assert most == 5
    assert policy.decide(Reading(100.0, ready=5), profile).desired == 1, "nothing waits"
    assert not policy.decide(Reading(101.0, ready=5), replace(profile, latency_s=0.04)).note


def test_a_queue_asks_for_no_more_instances_than_execute_all_of_it_at_once() -> None:
    policy = TargetedPolicy(Always(1), [parse_target("queue_wait", 0.001)])
    profile = Profile(concurrency=8, service_s=0.01, latency_s=0.08)
    wish = policy.decide(Reading(1.0, queued=60, executing=20, oldest_wait_s=5.0, ready=40), profile)
    assert (wish.desired, wish.note) == (10, "")


@pytest.mark.parametrize(
    ("reading", "note"),
    [
        (Reading(1.0, ready=1), NO_GPU_MEMORY),
        (Reading(1.0, ready=1, gpu_memory_share=0.2), ""),
        (Reading(1.0, starting=1), ""),
    ],
    ids=["nobody measures it", "it is measured", "nothing is ready that could"],
)
def test_a_target_on_gpu_memory_that_nobody_measures_is_never_ignored_in_silence(reading: Reading, note: str) -> None:
    wish = TargetedPolicy(Always(1), [parse_target("gpu_memory", 0.7)]).decide(reading, PROFILE)
    assert (wish.desired, wish.reason, wish.note) == (1, "always", note)


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
