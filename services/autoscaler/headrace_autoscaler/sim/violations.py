"""Counts violations of limits from what happened, without asking who admitted it.

Independent of `gate` and `door` on purpose: it sees starts, ends, arrivals and answers, and the limits, and nothing
else. Instances are checked against a quota tree of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from headrace_autoscaler.core.quota import QuotaTree, amounts_of, quota_of
from headrace_autoscaler.sim.outcome import Lifetime, Outcome
from headrace_autoscaler.sim.request_violations import request_violations

_GONE, _START = 0, 1


def quota_violations(outcome: Outcome) -> int:
    """Starts that took a tenant or its cohort over what it may use or a node over its room, and requests that took a
    tenant or its cohort over its concurrency or its rate. An instance counts until it is gone, a request until it is
    answered."""
    return _of_instances(outcome) + request_violations(outcome)


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
