"""Worlds for the allocator: models of 200 tenants in cohorts, and nodes in proportion. The same every time."""

from __future__ import annotations

import random
from dataclasses import replace

from headrace_autoscaler.core.allocator import (
    CapacityClass,
    Demand,
    Instance,
    Kind,
    Node,
    Plan,
    Snapshot,
    Start,
    Way,
)
from headrace_autoscaler.core.quota import Amount, Bounds, Dimension, TenantQuota
from headrace_autoscaler.domain import Resources

GIB = 1 << 30
TENANTS = 200
COHORTS = 20
MODELS_PER_NODE = 5
KINDS = (
    Kind("c5.xlarge", CapacityClass.ON_DEMAND, Resources(4000, 8 * GIB), 170_000),
    Kind("c5.2xlarge", CapacityClass.ON_DEMAND, Resources(8000, 16 * GIB), 340_000),
    Kind("c5.2xlarge", CapacityClass.SPOT, Resources(8000, 16 * GIB), 119_000),
    Kind("g4dn.xlarge", CapacityClass.ON_DEMAND, Resources(4000, 16 * GIB, 1000, 16 * GIB), 526_000, 1, "sm_75"),
)
ZONES = ("zone-a", "zone-b", "zone-c")


def world(models: int, active: float, rate: float) -> Snapshot:
    """Args:
    active: share of the models that have demand; the others are at zero.
    rate: mean requests per second of those (exponentially distributed).
    """
    chance = random.Random(7)
    nodes = tuple(
        Node(f"n{number}", KINDS[number % len(KINDS)], ZONES[number % 3]) for number in range(models // MODELS_PER_NODE)
    )
    demands = tuple(_demand(number, rate if chance.random() < active else 0.0, chance) for number in range(models))
    return Snapshot(demands, (), nodes, _tenants(nodes))


def unlike(before: Snapshot) -> Snapshot:
    """The same where no two models take the same memory."""
    demands = tuple(
        replace(demand, ways=tuple(_with_less(way, number * 4096) for way in demand.ways))
        for number, demand in enumerate(before.demands)
    )
    return replace(before, demands=demands)


def carried_out(before: Snapshot, plan: Plan) -> Snapshot:
    """All that the plan starts runs."""
    places = [each.place for each in plan.actions if isinstance(each, Start)]
    if len(places) != len(plan.actions):
        raise ValueError("expected a plan of an empty world, which only starts")
    instances = tuple(
        Instance(f"i{number}", p.model, p.tenant, p.way, p.node, p.resources, p.revision, p.device, started_at=number)
        for number, p in enumerate(places)
    )
    return replace(before, instances=instances)


def _demand(number: int, mean_rate: float, chance: random.Random) -> Demand:
    """Every model has been measured by itself, in two or three ways."""
    base_us = chance.randint(2_000, 20_000)
    ways = [
        _way("1 thread", Resources(500, GIB), base_us),
        _way("2 threads", Resources(1000, GIB + GIB // 2), int(base_us / chance.uniform(1.3, 1.9))),
    ]
    if number % 10 == 0:
        ways.append(_way("half a gpu", Resources(500, 2 * GIB, 500, 6 * GIB), base_us // 8))
    rate = chance.expovariate(1 / mean_rate) if mean_rate else 0.0
    tenant = f"t{number % TENANTS}"
    spot, spread = number % 4 == 0, 2 if number % 20 == 0 else 1
    return Demand(f"m{number}", tenant, rate, tuple(ways), slo_s=0.2, tolerates_spot=spot, spread=spread)


def _with_less(way: Way, memory_bytes: int) -> Way:
    return replace(way, resources=replace(way.resources, memory_bytes=way.resources.memory_bytes - memory_bytes))


def _way(name: str, resources: Resources, base_us: int) -> Way:
    return Way(name, resources, tuple((rows, base_us + (rows - 1) * base_us // 4) for rows in (1, 2, 4, 8, 16)))


def _tenants(nodes: tuple[Node, ...]) -> tuple[TenantQuota, ...]:
    """Each is guaranteed its part of the CPUs and may borrow as much again."""
    part = sum(node.kind.capacity.cpu_millicores for node in nodes) // TENANTS
    memory = sum(node.kind.capacity.memory_bytes for node in nodes) // TENANTS
    nominal = Bounds.of(Amount(Dimension.CPU, part), Amount(Dimension.MEMORY, memory))
    borrowing = Bounds.of(Amount(Dimension.CPU, part), Amount(Dimension.MEMORY, memory))
    return tuple(
        TenantQuota(f"t{number}", nominal, borrowing, cohort=f"c{number % COHORTS}") for number in range(TENANTS)
    )
