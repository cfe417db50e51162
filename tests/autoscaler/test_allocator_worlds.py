"""The worlds of the planning benchmark, small: nodes fill up, demand jumps, spot nodes go, and plans come to rest."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import replace

import pytest

from benchmarks.planning.worlds import world
from headrace_autoscaler.core.allocator import Snapshot, plan
from tests.autoscaler.allocation import carried_out


def changed(before: Snapshot, chance: random.Random) -> Snapshot:
    return replace(
        before,
        demands=tuple(replace(each, rate=each.rate * chance.choice([0, 0.3, 1, 1, 2, 5])) for each in before.demands),
        nodes=tuple(replace(each, ending="notice" if chance.random() < 0.05 else "") for each in before.nodes),
        instances=tuple(replace(each, in_flight=chance.randrange(4)) for each in before.instances),
    )


@pytest.mark.parametrize("rate", [60.0, 600.0, 1500.0])
def test_each_plan_comes_to_rest_however_full_it_is(rate: float) -> None:
    chance = random.Random(3)
    current = world(200, 1.0, rate)
    for step in range(4):
        current = carried_out(current, plan(current), float(step))
        assert plan(current).actions == ()
        current = changed(current, chance)


def test_full_nodes_are_nearly_full() -> None:
    """First fit decreasing leaves little: what is refused is refused for want of room or quota, not of packing."""
    crowded = world(200, 1.0, 1500.0)
    crowded = replace(crowded, tenants=())
    decided = plan(crowded)
    assert decided.refused
    used: dict[str, int] = defaultdict(int)
    for each in carried_out(crowded, decided).instances:
        used[each.node] += each.resources.cpu_millicores
    has = sum(node.kind.capacity.cpu_millicores for node in crowded.nodes if node.kind.capacity_class != "spot")
    filled = sum(used[node.id] for node in crowded.nodes if node.kind.capacity_class != "spot")
    assert filled / has > 0.95
