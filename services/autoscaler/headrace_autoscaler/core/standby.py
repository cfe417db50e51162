"""How many runners stand by: as many as were wanted at once of late, within what they may cost.

A runner that is taken from the pool is replaced after the time that a process takes to start. Whoever wants one
within that time of others finds the pool smaller by them: so what has to stand by for somebody is the number of those
who wanted a runner during the last start time, that one included. The pool holds enough for `COVERAGE` of all who came
within `HISTORY_S`. The rank is that of one more observation than there is (Hyndman and Fan's sixth definition of a
sample quantile, American Statistician 50, 1996), so that the fewer were seen, the more the largest of them counts.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from headrace_autoscaler.core.memory import COUNT, MOMENT, NUMBER, Schema, many
from headrace_autoscaler.domain import StandbyTarget

HISTORY_S = 3600.0
"""What was wanted longer ago is forgotten: a pool for a burst that does not come again stands for this long."""
COVERAGE = 0.95
UNMEASURED_START_S = 1.0
"""Time that a process is taken to need before one has been seen to start."""
_MOST_WANTED = 512
_RECENT_STARTS = 32


@dataclass(frozen=True, slots=True)
class Bounds:
    """The operator's. Money in micro-units; `budget_micros_per_hour` None: no bound.

    The minimum stands whatever it costs: it was asked for by number.
    """

    minimum: int
    maximum: int
    runner_micros_per_hour: int
    budget_micros_per_hour: int | None = None

    @property
    def affordable(self) -> int | None:
        """Runners that the budget pays for; None: any number."""
        if self.budget_micros_per_hour is None or self.runner_micros_per_hour <= 0:
            return None
        return self.budget_micros_per_hour // self.runner_micros_per_hour


class Wanted:
    """When runners were wanted. One for which the pool had none is wanted once, however long it waits."""

    MEMORY: ClassVar[Schema] = {"_times": many(MOMENT), "_waiting": COUNT}

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=_MOST_WANTED)
        self._waiting = 0

    def note(self, taken: int, waiting: int, now: float) -> None:
        """What one plan did.

        Args:
            taken: runners that were told to load.
            waiting: runners that are wanted and not there, those of earlier plans among them.
        """
        new = taken + waiting - self._waiting
        self._times.extend([now] * max(0, new))
        self._waiting = waiting

    def since(self, moment: float) -> list[float]:
        """Ascending; what is older is forgotten."""
        while self._times and self._times[0] < moment:
            self._times.popleft()
        return list(self._times)


class StartTimes:
    """What process starts took, and when they were begun. Seconds."""

    MEMORY: ClassVar[Schema] = {"_took": many(NUMBER), "_begun": many(MOMENT)}

    def __init__(self) -> None:
        self._took: deque[float] = deque(maxlen=_RECENT_STARTS)
        self._begun: deque[float] = deque()

    def begun(self, now: float) -> None:
        self._begun.append(now)

    def took(self, seconds: float) -> None:
        self._took.append(seconds)

    @property
    def typical_s(self) -> float:
        """95th percentile of the recent ones; a guess before there is one."""
        ordered = sorted(self._took)
        return ordered[math.ceil(0.95 * len(ordered)) - 1] if ordered else UNMEASURED_START_S

    def allowed(self, at_once: int, now: float) -> int:
        """How many may begin now: no more than `at_once` in the time of the fastest start that was measured.

        What ends sooner than any start can succeed is not replaced any faster than that.
        """
        shortest_s = min(self._took, default=0.0)
        while self._begun and self._begun[0] <= now - shortest_s:
            self._begun.popleft()
        return max(0, at_once - len(self._begun))


def size(wanted: Wanted, start_s: float, bounds: Bounds, now: float) -> StandbyTarget:
    """The size of the pool. Linear in what was wanted of late."""
    times = wanted.since(now - HISTORY_S)
    together = at_once(times, start_s)
    predicted = _covering(together)
    affordable = bounds.affordable
    most = max(bounds.minimum, bounds.maximum)
    if affordable is not None:
        most = max(bounds.minimum, min(most, affordable))
    runners = max(bounds.minimum, min(predicted, most))
    inputs: tuple[tuple[str, float], ...] = (
        ("wanted_last_hour", float(len(times))),
        ("expected_at_once", sum(together) / len(together) if together else 0.0),
        ("predicted", float(predicted)),
        ("start_s", start_s),
        ("minimum", float(bounds.minimum)),
        ("maximum", float(max(bounds.minimum, bounds.maximum))),
        ("micros_per_hour", float(runners * bounds.runner_micros_per_hour)),
    )
    if affordable is not None:
        inputs += (("affordable", float(affordable)),)
    return StandbyTarget(runners, _reason(predicted, runners, bounds), inputs)


def at_once(times: Sequence[float], within_s: float) -> list[int]:
    """For each time, how many there are within the span that ends there, itself and those before it in the list
    included. `times` ascends."""
    counts: list[int] = []
    first = 0
    for index, time in enumerate(times):
        while times[first] < time - within_s:
            first += 1
        counts.append(index - first + 1)
    return counts


def _covering(counts: Sequence[int]) -> int:
    """What `COVERAGE` of them do not exceed, with room for one that was not seen."""
    if not counts:
        return 0
    rank = min(len(counts), math.ceil(COVERAGE * (len(counts) + 1)))
    return sorted(counts)[rank - 1]


def _reason(predicted: int, runners: int, bounds: Bounds) -> str:
    if predicted > runners:
        affordable = bounds.affordable
        if affordable is not None and affordable < bounds.maximum:
            return "what the budget pays for; more were wanted at once"
        return "the maximum; more were wanted at once"
    if predicted < runners:
        return "the minimum; fewer were wanted at once"
    return "as many as were wanted at once" if predicted else "nothing was wanted of late"
