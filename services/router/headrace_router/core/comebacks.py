"""When to tell those who were refused to come back.

Moments are reserved: each who is refused gets the next one, so that they do not all return at once.
The moments are as far apart as what is left over allows, once those who come unasked have been served:
spare = capacity - fresh arrivals. Of that only a part is promised, because arrivals are no clockwork:
a promise that the next burst takes away is none.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

SAMPLE_S = 0.05
"""Rates are looked at anew no more often than this; so refusals stay cheap."""
FORGOTTEN_S = 2.0
"""A silence longer than this says nothing of rates; what was known before stays."""
SMOOTHING_S = 1.0
PROMISED_SHARE = 0.5
"""Of the spare capacity. The rest builds up the reserve that keeps promises through a burst."""
LEAST_SPARE = 0.1
"""Of the capacity, where fresh arrivals leave nothing: somebody has to be the next."""
HORIZON_S = 30.0
"""Promises reach no further: nobody knows what will be then."""
UNKNOWN_PACE = 10.0
"""Requests per second, where nothing has been measured."""
_GOLDEN = 0.6180339887498949


class Totals(Protocol):
    """What is read of one user's counts. They only rise."""

    arrivals: int
    completed: int
    failed: int

    @property
    def spared(self) -> int:
        """Arrived and completed without being executed."""
        ...


class User(Protocol):
    """One who is admitted under the same limit."""

    @property
    def totals(self) -> Totals: ...


class Comebacks:
    """Of one limit: a limiter's, or a lane's queue. All times are monotonic seconds."""

    __slots__ = ("_arrived", "_departed", "_fresh", "_last", "_pace", "_sampled_at", "_spacing_s", "_spread")

    def __init__(self) -> None:
        self._last = 0.0
        self._spacing_s = 0.0
        self._sampled_at = float("-inf")
        self._arrived = self._departed = 0
        self._fresh = 0.0
        self._pace: float | None = None
        self._spread = 0.0

    def promise(
        self, now: float, earliest_s: float, pace: float | None, users: Iterable[User], *, executed: bool = False
    ) -> float:
        """Seconds from now until the next moment that nobody was promised.

        Args:
            earliest_s: before that nobody can be admitted, as far as is known.
            pace: how many per second can be admitted; None: as many as were answered of late.
            users: whose arrivals compete for it.
            executed: what is limited is execution, for which nobody competes who is answered without.
        """
        if now - self._sampled_at >= SAMPLE_S:
            self._sample(now, users, executed)
        pace = pace or self._pace or UNKNOWN_PACE
        spare = max(pace - self._fresh, LEAST_SPARE * pace)
        self._spacing_s = 1.0 / (PROMISED_SHARE * spare)
        at = max(now + earliest_s, self._last) + self._spacing_s
        if at - now > HORIZON_S:
            self._spread = (self._spread + _GOLDEN) % 1.0
            return HORIZON_S * (0.5 + 0.5 * self._spread)
        self._last = at
        return at - now

    def _sample(self, now: float, users: Iterable[User], executed: bool) -> None:
        arrived = departed = 0
        for user in users:
            totals = user.totals
            spared = totals.spared if executed else 0
            arrived += totals.arrivals - spared
            departed += totals.completed + totals.failed - spared
        period_s = now - self._sampled_at
        came, went = arrived - self._arrived, departed - self._departed
        if 0.0 < period_s <= FORGOTTEN_S and came >= 0 <= went:
            keep = max(0.0, 1.0 - period_s / SMOOTHING_S)
            asked_back = min(period_s, max(0.0, self._last - self._sampled_at)) / (self._spacing_s or 1.0)
            self._fresh = keep * self._fresh + (1.0 - keep) * max(0.0, came - asked_back) / period_s
            pace = went / period_s
            if pace:
                self._pace = pace if self._pace is None else keep * self._pace + (1.0 - keep) * pace
        self._arrived, self._departed, self._sampled_at = arrived, departed, now
