"""Counts requests that were admitted beyond what there is, without asking who admitted them, or by which lease.

Which leases there were is not known, but that those of a cohort were never more than its tenants have together, and
that they move at certain moments and stay as they are until the next. So of a tenant's request it can be said that

- concurrency: with it the tenant has no more in hand than it may have, at the moment that it is admitted. That is its
  nominal quantity and what it may borrow, and what there is in all less what each other tenant must have held since
  leases moved last: as much as it had in hand when a request of its own was admitted, and what it never lends. What is
  in hand at other moments says nothing, as what was admitted by a larger lease is answered.
- rate: it finds a token in a bucket of the highest rate that the tenant can come to have; and in one of its cohort's
  sum, that holds a second of that and one token more for each further tenant, as no bucket holds less than one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace_autoscaler.domain import Tenant
from headrace_autoscaler.sim.door import BUDGET_SPENT, OVER_CONCURRENCY, OVER_RATE, ROUNDING_S, pace
from headrace_autoscaler.sim.leasing import MOVE_S
from headrace_autoscaler.sim.model_run import QUEUE_FULL
from headrace_autoscaler.sim.outcome import Outcome
from headrace_autoscaler.sim.workload import Seconds

_NOT_ADMITTED = (BUDGET_SPENT, OVER_CONCURRENCY, OVER_RATE, QUEUE_FULL)
_LENT_ROUNDING_S = 1e-6
"""A bucket whose rate moves is rounded at every move."""

Requests = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class _Member:
    """One tenant of those that share a limit.

    Attributes:
        requests: that were admitted, ascending.
        own: its nominal quantity.
        lends: of that, at most.
        borrows: beyond that, at most.
    """

    requests: Requests
    own: float
    lends: float
    borrows: float


def request_violations(outcome: Outcome) -> int:
    tenants, violations = outcome.case.conditions.tenants, 0
    admitted = np.ones(outcome.case.workload.requests, dtype=np.bool_)
    admitted[[request for request, why in outcome.refused.items() if why in _NOT_ADMITTED]] = False
    for name, count in (("concurrency", _over_concurrency), ("requests_per_second", _over_rate)):
        for sharing in _sharing(tenants, name):
            violations += count(outcome, [_member(outcome, admitted, tenant, name) for tenant in sharing])
    return violations


def _sharing(tenants: Iterable[Tenant], name: str) -> Iterable[list[Tenant]]:
    """Those that have a nominal quantity, by cohort; who has no cohort is alone."""
    cohorts: dict[tuple[str, str], list[Tenant]] = {}
    for tenant in tenants:
        if getattr(tenant.nominal, name) is not None:
            alone = "" if tenant.cohort else tenant.name
            cohorts.setdefault((tenant.cohort, alone), []).append(tenant)
    return cohorts.values()


def _member(outcome: Outcome, admitted: Flags, tenant: Tenant, name: str) -> _Member:
    workload = outcome.case.workload
    owned = np.array([owner == tenant.name for owner in workload.tenants])[workload.model]
    own, lends, borrows = (
        getattr(limits, name) for limits in (tenant.nominal, tenant.lending_limit, tenant.borrowing_limit)
    )
    return _Member(
        np.flatnonzero(owned & admitted),
        own,
        lends=own if lends is None else min(own, lends),
        borrows=np.inf if borrows is None else borrows,
    )


def _most(members: Sequence[_Member]) -> list[float]:
    """What each can come to have."""
    lent = [sum(other.lends for other in members if other is not each) for each in members]
    return [each.own + min(each.borrows, spare) for each, spare in zip(members, lent, strict=True)]


def _over_concurrency(outcome: Outcome, members: Sequence[_Member]) -> int:
    in_hand = [_in_hand(outcome, each) for each in members]
    if len(members) == 1:
        return int(np.count_nonzero(in_hand[0] > members[0].own))
    requests = np.concatenate([each.requests for each in members])
    order = np.argsort(requests)
    whose = np.repeat(np.arange(len(members)), [len(each) for each in in_hand])[order]
    # Leases move after what arrives at that moment.
    moves = np.ceil(outcome.case.workload.arrival_s[requests[order]] / MOVE_S)
    most, kept = _most(members), [each.own - each.lends for each in members]
    there_is = sum(each.own for each in members)
    violations, last, held, in_all = 0, -1.0, kept, 0.0
    for move, who, count in zip(moves.tolist(), whose.tolist(), np.concatenate(in_hand)[order].tolist(), strict=True):
        if move != last:
            last, held, in_all = move, kept.copy(), sum(kept)
        if count > min(most[who], there_is - (in_all - held[who])):
            violations += 1
        elif count > held[who]:
            in_all += count - held[who]
            held[who] = count
    return violations


def _in_hand(outcome: Outcome, member: _Member) -> NDArray[Any]:
    """[requests of the member] with each, when it is admitted. One that is never answered is in hand for ever."""
    arrivals = outcome.case.workload.arrival_s[member.requests]
    answers = np.sort(np.nan_to_num(outcome.answer_s[member.requests], nan=np.inf))
    # An answer at the moment of an arrival comes first.
    return np.arange(1, len(arrivals) + 1) - np.searchsorted(answers, arrivals, side="right")


def _over_rate(outcome: Outcome, members: Sequence[_Member]) -> int:
    arrival_s = outcome.case.workload.arrival_s
    if len(members) == 1:
        return int(np.count_nonzero(_empty(arrival_s[members[0].requests], members[0].own)))
    over = np.zeros(len(arrival_s), dtype=np.bool_)
    for each, most in zip(members, _most(members), strict=True):
        over[each.requests] |= _empty(arrival_s[each.requests], most, _LENT_ROUNDING_S)
    requests = np.sort(np.concatenate([each.requests for each in members]))
    there_is = sum(each.own for each in members)
    if there_is:
        more_s = (len(members) - 1) / there_is
        over[requests] |= _empty(arrival_s[requests], there_is, more_s + _LENT_ROUNDING_S)
    return int(np.count_nonzero(over))


def _empty(arrivals: Seconds, rate: float, tolerance_s: float = ROUNDING_S) -> Flags:
    """[arrivals] whether each found the bucket empty, by its closed form: it is full again at the latest of all
    a_i + (j - i) / rate."""
    interval_s, slack_s = pace(rate)
    if not rate:
        return np.ones(len(arrivals), dtype=np.bool_)
    places = np.arange(len(arrivals)) * interval_s
    full_at = np.maximum.accumulate(arrivals - places) + places + interval_s
    empty: Flags = np.zeros(len(arrivals), dtype=np.bool_)
    empty[1:] = full_at[:-1] > arrivals[1:] + slack_s + tolerance_s
    return empty
