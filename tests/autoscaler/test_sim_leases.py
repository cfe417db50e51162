"""Concurrency and rates that simulated tenants lend each other, and what is counted where too much is admitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace_autoscaler.core.policies.base import Profile, Reading, Wish
from headrace_autoscaler.core.policies.named import POLICIES
from headrace_autoscaler.domain import Limits, Tenant
from headrace_autoscaler.sim.door import Door
from headrace_autoscaler.sim.engine import simulate
from headrace_autoscaler.sim.leasing import REPORT_S
from headrace_autoscaler.sim.outcome import Outcome
from headrace_autoscaler.sim.violations import quota_violations
from headrace_autoscaler.sim.workload import Case, Conditions, Workload
from headrace_common.config import RouterConfig
from headrace_router.core.admission import Lease, Limiter
from headrace_router.core.admission import Limits as RouterLimits

NAMES = ("ann", "bob", "cyd")


class Many:
    """More instances than anybody here needs, from the begin on."""

    interval_s = 100.0

    def decide(self, reading: Reading, profile: Profile) -> Wish:
        return Wish(99, "the script")


def case(requests: Sequence[tuple[float, int]], tenants: Sequence[Tenant], *, service: float = 1.0) -> Case:
    """Requests by moment, and whose: of each tenant's only model."""
    requests = sorted(requests)
    workload = Workload(
        name="case",
        arrival_s=np.array([at for at, _ in requests], dtype=np.float64),
        model=np.array([who for _, who in requests], dtype=np.int32),
        service_s=np.full(len(requests), service),
        models=tuple(f"m{k}" for k in range(len(NAMES))),
        tenants=NAMES,
        horizon_s=requests[-1][0] + 1.0,
    )
    return Case(workload, Conditions(slo_s=5.0, cold_start_s=0.5, starts_per_s=1e6, tenants=tuple(tenants)))


def run(given_case: Case) -> Outcome:
    return simulate(given_case, "many", Many)


def of(name: str, concurrency: int | None = None, rate: float | None = None, **fields: Limits | str) -> Tenant:
    """In the cohort "team", if nothing else is said."""
    limits = Limits(concurrency=concurrency, requests_per_second=rate)
    return Tenant(name, limits, **{"cohort": "team", **fields})  # type: ignore[arg-type]


def admitted(outcome: Outcome, who: int, begin: float, end: float) -> int:
    """Of one tenant's requests that came from `begin` on and before `end`."""
    workload = outcome.case.workload
    come = (workload.model == who) & (workload.arrival_s >= begin) & (workload.arrival_s < end)
    return int(np.count_nonzero(come & ~np.isnan(outcome.begin_s)))


# Concurrency.


def test_concurrency_that_is_idle_is_lent_within_half_a_second_and_taken_back_within_a_second() -> None:
    tenants = (of("ann", 2), of("bob", 4))
    ann, bob = 0, 1
    requests = [(1.0, ann)] * 6 + [(1.2, ann)] + [(1.6, ann)] * 6
    requests += [(3.2, bob)] * 4 + [(3.6, bob), (3.8, ann)] + [(4.1, bob)] * 5 + [(4.7, ann)] * 3
    outcome = run(case(requests, tenants))
    # At 1.0 bob is sent 2, which is its floor, as ann needs 6; at 1.5 ann has those other 2.
    assert admitted(outcome, ann, 1.0, 1.5) == 2
    assert admitted(outcome, ann, 1.6, 1.7) == 2, "beside the two that came before"
    # bob is back with its floor. At 3.5 ann is sent 2, at 4.0 bob has 4: two are in hand until 4.2.
    assert admitted(outcome, bob, 3.2, 3.7) == 2
    assert admitted(outcome, bob, 4.1, 4.2) == 2
    assert admitted(outcome, ann, 4.7, 4.8) == 1, "with the one of 3.8"
    assert set(outcome.refused.values()) == {"over concurrency"}
    assert quota_violations(outcome) == 0
    alone = run(case(requests, [replace(each, cohort="") for each in tenants]))
    assert admitted(alone, ann, 1.6, 1.7) == 0


