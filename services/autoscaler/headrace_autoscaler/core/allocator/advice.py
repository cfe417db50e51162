"""What a model would cost on every shape of the catalogue, and what would make it cheaper.

Everything follows from profiles that were measured: nothing here is an assumed speed-up. What an instance sustains is
taken as in plans (`choice.sustained`), and only the share of it that `utilisation` says is used.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from headrace_autoscaler.core.allocator.catalog import CapacityClass, Catalog, Shape
from headrace_autoscaler.core.allocator.choice import UNMEASURED, meets, part_of, sustained
from headrace_autoscaler.core.allocator.eligibility import refusal
from headrace_autoscaler.core.allocator.types import Demand, Kind, Way
from headrace_autoscaler.domain import Resources

_HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Question:
    """Attributes:
    ways: how the model runs, measured; the first way of each variant "" is what is deployed.
    variants: ways of a cheaper variant of the model (another precision), measured too.
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


@dataclass(frozen=True, slots=True)
class Excluded:
    shape: str
    way: str
    reason: str


@dataclass(frozen=True, slots=True)
class Footing:
    """How to pay for the cheapest shape.

    Attributes:
        serverless_micros_per_hour: on demand and to zero when idle, at the mean rate.
        reserved_micros_per_hour: paid for whether or not it is used, for the rate to be served at any moment; None: the
            shape cannot be reserved.
        break_even_rate: requests per second from which one reserved instance is cheaper than one that comes and goes;
            None: never.
    """

    serverless_micros_per_hour: int
    reserved_micros_per_hour: int | None
    break_even_rate: float | None

    @property
    def better(self) -> str:
        reserved = self.reserved_micros_per_hour
        return "reserved" if reserved is not None and reserved < self.serverless_micros_per_hour else "serverless"


@dataclass(frozen=True, slots=True)
class Saving:
    """Attributes:
    micros_per_hour: what it takes off the cheapest option's nodes; None: not known.
    share: of what a request costs in a part of a node, however many whole nodes that makes; None: not known.
    why: what it rests on, or what to do to know it.
    """

    name: str
    micros_per_hour: int | None
    share: float | None
    why: str


@dataclass(frozen=True, slots=True)
class Advice:
    """Options are sorted by price."""

    question: Question
    currency: str
    options: tuple[Option, ...]
    excluded: tuple[Excluded, ...]
    footing: Footing | None
    savings: tuple[Saving, ...]

    @property
    def best(self) -> Option | None:
        return next((each for each in self.options if each.meets_objective), None)


def advise(question: Question, catalog: Catalog) -> Advice:
    options, excluded = _options(question, catalog, question.ways, _executed(question))
    advice = Advice(question, catalog.currency, options, excluded, None, ())
    best = advice.best
    if best is None:
        return advice
    return replace(advice, footing=_footing(question, catalog, best), savings=_savings(question, catalog, best))


def serverless_micros(rate: float, question: Question, each: float, price: int) -> float:
    """Per hour, for Poisson arrivals of this rate: an instance is up while the last request is younger than the
    keep-warm time, and there are as many as the load keeps busy (an M/G/infinity queue's busy share, and Little's law).
    """
    if rate <= 0:
        return 0.0
    busy = rate / each
    up = 1.0 - math.exp(-rate * (question.warm_s + question.utilisation / each))
    return price * max(question.minimum, up, busy)


def reserved_micros(rate: float, each: float, price: int) -> int:
    """Per hour: as many as the rate takes, all the time."""
    return price * max(1, math.ceil(rate / each - 1e-9))


def kinds_of(catalog: Catalog, *, spot: bool) -> list[Kind]:
    """Every shape in every class that it is offered in; spot only where it is tolerated."""
    return [
        Kind(shape.name, capacity_class, shape.capacity, price, shape.gpus, shape.architecture)
        for shape in catalog
        for capacity_class, price in shape.prices
        if spot or capacity_class is not CapacityClass.SPOT
    ]


def _executed(question: Question) -> float:
    """What is left for engines of the rate to be served."""
    return question.rate * (1.0 - (question.hit_rate or 0.0)) if question.caches else question.rate


def _options(
    question: Question, catalog: Catalog, ways: Sequence[Way], rate: float
) -> tuple[tuple[Option, ...], tuple[Excluded, ...]]:
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
            why = refusal(demand, way, kind) or _unmeasured(way)
            if why:
                excluded[kind.shape, way.name] = Excluded(kind.shape, way.name, why)
            else:
                options.append(_option(question, way, kind, rate))
    options.sort(
        key=lambda each: (not each.meets_objective, each.micros_per_hour, each.instances, each.way, each.shape)
    )
    return tuple(options), tuple(excluded.values())


