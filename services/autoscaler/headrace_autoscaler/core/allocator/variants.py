"""What each variant of a model costs on every shape of the catalogue, beside what the original costs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from headrace_autoscaler.core.allocator.catalog import Catalog
from headrace_autoscaler.core.allocator.options import Option, Quality, Question, executed, options_of
from headrace_autoscaler.core.rates import HOURS_PER_MONTH

ORIGINAL = "original"


@dataclass(frozen=True, slots=True)
class Priced:
    """A variant on one shape, in the class that costs least there.

    Attributes:
        quality: None: not known, or it is the original, by which all are measured.
        saved_micros_per_hour: of nodes, against the cheapest that the original can do; None: this is the original, or
            one of the two does not meet the objective.
        share: of what a request costs of the original, in parts of nodes; None: likewise.
    """

    variant: str
    option: Option
    quality: Quality | None = None
    saved_micros_per_hour: int | None = None
    share: float | None = None
    is_original: bool = False

    @property
    def micros_per_month(self) -> int:
        return self.option.micros_per_hour * HOURS_PER_MONTH

    @property
    def saved_micros_per_month(self) -> int | None:
        saved = self.saved_micros_per_hour
        return None if saved is None else saved * HOURS_PER_MONTH


@dataclass(frozen=True, slots=True)
class Unpriced:
    """A variant that may not be used, or of which nothing is known, on these shapes; empty: on all."""

    variant: str
    shapes: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Variants:
    """Attributes:
    priced: the cheapest first, after those that meet the objective come those that do not; with the original.
    """

    priced: tuple[Priced, ...]
    unpriced: tuple[Unpriced, ...]

    @property
    def cheapest(self) -> Priced | None:
        """Of the variants that meet the objective; None: there is none."""
        return next((each for each in self.priced if each.option.meets_objective and not each.is_original), None)

    def firsts(self) -> list[Priced]:
        """Of each variant the cheapest."""
        found: dict[str, Priced] = {}
        for each in self.priced:
            found.setdefault(each.variant, each)
        return list(found.values())


def price_variants(question: Question, catalog: Catalog) -> Variants:
    """Nothing where the question names no variants."""
    if not question.variants:
        return Variants((), ())
    rate = executed(question)
    own, _ = options_of(question, catalog, question.original or question.ways, rate)
    baseline = next((each for each in own if each.meets_objective), None)
    options, excluded = options_of(question, catalog, question.variants, rate)
    name_of = {way.name: way.variant.name if way.variant else way.name for way in question.variants}
    priced = [Priced(ORIGINAL, option, is_original=True) for option in _one_per_shape(own, lambda _: ORIGINAL)]
    for option in _one_per_shape(options, name_of.__getitem__):
        name = name_of[option.way]
        priced.append(Priced(name, option, question.qualities.get(name), *_saved(option, baseline)))
    priced.sort(key=_merit)
    shapes: dict[tuple[str, str], list[str]] = {}
    for each in excluded:
        shapes.setdefault((name_of[each.way], each.reason), []).append(each.shape)
    left = [
        Unpriced(name, () if len(found) == len(catalog.shapes or ()) else tuple(found), why)
        for (name, why), found in shapes.items()
    ]
    return Variants(tuple(priced), tuple(left))


def _one_per_shape(options: Iterable[Option], name_of: Callable[[str], str]) -> list[Option]:
    """The first of each variant there, by the names of ways; of equal prices, the one with the cheapest request."""
    found: dict[tuple[str, str], Option] = {}
    for each in sorted(options, key=_option_merit):
        found.setdefault((name_of(each.way), each.shape), each)
    return list(found.values())


def _saved(option: Option, baseline: Option | None) -> tuple[int | None, float | None]:
    if baseline is None or not option.meets_objective:
        return None, None
    share = 1.0 - option.micros_per_request / baseline.micros_per_request if baseline.micros_per_request else 0.0
    return baseline.micros_per_hour - option.micros_per_hour, share


def _option_merit(option: Option) -> tuple[bool, int, float, int]:
    return (not option.meets_objective, option.micros_per_hour, option.micros_per_request, option.instances)


def _merit(priced: Priced) -> tuple[bool, int, float, int]:
    return _option_merit(priced.option)
