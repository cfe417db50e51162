"""Who may start: capacity and quotas, as the simulation sees them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Protocol

NO_NODE = -1


@dataclass(frozen=True, slots=True)
class Admission:
    """Where an instance may start, or why it may not.

    Attributes:
        node: index; NO_NODE where nodes have no names.
        refused: empty: it may start.
    """

    node: int = NO_NODE
    refused: str = ""


class Gate(Protocol):
    """Asked before every start, and told when an instance is gone."""

    def start(self, model: str, tenant: str, now: float) -> Admission: ...

    def release(self, model: str, tenant: str, node: int, now: float) -> None: ...


class OpenGate:
    """Room for everything."""

    def start(self, model: str, tenant: str, now: float) -> Admission:
        return Admission()

    def release(self, model: str, tenant: str, node: int, now: float) -> None:
        pass


class NodesGate:
    """Equal nodes with room for a number of instances each, and a number of instances per tenant.

    Args:
        nodes: how many; None: unlimited room on one.
        tenant_instances: None: no quota.
    """

    def __init__(self, nodes: int | None, instances_per_node: int, tenant_instances: int | None) -> None:
        self._per_node = instances_per_node
        self._per_tenant = tenant_instances
        # Nodes by how full they are would need a heap; a stack of free places packs as well and costs O(1).
        self._free = None if nodes is None else [n for n in reversed(range(nodes)) for _ in range(instances_per_node)]
        self._held: Counter[str] = Counter()

    def start(self, model: str, tenant: str, now: float) -> Admission:
        if self._per_tenant is not None and self._held[tenant] >= self._per_tenant:
            return Admission(refused=f"tenant {tenant} has its {self._per_tenant} instances")
        if self._free is not None and not self._free:
            return Admission(refused="no node has room")
        self._held[tenant] += 1
        return Admission(NO_NODE if self._free is None else self._free.pop())

    def release(self, model: str, tenant: str, node: int, now: float) -> None:
        self._held[tenant] -= 1
        if self._free is not None:
            self._free.append(node)
