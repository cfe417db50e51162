"""One change of shape under way, and when it is given up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headrace_autoscaler.core.plans import Holding
from headrace_autoscaler.domain import Resources

GIVE_UP_S = 150.0
"""A change that gets no further instance ready for so long is given up; a load may take `autoscaler.load_timeout_s`."""


@dataclass(slots=True)
class Attempt:
    """To get instances of a shape ready.

    Attributes:
        failures: of loads, in a row, before it; one that succeeds begins a new row.
    """

    target: Resources
    failures: int

    def has_failed(self, failures: int) -> bool:
        self.failures = min(self.failures, failures)
        return failures > self.failures


@dataclass(slots=True)
class Change:
    """A change under way.

    Attributes:
        since: it began, or got an instance ready; ready: so many at once at the most.
        most: instances that there is room for, where that is fewer than demand takes.
    """

    attempt: Attempt
    why: str
    since: float
    at_once: bool
    most: int | None
    ready: int = 0

    @property
    def target(self) -> Resources:
        return self.attempt.target

    def is_stuck(self, live: Sequence[Holding], now: float) -> bool:
        ready = sum(each.ready for each in live if each.resources == self.target)
        if ready > self.ready:
            self.ready, self.since = ready, now
        return now - self.since > GIVE_UP_S
