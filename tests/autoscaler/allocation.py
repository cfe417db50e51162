"""Small worlds for the allocator's tests, and what carrying out a plan makes of one."""

from __future__ import annotations

from dataclasses import replace

from headrace_autoscaler.core.allocator import (
    CapacityClass,
    Demand,
    Instance,
    Kind,
    Move,
    Node,
    Place,
    Plan,
    Resize,
    Snapshot,
    Start,
    Stop,
    Way,
)
from headrace_autoscaler.domain import Resources

GIB = 1 << 30
LARGE = Kind("c5.large", CapacityClass.ON_DEMAND, Resources(2000, 4 * GIB), 85_000)
XLARGE = Kind("c5.xlarge", CapacityClass.ON_DEMAND, Resources(4000, 8 * GIB), 170_000)
SPOT = replace(XLARGE, capacity_class=CapacityClass.SPOT, micros_per_hour=59_500)
T4 = Kind("g4dn.xlarge", CapacityClass.ON_DEMAND, Resources(4000, 16 * GIB, 1000, 16 * GIB), 526_000, 1, "sm_75")
V100 = Kind("p3.2xlarge", CapacityClass.ON_DEMAND, Resources(8000, 61 * GIB, 1000, 16 * GIB), 3_060_000, 1, "sm_70")

ONE = Way("1 thread", Resources(1000, GIB), ((1, 10_000),))
"""100 requests per second."""
TWO = Way("2 threads", Resources(2000, GIB), ((1, 6_250),))
"""160."""


def demand(model: str, rate: float, tenant: str = "acme", **rest: object) -> Demand:
    ways = rest.pop("ways", (ONE,))
    return Demand(model, tenant, rate, ways, **rest)  # type: ignore[arg-type]


def running(name: str, model: str, node: str, tenant: str = "acme", way: Way = ONE, **rest: object) -> Instance:
    return Instance(name, model, tenant, way.name, node, way.resources, **rest)  # type: ignore[arg-type]


def nodes(count: int, kind: Kind = XLARGE, prefix: str = "n", **rest: object) -> tuple[Node, ...]:
    return tuple(Node(f"{prefix}{number}", kind, **rest) for number in range(count))  # type: ignore[arg-type]


def carried_out(before: Snapshot, plan: Plan, now: float = 1.0) -> Snapshot:
    """The same world once all that the plan says has happened; what drained is gone."""
    gone = {each.instance for each in plan.actions if not isinstance(each, Start)}
    gone |= {each.id for each in before.instances if each.draining}
    left = [each for each in before.instances if each.id not in gone]
    started = [each.place for each in plan.actions if not isinstance(each, Stop)]
    # Later ones are younger.
    new = [_instance(place, f"new-{now:g}-{number:03}", now + number / 1000) for number, place in enumerate(started)]
    return replace(before, instances=(*left, *new))


def places(plan: Plan) -> list[tuple[str, str]]:
    """Model and node of everything that starts."""
    return [(each.place.model, each.place.node) for each in plan.actions if isinstance(each, Start | Move | Resize)]


def _instance(place: Place, name: str, now: float) -> Instance:
    return Instance(
        name,
        place.model,
        place.tenant,
        place.way,
        place.node,
        place.resources,
        place.revision,
        place.device,
        started_at=now,
    )
