"""What a model would cost on every shape of the catalogue, and what would make it cheaper.

Everything follows from profiles that were measured: nothing here is an assumed speed-up. What an instance sustains is
taken as in plans (`choice.sustained`), and only the share of it that `utilisation` says is used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from headrace_autoscaler.core.allocator.catalog import CapacityClass, Catalog, Shape
from headrace_autoscaler.core.allocator.choice import part_of, sustained
from headrace_autoscaler.core.allocator.options import Excluded, Option, Question, executed, options_of
from headrace_autoscaler.core.allocator.types import Kind, Way
from headrace_autoscaler.core.allocator.variants import Variants, price_variants

_HOUR_S = 3600.0
_NO_VARIANTS = Variants((), ())


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
    """Options are sorted by price. `variants`: each on every shape."""

    question: Question
    currency: str
    options: tuple[Option, ...]
    excluded: tuple[Excluded, ...]
    footing: Footing | None
    savings: tuple[Saving, ...]
    variants: Variants = _NO_VARIANTS

    @property
    def best(self) -> Option | None:
        return next((each for each in self.options if each.meets_objective), None)


def advise(question: Question, catalog: Catalog) -> Advice:
    options, excluded = options_of(question, catalog, question.ways, executed(question))
    variants = price_variants(question, catalog)
    advice = Advice(question, catalog.currency, options, excluded, None, (), variants)
    best = advice.best
    if best is None:
        return advice
    savings = (
        _batching(question, catalog, best),
        _caching(question, catalog, best),
        _variant(question, variants, best),
    )
    return replace(advice, footing=_footing(question, catalog, best), savings=savings)


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
    always = reserved_micros(executed(question), best.each, reserved)
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


def _batching(question: Question, catalog: Catalog, best: Option) -> Saving:
    single = tuple(replace(way, profile_us=_of_one_row(way)) for way in question.ways if _of_one_row(way))
    options, _ = options_of(question, catalog, single, executed(question))
    alone = next((each for each in options if each.meets_objective), None)
    if not single and best.rows > 1:
        return Saving("batching", None, None, "no run of a single row was measured, to compare with")
    if alone is None or best.rows <= 1:
        return Saving("batching", 0, 0.0, "one row at a time is as good as any batch that meets the objective")
    way = next(way for way in question.ways if way.name == best.way)
    one = sustained(_of_one_row(way), question.slo_s)[0] * question.utilisation
    why = f"batches of {best.rows} against single rows, as measured; headrace batches by itself"
    return Saving("batching", alone.micros_per_hour - best.micros_per_hour, 1.0 - one / best.each, why)


def _of_one_row(way: Way) -> tuple[tuple[int, int], ...]:
    """What was measured of it one row at a time; empty: nothing."""
    return tuple(point for point in way.profile_us if point[0] == 1)


def _caching(question: Question, catalog: Catalog, best: Option) -> Saving:
    if question.hit_rate is None:
        why = "no hit rate is known: deploy with --response-cache, or say --hit-rate"
        return Saving("response cache", None, None, why)
    if question.caches:
        without, _ = options_of(question, catalog, question.ways, question.rate)
        cheapest = next(each for each in without if each.meets_objective)
        saved = cheapest.micros_per_hour - best.micros_per_hour
        return Saving("response cache", saved, question.hit_rate, "it is on; at the hit rate that was observed")
    rest, _ = options_of(question, catalog, question.ways, question.rate * (1.0 - question.hit_rate))
    cheapest = next(each for each in rest if each.meets_objective)
    saved = best.micros_per_hour - cheapest.micros_per_hour
    return Saving("response cache", saved, question.hit_rate, "it is off; at the hit rate that was given")


def _variant(question: Question, variants: Variants, best: Option) -> Saving:
    name = "variant"
    if not question.variants:
        why = (
            "no variant has been measured: `headrace optimize MODEL --samples FILE.npz --out DIR` makes and measures "
            "them, for --variants DIR"
        )
        return Saving(name, None, None, why)
    found = variants.cheapest
    if found is None:
        return Saving(name, 0, 0.0, "none that may be used meets the objective on any shape")
    share, saved = found.share, found.saved_micros_per_hour
    if share is None or saved is None:
        return Saving(name, None, None, f"'{found.variant}' meets the objective, which the original does not")
    if share <= 0:
        return Saving(name, saved, share, f"'{found.variant}', as measured, is no faster for its money")
    why = f"'{found.variant}' as measured, on {found.option.shape}; "
    why += "whether its answers are good enough is yours to say" if found.quality is None else f"{found.quality}"
    if best.micros_per_hour < found.option.micros_per_hour:
        why += f"; as deployed the model costs less, on {best.shape}"
    return Saving(name, saved, share, why)
