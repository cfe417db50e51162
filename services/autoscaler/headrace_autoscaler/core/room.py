"""What is taken and what is left, of the machine and of quotas. Amounts are exact integers."""

from __future__ import annotations

from collections.abc import Iterable

from headrace_autoscaler.core.plans import Holding, Want
from headrace_autoscaler.core.quota import (
    Amount,
    Amounts,
    Dimension,
    Limit,
    QuotaTree,
    Refusal,
    TenantQuota,
    amounts_of,
    bounds_of,
    quota_of,
)
from headrace_autoscaler.core.quota.sentences import raise_tenant, sentences, with_unit
from headrace_autoscaler.domain import Limits, ModelSpec, Tenant

_LACKING = {Dimension.GPU: "GPU", Dimension.GPU_MEMORY: "GPU memory"}
"""What a machine may have nothing of."""
_SETTINGS = {Dimension.CPU: "autoscaler.cpu_overcommit", Dimension.MEMORY: "autoscaler.memory_share"}
"""What decides how much of the machine is promised."""
MACHINE = "this machine"


class Room:
    """The machine and everybody's quotas, with what is held of them.

    The machine is one more tenant, alone in a tree of its own.
    """

    def __init__(self, tenants: Iterable[Tenant], capacity: Limits, wants: Iterable[Want] = ()) -> None:
        self.quotas = QuotaTree(quota_of(tenant) for tenant in tenants)
        self._machine = QuotaTree([TenantQuota(MACHINE, bounds_of(capacity))])
        for want in wants:
            self.quotas.set_model(want.model, bounds_of(want.limits))
        self._held: set[str] = set()

    def holds(self, holding: Holding) -> bool:
        return holding.id in self._held

    def add(self, holding: Holding) -> None:
        self._held.add(holding.id)
        self.promise(holding)

    def remove(self, holding: Holding) -> None:
        self._held.discard(holding.id)
        self.withdraw(holding)

    def promise(self, what: Holding | Want) -> None:
        """Books what is to come for it."""
        amounts = amounts_of(what.resources)
        self.quotas.take(what.tenant, what.model, amounts)
        self._machine.take(MACHINE, "", amounts)

    def withdraw(self, what: Holding | Want) -> None:
        """Takes a promise back."""
        amounts = amounts_of(what.resources)
        self.quotas.give_back(what.tenant, what.model, amounts)
        self._machine.give_back(MACHINE, "", amounts)

    def refusal(self, want: Want) -> Refusal | None:
        """What stands against another instance of it: a quota, or else the machine, whose tenant is `MACHINE`."""
        amounts = amounts_of(want.resources)
        of_quota = self.quotas.refusal(want.tenant, want.model, amounts)
        return of_quota or self.machine_refusal(want.model, amounts)

    def refusals(self, want: Want) -> list[Refusal]:
        """All that stands against it: quotas, then the machine."""
        amounts = amounts_of(want.resources)
        of_quota = self.quotas.refusal(want.tenant, want.model, amounts)
        return [each for each in (of_quota, self.machine_refusal(want.model, amounts)) if each is not None]

    def machine_refusal(self, model: str, amounts: Amounts) -> Refusal | None:
        return self._machine.refusal(MACHINE, model, amounts)

    def why_like(self, want: Want, refusal: Refusal) -> str:
        """Why there is no room now, about the same limit as a refusal of when there was more room, if that binds."""
        amounts = amounts_of(want.resources)
        if refusal.tenant == MACHINE:
            now = self.machine_refusal(want.model, amounts)
        else:
            now = self.quotas.refusal(want.tenant, want.model, amounts)
        now = now or refusal
        limits = [(binding.kind, binding.limit.dimension) for binding in now.bindings]
        limit = (refusal.first.kind, refusal.first.limit.dimension)
        return why(now, limits.index(limit) if limit in limits else 0)

    def borrows(self, want: Want) -> bool:
        """Another instance of it would take its tenant above its nominal quantities, in a cohort."""
        return self.quotas.cohort(want.tenant) != "" and not self.quotas.within_nominal(
            want.tenant, amounts_of(want.resources)
        )

    def lenders_claim(self, want: Want, refusal: Refusal) -> list[str]:
        """Tenants that have to give back for it, the first one first: it asks for its tenant's own, and they hold more
        than theirs. A tenant that has no nominal quantity of it has nothing of its own to ask for."""
        short = refusal.first.limit.dimension
        if self.borrows(want) or not (refusal.reclaimable or refusal.tenant == MACHINE):
            return []
        return list(self.quotas.borrowers(want.tenant, short)) if self.quotas.has_own(want.tenant, short) else []

    def is_lent(self, want: Want) -> bool:
        """All that is missing for it is what its tenant has lent."""
        refusal = self.refusal(want)
        return refusal is not None and bool(self.lenders_claim(want, refusal))


