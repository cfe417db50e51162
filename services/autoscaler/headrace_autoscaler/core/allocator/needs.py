"""One demand while a plan is made: what it holds, what it misses, and what it could do without."""

from __future__ import annotations

from dataclasses import dataclass

from headrace_autoscaler.core.allocator import choice as choosing
from headrace_autoscaler.core.allocator.choice import WORTH_A_RESIZE, Choice, Mix
from headrace_autoscaler.core.allocator.rooms import Room
from headrace_autoscaler.core.allocator.types import Demand, Instance

_SLACK = 1e-9


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
    """Attributes:
    found: what may run for it, the cheapest request first.
    held: what it has, or is to have.
    missing: what it should have beside that, the first to be tried first.
    banned: choices that had no room or quota when last tried.
    leaving: of what it has, what goes once all that is cheaper is in its place.
    refused: the last that had no room or quota.
    reason: why it has less than it needs.
    """

    __slots__ = (
        "_offers",
        "_worth",
        "banned",
        "demand",
        "found",
        "held",
        "leaving",
        "missing",
        "number",
        "reason",
        "refused",
    )

    def __init__(self, demand: Demand, number: int, found: list[Choice]) -> None:
        self.demand = demand
        self.number = number
        self.found = found
        self.held: list[Held] = []
        self.missing: list[Choice] = []
        self.banned: set[Choice] = set()
        self.leaving: set[Held] = set()
        self.refused: Choice | None = None
        self.reason = ""
        self._offers = choosing.undominated(found)
        self._worth = WORTH_A_RESIZE * self._least() if found else 0.0

    def ban(self, choice: Choice) -> None:
        """It had no room or no quota: it is not tried again until `forgive`."""
        self.banned.add(choice)
        self._offers = choosing.undominated([each for each in self.found if each not in self.banned])

    def forgive(self) -> None:
        """Room or quota has been given back."""
        if self.banned:
            self.banned.clear()
            self._offers = choosing.undominated(self.found)

    def aim(self) -> None:
        """Decides what is missing. What it holds stays as long as it is not too dear, and nothing is wanted that is
        banned."""
        demand = self.demand
        self.missing.clear()
        self.leaving.clear()
        if not self._offers:
            return
        have = len(self.held)
        if not have:
            self._want(choosing.mix_of(self._offers, demand.rate, demand.minimum, demand.maximum))
            return
        served = self.served
        left = demand.rate - served
        enough = left <= _SLACK * max(1.0, demand.rate)
        now = sum([each.choice.micros_per_hour for each in self.held])
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
        cost = self.found[0].order[0] * demand.rate
        if demand.maximum == 0 or (demand.rate <= _SLACK and not demand.minimum):
            return cost
        return max(cost, self._offers[0].micros_per_hour)

    def _replace(self, ideal: Mix) -> Mix:
        """What of it is not there yet; what is there and not of it leaves."""
        more = Mix(ideal)
        for held in self.held:
            if more.get(held.choice, 0) > 0:
                more[held.choice] -= 1
            else:
                self.leaving.add(held)
        return more

    def _short_with(self, more: Mix) -> bool:
        return self.served + choosing.serves(more) < self.demand.rate * (1 - _SLACK) - _SLACK

    def _want(self, counted: Mix) -> None:
        for choice in counted if len(counted) == 1 else sorted(counted, key=lambda each: each.order):
            self.missing += [choice] * counted[choice]

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
