"""What stands against a demand, in one sentence each: whose limit, how much, and what to do."""

from __future__ import annotations

from headrace_autoscaler.core.quota.amounts import Amount, Dimension
from headrace_autoscaler.core.quota.refusals import Binding, Limit, Refusal

_NOUNS = {
    Dimension.MEMORY: " of memory",
    Dimension.GPU_MEMORY: " of GPU memory",
    Dimension.CONCURRENCY: " requests at once",
    Dimension.REQUEST_RATE: " requests per second",
}


def with_unit(amount: Amount) -> str:
    """ "2 CPUs", "1Gi of memory"."""
    if amount.dimension in (Dimension.CPU, Dimension.GPU):
        return f"{amount} {amount.dimension.name}{'' if amount.units == 1000 else 's'}"
    return f"{amount}{_NOUNS.get(amount.dimension, '')}"


def sentences(refusal: Refusal) -> tuple[str, ...]:
    """One for every limit that binds, in order."""
    pairs = zip(refusal.bindings, refusal.asked, strict=True)
    return tuple(_SENTENCES[binding.kind](refusal, binding, asked) for binding, asked in pairs)


def raise_tenant(tenant: str, dimension: Dimension) -> str:
    """No command to copy: it would have to repeat the tenant's other limits, which a set replaces."""
    return (
        f"raise the tenant's {dimension.key} (`headrace tenant describe {tenant}` shows all its limits; `tenant set` "
        "replaces them)"
    )


def _of_model(refusal: Refusal, binding: Binding, asked: Amount) -> str:
    return (
        f"model '{binding.owner}' may use {with_unit(binding.limit)} and uses {binding.used}; an instance needs "
        f"{asked}: raise the model's limits (deploy it with a higher --limit {asked.dimension.key}=)"
    )


def _of_tenant(refusal: Refusal, binding: Binding, asked: Amount) -> str:
    return (
        f"tenant '{binding.owner}' may use {with_unit(binding.limit)} and uses {binding.used}; model "
        f"'{refusal.model}' needs {asked}: {raise_tenant(binding.owner, asked.dimension)}"
    )


def _of_borrower(refusal: Refusal, binding: Binding, asked: Amount) -> str:
    key = asked.dimension.key
    return (
        f"tenant '{binding.owner}' may use {with_unit(binding.limit)} with what it may borrow and uses {binding.used}; "
        f"model '{refusal.model}' needs {asked}: raise the tenant's borrowing limit (--borrow {key}=) by "
        f"{binding.missing}, or its {key}"
    )


def _of_borrowers(refusal: Refusal, binding: Binding, asked: Amount) -> str:
    who = ", ".join(f"tenant '{name}' ({amount})" for name, amount in binding.borrowers)
    return (
        f"model '{refusal.model}' needs {with_unit(asked)} of what tenant '{refusal.tenant}' has of its own, and "
        f"{binding.missing} of that is lent in cohort '{binding.owner}' to {who}; it is given back by draining: "
        f"wait for that, or lower the lending limit of tenant '{refusal.tenant}' (--lend {asked.dimension.key}=)"
    )


def _of_lender(refusal: Refusal, binding: Binding, asked: Amount) -> str:
    key = asked.dimension.key
    return (
        f"tenant '{binding.owner}' lends {with_unit(binding.limit)} and keeps {binding.used} idle by its lending "
        f"limit; model '{refusal.model}' of tenant '{refusal.tenant}' needs {asked}: raise the lending limit of tenant "
        f"'{binding.owner}' (--lend {key}=) by {binding.missing}"
    )


def _of_cohort(refusal: Refusal, binding: Binding, asked: Amount) -> str:
    key = asked.dimension.key
    return (
        f"cohort '{binding.owner}' has {with_unit(binding.limit)} in all and uses {binding.used}; model "
        f"'{refusal.model}' of tenant '{refusal.tenant}' needs {asked}: raise the {key} of tenant '{refusal.tenant}' "
        f"by {binding.missing}, or wait until others use less"
    )


_SENTENCES = {
    Limit.MODEL: _of_model,
    Limit.NOMINAL: _of_tenant,
    Limit.BORROWING: _of_borrower,
    Limit.BORROWED: _of_borrowers,
    Limit.LENDING: _of_lender,
    Limit.COHORT: _of_cohort,
}
