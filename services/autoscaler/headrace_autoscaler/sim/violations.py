"""Counts violations of limits from what happened, without asking who admitted it.

Independent of `gate` and `door` on purpose: it sees starts, ends, arrivals and answers, and the limits, and nothing
else. Instances are checked against a quota tree of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np

from headrace_autoscaler.core.quota import QuotaTree, amounts_of, quota_of
from headrace_autoscaler.domain import Tenant
from headrace_autoscaler.sim.door import BUDGET_SPENT, OVER_CONCURRENCY, OVER_RATE, ROUNDING_S, pace
from headrace_autoscaler.sim.model_run import QUEUE_FULL
from headrace_autoscaler.sim.outcome import Lifetime, Outcome

_GONE, _START = 0, 1
_NOT_ADMITTED = (BUDGET_SPENT, OVER_CONCURRENCY, OVER_RATE, QUEUE_FULL)


def quota_violations(outcome: Outcome) -> int:
    """Starts that took a tenant or its cohort over what it may use or a node over its room, and requests that took a
    tenant over its concurrency or its rate. An instance counts until it is gone, a request until it is answered."""
    return _of_instances(outcome) + sum(_of_requests(outcome, tenant) for tenant in outcome.case.conditions.tenants)


def _of_instances(outcome: Outcome) -> int:
    conditions, workload = outcome.case.conditions, outcome.case.workload
    tree = QuotaTree(quota_of(tenant) for tenant in outcome.case.tenants)
    amounts = amounts_of(conditions.resources)
    on_node: Counter[int] = Counter()
    violations = 0
    for kind, life in _in_order(outcome):
        model, tenant = workload.models[life.model], workload.tenants[life.model]
        if kind == _GONE:
            tree.give_back(tenant, model, amounts)
            on_node[life.node] -= 1
            continue
        violations += not tree.fits(tenant, model, amounts)
        tree.take(tenant, model, amounts)
        on_node[life.node] += 1
        if conditions.nodes is not None:
            room = conditions.instances_per_node if 0 <= life.node < conditions.nodes else 0
            violations += on_node[life.node] > room
    return violations


def _in_order(outcome: Outcome) -> Iterable[tuple[int, Lifetime]]:
    moments = []
    for life in outcome.lifetimes:
        moments.append((life.started, _START, life.number, life))
        moments.append((life.gone, _GONE, life.number, life))
    # A start that is cancelled at once begins and ends at one moment; its own start comes first.
    moments.sort(key=lambda each: (each[0], each[1] if each[3].gone > each[3].started else _START, each[2]))
    for _, kind, _, life in moments:
        yield kind, life


def _of_requests(outcome: Outcome, tenant: Tenant) -> int:
    """Of those that were admitted; one that is never answered is in hand for ever."""
    limits, workload = tenant.nominal, outcome.case.workload
    if limits.concurrency is None and limits.requests_per_second is None:
        return 0
    owned = np.array([owner == tenant.name for owner in workload.tenants])[workload.model]
    turned_away = [request for request, why in outcome.refused.items() if why in _NOT_ADMITTED]
    owned[turned_away] = False
    arrivals = workload.arrival_s[owned]
    violations = 0
    if limits.concurrency is not None:
        # An answer at the moment of an arrival comes first.
        answers = np.sort(np.nan_to_num(outcome.answer_s[owned], nan=np.inf))
        in_hand = np.arange(1, len(arrivals) + 1) - np.searchsorted(answers, arrivals, side="right")
        violations += int(np.count_nonzero(in_hand > limits.concurrency))
    if limits.requests_per_second is not None:
        violations += _over_rate(arrivals, limits.requests_per_second)
    return violations


def _over_rate(arrivals: np.ndarray, rate: float) -> int:
    """Arrivals for which the bucket was empty, by its closed form: it is full again at the latest of all
    a_i + (j - i) / rate."""
    interval_s, slack_s = pace(rate)
    if not rate:
        return len(arrivals)
    places = np.arange(len(arrivals)) * interval_s
    full_at = np.maximum.accumulate(arrivals - places) + places + interval_s
    return int(np.count_nonzero(full_at[:-1] > arrivals[1:] + slack_s + ROUNDING_S))