def _unmeasured(way: Way) -> str:
    return "" if way.profile_us else "it has not been measured: a model is, when it is loaded"


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


def _footing(question: Question, catalog: Catalog, best: Option) -> Footing:
    """Of the cheapest shape's instances, at their part of a node that others share."""
    shape = (catalog.shapes or {})[best.shape]
    way = next(way for way in question.ways if way.name == best.way)
    on_demand = _part(way, shape, CapacityClass.ON_DEMAND)
    reserved = _part(way, shape, CapacityClass.RESERVED)
    mean = question.mean_rate * (1.0 - (question.hit_rate or 0.0)) if question.caches else question.mean_rate
    serverless = round(serverless_micros(mean, question, best.each, on_demand or 0))
    if on_demand is None or reserved is None:
        return Footing(serverless, None, None)
    always = reserved_micros(_executed(question), best.each, reserved)
    return Footing(serverless, always, _break_even(question, best.each, on_demand, reserved))


def _part(way: Way, shape: Shape, capacity_class: CapacityClass) -> int | None:
    price = shape.price(capacity_class)
    if price is None:
        return None
    return part_of(
        way.resources, Kind(shape.name, capacity_class, shape.capacity, price, shape.gpus, shape.architecture)
    )


def _break_even(question: Question, each: float, on_demand: int, reserved: int) -> float | None:
    """Where 1 - exp(-rate (warm + service)) = reserved / on demand."""
    if question.minimum or reserved >= on_demand:
        return 0.0 if question.minimum and reserved < on_demand else None
    up_per_rate = question.warm_s + question.utilisation / each
    return min(-math.log(1.0 - reserved / on_demand) / up_per_rate, each * reserved / on_demand)


def _savings(question: Question, catalog: Catalog, best: Option) -> tuple[Saving, ...]:
    return (
        _batching(question, catalog, best),
        _caching(question, catalog, best),
        _variant(question, catalog, best),
    )


def _batching(question: Question, catalog: Catalog, best: Option) -> Saving:
    single = tuple(replace(way, profile_us=way.profile_us[:1]) for way in question.ways)
    options, _ = _options(question, catalog, single, _executed(question))
    alone = next((each for each in options if each.meets_objective), None)
    if alone is None or best.rows <= 1:
        return Saving("batching", 0, 0.0, "one row at a time is as good as any batch that meets the objective")
    way = next(way for way in question.ways if way.name == best.way)
    one = sustained(way.profile_us[:1], question.slo_s)[0] * question.utilisation
    why = f"batches of {best.rows} against single rows, as measured; headrace batches by itself"
    return Saving("batching", alone.micros_per_hour - best.micros_per_hour, 1.0 - one / best.each, why)


def _caching(question: Question, catalog: Catalog, best: Option) -> Saving:
    if question.hit_rate is None:
        why = "no hit rate is known: deploy with --response-cache, or say --hit-rate"
        return Saving("response cache", None, None, why)
    if question.caches:
        without, _ = _options(question, catalog, question.ways, question.rate)
        cheapest = next(each for each in without if each.meets_objective)
        saved = cheapest.micros_per_hour - best.micros_per_hour
        return Saving("response cache", saved, question.hit_rate, "it is on; at the hit rate that was observed")
    rest, _ = _options(question, catalog, question.ways, question.rate * (1.0 - question.hit_rate))
    cheapest = next(each for each in rest if each.meets_objective)
    saved = best.micros_per_hour - cheapest.micros_per_hour
    return Saving("response cache", saved, question.hit_rate, "it is off; at the hit rate that was given")


def _variant(question: Question, catalog: Catalog, best: Option) -> Saving:
    if not question.variants:
        why = "no variant has been measured: deploy one, and name it with --variant"
        return Saving("quantised variant", None, None, why)
    options, _ = _options(question, catalog, question.variants, _executed(question))
    cheapest = next((each for each in options if each.meets_objective), None)
    if cheapest is None:
        return Saving("quantised variant", 0, 0.0, "no variant meets the objective on any shape")
    saved = best.micros_per_hour - cheapest.micros_per_hour
    share = 1.0 - _per_request(cheapest) / _per_request(best) if best.instance_micros_per_hour else 0.0
    if share <= 0:
        return Saving("quantised variant", saved, share, f"'{cheapest.way}', as measured, is no faster for its money")
    why = f"'{cheapest.way}' as measured, on {cheapest.shape}; whether its answers are good enough is yours to say"
    return Saving("quantised variant", saved, share, why)


def _per_request(option: Option) -> float:
    return option.instance_micros_per_hour / option.each