def test_a_borrowing_limit_and_a_lending_limit_hold() -> None:
    requests = [(1.0, 0)] * 20 + [(1.9, 0)] * 20
    at_most = [
        ((of("ann", 2), of("bob", 8)), 2 + 4),
        ((of("ann", 2, borrowing_limit=Limits(concurrency=1)), of("bob", 8)), 2 + 1),
        ((of("ann", 2), of("bob", 8, lending_limit=Limits(concurrency=3))), 2 + 3),
        ((of("ann", 2), of("bob", 8, lending_limit=Limits(concurrency=0))), 2),
        ((of("ann", 2), of("bob", 8, cohort="other")), 2),
        ((of("ann", 2), of("bob", rate=8.0)), 2),
    ]
    for tenants, most in at_most:
        outcome = run(case(requests, tenants, service=50.0))
        assert (admitted(outcome, 0, 1.0, 2.0), quota_violations(outcome)) == (most, 0), tenants


def test_a_tenant_that_sends_nothing_lends_too_and_one_without_own_lives_by_that() -> None:
    requests = [(k / 10, 0) for k in range(100)]
    outcome = run(case(requests, (of("ann", 0, 0.0), of("dot", 8, 16.0)), service=0.1))
    assert admitted(outcome, 0, 0.0, 0.5) == 0
    assert admitted(outcome, 0, 5.0, 10.0) == pytest.approx(5 * 8, abs=1), "half of dot's rate is dot's floor"
    assert quota_violations(outcome) == 0


# Rates.


def test_a_rate_that_is_idle_is_borrowed_as_far_as_it_lasts_and_is_its_owner_s_again_within_a_second_and_a_half() -> (
    None
):
    tenants = (of("ann", rate=2.0), of("bob", rate=8.0))
    requests = [(k / 10 + 0.05, 0) for k in range(300)] + [(20 + k / 8, 1) for k in range(80)]
    outcome = run(case(requests, tenants, service=0.1))
    assert admitted(outcome, 0, 0.0, 1.0) == 3, "a second's worth of burst, and what comes within the second"
    assert admitted(outcome, 0, 5.0, 20.0) == 15 * (2 + 4), "its own, and what bob's floor leaves"
    assert admitted(outcome, 1, 20.0, 21.5) >= 1.5 * 8 - 1
    assert admitted(outcome, 1, 21.5, 30.0) == 8.5 * 8, "nothing is refused"
    assert admitted(outcome, 0, 21.5, 30.0) == 8.5 * 2
    assert set(outcome.refused.values()) == {"over rps"}
    assert quota_violations(outcome) == 0


@given(
    steps=st.lists(
        st.tuples(st.floats(0.0, 1.0), st.integers(0, 5), st.sampled_from([0.0, 0.2, 1.0, 2.5, 8.0])),
        min_size=1,
        max_size=40,
    )
)
def test_a_door_whose_limits_move_admits_what_a_router_s_limiter_admits(
    steps: list[tuple[float, int, float]],
) -> None:
    """Moments, limits of both kinds, and as many requests as are admitted."""
    first = Limits(concurrency=3, requests_per_second=steps[0][2])
    door, limiter = Door(Tenant("ann", first)), Limiter("tenant:ann")
    limiter.set_lease(Lease(RouterLimits(3, steps[0][2])), 0.0)
    now = 0.0
    for gap, concurrency, rate in steps:
        now += gap
        door.obey(concurrency, rate, now)
        limiter.set_lease(Lease(RouterLimits(concurrency, rate)), now)
        while limiter.admits(now, 0):
            assert not door.refusal(now)
            door.enter(now)
            limiter.enter(now)
        assert door.refusal(now)
        while limiter.in_hand > 2:
            limiter.in_hand -= 1
            door.leave()


