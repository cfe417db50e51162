"""A lender takes back what others have borrowed: their instances drain, as in the mesh (docs/quotas.md)."""

from __future__ import annotations

from collections.abc import Sequence

from headrace_autoscaler.sim.gate import QuotaGate
from headrace_autoscaler.sim.model_run import ModelRun
from headrace_autoscaler.sim.outcome import Lifetime


class TakingBack:
    """Chooses who gives back, and keeps for the lender what becomes free until it has started or asks no more."""

    def __init__(self, gate: QuotaGate, models: Sequence[ModelRun]) -> None:
        self._gate = gate
        self._by_tenant: dict[str, list[ModelRun]] = {}
        for model in models:
            self._by_tenant.setdefault(model.tenant, []).append(model)
        self._promised: dict[int, int] = {}

    def claim(self, lender: ModelRun, count: int, now: float) -> None:
        """Makes room for so many instances, as far as what is lent goes."""
        for _ in range(count):
            chosen = self._choose(lender)
            if chosen is None:
                return
            for model, instance in chosen:
                model.drain(now, instance, f"makes room for model '{lender.name}' of tenant '{lender.tenant}'")
            self._gate.promise(lender.name, lender.tenant)
            self._promised[lender.index] = self._promised.get(lender.index, 0) + 1

    def withdraw(self, lender: ModelRun) -> None:
        """What was promised to it counts no more: it asks anew."""
        for _ in range(self._promised.pop(lender.index, 0)):
            self._gate.withdraw(lender.name, lender.tenant)

    def _choose(self, lender: ModelRun) -> list[tuple[ModelRun, Lifetime]] | None:
        """Instances without which one more fits, already taken out of the gate's second book; None: there are none
        such, and nothing is changed."""
        chosen: list[tuple[ModelRun, Lifetime]] = []
        while (debtors := self._gate.debtors(lender.name, lender.tenant)) is not None:
            victim = self._victim(debtors, {instance.number for _, instance in chosen})
            if victim is None:
                for model, _ in chosen:
                    self._gate.promise(model.name, model.tenant)
                return None
            self._gate.stop(victim[0].name, victim[0].tenant)
            chosen.append(victim)
        for model, _ in chosen:
            # Draining takes it out again.
            self._gate.promise(model.name, model.tenant)
        return chosen

    def _victim(self, tenants: Sequence[str], taken: set[int]) -> tuple[ModelRun, Lifetime] | None:
        """Of the first tenant that has one: what nobody needs, then what is not the only one of its model, then the
        newest."""
        for tenant in tenants:
            ranked = [
                (needless, place > 0, instance.number, model, instance)
                for model in self._by_tenant.get(tenant, ())
                for place, (instance, needless) in enumerate(model.givable())
                if instance.number not in taken
            ]
            if ranked:
                return max(ranked, key=lambda each: each[:3])[3:]
        return None
