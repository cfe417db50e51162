"""What to type for a limit to be raised by exactly what is missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from headrace_autoscaler.core.quota import Amount, Binding, Dimension, Limit, Refusal, bounds_of
from headrace_autoscaler.core.quota.amounts import exact_bytes
from headrace_autoscaler.domain import Limits, ModelSpec, Tenant


class Raises:
    """The commands of one explanation, in the order in which they are shown.

    Each repeats what it would otherwise lift, as a set replaces all nominal quantities, or all of what is borrowed or
    lent; and what the ones before it raise, as it would otherwise undo them.

    Args:
        tenants: by name; as they are before anything is typed.
    """

    def __init__(self, spec: ModelSpec, tenants: Mapping[str, Tenant]) -> None:
        self._spec = spec
        self._before = tenants
        self._tenants = dict(tenants)
        self._of_model: dict[str, str] = {}

    def binding(self, refusal: Refusal, binding: Binding) -> str:
        """Empty where there is nothing to type."""
        dimension, kind, missing = binding.limit.dimension, binding.kind, binding.missing
        if kind is Limit.BORROWED:
            return ""
        if kind is Limit.MODEL:
            return self._deploy({dimension.field: _limit_flag("--limit", binding.limit + missing)})
        tenant = self._tenants[binding.owner if kind is Limit.LENDING else refusal.tenant]
        if kind is Limit.BORROWING:
            limits = _raised(tenant.borrowing_limit, dimension, missing)
            self._tenants[tenant.name] = replace(tenant, borrowing_limit=limits)
            return _set_each(tenant, "--borrow", limits)
        if kind is Limit.LENDING:
            limits = _raised(tenant.lending_limit, dimension, missing)
            self._tenants[tenant.name] = replace(tenant, lending_limit=limits)
            return _set_each(tenant, "--lend", limits)
        return self._set_nominal(tenant.name, _raised(tenant.nominal, dimension, missing), money=not dimension.lendable)

    def queue(self, tenant: str, **limits: int) -> str:
        """
        Args:
            limits: queue_length or queue_bytes, as it is to be.
        """
        return self._set_nominal(tenant, replace(self._tenants[tenant].nominal, **limits), money=False)

    def queue_of_model(self, **limits: int) -> str:
        return self._deploy(dict.fromkeys(limits, " ".join(_queue_flags(Limits(**limits)))))

    def budget(self, tenant: str, by: Amount) -> str:
        """By this much of what it is, however many are refused for it."""
        raised = bounds_of(_raised(self._before[tenant].nominal, by.dimension, by))[by.dimension]
        limits = self._tenants[tenant].nominal
        return self._set_nominal(tenant, limits if raised is None else _with(limits, raised), money=True)

    def budget_of_model(self, by: Amount) -> str:
        amounts = _present(_raised(self._spec.limits, by.dimension, by))
        flags = {each.dimension.field: f"--budget {each.typed}" for each in amounts if not each.dimension.lendable}
        return self._deploy(flags)

    def _set_nominal(self, name: str, limits: Limits, *, money: bool) -> str:
        """Budgets are a group of their own: they are repeated only where one is raised."""
        tenant = self._tenants[name] = replace(self._tenants[name], nominal=limits)
        amounts = _present(limits)
        pairs = [f"--{amount.dimension.key} {amount.typed}" for amount in amounts if amount.dimension.lendable]
        pairs += _queue_flags(limits)
        if money:
            pairs = [f"--budget {amount.typed}" for amount in amounts if not amount.dimension.lendable]
        return f"headrace tenant set {tenant.name} {' '.join(pairs)}"

    def _deploy(self, flags: Mapping[str, str]) -> str:
        """Only what is raised, by the names of `Limits`: who deploys adds the rest."""
        self._of_model.update(flags)
        return f"headrace deploy {source(self._spec)} ... {' '.join(self._of_model.values())}"


def _set_each(tenant: Tenant, flag: str, limits: Limits) -> str:
    return f"headrace tenant set {tenant.name} {' '.join(_limit_flag(flag, amount) for amount in _present(limits))}"


def _raised(limits: Limits, dimension: Dimension, by: Amount) -> Limits:
    old = bounds_of(limits)[dimension]
    return limits if old is None else _with(limits, old + by)


def _with(limits: Limits, amount: Amount) -> Limits:
    is_rate = amount.dimension is Dimension.REQUEST_RATE
    return replace(limits, **{amount.dimension.field: amount.units / 1000 if is_rate else amount.units})  # type: ignore[arg-type]


def _present(limits: Limits) -> list[Amount]:
    bounds = bounds_of(limits)
    return [amount for each in Dimension if (amount := bounds[each]) is not None]


def _queue_flags(limits: Limits) -> list[str]:
    length = [] if limits.queue_length is None else [f"--queue-length {limits.queue_length}"]
    size = [] if limits.queue_bytes is None else [f"--queue-bytes {exact_bytes(limits.queue_bytes)}"]
    return length + size


def _limit_flag(flag: str, amount: Amount) -> str:
    return f"{flag} {amount.dimension.key}={amount.typed}"


def source(spec: ModelSpec) -> str:
    """What stands behind `headrace deploy`."""
    return f"{spec.source or 'SOURCE'} --name {spec.name}"
