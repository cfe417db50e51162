"""Why requests were refused of late: which limit binds, whose it is, how many it cost, and what to type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from headrace_autoscaler.core import explaining
from headrace_autoscaler.core.budgets import Budget, BudgetState, Standing, Standings
from headrace_autoscaler.core.explaining import (
    OTHERS,
    SETTLED,
    Obstacle,
    RefusedRequests,
    of_budget,
    of_refusals,
    short_of,
)
from headrace_autoscaler.core.quota import Amount, Binding, Dimension, Limit, Refusal
from headrace_autoscaler.core.quota.amounts import exact_bytes
from headrace_autoscaler.core.quota.sentences import with_unit
from headrace_autoscaler.core.raising import Raises
from headrace_autoscaler.core.rationing import standing_over
from headrace_autoscaler.core.refused import Refused
from headrace_autoscaler.core.room import Room
from headrace_autoscaler.domain import ModelSpec

_DIMENSIONS = {"concurrency": Dimension.CONCURRENCY, "requests_per_second": Dimension.REQUEST_RATE}


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the limits of requests are.

    Attributes:
        raises: makes the commands.
        standings: how budgets stand.
        most_queued: requests of one revision that wait at one router.
        now_s: seconds since the epoch.
        standing, room: as for `explaining.explain`; None: nothing of the model has loaded yet.
        told: what that has found.
    """

    raises: Raises
    standings: Standings
    most_queued: int
    now_s: int
    standing: explaining.Standing | None = None
    room: Room | None = None
    told: tuple[Obstacle, ...] = ()


def explain_refused(spec: ModelSpec, refused: tuple[Refused, ...], around: Surroundings) -> tuple[RefusedRequests, ...]:
    """Of one model; those with most requests first."""
    blocked = any(each.reason == "blocked" and not each.others for each in refused)
    # Once for all of them: a command raises what the one before it has raised.
    against = _against_first(spec, around) if blocked else ()
    return tuple(
        RefusedRequests(each.tenant, each.reason, each.count, _obstacles(spec, each, around, against))
        for each in refused
    )


def explain_held(spec: ModelSpec, held: Mapping[str, int], around: Surroundings) -> tuple[Obstacle, ...]:
    """Of requests that wait for a budget.

    Args:
        held: how many, by who sent them.
    """
    found = []
    for tenant, count in sorted(held.items(), key=lambda each: (-each[1], each[0])):
        standing = standing_over(around.standings, tenant, spec.name)
        if standing is None or standing.state is not BudgetState.SPENT or standing.budget == _unpaid(around):
            continue  # None, or one that is told of as what keeps instances away.
        noun = "request of tenant" if count == 1 else "requests of tenant"
        verb = "waits" if count == 1 else "wait"
        holds, help_ = _of_spent(standing, around)
        sentence = f"{holds}, so {count} {noun} '{tenant}' to model '{spec.name}' {verb} for it: {help_}"
        found.append(replace(of_budget(standing, around.raises, around.now_s), sentence=sentence))
    return tuple(found)


def _unpaid(around: Surroundings) -> Budget | None:
    """The budget that keeps the model's own instances away; None: none does."""
    unpaid = None if around.standing is None else around.standing.want.unpaid
    return None if unpaid is None else unpaid.budget


def _obstacles(
    spec: ModelSpec, refused: Refused, around: Surroundings, against: tuple[Obstacle, ...]
) -> tuple[Obstacle, ...]:
    if refused.others:
        return (_of_others(refused),)
    if refused.reason == "budget":
        return (_of_budget(spec, refused, around),)
    if refused.reason == "blocked":
        return _of_blocked(refused, against)
    if refused.reason == "queue_full":
        return (_of_full_queue(refused, around),)
    if refused.standing is None:
        return (_settled(refused, "nothing limits it any more"),)
    if refused.reason not in _DIMENSIONS:
        return (_of_queue(refused, around),) if refused.missing else (_settled(refused, _enough(refused)),)
    if refused.refusal is None:
        return (_settled(refused, _enough(refused)),)
    places = range(len(refused.refusal.bindings))
    return tuple(_of_binding(refused, refused.refusal, place, around) for place in places)


