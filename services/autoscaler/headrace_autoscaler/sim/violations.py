"""Counts quota violations from what happened, without asking who admitted it.

Independent of `gate` on purpose: it sees starts and ends of instances in order, and the limits, and nothing else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from headrace_autoscaler.sim.gate import NO_NODE
from headrace_autoscaler.sim.outcome import Outcome

_GONE, _START = 0, 1


def quota_violations(outcome: Outcome) -> int:
    """Starts that took a tenant over its instances or a node over its room. An instance counts until it is gone."""
    conditions, tenants = outcome.case.conditions, outcome.case.workload.tenants
    held: Counter[str] = Counter()
    violations = 0
    for kind, tenant, node in _in_order(outcome, tenants):
        keys = [("tenant:" + tenant, conditions.tenant_instances)]
        if conditions.nodes is not None:
            room = conditions.instances_per_node if 0 <= node < conditions.nodes else 0
            keys.append((f"node:{node}", room))
        elif node != NO_NODE:
            keys.append((f"node:{node}", None))
        for key, limit in keys:
            held[key] += 1 if kind == _START else -1
            violations += kind == _START and limit is not None and held[key] > limit
    return violations


def _in_order(outcome: Outcome, tenants: tuple[str, ...]) -> Iterable[tuple[int, str, int]]:
    moments = []
    for life in outcome.lifetimes:
        moments.append((life.started, _START, life.number, life))
        moments.append((life.gone, _GONE, life.number, life))
    # A start that is cancelled at once begins and ends at one moment; its own start comes first.
    moments.sort(key=lambda each: (each[0], each[1] if each[3].gone > each[3].started else _START, each[2]))
    for _, kind, _, life in moments:
        yield kind, tenants[life.model], life.node
