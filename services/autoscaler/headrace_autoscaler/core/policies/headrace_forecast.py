"""What will be needed before another start could help, with its uncertainty.

The quantity that is forecast is not the rate but the *standing need*: the fewest instances that had to be ready before
the last seconds' arrivals so that each of them begins in time, given that more could have been started meanwhile, at
the pace and after the cold start that are measured. Where the slack is longer than a cold start it is 0 for most
traffic, since starting is fast enough; where it is not, it is what a burst takes.

How it grows is learnt as an empirical conditional distribution: for every level of the need, how high it came within
the following blind time. It is a first-order Markov chain over quarter-octaves, whose counts fade, and whose prior
says that needs stay about as they are and sometimes double (pseudo-counts of a Dirichlet distribution).
"""

from __future__ import annotations

import math
from collections import deque
from typing import ClassVar

from headrace_autoscaler.core.memory import COUNT, MOMENT, NUMBER, Schema, many, part, row, table
from headrace_autoscaler.core.policies.averages import SlidingMaximum
from headrace_autoscaler.core.policies.headrace_supply import Supply

WINDOW_S = 3.0
"""Arrivals whose standing need counts: longer bursts are what starts are for."""
RATE_MEMORY_S = 3.0
"""Time constant of the rate: bursts of people and of agents last for some seconds."""
BURST_MEMORY_S = 0.75
"""The same for what is on its way into a queue: three readings."""
HEADROOM = 1.15
"""Times the offered load, where more than one instance is busy. Servers that share one queue, whose requests may wait
for a multiple of their service, need little. From a sweep, in which 1.0 to 1.3 differ little."""
_FINEST = 0.1
_NEGLIGIBLE = 0.05
_PER_OCTAVE = 4
_LEVELS = 45
_PRIOR = ((-2, 2.5), (0, 4.0), (2, 2.0), (4, 1.0), (8, 0.5))
_FADE = 0.999
_MOST_PERIODS = 64


class StandingNeed:
    """The fewest instances that should have stood ready for the arrivals of the last seconds."""

    MEMORY: ClassVar[Schema] = {"_arrivals": many(row(MOMENT, COUNT))}

    def __init__(self) -> None:
        self._arrivals: deque[tuple[float, int]] = deque()

    def arrive(self, count: int, since: float) -> None:
        if count > 0:
            self._arrivals.append((since, count))
            if len(self._arrivals) > _MOST_PERIODS:
                self._arrivals.popleft()

    def now(self, supply: Supply, now: float, slack_s: float) -> float:
        """Instances, not rounded.

        Work that arrived over the last u seconds must have begun after u + slack. An instance that stood there
        has done u + slack of it; starts that began with the burst have done half of pace x (u + slack - blind)^2.
        """
        while self._arrivals and now - self._arrivals[0][0] > WINDOW_S:
            self._arrivals.popleft()
        need, work_s = 0.0, 0.0
        for since, count in reversed(self._arrivals):
            work_s += count * supply.service_s
            span_s = now - since + slack_s
            started_s = max(0.0, span_s - supply.blind_s)
            need = max(need, (work_s - supply.starts_per_s * started_s * started_s / 2) / span_s)
        return need if need > _NEGLIGIBLE else 0.0


class Growth:
    """How high the standing need comes within the blind time, by how high it is."""

    MEMORY: ClassVar[Schema] = {
        "_window_s": NUMBER,
        "_rows": table(many(NUMBER, _LEVELS)),
        "_open": many(row(MOMENT, COUNT)),
        "_highest": part(),
    }

    def __init__(self) -> None:
        self._rows: dict[int, list[float]] = {}
        self._open: deque[tuple[float, int]] = deque()
        self._highest = SlidingMaximum(0.0)
        self._window_s = 0.0

    def observe(self, need: float, now: float, within_s: float) -> None:
        """Learns; a reading may come late where nothing happened."""
        if within_s != self._window_s:
            self._window_s, self._highest, self._open = within_s, SlidingMaximum(within_s), deque()
        self._close(now)
        self._highest.add(_level(need), now)
        if need > 0:
            self._open.append((now, _level(need)))

    def quantile(self, need: float, chance: float) -> float:
        """The need that is exceeded within the blind time with no more than this chance; 0 where there is none."""
        if need <= 0:
            return 0.0
        row = self._row(_level(need))
        left = chance * sum(row)
        for level in range(_LEVELS - 1, 0, -1):
            left -= row[level]
            if left < 0:
                return max(need, _value(level))
        return need

    def _close(self, now: float) -> None:
        while self._open and now - self._open[0][0] >= self._window_s:
            at, level = self._open.popleft()
            row = self._row(level)
            for index, count in enumerate(row):
                if count:
                    row[index] = count * _FADE
            row[self._highest.highest(at + self._window_s)] += 1.0

    def _row(self, level: int) -> list[float]:
        if level not in self._rows:
            row = [0.0] * _LEVELS
            for step, count in _PRIOR:
                row[min(_LEVELS - 1, max(0, level + step))] += count
            self._rows[level] = row
        return self._rows[level]


class Rate:
    """Arrivals per second, forgotten exponentially."""

    MEMORY: ClassVar[Schema] = {"per_s": NUMBER}

    def __init__(self, memory_s: float) -> None:
        self._memory_s = memory_s
        self.per_s = 0.0

    def observe(self, arrivals: int, period_s: float) -> None:
        if period_s > 0:
            keep = math.exp(-period_s / self._memory_s)
            self.per_s = self.per_s * keep + arrivals / period_s * (1.0 - keep)


def offered(rate_per_s: float, supply: Supply) -> int:
    """Instances that a steady rate keeps busy, with head-room; 0 below one, where what waits decides."""
    load = rate_per_s * supply.service_s
    return math.ceil(HEADROOM * load - 1e-9) if load > 1.0 else 0


def _level(need: float) -> int:
    if need <= _NEGLIGIBLE:
        return 0
    return max(1, min(_LEVELS - 1, 1 + round(_PER_OCTAVE * math.log2(need / _FINEST))))


def _value(level: int) -> float:
    return _FINEST * math.exp2((level - 1) / _PER_OCTAVE)
