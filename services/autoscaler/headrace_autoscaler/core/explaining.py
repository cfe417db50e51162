"""Why a model has the instances that it has: what keeps it from more, whose limit that is, and what to type."""

from __future__ import annotations

from dataclasses import dataclass, replace

from headrace_autoscaler.core.plans import Want
from headrace_autoscaler.core.quota import Refusal
from headrace_autoscaler.core.raising import Raises, source
from headrace_autoscaler.core.room import MACHINE, Room, why
from headrace_autoscaler.domain import ModelSpec

SETTLED = "settled"
"""The kind of what was too small for requests lately and is not any more."""
OTHERS = "others"
"""The kind of what was too small for further tenants, which are only counted."""


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
) -> Explanation:
    """
    Args:
        standing: None: nothing of the model has loaded yet.
        room: with everything that is held now.
        raises: makes the commands.
    """
    if standing is None:
        return Explanation(
            spec.name, spec.tenant, 0, 0, f"model '{spec.name}' serves nobody yet: its first load is under way"
        )
    found = _obstacles(spec, standing, room, raises)
    sentence = found[0].sentence if found else _free(spec.name, standing)
    return Explanation(spec.name, spec.tenant, standing.current, standing.want.desired, sentence, tuple(found))


def _obstacles(spec: ModelSpec, standing: Standing, room: Room, raises: Raises) -> list[Obstacle]:
    money = [Obstacle("budget", spec.tenant, standing.want.held_back)] if standing.want.unpaid else []
    if standing.current >= standing.want.desired:
        return money + _maximum(spec, standing)
    if standing.failing:
        return [Obstacle("failures", spec.name, f"{standing.failing}; it is tried again")]
    of_room = [
        _of_binding(refusal, place, raises)
        for refusal in room.refusals(standing.want)
        for place in range(len(refusal.bindings))
    ]
    if standing.bound and not of_room and not money:
        return [Obstacle("runners", MACHINE, standing.bound)]
    return money + of_room + _maximum(spec, standing)


def _maximum(spec: ModelSpec, standing: Standing) -> list[Obstacle]:
    most = spec.max_instances
    if most is None or standing.wanted <= most or standing.want.desired < most:
        return []
    sentence = (
        f"model '{spec.name}' may have {_instances(most)} and demand asks for {standing.wanted}: deploy it with a "
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
