"""What a model's shape depends on at one moment, and what becomes of its want by that."""

from __future__ import annotations

from dataclasses import dataclass

from headrace_autoscaler.core.allocator.choice import sustained
from headrace_autoscaler.core.allocator.types import Way
from headrace_autoscaler.core.decider import Decision
from headrace_autoscaler.core.plans import Holding, Want
from headrace_autoscaler.domain import Resources


@dataclass(frozen=True, slots=True)
class Situation:
    """One model's current revision, as far as its shape depends on it.

    Attributes:
        want: as it would be with the footing.
        ways: allowed shapes with what was measured, ascending.
        live: its instances; one that drains is none.
        arrivals: rows per second.
        failures: loads in a row that failed.
        known: shapes that it was loaded with, measured or not.
        awaiting: an instance is ready, and what its load found out is not known yet.
    """

    want: Want
    decision: Decision
    ways: tuple[Way, ...]
    live: tuple[Holding, ...]
    slo_s: float | None = None
    minimum: int = 0
    maximum: int | None = None
    arrivals: float = 0.0
    failures: int = 0
    known: frozenset[Resources] = frozenset()
    awaiting: bool = False

    def way(self, resources: Resources) -> Way | None:
        return next((way for way in self.ways if way.resources == resources), None)

    @property
    def serves(self) -> float:
        """Rows per second of what runs, as far as it was measured."""
        measured = [way for each in self.live if (way := self.way(each.resources)) is not None and way.profile_us]
        return sum(sustained(way.profile_us, self.slo_s)[0] for way in measured)

    def other_than(self, resources: Resources) -> tuple[Holding, ...]:
        return tuple(each for each in self.live if each.resources != resources)


@dataclass(frozen=True, slots=True)
class Sizing:
    """What becomes of a want.

    Attributes:
        leaving: instances that are replaced.
        reason: what it does about shapes, for people, without numbers that change; empty: nothing.
    """

    want: Want
    leaving: frozenset[str] = frozenset()
    reason: str = ""