def _of_binding(refused: Refused, refusal: Refusal, place: int, around: Surroundings) -> Obstacle:
    binding, asked = refusal.bindings[place], refusal.asked[place]
    holds, help_ = _SAYINGS[binding.kind](refused, binding, asked)
    return Obstacle(
        kind=binding.kind.value,
        owner=binding.owner,
        sentence=_sentence(refused, holds, help_),
        command=around.raises.binding(refusal, binding),
        dimension=asked.dimension.key,
        limit=binding.limit.typed,
        used=binding.used.typed,
        asked=asked.typed,
        missing=binding.missing.typed,
    )


def _sentence(refused: Refused, holds: str, help_: str) -> str:
    return f"{holds}, so {_count(refused)} in the last minute: {help_}"


def _count(refused: Refused) -> str:
    noun, verb = ("request", "was") if refused.count == 1 else ("requests", "were")
    return f"{refused.count} {noun} of tenant '{refused.tenant}' to model '{refused.model}' {verb} refused"


def _needed(limit: Amount, missing: Amount) -> str:
    return f"{limit + missing} were needed"


def _of_tenant(_: Refused, binding: Binding, __: Amount) -> tuple[str, str]:
    limit, missing = binding.limit, binding.missing
    return (
        f"tenant '{binding.owner}' may have {with_unit(limit)} and {_needed(limit, missing)}",
        f"raise its {limit.dimension.key} by {missing.typed}",
    )


def _of_model(_: Refused, binding: Binding, __: Amount) -> tuple[str, str]:
    limit, missing = binding.limit, binding.missing
    return (
        f"model '{binding.owner}' may have {with_unit(limit)} by its own limit and {_needed(limit, missing)}",
        f"raise that by {missing.typed} (deploy it with a higher --limit {limit.dimension.key}=)",
    )


def _of_borrower(_: Refused, binding: Binding, __: Amount) -> tuple[str, str]:
    limit, missing, key = binding.limit, binding.missing, binding.limit.dimension.key
    return (
        f"tenant '{binding.owner}' may have {with_unit(limit)} with what it may borrow and {_needed(limit, missing)}",
        f"raise its borrowing limit (--borrow {key}=) by {missing.typed}, or its {key}",
    )


def _of_borrowers(refused: Refused, binding: Binding, _: Amount) -> tuple[str, str]:
    who = ", ".join(f"tenant '{name}' ({amount})" for name, amount in binding.borrowers)
    return (
        f"{with_unit(binding.missing)} of what tenant '{refused.tenant}' has of its own were lent in cohort "
        f"'{binding.owner}' to {who}",
        "they come back within one lease, 10 s; a lower lending limit of tenant "
        f"'{refused.tenant}' (--lend {binding.limit.dimension.key}=) keeps them",
    )


def _of_lender(refused: Refused, binding: Binding, asked: Amount) -> tuple[str, str]:
    key = binding.limit.dimension.key
    return (
        f"tenant '{binding.owner}' lends {with_unit(binding.limit)} and keeps {binding.used} idle by its lending "
        f"limit, and tenant '{refused.tenant}' needed {asked} more than it has",
        f"raise the lending limit of tenant '{binding.owner}' (--lend {key}=) by {binding.missing.typed}",
    )


def _of_cohort(refused: Refused, binding: Binding, asked: Amount) -> tuple[str, str]:
    key = binding.limit.dimension.key
    return (
        f"cohort '{binding.owner}' has {with_unit(binding.limit)} in all, of which {binding.used} are used or kept as "
        f"floors, and tenant '{refused.tenant}' needed {asked} more than it has",
        f"raise the {key} of tenant '{refused.tenant}' by {binding.missing.typed}, or wait until others use less",
    )


_SAYINGS = {
    Limit.MODEL: _of_model,
    Limit.NOMINAL: _of_tenant,
    Limit.BORROWING: _of_borrower,
    Limit.BORROWED: _of_borrowers,
    Limit.LENDING: _of_lender,
    Limit.COHORT: _of_cohort,
}


def _of_others(refused: Refused) -> Obstacle:
    reason, who = refused.reason.replace("_", " "), "another tenant" if refused.others == 1 else "other tenants"
    noun, verb = ("request", "was") if refused.count == 1 else ("requests", "were")
    return Obstacle(
        kind=OTHERS,
        owner="",
        sentence=f"{refused.count} {noun} of {'' if refused.others == 1 else f'{refused.others} '}{who} to model "
        f"'{refused.model}' {verb} refused in the last minute over {reason}: look at those with most of them first",
    )


