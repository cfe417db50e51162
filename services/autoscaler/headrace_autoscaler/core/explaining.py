"""Why a model has the instances that it has: what keeps it from more, whose limit that is, and what to type."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from headrace_autoscaler.core.budgets import Period, began, ends
from headrace_autoscaler.core.budgets import Standing as BudgetStanding
from headrace_autoscaler.core.plans import Want
from headrace_autoscaler.core.quota import Amount, Binding, Dimension, Limit, Refusal
from headrace_autoscaler.core.quota.amounts import saturated
from headrace_autoscaler.core.quota.sentences import with_unit
from headrace_autoscaler.core.raising import Raises, source
from headrace_autoscaler.core.room import MACHINE, Room, why
from headrace_autoscaler.domain import ModelSpec

SETTLED = "settled"
"""The kind of what was too small for requests lately and is not any more."""
OTHERS = "others"
"""The kind of what was too small for further tenants, which are only counted."""
_CENT_MICROS = 10_000
_PERIODS = {Period.HOUR: Dimension.MONEY_PER_HOUR, Period.MONTH: Dimension.MONEY_PER_MONTH}
_HELD = (Limit.MODEL, Limit.NOMINAL, Limit.BORROWING, Limit.COHORT)
"""Limits on what somebody holds: a cut may leave it above them."""


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Something that keeps a model from another instance. See models.proto for the words."""

    kind: str
    owner: str
    sentence: str
    command: str = ""
    dimension: str = ""
    limit: str = ""
    used: str = ""
    asked: str = ""
    missing: str = ""


