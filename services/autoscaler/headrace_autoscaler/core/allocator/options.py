"""What a model is asked about, and what it costs alone on nodes of each shape of the catalogue."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from headrace_autoscaler.core.allocator.catalog import CapacityClass, Catalog
from headrace_autoscaler.core.allocator.choice import UNMEASURED, meets, part_of, sustained
from headrace_autoscaler.core.allocator.eligibility import refusal
from headrace_autoscaler.core.allocator.types import Demand, Kind, Way
from headrace_autoscaler.domain import Resources

_HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Quality:
    """How many of its answers a variant gets right, as measured on samples that nothing else was done with.

    Attributes:
        kind: "agreement" with the original's answers, or "accuracy".
        lower: end of the share's 95 % interval; None: not known.
        floor: what was asked for; None: nothing was.
    """

    kind: str
    share: float
    lower: float | None = None
    floor: float | None = None

    @property
    def is_enough(self) -> bool:
        """It is inside the floor, with its interval where that is known."""
        return self.floor is None or (self.share if self.lower is None else self.lower) >= self.floor

    def __str__(self) -> str:
        rest = [f"{self.lower:.4f} at least"] if self.lower is not None else []
        rest += [f"floor {self.floor:g}"] if self.floor is not None else []
        return f"{self.kind} {self.share:.4f}" + (f" ({', '.join(rest)})" if rest else "")


@dataclass(frozen=True, slots=True)
class Question:
    """Attributes:
    ways: how the model runs, measured.
    variants: ways of variants of the model (another precision), measured too.
    original: what variants are compared with: the model as it was measured beside them; empty: `ways`.
    qualities: by the names of variants, as far as known.
    rate: requests per second to be able to serve at any moment.
    mean_rate: over all the hours that are paid for.
    hit_rate: share of the requests that a response cache answered, or would; None: nobody has measured that.
    caches: the response cache is on: `rate` counts what it answers.
    warm_s: how long an idle instance is kept.
    utilisation: busy share of an instance that is aimed at.
    """

    model: str
    ways: tuple[Way, ...]
    rate: float
    mean_rate: float
    variants: tuple[Way, ...] = ()
    original: tuple[Way, ...] = ()
    qualities: Mapping[str, Quality] = field(default_factory=dict)
    slo_s: float | None = None
    engine: str = ""
    architectures: tuple[str, ...] = ()
    tolerates_spot: bool = False
    minimum: int = 0
    hit_rate: float | None = None
    caches: bool = False
    warm_s: float = 60.0
    utilisation: float = 0.7


@dataclass(frozen=True, slots=True)
class Option:
    """A model alone on nodes of one kind.

    Attributes:
        each: requests per second that one instance is planned for.
        rows: of the batches that this takes.
        per_node: instances that fit on a node.
        nodes: as many as the instances take.
        micros_per_hour: of the nodes.
        micros_per_million: of a million requests at the mean rate.
        instance_micros_per_hour: an instance's part of its node, where other models share it.
        meets_objective: one request alone does.
    """

    way: str
    shape: str
    capacity_class: CapacityClass
    each: float
    rows: int
    instances: int
    per_node: int
    nodes: int
    micros_per_hour: int
    micros_per_million: int
    instance_micros_per_hour: int
    meets_objective: bool

    @property
    def micros_per_request(self) -> float:
        """Of parts of nodes, for an hour at one request per second."""
        return self.instance_micros_per_hour / self.each


@dataclass(frozen=True, slots=True)
class Excluded:
    shape: str
    way: str
    reason: str


def kinds_of(catalog: Catalog, *, spot: bool) -> list[Kind]:
    """Every shape in every class that it is offered in; spot only where it is tolerated."""
    return [
        Kind(shape.name, capacity_class, shape.capacity, price, shape.gpus, shape.architecture)
        for shape in catalog
        for capacity_class, price in shape.prices
        if spot or capacity_class is not CapacityClass.SPOT
    ]


def executed(question: Question) -> float:
    """What is left for engines of the rate to be served."""
    return question.rate * (1.0 - (question.hit_rate or 0.0)) if question.caches else question.rate


def options_of(
    question: Question, catalog: Catalog, ways: Sequence[Way], rate: float
) -> tuple[tuple[Option, ...], tuple[Excluded, ...]]:
    """What meets the objective first, then by price, and of equal prices the fewest instances."""
    options: list[Option] = []
    excluded: dict[tuple[str, str], Excluded] = {}
    demand = Demand(
        question.model,
        "",
        rate,
        tuple(ways),
        slo_s=question.slo_s,
        tolerates_spot=question.tolerates_spot,
        engine=question.engine,
        architectures=question.architectures,
    )
    for kind in kinds_of(catalog, spot=question.tolerates_spot):
        for way in ways:
            why = _unmeasured(way) or refusal(demand, way, kind)
            if why:
                excluded[kind.shape, way.name] = Excluded(kind.shape, way.name, why)
            else:
                options.append(_option(question, way, kind, rate))
    options.sort(
        key=lambda each: (not each.meets_objective, each.micros_per_hour, each.instances, each.way, each.shape)
    )
    return tuple(options), tuple(excluded.values())


def _unmeasured(way: Way) -> str:
    if way.profile_us or (way.variant is not None and way.variant.outside):
        return ""
    if way.variant is None:
        return "it has not been measured: a model is, when it is loaded"
    return (
        f"nothing was measured of it on {way.variant.engine or 'its engine'}: deploy it where that runs, "
        "and name it with --variant"
    )


def _option(question: Question, way: Way, kind: Kind, rate: float) -> Option:
    most, rows = sustained(way.profile_us, question.slo_s)
    each = most * question.utilisation
    instances = max(1, question.minimum, math.ceil(rate / each - 1e-9)) if each < UNMEASURED else 1
    per_node = _fitting(way.resources, kind)
    nodes = -(-instances // per_node)
    price = nodes * kind.micros_per_hour
    per_million = round(price / (question.mean_rate * _HOUR_S) * 1e6) if question.mean_rate > 0 else 0
    return Option(
        way.name,
        kind.shape,
        kind.capacity_class,
        each,
        rows,
        instances,
        per_node,
        nodes,
        price,
        per_million,
        part_of(way.resources, kind),
        meets(way, question.slo_s),
    )


def _fitting(needs: Resources, kind: Kind) -> int:
    """Instances on one node, at least 1: `refusal` has seen to it that one fits."""
    has = kind.capacity
    counts = [has.cpu_millicores // needs.cpu_millicores, has.memory_bytes // needs.memory_bytes]
    if needs.gpu_millis:
        device_memory = has.gpu_memory_bytes // kind.gpus
        counts.append(kind.gpus * (1000 // needs.gpu_millis))
        if needs.gpu_memory_bytes:
            counts.append(kind.gpus * (device_memory // needs.gpu_memory_bytes))
    return max(1, min(counts))