def _settled(refused: Refused, why: str) -> Obstacle:
    reason = refused.reason.replace("_", " ")
    sentence = f"{_count(refused)} in the last minute over {reason}, and {why}: nothing is left to do"
    return Obstacle(SETTLED, refused.tenant, sentence)


def _enough(refused: Refused) -> str:
    if refused.missing:
        return "the cohort has that much to lend, which comes within seconds"
    if refused.elsewhere:
        return f"{_owner(refused)} has enough, which was lent to others or at another router and moves within a second"
    return f"{_owner(refused)} has enough by now"


def _owner(refused: Refused) -> str:
    return f"tenant '{refused.tenant}'" if refused.key == refused.tenant else f"model '{refused.model}'"


def _of_queue(refused: Refused, around: Surroundings) -> Obstacle:
    if refused.standing is None:
        raise ValueError(f"{refused.reason} of {refused.key!r} has no limit")
    of_tenant = refused.key == refused.tenant
    limit, raised = refused.standing.total, refused.standing.total + refused.missing
    is_bytes = refused.reason == "queue_bytes"
    as_typed = exact_bytes if is_bytes else str
    what = "bytes of requests that wait" if is_bytes else "requests that wait"
    needed = "that was too little" if is_bytes else f"{raised} were needed"
    key = refused.reason.replace("_", "-")
    change = {refused.reason: raised}
    command = around.raises.queue(refused.tenant, **change) if of_tenant else around.raises.queue_of_model(**change)
    return Obstacle(
        kind=Limit.NOMINAL.value if of_tenant else Limit.MODEL.value,
        owner=refused.tenant if of_tenant else refused.model,
        sentence=_sentence(
            refused,
            f"{_owner(refused)} may have {as_typed(limit)} {what} and {needed}",
            f"raise its {key} by {as_typed(refused.missing)}",
        ),
        command=command,
        dimension=key,
        limit=as_typed(limit),
        asked=as_typed(refused.missing),
        missing=as_typed(refused.missing),
    )


def _of_full_queue(refused: Refused, around: Surroundings) -> Obstacle:
    return Obstacle(
        kind="queue",
        owner=refused.model,
        sentence=_sentence(
            refused,
            f"model '{refused.model}' may have {around.most_queued} requests that wait at a router, whoever sends them",
            "more instances answer them sooner; router.max_queue_length and a max_queue_size of its config.pbtxt let "
            "more of them wait",
        ),
        dimension="queue-length",
        limit=str(around.most_queued),
    )


def _of_budget(spec: ModelSpec, refused: Refused, around: Surroundings) -> Obstacle:
    """Who calls is looked at first, then who pays for the instances."""
    for tenant in (refused.tenant, spec.tenant):
        standing = standing_over(around.standings, tenant, spec.name)
        if standing is not None and standing.state is BudgetState.SPENT:
            return _of_standing(refused, standing, around)
    return _settled(refused, "that budget is whole again")


def _of_standing(refused: Refused, standing: Standing, around: Surroundings) -> Obstacle:
    sentence = _sentence(refused, *_of_spent(standing, around))
    return replace(of_budget(standing, around.raises, around.now_s), sentence=sentence)


def _of_spent(standing: Standing, around: Surroundings) -> tuple[str, str]:
    budget, missing = standing.budget, short_of(standing, around.now_s)
    owner = f"model '{budget.model}'" if budget.model else f"tenant '{budget.tenant}'"
    help_ = f"raise it by {missing}, which is what is missing at its pace so far, or wait for the next {budget.period}"
    return f"{owner} has spent its budget of {standing.amount}", help_


def _of_blocked(refused: Refused, against: tuple[Obstacle, ...]) -> tuple[Obstacle, ...]:
    """Nothing of the model ran, and nothing could be started."""
    if not against:
        return (_settled(refused, "an instance could start by now"),)
    return tuple(replace(each, sentence=f"{_count(refused)} in the last minute: {each.sentence}") for each in against)


def _against_first(spec: ModelSpec, around: Surroundings) -> tuple[Obstacle, ...]:
    """What keeps the model from its first instance; as it was told already, where it was."""
    standing, room = around.standing, around.room
    if standing is None or room is None or standing.current:
        return ()
    if around.told:
        return around.told
    if standing.failing:
        return (explaining.of_failures(spec, standing),)
    found = tuple(of_refusals(room.refusals(standing.want), around.raises))
    return found or ((explaining.of_runners(standing),) if standing.bound else ())
