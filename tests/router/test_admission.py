"""Who may enter, and what those who may not are told."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field, replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace_router.core.accounts import Totals
from headrace_router.core.admission import Budget, Lease, Limiter, Limits
from headrace_router.core.comebacks import HORIZON_S, Comebacks


@dataclass
class Occupant:
    queued: int = 0
    queued_bytes: int = 0
    totals: Totals = field(default_factory=Totals)


def leased(limits: Limits, *occupants: Occupant, now: float = 0.0, **changes: object) -> Limiter:
    limiter = Limiter("tenant:t")
    limiter.occupants.extend(occupants)
    limiter.set_lease(replace(Lease(limits), **changes), now)  # type: ignore[arg-type]
    return limiter


def refused(limiter: Limiter, now: float = 0.0, size: int = 10) -> str | None:
    refusal = limiter.refusal(now, size)
    assert (refusal is None) == limiter.admits(now, size)
    return refusal.dimension if refusal else None


@pytest.mark.parametrize(
    ("limiter", "dimension", "time_helps"),
    [
        pytest.param(Limiter("tenant:t"), None, False, id="no lease, no limit"),
        pytest.param(leased(Limits()), None, False, id="an empty lease limits nothing"),
        pytest.param(leased(Limits(concurrency=0)), "concurrency", False, id="no concurrency at all"),
        pytest.param(
            leased(Limits(requests_per_second=0.0)), "requests_per_second", False, id="a rate of zero is none at all"
        ),
        pytest.param(
            leased(Limits(queue_length=2), Occupant(1, 1), Occupant(1, 1)),
            "queue_length",
            True,
            id="queue length over all its models",
        ),
        pytest.param(
            leased(Limits(queue_bytes=15), Occupant(1, 6)),
            "queue_bytes",
            True,
            id="queue bytes, with the request's own",
        ),
        pytest.param(leased(Limits(queue_bytes=9)), "queue_bytes", False, id="a request that never fits"),
        pytest.param(leased(Limits(queue_length=2), Occupant(1, 1)), None, False, id="there is room in the queue"),
        pytest.param(leased(Limits(), budget=Budget.REFUSE), "budget", False, id="a spent budget refuses"),
        pytest.param(leased(Limits(), budget=Budget.QUEUE), None, False, id="a spent budget may only hold"),
    ],
)
def test_refusals(limiter: Limiter, dimension: str | None, time_helps: bool) -> None:
    refusal = limiter.refusal(0.0, 10)
    assert (refusal.dimension if refusal else None) == dimension
    assert (refusal is not None and refusal.retry_after_s is not None) == time_helps


def test_what_is_in_hand_beyond_a_smaller_lease_is_told_until_it_is_answered() -> None:
    waiting = Occupant(3, 300)
    limiter = leased(Limits(concurrency=5, queue_length=5, queue_bytes=500), waiting)
    for _ in range(4):
        limiter.enter(0.0)
    assert limiter.excess(0.0) is None
    limiter.set_lease(Lease(Limits(concurrency=3, queue_length=3, queue_bytes=299), Limits(1, None, 2, None), 5.0), 1.0)
    assert limiter.excess(1.0) == Limits(concurrency=4, queue_bytes=300)
    limiter.in_hand, waiting.queued_bytes = 3, 299
    assert limiter.excess(5.9) is None
    assert limiter.excess(6.0) == Limits(concurrency=3, queue_length=3), "the lease has run out; its floor holds"
    assert leased(Limits()).excess(0.0) is None


@pytest.mark.parametrize("budget", [Budget.REFUSE, Budget.QUEUE])
def test_a_spent_budget_is_not_believed_for_ever(budget: Budget) -> None:
    """Its period is over and nobody tells of the next one: the autoscaler is away, and what runs may answer."""
    limiter = leased(Limits(concurrency=9), budget=budget, budget_returns_s=60.0)
    assert (limiter.admits(64.9, 1), limiter.holds) == (budget is Budget.QUEUE, budget is Budget.QUEUE)
    if budget is Budget.REFUSE:
        soon = limiter.refusal(59.9, 1)
        assert soon is not None
        assert soon.retry_after_s == 1.0, "routers hear of a new period a little after it has begun"
    assert (limiter.admits(65.1, 1), limiter.holds) == (True, False)
    limiter.in_hand = 9
    assert refused(limiter, 65.2) == "concurrency", "its other limits hold"


def test_concurrency_counts_what_is_in_hand() -> None:
    limiter = leased(Limits(concurrency=2))
    limiter.enter(0.0)
    assert refused(limiter) is None
    limiter.enter(0.0)
    error = limiter.refusal(0.0, 1)
    assert error is not None
    assert (error.dimension, error.subject) == ("concurrency", "tenant:t")
    assert error.message == "tenant:t is over its limit of concurrency: 2 requests at once are in hand"
    limiter.in_hand -= 1
    assert refused(limiter) is None


def test_a_rate_admits_its_burst_and_then_one_by_one() -> None:
    limiter = leased(Limits(requests_per_second=4.0))
    for _ in range(4):
        assert refused(limiter) is None
        limiter.enter(0.0)
    error = limiter.refusal(0.1, 1)
    assert error is not None
    assert error.retry_after_s is not None
    assert error.retry_after_s >= 0.15, "before that there is no token"
    assert refused(limiter, 0.2499) == "requests_per_second"
    assert refused(limiter, 0.2501) is None


@pytest.mark.parametrize(
    ("before", "after", "admitted"),
    [
        pytest.param(Limits(requests_per_second=2.0), Limits(requests_per_second=2.0), 0, id="the same rate"),
        pytest.param(Limits(requests_per_second=2.0), Limits(requests_per_second=20.0), 0, id="a higher rate"),
        pytest.param(Limits(), Limits(requests_per_second=2.0), 2, id="the first rate begins with its burst"),
        pytest.param(Limits(requests_per_second=9.0), Limits(requests_per_second=3.0), 3, id="a lower one holds less"),
    ],
)
def test_a_renewed_lease_does_not_refill_the_bucket(before: Limits, after: Limits, admitted: int) -> None:
    limiter = leased(before)
    for _ in range(2):
        limiter.enter(0.0)
    limiter.set_lease(Lease(after), 0.0)
    entered = 0
    while refused(limiter, 0.0) is None:
        limiter.enter(0.0)
        entered += 1
    assert entered == admitted


def test_a_rate_that_comes_back_from_nothing_begins_with_an_empty_bucket() -> None:
    limiter = leased(Limits(requests_per_second=2.0))
    for _ in range(2):
        limiter.enter(0.0)
    limiter.set_lease(Lease(Limits(requests_per_second=0.0)), 0.1)
    limiter.set_lease(Lease(Limits(requests_per_second=2.0)), 0.2)
    assert refused(limiter, 0.2) == "requests_per_second", "or what is lent in turns would be lent twice"
    assert refused(limiter, 0.701) is None


def test_an_expired_lease_falls_to_its_floor_and_keeps_what_the_floor_leaves_open() -> None:
    limits, floor = Limits(concurrency=10, queue_length=3), Limits(concurrency=1)
    waiting = Occupant()
    limiter = leased(limits, waiting, floor=floor, ttl_s=5.0)
    limiter.enter(0.0)
    assert refused(limiter, 4.9) is None
    assert refused(limiter, 5.0) == "concurrency"
    limiter.in_hand = 0
    waiting.queued = 3
    assert refused(limiter, 6.0) == "queue_length"
    waiting.queued = 0
    limiter.set_lease(Lease(limits, floor, 5.0), 6.0)
    limiter.enter(6.0)
    assert refused(limiter, 6.1) is None


@given(
    rate=st.floats(0.5, 50.0),
    start=st.floats(0.0, 1e7),
    gaps=st.lists(st.floats(0.0, 1.0), min_size=1, max_size=200),
)
def test_a_rate_is_never_exceeded_and_never_starved(rate: float, start: float, gaps: list[float]) -> None:
    limiter = leased(Limits(requests_per_second=rate), now=start)
    now, admitted, tokens, last = start, 0, max(1.0, rate), start
    for gap in gaps:
        now += gap
        # The slow oracle: a bucket of tokens.
        tokens, last = min(max(1.0, rate), tokens + (now - last) * rate), now
        if refused(limiter, now) is None:
            limiter.enter(now)
            admitted += 1
            assert tokens > 1.0 - 1e-5
            tokens -= 1.0
        else:
            assert tokens < 1.0 + 1e-5
    assert admitted <= max(1.0, rate) + rate * (now - start) + 1e-4


# --- promises ---


def test_nobody_is_told_the_same_moment_and_nobody_a_moment_too_far_away() -> None:
    comebacks = Comebacks()
    waits = [comebacks.promise(0.0, 0.1, 20.0, ()) for _ in range(1000)]
    assert len(set(waits)) == len(waits)
    assert waits[0] >= 0.1
    assert max(waits) <= HORIZON_S
    assert waits[:100] == sorted(waits[:100])


@pytest.mark.parametrize(("executed", "spacing_s"), [(True, 1 / 40), (False, 1 / 5)], ids=["a queue", "a rate"])
def test_what_a_cache_answers_competes_for_a_rate_and_not_for_execution(executed: bool, spacing_s: float) -> None:
    """100 per second are possible. 20 come to be executed, 70 to be answered from the cache, 10 as they were told."""
    comebacks, user = Comebacks(), Occupant()
    for step in range(1, 101):
        comebacks.promise(step / 10, 0.0, 100.0, [user], executed=executed)
        user.totals.arrivals += 10
        user.totals.completed += 10
        user.totals.cache_hits += 7
    first, second = (comebacks.promise(10.0, 0.0, 100.0, [user], executed=executed) for _ in range(2))
    assert second - first == pytest.approx(spacing_s, rel=0.05)


@dataclass
class Crowd:
    """Clients who come at random and, when refused, come back when told; once. Virtual time.

    Args:
        service_s: how long an admitted one is in hand; 0: not at all.
    """

    limiter: Limiter
    occupant: Occupant
    random: Random
    service_s: float = 0.0
    kept: int = 0
    broken: int = 0

    def run(self, arrivals: list[float]) -> float:
        """Share of promises that were kept."""
        events = [(at, number, "fresh") for number, at in enumerate(arrivals)]
        heapq.heapify(events)
        serial = len(events)
        while events:
            now, _, kind = heapq.heappop(events)
            serial += 1
            if kind == "leaves":
                self.limiter.in_hand -= 1
                self.occupant.totals.completed += 1
                continue
            self.occupant.totals.arrivals += 1
            refusal = self.limiter.refusal(now, 1)
            if kind == "returns":
                self.kept += refusal is None
                self.broken += refusal is not None
            if refusal is None:
                self.limiter.enter(now)
                heapq.heappush(events, (now + self.random.expovariate(1.0) * self.service_s, serial, "leaves"))
            else:
                assert refusal.retry_after_s is not None
                heapq.heappush(events, (now + refusal.retry_after_s, serial, "returns"))
        return self.kept / max(1, self.kept + self.broken)


def arrivals_of(random: Random, rate: float, until_s: float, burst_every_s: float, burst: int) -> list[float]:
    """Poisson, and a burst now and then."""
    times, now = [], 0.0
    while now < until_s:
        times.append(now)
        now += random.expovariate(rate)
    bursts = [k * burst_every_s for k in range(1, int(until_s / burst_every_s)) for _ in range(burst)]
    return sorted(times + bursts)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), rate=st.floats(20.0, 200.0), load=st.floats(0.1, 0.7))
def test_who_comes_back_when_told_is_admitted_by_a_rate(seed: int, rate: float, load: float) -> None:
    random = Random(seed)
    occupant = Occupant()
    limiter = leased(Limits(requests_per_second=rate), occupant)
    crowd = Crowd(limiter, occupant, random)
    kept = crowd.run(arrivals_of(random, load * rate, 60.0, 10.0, int(2 * rate)))
    assert crowd.kept > 50
    assert kept >= 0.9


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), concurrency=st.integers(4, 64), load=st.floats(0.1, 0.7))
def test_who_comes_back_when_told_is_admitted_by_a_concurrency(seed: int, concurrency: int, load: float) -> None:
    random = Random(seed)
    occupant = Occupant()
    limiter = leased(Limits(concurrency=concurrency), occupant)
    crowd = Crowd(limiter, occupant, random, service_s=0.1)
    pace = concurrency / crowd.service_s
    kept = crowd.run(arrivals_of(random, load * pace, 30.0, 5.0, 3 * concurrency))
    assert crowd.kept > 10
    assert kept >= 0.9