@dataclass(frozen=True, slots=True)
class RefusedRequests:
    """Requests of a tenant that routers refused for one reason within the last minute, and what binds. See
    models.proto."""

    tenant: str
    reason: str
    count: int
    obstacles: tuple[Obstacle, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    model: str
    tenant: str
    current: int
    desired: int
    sentence: str
    obstacles: tuple[Obstacle, ...] = ()
    refused: tuple[RefusedRequests, ...] = ()

    def with_held(self, obstacles: tuple[Obstacle, ...]) -> Explanation:
        """What keeps requests waiting that no instance would help."""
        sentence = self.sentence if self.obstacles or not obstacles else obstacles[0].sentence
        return replace(self, sentence=sentence, obstacles=(*self.obstacles, *obstacles))

    def with_refused(self, refused: tuple[RefusedRequests, ...]) -> Explanation:
        """What keeps it from more instances comes first; where nothing does, what keeps requests out."""
        found = [each for requests in refused for each in requests.obstacles if each.kind not in (SETTLED, OTHERS)]
        sentence = self.sentence if self.obstacles or not found else found[0].sentence
        return replace(self, sentence=sentence, refused=refused)


@dataclass(frozen=True, slots=True)
class Standing:
    """What the last plan made of a model's current revision.

    Attributes:
        current: instances that run or start.
        wanted: what demand alone asks for.
        reason: of the decision.
        bound: what keeps it below `desired`, in the plan's words; empty: nothing.
        failing: why its last load failed, while the next one is waited for; empty: it has not.
    """

    want: Want
    current: int
    wanted: int
    reason: str
    bound: str = ""
    failing: str = ""


def explain(
    spec: ModelSpec,
    standing: Standing | None,
    room: Room,
    raises: Raises,
    now_s: int,
) -> Explanation:
    """
    Args:
        standing: None: nothing of the model has loaded yet.
        room: with everything that is held now.
        raises: makes the commands.
        now_s: seconds since the epoch.
    """
    if standing is None:
        return Explanation(
            spec.name, spec.tenant, 0, 0, f"model '{spec.name}' serves nobody yet: its first load is under way"
        )
    found = _obstacles(spec, standing, room, raises, now_s)
    sentence = found[0].sentence if found else _free(spec.name, standing)
    return Explanation(spec.name, spec.tenant, standing.current, standing.want.desired, sentence, tuple(found))


def _obstacles(spec: ModelSpec, standing: Standing, room: Room, raises: Raises, now_s: int) -> list[Obstacle]:
    unpaid = standing.want.unpaid
    money = [] if unpaid is None else [replace(of_budget(unpaid, raises, now_s), sentence=standing.want.held_back)]
    if standing.current >= standing.want.desired:
        return money + _maximum(spec, standing) + _left_over(spec, standing, room)
    if standing.failing:
        return [of_failures(spec, standing)]
    of_room = list(of_refusals(room.refusals(standing.want), raises))
    if standing.bound and not of_room and not money:
        return [of_runners(standing)]
    return money + of_room + _maximum(spec, standing)


def of_failures(spec: ModelSpec, standing: Standing) -> Obstacle:
    return Obstacle("failures", spec.name, f"{standing.failing}; it is tried again")


def of_runners(standing: Standing) -> Obstacle:
    return Obstacle("runners", MACHINE, standing.bound)


def of_refusals(refusals: Iterable[Refusal], raises: Raises) -> Iterator[Obstacle]:
    for refusal in refusals:
        yield from (_of_binding(refusal, place, raises) for place in range(len(refusal.bindings)))


def of_budget(standing: BudgetStanding, raises: Raises, now_s: int) -> Obstacle:
    """Without a sentence."""
    budget, dimension = standing.budget, _PERIODS[standing.budget.period]
    missing = short_of(standing, now_s)
    return Obstacle(
        kind="budget",
        owner=budget.model or budget.tenant,
        sentence="",
        command=raises.budget_of_model(missing) if budget.model else raises.budget(budget.tenant, missing),
        dimension=dimension.key,
        limit=saturated(dimension, budget.micros).typed,
        used=saturated(dimension, standing.spent_micros).typed,
        asked=missing.typed,
        missing=missing.typed,
    )


def short_of(standing: BudgetStanding, now_s: int) -> Amount:
    """For the rest of the period, if as much is spent per second as until now; whole hundredths, at least one."""
    since = began(standing.budget.period, now_s)
    length_s, elapsed_s = ends(standing.budget.period, since) - since, max(1, now_s - since)
    needed = standing.spent_micros * length_s // elapsed_s
    micros = max(1, -(-(needed - standing.budget.micros) // _CENT_MICROS)) * _CENT_MICROS
    return saturated(_PERIODS[standing.budget.period], micros)


def _left_over(spec: ModelSpec, standing: Standing, room: Room) -> list[Obstacle]:
    """What a cut has left above a limit, of which the model has some. Of a cohort those are over who borrow."""
    if not standing.current:
        return []
    borrowed = room.quotas.borrowed(spec.tenant)
    bindings = [
        each for refusal in room.refusals(standing.want) if refusal.tenant != MACHINE for each in refusal.bindings
    ]
    return [
        _over(spec, standing, each)
        for each in bindings
        if each.kind in _HELD
        and each.used.units > each.limit.units
        and (each.kind is not Limit.COHORT or borrowed[each.limit.dimension].units > 0)
    ]


def _over(spec: ModelSpec, standing: Standing, binding: Binding) -> Obstacle:
    whose = {Limit.MODEL: "model", Limit.COHORT: "cohort"}.get(binding.kind, "tenant")
    sentence = (
        f"{whose} '{binding.owner}' uses {with_unit(binding.used)} and may use {binding.limit}: model '{spec.name}' "
        f"keeps its {_instances(standing.current)} while they are needed ({standing.reason}), and what ends is not "
        "replaced"
    )
    numbers = {"limit": binding.limit.typed, "used": binding.used.typed}
    return Obstacle(binding.kind.value, binding.owner, sentence, dimension=binding.limit.dimension.key, **numbers)


def _maximum(spec: ModelSpec, standing: Standing) -> list[Obstacle]:
    most = spec.max_instances
    if most is None or standing.wanted <= most or standing.want.desired < most:
        return []
    sentence = (
        f"model '{spec.name}' may have {_instances(most)} and {standing.wanted} are wanted: deploy it with a "
        "higher --max-instances"
    )
    command = f"headrace deploy {source(spec)} ... --max-instances {standing.wanted}"
    counts = (str(most), str(standing.current), str(standing.wanted), str(standing.wanted - most))
    return [Obstacle("max instances", spec.name, sentence, command, "", *counts)]


def _free(name: str, standing: Standing) -> str:
    missing = standing.want.desired - standing.current
    if missing > 0:
        return f"nothing binds: model '{name}' has {_instances(standing.current)}, and {missing} more are on their way"
    return (
        f"nothing binds: model '{name}' has the {_instances(standing.current)} that it should have ({standing.reason})"
    )


def _instances(count: int) -> str:
    return f"{count} instance{'' if count == 1 else 's'}"


def _of_binding(refusal: Refusal, place: int, raises: Raises) -> Obstacle:
    binding, asked = refusal.bindings[place], refusal.asked[place]
    machine = refusal.tenant == MACHINE
    return Obstacle(
        kind="machine" if machine else binding.kind.value,
        owner=MACHINE if machine else binding.owner,
        sentence=why(refusal, place),
        command="" if machine else raises.binding(refusal, binding),
        dimension=asked.dimension.key,
        limit=binding.limit.typed,
        used=binding.used.typed,
        asked=asked.typed,
        missing=binding.missing.typed,
    )