def why(refusal: Refusal, place: int = 0) -> str:
    """The sentence about one of the limits that bind."""
    if refusal.tenant != MACHINE:
        return sentences(refusal)[place]
    binding, asked = refusal.bindings[place], refusal.asked[place]
    if _is_lacking(binding.limit):
        return _lack(refusal.model, asked)
    return (
        f"this machine has {with_unit(binding.limit)} to promise and {binding.used} are taken; model "
        f"'{refusal.model}' needs {asked}: deploy it with a smaller --{asked.dimension.key}, delete a "
        f"model{_or_raise(asked.dimension)}"
    )


def never_fits(spec: ModelSpec, tenants: Iterable[Tenant], machine: Limits) -> str:
    """Why a single instance could not run even if nothing else did; empty: it could."""
    room = Room(tenants, machine)
    room.quotas.set_model(spec.name, bounds_of(spec.limits))
    amounts = amounts_of(spec.resources)
    if refusal := room.machine_refusal(spec.name, amounts):
        return _beyond_machine(refusal)
    refusals = room.quotas.refusal(spec.tenant, spec.name, amounts)
    if refusals is None:
        return ""
    # A tenant's limits before its models'.
    binding, asked = max(
        zip(refusals.bindings, refusals.asked, strict=True), key=lambda each: each[0].kind != Limit.MODEL
    )
    smaller = f"deploy it with a smaller --{asked.dimension.key}"
    if binding.kind is Limit.MODEL:
        return (
            f"model '{spec.name}' may use {with_unit(binding.limit)} by its own limits and an instance of it asks for "
            f"{asked}: {smaller}, or raise the model's limits"
        )
    most = room.quotas.ceiling(spec.tenant)[asked.dimension] or binding.limit
    return (
        f"tenant '{spec.tenant}' may use {with_unit(most)} and an instance of model '{spec.name}' asks for {asked}: "
        f"{smaller}, or {raise_tenant(spec.tenant, asked.dimension)}"
    )


def _beyond_machine(refusal: Refusal) -> str:
    binding, asked = refusal.first, refusal.asked[0]
    if _is_lacking(binding.limit):
        return _lack(refusal.model, asked)
    return (
        f"this machine has {with_unit(binding.limit)} to promise and an instance of model '{refusal.model}' asks for "
        f"{asked}: deploy it with a smaller --{asked.dimension.key}{_or_raise(asked.dimension)}"
    )


def _is_lacking(limit: Amount) -> bool:
    return limit.units == 0 and limit.dimension in _LACKING


def _lack(model: str, asked: Amount) -> str:
    return (
        f"this machine has no {_LACKING[asked.dimension]} to promise and model '{model}' asks for {asked}: deploy it "
        f"without --{asked.dimension.key}"
    )


def _or_raise(dimension: Dimension) -> str:
    setting = _SETTINGS.get(dimension)
    return f", or raise {setting}" if setting else ""
