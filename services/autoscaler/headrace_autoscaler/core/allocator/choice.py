"""Which way to run a model, on which kind of node, and how many: measured throughput per money under the objective.

What an instance costs is its part of its node: the node's price times the dominant share that it holds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from headrace_autoscaler.core.allocator.eligibility import refusal
from headrace_autoscaler.core.allocator.types import Demand, Kind, Way
from headrace_autoscaler.core.quota import Amounts, Dimension
from headrace_autoscaler.domain import Resources

UNMEASURED = math.inf
"""Rate of an instance of which nothing is known: one is enough until it has been measured."""
WORTH_A_RESIZE = 1.2
"""What runs is replaced where it costs more than this times what the cheapest would; less is not worth cold starts."""
_EPSILON = 1e-9
_NO_AMOUNTS = Amounts()


class Offers:
    """Where instances of one size may be, the cheapest kind of node first.

    Attributes:
        size: its number among the sizes that the market has seen.
        prices: kinds of nodes with what an instance costs there, in micro-units per hour.
    """

    __slots__ = ("_amounts", "_needs", "prices", "size")

    def __init__(self, needs: Resources, size: int, prices: list[tuple[Kind, int]]) -> None:
        self._needs = needs
        self.size = size
        self.prices = sorted(prices, key=lambda each: (each[1], each[0].shape))
        self._amounts: dict[int, Amounts] = {}

    def __len__(self) -> int:
        return len(self.prices)

    def amounts(self, micros_per_hour: int) -> Amounts:
        """What an instance at this price takes of a quota."""
        amounts = self._amounts.get(micros_per_hour)
        if amounts is None:
            amounts = self._amounts[micros_per_hour] = amounts_of_part(self._needs, micros_per_hour)
        return amounts


@dataclass(slots=True, eq=False)
class Choice:
    """One instance of a way on a kind of node. Compared by identity: a plan makes each once, and never changes one.

    Attributes:
        rate: requests per second that it sustains within the objective; infinite: not measured.
        rows: of the batches that this takes; 0: not measured.
        micros_per_hour: of the instance.
        amounts: what it takes of a quota.
        size: which of the sizes that the market has seen: what holds as much of everything has the same one.
        offers: where else the way may be, the cheapest first.
        place: of this one among those.
    """

    way: Way
    kind: Kind
    rate: float
    rows: int
    micros_per_hour: int
    amounts: Amounts = _NO_AMOUNTS
    size: int = 0
    offers: Offers | None = None
    place: int = 0
    _next: Choice | None = None

    @property
    def order(self) -> tuple[float, int, str, str]:
        """The cheapest request first, then the cheapest instance."""
        return (self.micros_per_hour / self.rate, self.micros_per_hour, self.way.name, self.kind.shape)

    @property
    def next(self) -> Choice | None:
        """The same way on the next kind of node: as fast, and no cheaper. Made when it is first asked for, as most are
        never chosen."""
        if self._next is None and self.offers is not None and self.place + 1 < len(self.offers):
            self._next = _chosen(self.way, self.rate, self.rows, self.offers, self.place + 1)
        return self._next


def _chosen(way: Way, rate: float, rows: int, offers: Offers, place: int) -> Choice:
    kind, part = offers.prices[place]
    return Choice(way, kind, rate, rows, part, offers.amounts(part), offers.size, offers, place)


def sustained(profile_us: tuple[tuple[int, int], ...], slo_s: float | None) -> tuple[float, int]:
    """Requests per second of an instance that is always busy, and the rows per batch that this takes.

    A request that has just missed a batch waits for that batch and then for its own: a batch's execution may take half
    of the objective. Where not even one row meets that, one row at a time is the best there is.
    """
    return _sustained(profile_us, slo_s)


@lru_cache(maxsize=65536)
def _sustained(profile_us: tuple[tuple[int, int], ...], slo_s: float | None) -> tuple[float, int]:
    best, best_rows, first = 0.0, 0, (0.0, 0)
    half_us = math.inf if slo_s is None else slo_s * 5e5
    for rows, us in profile_us:
        if rows <= 0 or us <= 0:
            continue
        rate = rows * 1e6 / us
        first = first if first[1] else (rate, rows)
        if us <= half_us and rate > best:
            best, best_rows = rate, rows
    if best_rows:
        return best, best_rows
    return first if first[1] else (UNMEASURED, 0)


def meets(way: Way, slo_s: float | None) -> bool:
    """It is not known to be too slow for the objective even with one request in hand."""
    return slo_s is None or not way.profile_us or way.profile_us[0][1] <= slo_s * 1e6


def part_of(needs: Resources, kind: Kind) -> int:
    """Micro-units per hour of an instance: its dominant share of the node's price, rounded up."""
    has = kind.capacity
    price = kind.micros_per_hour
    dearest = 0
    for need, whole in (
        (needs.cpu_millicores, has.cpu_millicores),
        (needs.memory_bytes, has.memory_bytes),
        (needs.gpu_millis, has.gpu_millis),
        (needs.gpu_memory_bytes, has.gpu_memory_bytes),
    ):
        if need and whole:
            dearest = max(dearest, -(-price * need // whole))
    return dearest


def amounts_of_part(needs: Resources, micros_per_hour: int) -> Amounts:
    """What an instance at this price takes of a quota."""
    units = list(_NO_AMOUNTS.units)
    units[:4] = (needs.cpu_millicores, needs.memory_bytes, needs.gpu_millis, needs.gpu_memory_bytes)
    units[Dimension.MONEY_PER_HOUR] = micros_per_hour
    return Amounts(tuple(units))


class Market:
    """Kinds of nodes that there are, and what an instance costs on each; remembers what it has worked out."""

    def __init__(self, kinds: Iterable[Kind]) -> None:
        self._kinds = sorted(set(kinds), key=lambda kind: (kind.micros_per_hour, kind.shape, kind.capacity_class))
        self._offers: dict[tuple[object, ...], Offers] = {}
        self._sizes: dict[Resources, int] = {}

    def heads(self, demand: Demand) -> list[Choice]:
        """Of each way that may be, the cheapest. Where one of those meets the objective, the others are left out."""
        slo_s = demand.slo_s
        offered = [(way, offers) for way in demand.ways if (offers := self._offered(demand, way))]
        if slo_s is not None:
            offered = [each for each in offered if meets(each[0], slo_s)] or offered
        found: list[Choice] = []
        for way, offers in offered:
            rate, rows = _sustained(way.profile_us, slo_s)
            found.append(_chosen(way, rate, rows, offers, 0))
        return found

    def choices(self, demand: Demand) -> list[Choice]:
        """All that may be, the cheapest request first."""
        found: list[Choice] = []
        for head in self.heads(demand):
            choice: Choice | None = head
            while choice is not None:
                found.append(choice)
                choice = choice.next
        return sorted(found, key=lambda choice: choice.order)

    def why_none(self, demand: Demand) -> str:
        """What stands against each kind of node, where nothing may be."""
        if not self._kinds:
            return "there is no node to run it on"
        reasons = {(way.variant, kind.shape): refusal(demand, way, kind) for way in demand.ways for kind in self._kinds}
        return "no kind of node may run it: " + "; ".join(
            f"{shape}: {why}" if variant is None else f"'{variant.name}' on {shape}: {why}"
            for (variant, shape), why in reasons.items()
        )

    def _offered(self, demand: Demand, way: Way) -> Offers:
        key = (
            way.resources, way.shape, way.architecture, way.variant, demand.engine, demand.tolerates_spot,
            demand.architectures,
        )  # fmt: skip
        offers = self._offers.get(key)
        if offers is None:
            size = self._sizes.setdefault(way.resources, len(self._sizes))
            prices = [(kind, part_of(way.resources, kind)) for kind in self._kinds if not refusal(demand, way, kind)]
            offers = self._offers[key] = Offers(way.resources, size, prices)
        return offers


class Mix(dict[Choice, int]):
    """How many of which."""

    def total(self) -> int:
        return sum(self.values())


def mix(found: Sequence[Choice], rate: float, minimum: int, maximum: int | None) -> Mix:
    """How many of which, in all at least `minimum` and serving `rate`, as cheaply as it looks among two at a time.

    Without a maximum it costs at most the cheapest possible plus one instance, or plus two where the minimum binds: the
    linear programme has an optimum of one (two) kinds, which is rounded up.

    Args:
        found: as `choices` sorts them, not empty. What is dominated in it is never chosen.
    """
    return mix_of(undominated(found), rate, minimum, maximum)


def mix_of(offers: Sequence[Choice], rate: float, minimum: int, maximum: int | None) -> Mix:
    """`mix` of what `undominated` has left."""
    if rate <= 0 and minimum == 0:
        return Mix()
    cheapest = offers[0]
    if _EPSILON < rate <= cheapest.rate and minimum <= 1 and maximum != 0:
        return Mix({cheapest: 1})
    best: _Parts | None = None
    least = (0, 0, 0)
    for main in offers:
        for parts in (_with_rest(offers, main, rate, minimum), _padded(main, cheapest, rate, minimum)):
            merit = _merit(parts)
            if (maximum is None or merit[1] <= maximum) and (best is None or merit < least):
                best, least = parts, merit
        if main.rate >= rate and minimum <= 1:
            # The others are dearer, and one of this is enough.
            break
    if best is None:
        return Mix({offers[-1]: maximum or 0})
    counted = Mix()
    for choice, count in best:
        counted[choice] = counted.get(choice, 0) + count
    return counted


def undominated(found: Iterable[Choice]) -> list[Choice]:
    """Those that no other beats in both price and rate, by price, so that the last is the fastest; few, however many
    kinds there are."""
    kept: list[Choice] = []
    best = -1.0
    for choice in sorted(found, key=_by_price):
        if choice.rate > best:
            kept.append(choice)
            best = choice.rate
    return kept


_Parts = list[tuple[Choice, int]]


def cost(counted: Mapping[Choice, int]) -> int:
    return sum([choice.micros_per_hour * count for choice, count in counted.items()])


def serves(counted: Mapping[Choice, int]) -> float:
    return sum([choice.rate * count for choice, count in counted.items()])


def needed(rate: float, each: float) -> int:
    """Instances of `each` for `rate`."""
    return max(1, math.ceil(rate / each - _EPSILON)) if rate > _EPSILON else 0


def _by_price(choice: Choice) -> tuple[int, float, str]:
    return (choice.micros_per_hour, -choice.rate, choice.way.name)


def _merit(parts: _Parts) -> tuple[int, int, int]:
    """Money, then instances, then kinds of them."""
    money = total = 0
    for choice, count in parts:
        money += choice.micros_per_hour * count
        total += count
    return (money, total, len(parts))


def _with_rest(offers: Sequence[Choice], main: Choice, rate: float, minimum: int) -> _Parts:
    """As many of `main` as are full, the cheapest that serves the rest, and the cheapest of all for the minimum."""
    count = 0 if main.rate == UNMEASURED else math.floor(rate / main.rate + _EPSILON)
    rest = rate - count * main.rate if count else rate
    parts: list[tuple[Choice, int]] = [(main, count)] if count else []
    slack = _EPSILON * rate if rate > 1 else _EPSILON
    if rest > slack:
        # The first in the order of prices that is fast enough is the cheapest.
        for enough in offers:
            if enough.rate >= rest - slack:
                break
        else:
            enough = main
        parts.append((enough, 1))
        count += 1
    if count < minimum:
        parts.append((offers[0], minimum - count))
    return parts


def _padded(main: Choice, cheapest: Choice, rate: float, minimum: int) -> _Parts:
    """The fewest of `main` with which the cheapest instance may make up the minimum."""
    count = needed(rate, main.rate)
    if count < minimum and main.rate > cheapest.rate:
        count = min(count, needed(rate - minimum * cheapest.rate, main.rate - cheapest.rate))
    parts: list[tuple[Choice, int]] = [(main, count)] if count else []
    if count < minimum:
        parts.append((cheapest, minimum - count))
    return parts
