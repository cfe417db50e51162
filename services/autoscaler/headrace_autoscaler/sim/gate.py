"""Who may start: capacity, quotas and budgets, as the simulation sees them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from headrace_autoscaler.core.quota import QuotaTree, amounts_of, quota_of
from headrace_autoscaler.core.quota.sentences import sentences
from headrace_autoscaler.domain import Resources, Tenant
from headrace_autoscaler.sim.purse import Purse

NO_NODE = -1


@dataclass(frozen=True, slots=True)
class Admission:
    """Where an instance may start, or why it may not.

    Attributes:
        node: index; NO_NODE where nodes have no names.
        refused: empty: it may start.
        lent: it is the tenant's own that others have borrowed: they give it back.
    """

    node: int = NO_NODE
    refused: str = ""
    lent: bool = False


class Gate(Protocol):
    """Asked before every start, and told when an instance is stopped and when it is gone."""

    def start(self, model: str, tenant: str, now: float) -> Admission: ...

    def stop(self, model: str, tenant: str) -> None: ...

    def release(self, model: str, tenant: str, node: int, now: float) -> None: ...


class OpenGate:
    """Room for everything."""

    def start(self, model: str, tenant: str, now: float) -> Admission:
        return Admission()

    def stop(self, model: str, tenant: str) -> None:
        pass

    def release(self, model: str, tenant: str, node: int, now: float) -> None:
        pass


class QuotaGate:
    """The quota tree, budgets, and equal nodes with room for a number of instances each.

    As in a plan of the mesh there are two books: what is used, and what will be once all that drains is gone and those
    have started for whom room is being made. Nobody borrows what is promised in the second.

    Args:
        resources: what every instance holds.
        nodes: how many; None: unlimited room on one.
        purse: None: nobody has a budget.
    """

    def __init__(
        self,
        tenants: Iterable[Tenant],
        resources: Resources,
        nodes: int | None,
        instances_per_node: int,
        purse: Purse | None = None,
    ) -> None:
        quotas = [quota_of(tenant) for tenant in tenants]
        self._amounts = amounts_of(resources)
        self._used, self._staying = QuotaTree(quotas), QuotaTree(quotas)
        # Nodes by how full they are would need a heap; a stack of free places packs as well and costs O(1).
        self._free = None if nodes is None else [n for n in reversed(range(nodes)) for _ in range(instances_per_node)]
        self._purse = purse

    def start(self, model: str, tenant: str, now: float) -> Admission:
        own = self._staying.within_nominal(tenant, self._amounts)
        refusal = self._used.refusal(tenant, model, self._amounts)
        if refusal is not None:
            return Admission(refused=sentences(refusal)[0], lent=own and refusal.reclaimable)
        if not own and (refusal := self._staying.refusal(tenant, model, self._amounts)):
            return Admission(refused=sentences(refusal)[0])
        if self._free is not None and not self._free:
            return Admission(refused="no node has room")
        if self._purse is not None:
            if reason := self._purse.refusal(tenant):
                return Admission(refused=reason)
            self._purse.started(tenant, now)
        self._used.take(tenant, model, self._amounts)
        self._staying.take(tenant, model, self._amounts)
        return Admission(NO_NODE if self._free is None else self._free.pop())

    def stop(self, model: str, tenant: str) -> None:
        self._staying.give_back(tenant, model, self._amounts)

    def release(self, model: str, tenant: str, node: int, now: float) -> None:
        self._used.give_back(tenant, model, self._amounts)
        if self._free is not None:
            self._free.append(node)
        if self._purse is not None:
            self._purse.gone(tenant, now)

    def debtors(self, model: str, tenant: str) -> tuple[str, ...] | None:
        """Who has to give back so that another instance fits once what drains is gone, the first one first; empty:
        that would not help; None: nobody has to."""
        refusal = self._staying.refusal(tenant, model, self._amounts)
        if refusal is None:
            return None
        own = self._staying.within_nominal(tenant, self._amounts)
        if not own or not refusal.reclaimable:
            return ()
        return self._staying.borrowers(tenant, refusal.first.limit.dimension)

    def promise(self, model: str, tenant: str) -> None:
        """Counts one more instance that will be there: room is made for it, or it is not stopped after all."""
        self._staying.take(tenant, model, self._amounts)

    def withdraw(self, model: str, tenant: str) -> None:
        """One that was promised will not come by that promise."""
        self._staying.give_back(tenant, model, self._amounts)
