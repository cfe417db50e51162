"""Where instances are, as what, and at what price. See docs/allocator.md."""

from __future__ import annotations

from headrace_autoscaler.core.allocator.allocate import plan
from headrace_autoscaler.core.allocator.catalog import CapacityClass, Catalog, Shape
from headrace_autoscaler.core.allocator.types import (
    Action,
    Demand,
    Instance,
    Kind,
    Move,
    Node,
    Place,
    Plan,
    Refused,
    Resize,
    Snapshot,
    Start,
    Stop,
    Variant,
    Way,
)

__all__ = [
    "Action",
    "CapacityClass",
    "Catalog",
    "Demand",
    "Instance",
    "Kind",
    "Move",
    "Node",
    "Place",
    "Plan",
    "Refused",
    "Resize",
    "Shape",
    "Snapshot",
    "Start",
    "Stop",
    "Variant",
    "Way",
    "plan",
]
