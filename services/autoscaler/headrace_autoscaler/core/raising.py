"""What to type for a limit to be raised by exactly what is missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from headrace_autoscaler.core.quota import Amount, Binding, Bounds, Dimension, Limit, Refusal, bounds_of
from headrace_autoscaler.core.quota.amounts import exact_bytes
from headrace_autoscaler.domain import Limits, ModelSpec, Tenant


def raise_binding(refusal: Refusal, binding: Binding, spec: ModelSpec, tenants: Mapping[str, Tenant]) -> str:
    """It repeats what it would otherwise lift: a set replaces all nominal quantities, or all of what is borrowed or
    lent."""
    dimension, kind = binding.limit.dimension, binding.kind
    if kind is Limit.BORROWED:
        return ""
    if kind is Limit.MODEL:
        return f"headrace deploy {source(spec)} ... {_limit_flag('--limit', binding.limit + binding.missing)}"
    tenant = tenants[binding.owner if kind is Limit.LENDING else refusal.tenant]
    if kind in (Limit.BORROWING, Limit.LENDING):
        flag = "--borrow" if kind is Limit.BORROWING else "--lend"
        old = tenant.borrowing_limit if kind is Limit.BORROWING else tenant.lending_limit
        pairs = [_limit_flag(flag, amount) for amount in _raised(old, dimension, binding.missing)]
        return f"headrace tenant set {tenant.name} {' '.join(pairs)}"
    return _set_nominal(tenant, _raised(tenant.nominal, dimension, binding.missing), money=not dimension.lendable)


def raise_queue(tenant: Tenant, **limits: int) -> str:
    """
    Args:
        limits: queue_length or queue_bytes, as it is to be.
    """
    nominal = replace(tenant.nominal, **limits)
    return _set_nominal(replace(tenant, nominal=nominal), _present(nominal), money=False)


def raise_queue_of_model(spec: ModelSpec, **limits: int) -> str:
    flags = _queue_flags(Limits(**limits))
    return f"headrace deploy {source(spec)} ... {' '.join(flags)}"


def raise_budget(tenant: Tenant, by: Amount) -> str:
    return _set_nominal(tenant, _raised(tenant.nominal, by.dimension, by), money=True)


def raise_budget_of_model(spec: ModelSpec, by: Amount) -> str:
    amounts = [each for each in _raised(spec.limits, by.dimension, by) if not each.dimension.lendable]
    return f"headrace deploy {source(spec)} ... {' '.join(_budget_flags(amounts))}"


def _set_nominal(tenant: Tenant, amounts: Sequence[Amount], *, money: bool) -> str:
    """Budgets are a group of their own: they are repeated only where one is raised."""
    pairs = [f"--{amount.dimension.key} {amount.typed}" for amount in amounts if amount.dimension.lendable]
    pairs += _queue_flags(tenant.nominal)
    if money:
        pairs = _budget_flags([amount for amount in amounts if not amount.dimension.lendable])
    return f"headrace tenant set {tenant.name} {' '.join(pairs)}"


def _budget_flags(amounts: Iterable[Amount]) -> list[str]:
    return [f"--budget {amount.typed}" for amount in amounts]


def _raised(limits: Limits, dimension: Dimension, by: Amount) -> list[Amount]:
    bounds = bounds_of(limits)
    old = bounds[dimension]
    return _present(bounds if old is None else bounds.with_limit(old + by))


def _present(limits: Limits | Bounds) -> list[Amount]:
    bounds = bounds_of(limits) if isinstance(limits, Limits) else limits
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