# What costs nothing.


def test_with_whom_nothing_is_shared_everything_is_as_without_a_cohort() -> None:
    random = np.random.default_rng(3)
    requests = [(at, who) for at, who in zip(random.uniform(0, 60, 900), random.integers(0, 3, 900), strict=True)]
    tenants = (of("ann", 3), of("bob", rate=1.0 / 3), of("cyd", 2, 5.0, cohort="other"))
    given_case = case(requests, tenants)
    alone = replace(given_case.conditions, tenants=tuple(replace(each, cohort="") for each in tenants))
    outcomes = run(given_case), run(replace(given_case, conditions=alone))
    assert outcomes[0].refused == outcomes[1].refused
    assert outcomes[0].refused
    assert np.array_equal(outcomes[0].begin_s, outcomes[1].begin_s, equal_nan=True)


def test_a_quiet_hour_changes_nothing_for_who_comes_after_it() -> None:
    tenants = (of("ann", 2, 3.0), of("bob", 4, 9.0))
    burst = [(1.0 + k / 20, 0) for k in range(60)] + [(3.0 + k / 9, 1) for k in range(18)]
    later = [(at + 3600.0, who) for at, who in burst]
    # What a model of another tenant does keeps nobody's leases from standing still.
    awake = [(k / 3, 2) for k in range(3 * 3600)]
    quiet, restless = run(case(burst + later, tenants)), run(case(burst + later + awake, tenants))
    for who in (0, 1):
        for begin in (0.0, 3600.0):
            counts = {admitted(each, who, begin, begin + 20.0) for each in (quiet, restless)}
            assert counts == {admitted(quiet, who, 0.0, 20.0)}


def test_the_router_reports_as_often_as_one_of_the_mesh() -> None:
    assert RouterConfig().demand_period_s == REPORT_S


# What is counted.


def counted(requests: Sequence[tuple[float, int]], *tenants: Tenant, service: float = 1.0) -> int:
    """Violations where everything was admitted."""
    free = run(case(requests, (), service=service))
    assert not free.refused
    return quota_violations(replace(free, case=replace(free.case, conditions=replace(
        free.case.conditions, tenants=tenants))))  # fmt: skip


def test_concurrency_is_counted_by_what_the_cohort_has_and_each_may_borrow() -> None:
    ten = [(1.1, 0)] * 10
    assert counted(ten, of("ann", 2)) == 8
    assert counted(ten, of("ann", 2), of("bob", 5)) == 3
    assert counted(ten, of("ann", 2, borrowing_limit=Limits(concurrency=1)), of("bob", 5)) == 7
    assert counted(ten, of("ann", 2), of("bob", 5, lending_limit=Limits(concurrency=3))) == 5
    assert counted(ten, of("ann", 2), of("bob", 5, cohort="other")) == 8
    # Three of ann's leave bob four of the seven in all, until leases can have moved: after what comes at that moment.
    assert counted([(1.1, 0)] * 3 + [(1.5, 1)] * 6, of("ann", 2), of("bob", 5)) == 2
    assert counted([(1.1, 0)] * 3 + [(1.6, 1)] * 6, of("ann", 2), of("bob", 5)) == 0


def test_a_rate_is_counted_by_the_sum_s_bucket_and_by_each_one_s_own() -> None:
    ten, both = [(1.1, 0)] * 10, [(1.1, 0)] * 5 + [(1.1, 1)] * 5
    assert counted(ten, of("ann", rate=2.0)) == 8
    assert counted(ten, of("ann", rate=2.0), of("bob", rate=5.0)) == 3
    assert counted(ten, of("ann", rate=2.0, borrowing_limit=Limits(requests_per_second=1.0)), of("bob", rate=5.0)) == 7
    assert counted(ten, of("ann", rate=2.0), of("bob", rate=5.0, lending_limit=Limits(requests_per_second=3.0))) == 5
    # A second's worth of the sum, and one for the other bucket.
    assert counted(both, of("ann", rate=2.0), of("bob", rate=5.0)) == 2
    assert counted(both, of("ann", rate=0.0), of("bob", rate=0.0)) == 10
    # Two a second where the cohort has one: after the two of the buckets and one more, each is ahead of its time.
    steady = [(2.0 + k / 2, k % 2) for k in range(20)]
    assert counted(steady, of("ann", rate=0.5), of("bob", rate=0.5)) == 17


