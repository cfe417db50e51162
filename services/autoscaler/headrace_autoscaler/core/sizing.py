"""Which shape a model's instances should have, and how many: the allocator's choice among what was measured.

On one machine there is one kind of node, and an instance costs what the books charge for it. The ways to run a model
are its shapes; `core/allocator/choice.py` says what each sustains under the objective and how many it takes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from headrace_autoscaler.core.allocator.catalog import CapacityClass
from headrace_autoscaler.core.allocator.choice import Choice, meets, mix, sustained
from headrace_autoscaler.core.allocator.types import Kind, Way
from headrace_autoscaler.core.plans import Holding, Want
from headrace_autoscaler.core.policies.base import INTERVAL_S
from headrace_autoscaler.core.queueing import Service, together
from headrace_autoscaler.core.room import Room
from headrace_autoscaler.domain import Resources, ShapeProfile

MicrosPerHour = Callable[[Resources], int]
RoomFor = Callable[[Resources, int], int]
"""So many instances of a shape fit, of at most so many."""

HEADROOM = 1.25
"""One instance may be far from busy: then what arrives, with this on it, says how much it has to serve."""
_NODE = Kind("local", CapacityClass.ON_DEMAND, Resources(), 0)
"""Choices are compared by what they cost and sustain; the machine's room is looked at apart."""
_SLACK = 1e-9


@dataclass(frozen=True, slots=True)
class Option:
    """One shape for all instances of a model.

    Attributes:
        count: instances that the demand takes and that there is room for.
    """

    choice: Choice
    count: int

    @property
    def resources(self) -> Resources:
        return self.choice.way.resources

    @property
    def serves(self) -> float:
        return self.choice.rate * self.count

    @property
    def cost(self) -> int:
        return self.choice.micros_per_hour * self.count


def shapes(least: Resources, most_millicores: int | None) -> tuple[Resources, ...]:
    """What an instance may hold, ascending: twice the CPU each time, and the most. Few, as each is tried."""
    found = [least]
    while most_millicores is not None and found[-1].cpu_millicores < most_millicores:
        more = min(2 * found[-1].cpu_millicores, most_millicores)
        found.append(replace(least, cpu_millicores=more))
    return tuple(found)


def ways(allowed: Iterable[Resources], profiles: Iterable[ShapeProfile]) -> tuple[Way, ...]:
    known = {each.resources: each.profile_us for each in profiles}
    return tuple(Way(f"{each.cpu_millicores}m", each, known.get(each, ())) for each in allowed)


def first_that_meets(found: Sequence[Way], slo_s: float | None) -> Resources:
    """The smallest shape that is measured to meet the objective; the smallest of all where none is."""
    able = (way for way in found if way.profile_us and meets(way, slo_s))
    return next(able, found[0]).resources


def coinciding(arrivals: float, way: Way, slo_s: float | None) -> int:
    """Instances of a way that it takes for what comes together, as the policy would have them; 0: one is enough."""
    each, rows = sustained(way.profile_us, slo_s)
    slack_s = math.inf if slo_s is None else slo_s - rows / each
    return together(arrivals, Service(1 / each, rows / each, slack_s)) if 0 < slack_s < INTERVAL_S else 0


def rate_of(desired: int, minimum: int, each: float, arrivals: float) -> float:
    """Rows per second that a number of instances stands for.

    Args:
        each: that one of them sustains.
        minimum: instances that are there for something else than the rate.
        arrivals: rows per second; they tell more than the number where that is one, or no more than the minimum.
    """
    most = desired * each
    return min(most, arrivals * HEADROOM) if desired <= max(1, minimum) else most


def options(
    found: Iterable[Way], slo_s: float | None, rate: float, bounds: tuple[int, int | None], price: MicrosPerHour,
    room_for: RoomFor, least: Callable[[Way], int] = lambda _: 0,
) -> list[Option]:  # fmt: skip
    """Measured ways with what each takes, the best first: the cheapest that serve the rate, then those that serve most.

    Where a way that meets the objective has room, those that cannot are left out, as in the allocator's market.

    Args:
        bounds: instances; no upper bound where that is None.
        least: instances of a way that it takes whatever the rate.
    """
    minimum, maximum = bounds
    sized: list[Option] = []
    for way in found:
        if way.profile_us:
            choice = Choice(way, _NODE, *sustained(way.profile_us, slo_s), price(way.resources))
            floor = max(1, minimum, least(way) if maximum is None else min(maximum, least(way)))
            count = mix([choice], rate, floor, maximum)[choice]
            sized.append(Option(choice, room_for(way.resources, count)))
    fitting = [each for each in sized if each.count]
    fitting = [each for each in fitting if meets(each.choice.way, slo_s)] or fitting

    def rank(option: Option) -> tuple[bool, float, float, int]:
        if enough(option, rate):
            return (False, option.cost, option.count, option.resources.cpu_millicores)
        return (True, -option.serves, option.cost, option.resources.cpu_millicores)

    return sorted(fitting, key=rank)


def enough(option: Option, rate: float) -> bool:
    return option.serves >= rate * (1 - _SLACK) - _SLACK


def room_for(room: Room, want: Want, most: int, without: Collection[Holding] = ()) -> int:
    """Instances of `want`, at most so many, for which there would be room if those were gone. Leaves it as it was."""
    for holding in without:
        room.remove(holding)
    count = 0
    while count < most and room.refusal(want) is None:
        room.promise(want)
        count += 1
    for _ in range(count):
        room.withdraw(want)
    for holding in without:
        room.add(holding)
    return count


def most_common(live: Sequence[Resources]) -> Resources:
    """The shape that most instances have; the smallest of equals."""
    counted = Counter(live)
    return max(counted, key=lambda each: (counted[each], -each.cpu_millicores))
