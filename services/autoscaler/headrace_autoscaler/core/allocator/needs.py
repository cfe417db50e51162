"""One demand while a plan is made: what it holds, what it misses, and what it could do without."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

from headrace_autoscaler.core.allocator import choice as choosing
from headrace_autoscaler.core.allocator.choice import WORTH_A_RESIZE, Choice, Mix
from headrace_autoscaler.core.allocator.rooms import Room
from headrace_autoscaler.core.allocator.types import Demand, Instance, Kind

_SLACK = 1e-9
_NOBODY: Set[Held] = frozenset()


@dataclass(slots=True, eq=False)
class Held:
    """An instance in its place, whether it runs or is to start.

    Attributes:
        instance: None: it is to start.
    """

    choice: Choice
    room: Room
    device: int | None
    instance: Instance | None

    @property
    def age(self) -> tuple[float, str]:
        """Orders by time of start; what has not started is the youngest."""
        return (self.instance.started_at, self.instance.id) if self.instance else (float("inf"), "")

    @property
    def staying_cost(self) -> tuple[int, int, float, str]:
        """Who goes first where one must: what has not started, then who has the least in hand, then the newest."""
        if self.instance is None:
            return (0, 0, 0.0, "")
        return (1, self.instance.in_flight, -self.instance.started_at, self.instance.id)


class Need:
    """Of a way, nothing but the cheapest kind of node that is not struck off can be worth choosing, because its
    instances are equally fast everywhere: so no more than that is looked at.

    Attributes:
        heads: of each way that may run it, the cheapest.
        held: what it has, or is to have.
        missing: what it should have beside that, the first to be tried first.
        struck: something had no room or quota when it was last tried.
        leaving: of what it has, what goes once all that is cheaper is in its place.
        refused: the last that had no room or quota.
        reason: why it has less than it needs.
    """

    __slots__ = (
        "_left",
        "_offers",
        "_worth",
        "demand",
        "heads",
        "held",
        "leaving",
        "missing",
        "number",
        "reason",
        "refused",
    )

    def __init__(self, demand: Demand, number: int, heads: list[Choice]) -> None:
        self.demand = demand
        self.number = number
        self.heads = heads
        self.held: list[Held] = []
        self.missing: tuple[Choice, ...] = ()
        self.leaving: Set[Held] = _NOBODY
        self.refused: Choice | None = None
        self.reason = ""
        self._left = heads
        self._offers = choosing.undominated(heads) if len(heads) > 1 else heads
        self._worth = WORTH_A_RESIZE * self._least() if heads else 0.0

    @property
    def struck(self) -> bool:
        return self._left is not self.heads

    def strike(self, choice: Choice, instead: Choice | None) -> None:
        """It had no room or no quota, nor has the same way any before `instead`: none of them is tried again until
        `restore`."""
        left = [instead if each is choice else each for each in self._left]
        self._left = [each for each in left if each is not None]
        self._offers = choosing.undominated(self._left)

    def restore(self) -> None:
        """Room or quota has been given back."""
        if self.struck:
            self._left = self.heads
            self._offers = choosing.undominated(self._left)

    def choice_of(self, way: str, kind: Kind) -> Choice | None:
        """None: it may not run like that."""
        for head in self.heads:
            if head.way.name == way:
                choice: Choice | None = head
                while choice is not None and choice.kind is not kind:
                    choice = choice.next
                return choice
        return None

    def aim(self) -> None:
        """Decides what is missing. What it holds stays as long as it is not too dear, and nothing is wanted that
        had no room."""
        demand = self.demand
        self.missing = ()
        self.leaving = _NOBODY
        if not self._offers:
            return
        have = len(self.held)
        if not have:
            self._want(choosing.mix_of(self._offers, demand.rate, demand.minimum, demand.maximum))
            return
        served, now = self.served, sum([each.choice.micros_per_hour for each in self.held])
        left = demand.rate - served
        enough = left <= _SLACK * max(1.0, demand.rate)
        if enough and have >= demand.minimum and now <= self._worth:
            return
        more = Mix()
        if not enough or have < demand.minimum:
            most = None if demand.maximum is None else max(0, demand.maximum - have)
            if most != 0:
                rest = 0.0 if enough else left
                more = choosing.mix_of(self._offers, rest, max(0, demand.minimum - have), most)
        ideal = choosing.mix_of(self._offers, demand.rate, demand.minimum, demand.maximum)
        short = served + choosing.serves(more) < choosing.serves(ideal) - _SLACK and self._short_with(more)
        if short or now + choosing.cost(more) > WORTH_A_RESIZE * choosing.cost(ideal) + _SLACK:
            more = self._replace(ideal)
        self._want(more)

    def _least(self) -> float:
        """No mix costs less: nothing serves a request for less than the first choice, and it takes an instance."""
        demand = self.demand
        cost = min([each.micros_per_hour / each.rate for each in self.heads]) * demand.rate
        if demand.maximum == 0 or (demand.rate <= _SLACK and not demand.minimum):
            return cost
        return max(cost, self._offers[0].micros_per_hour)

    def _replace(self, ideal: Mix) -> Mix:
        """What of it is not there yet; what is there and not of it leaves."""
        more = Mix(ideal)
        leaving: set[Held] = set()
        for held in self.held:
            if more.get(held.choice, 0) > 0:
                more[held.choice] -= 1
            else:
                leaving.add(held)
        self.leaving = leaving
        return more

    def _short_with(self, more: Mix) -> bool:
        return self.served + choosing.serves(more) < self.demand.rate * (1 - _SLACK) - _SLACK

    def _want(self, counted: Mix) -> None:
        for choice in counted if len(counted) == 1 else sorted(counted, key=lambda each: each.order):
            self.missing += (choice,) * counted[choice]

    @property
    def served(self) -> float:
        return sum([each.choice.rate for each in self.held])

    @property
    def short(self) -> bool:
        demand = self.demand
        if demand.maximum is not None and len(self.held) >= demand.maximum:
            return False
        return len(self.held) < demand.minimum or self.served < demand.rate * (1 - _SLACK) - _SLACK

    def dispensable(self) -> list[Held]:
        """What it can do without once nothing is missing any more: the dearest first, then whoever goes easiest."""
        demand = self.demand
        count, served = len(self.held), self.served
        if not count:
            return []
        going: list[Held] = []
        over = count - demand.maximum if demand.maximum is not None else 0
        least = max(demand.minimum, 1 if demand.rate > 0 else 0)
        if over <= 0 and (
            count <= least or served - min(each.choice.rate for each in self.held) < demand.rate * (1 - _SLACK)
        ):
            return []
        for held in sorted(self.held, key=self._going_order):
            left = (
                served - held.choice.rate
                if held.choice.rate != choosing.UNMEASURED
                else self._served_without(going, held)
            )
            if count - 1 >= least and (left >= demand.rate * (1 - _SLACK) - _SLACK or over > 0):
                going.append(held)
                count, served, over = count - 1, left, over - 1
        return going

    def _served_without(self, going: list[Held], held: Held) -> float:
        return sum(each.choice.rate for each in self.held if each is not held and each not in going)

    def _going_order(self, held: Held) -> tuple[bool, float, int, tuple[int, int, float, str]]:
        return (held not in self.leaving, -held.choice.order[0], self._crowd(held), held.staying_cost)

    def _crowd(self, held: Held) -> int:
        """Of those in one failure domain, one goes before one that is alone in its own."""
        if self.demand.spread <= 1:
            return 0
        domain = held.room.node.domain
        return -sum(each.room.node.domain == domain for each in self.held)

    def domains(self) -> dict[str, int]:
        counted: dict[str, int] = {}
        for each in self.held:
            domain = each.room.node.domain
            counted[domain] = counted.get(domain, 0) + 1
        return counted
