"""What budgets leave of what is wanted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from headrace_autoscaler.core.budgets import (
    TICK_US,
    BudgetState,
    Standing,
    Standings,
    binding,
    budget_key,
    budgets_of,
)
from headrace_autoscaler.core.ledger import HOUR_US
from headrace_autoscaler.core.plans import Holding, Want
from headrace_autoscaler.domain import ModelSpec, Resources
from headrace_common.errors import QuotaExceeded


def standing_over(standings: Standings, tenant: str, model: str) -> Standing | None:
    """The budget that counts for a model's instances: its own or its tenant's."""
    return binding(_over(standings, tenant, model))


def _over(standings: Standings, tenant: str, model: str) -> Iterator[Standing]:
    for key in (budget_key(tenant), budget_key(tenant, model)):
        yield from standings.get(key, ())


def refuse_spent(standings: Standings, spec: ModelSpec, wall: float) -> QuotaExceeded | None:
    """Why nothing of a model may be loaded as it is deployed; None: a budget that counts for it is not spent, or there
    is none. A budget of its own that it will not have any more does not count."""
    own = budgets_of(spec.tenant, spec.name, spec.limits)
    known = _over(standings, spec.tenant, spec.name)
    standing = binding(each for each in known if not each.budget.model or each.budget in own)
    if standing is None or standing.state is not BudgetState.SPENT:
        return None
    after_s = max(0.0, standing.returns_at - wall)
    return QuotaExceeded(standing.reason, subject=standing.subject, dimension="budget", retry_after_s=after_s)


def ration(
    wants: Iterable[Want],
    holdings: Iterable[Holding],
    standings: Standings,
    micros_per_hour: Callable[[Resources], int],
    may_drain: Callable[[Want], bool],
) -> tuple[Want, ...]:
    """The wants, with nothing to start that a budget has no tick for. Of a spent one, what runs drains.

    Args:
        micros_per_hour: price of an instance, all told.
        may_drain: whether what was admitted for it is answered.
    """
    live = [each for each in holdings if not each.draining]
    held = Counter(each.key for each in live if not each.slow and not each.leaving)
    resizing = {each.key for each in live if each.leaving}
    left = {key: min(each.free_micros for each in group) for key, group in standings.items()}

    def rationed(want: Want) -> Want:
        standing = standing_over(standings, want.tenant, want.model)
        if standing is None:
            return want
        if standing.state is BudgetState.SPENT:
            return replace(want, held_back=standing.reason, unpaid=standing, spent=may_drain(want))
        missing = want.desired - held[want.key]
        if missing <= 0:
            return want
        keys = [key for key in (budget_key(want.tenant), budget_key(want.tenant, want.model)) if key in left]
        tick = -(-micros_per_hour(want.resources) * TICK_US // HOUR_US)
        granted = min([missing, *(left[key] // tick for key in keys)]) if tick else missing
        if want.key in resizing and granted < missing:
            granted = 0  # Half of a change would be dearer than none.
        for key in keys:
            left[key] -= granted * tick
        if granted == missing:
            return want
        if granted:
            return replace(want, desired=held[want.key] + granted)
        scarcest = min((each for key in keys for each in standings[key]), key=lambda each: each.free_micros)
        if want.held_back:
            return want
        return replace(want, held_back=scarcest.reason, unpaid=scarcest)

    return tuple(map(rationed, wants))