def test_a_door_that_takes_no_notice_of_what_was_given_back_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    tenants = (of("ann", 2, 4.0), of("bob", 6, 12.0))
    requests = [(k / 50, 0) for k in range(1000)] + [(10 + k / 50, 1) for k in range(500)]
    given_case = case(requests, tenants, service=0.2)
    assert quota_violations(run(given_case)) == 0
    obey = Door.obey

    def only_more(door: Door, concurrency: int | None, rate: float | None, now: float) -> None:
        if now <= 10.0 or (concurrency or 0) >= tenants[1].nominal.concurrency:  # type: ignore[operator]
            obey(door, concurrency, rate, now)

    monkeypatch.setattr(Door, "obey", only_more)
    assert quota_violations(run(given_case)) > 10


AMOUNTS = st.integers(0, 6)
LIMITS = st.one_of(st.none(), AMOUNTS)


@st.composite
def tenants_of_a_cohort(draw: st.DrawFn) -> tuple[Tenant, ...]:
    found = []
    for name in NAMES:
        nominal, borrowing, lending = (
            Limits(concurrency=draw(LIMITS), requests_per_second=draw(st.one_of(st.none(), st.floats(0, 12), AMOUNTS)))
            for _ in range(3)
        )
        weight = draw(st.sampled_from([1.0, 2.0, 0.3]))
        found.append(Tenant(name, nominal, borrowing, lending, draw(st.sampled_from(["team", "team", ""])), weight))
    return tuple(found)


@settings(max_examples=150, deadline=None)
@given(
    tenants=tenants_of_a_cohort(),
    bursts=st.lists(
        st.tuples(st.floats(0, 4), st.integers(0, 2), st.integers(1, 40), st.sampled_from([0.0, 0.01, 0.05, 0.3])),
        min_size=1,
        max_size=14,
    ),
    service=st.sampled_from([0.02, 0.4, 3.0]),
    policy=st.sampled_from(sorted(POLICIES)),
)
def test_whatever_is_lent_no_limit_is_passed_and_every_request_is_answered_or_refused(
    tenants: tuple[Tenant, ...], bursts: list[tuple[float, int, int, float]], service: float, policy: str
) -> None:
    requests: list[tuple[float, int]] = []
    at = 0.0
    for gap, who, count, apart in bursts:
        at += gap
        requests += [(at + k * apart, who) for k in range(count)]
    given_case = case(requests, tenants, service=service)
    outcome = simulate(given_case, policy, POLICIES[policy])
    assert quota_violations(outcome) == 0
    answered = np.count_nonzero(~np.isnan(outcome.begin_s))
    assert answered + len(outcome.refused) == len(requests)
    # By the words of docs/quotas.md, without a bucket: over any run as a whole.
    team = [each for each in tenants if each.cohort and each.nominal.requests_per_second is not None]
    if team:
        sum_of_rates = sum(each.nominal.requests_per_second or 0.0 for each in team)
        whose = np.isin(given_case.workload.model, [NAMES.index(each.name) for each in team])
        whole_s = float(np.ptp(given_case.workload.arrival_s))
        most = sum_of_rates * whole_s + max(1.0, sum_of_rates) + len(team) - 1
        assert np.count_nonzero(whose & ~np.isnan(outcome.begin_s)) <= most + 1e-3
