"""Predicts when a request would be answered, so that what is going to be late is refused at once.

What is measured is the lane itself, not its engines: the time between two bundles' results while every
slot is taken. That holds whatever the runners are, however many there are and whatever lies between.
What the prediction leaves out (results that come in clumps, a stall) is learned as a margin, by stochastic
approximation of a quantile (Robbins and Monro, 1951): lateness widens it a lot, being in time narrows it a
little. At most it is a part of the time of what is at runners: hopeless deadlines refuse nobody else, and what
runners make late whatever waits for them does not empty the queue that fills their bundles.
"""

from __future__ import annotations

from math import ceil

from headrace_router.core.latency import LatencyModel
from headrace_router.core.queue import Queue

STALE_S = 1.0
STALE_GAPS = 4.0
"""A measurement older than both says nothing: what it would refuse is how it is corrected."""
SMOOTHING = 0.1
TOO_LATE = 0.5
IN_TIME = 0.005
"""How far one bundle moves the margin, in gaps: at rest where one bundle of a hundred is late."""
MARGIN = 0.5
"""The margin is at most so much of a gap for each bundle at runners but one: so far may their results clump."""


class Drain:
    """How fast one lane's queue drains. All times are monotonic seconds; sizes of bundles are rows.

    Attributes:
        rows_per_request: mean of late.
    """

    __slots__ = ("_busy_since", "_gaps", "_margin", "_rows", "_seen_at", "rows_per_request")

    def __init__(self) -> None:
        self._gaps = LatencyModel()
        self._busy_since: float | None = None
        self._seen_at = float("-inf")
        self._margin = 0.0
        self._rows = 1.0
        self.rows_per_request = 1.0

    def done(self, rows: int, requests: int, now: float, *, waiting: bool) -> None:
        """A bundle was answered.

        Args:
            waiting: more waits, so that the slot is taken again at once.
        """
        if self._busy_since is not None:
            self._gaps.observe(rows, now - self._busy_since, now)
            self._seen_at = now
        self._rows += (rows - self._rows) * SMOOTHING
        self.rows_per_request += (rows / requests - self.rows_per_request) * SMOOTHING
        self._busy_since = now if waiting else None

    def heed(self, *, late: bool, outstanding: int) -> None:
        """A bundle with a deadline was answered late, or in time; late is too what was given up in a queue.

        Only of a queue in which others wait: who found it empty was not judged.

        Args:
            outstanding: bundles at runners, this one too. The margin never gets larger than what is used of it: it
                would have to come all the way back before anything changed.
        """
        step = TOO_LATE if late else -IN_TIME
        self._margin = max(0.0, min(self._margin + step, MARGIN * (outstanding - 1)))

    def lost(self) -> None:
        """A runner went: the time until the next result says nothing."""
        self._busy_since = None

    def pace(self, max_rows: int, now: float) -> float | None:
        """Requests per second while the lane is full. None: not known."""
        gap_s = self._gap(max_rows, now)
        return max_rows / self.rows_per_request / gap_s if gap_s else None

    def predict(self, ahead: float, rows: int, outstanding: int, max_rows: int, now: float) -> float | None:
        """Seconds until a request would be answered. None: not known.

        Args:
            ahead: requests that go before it.
            rows: its own.
            outstanding: bundles at runners.
            max_rows: of a bundle.
        """
        usual_s = self._gap(self._rows, now)
        if usual_s is None:
            return None
        total = ahead * self.rows_per_request + rows
        bundles = ceil(total / max_rows)
        elapsed_s = 0.0 if self._busy_since is None else min(now - self._busy_since, usual_s)
        in_hand_s = max(0.0, outstanding * usual_s - elapsed_s)
        last_s = self._gap(max_rows if bundles > 1 else total, now) or usual_s
        return in_hand_s + bundles * last_s + usual_s * min(self._margin, MARGIN * (outstanding - 1))

    def late_by(
        self, queue: Queue, level: int, tenant: str, rows: int, deadline: float, outstanding: int, max_rows: int,
        now: float,
    ) -> float:  # fmt: skip
        """Seconds by which the answer would miss the deadline; 0: it would not, or nobody knows."""
        # Mostly nobody has to look closer: with everything ahead of it, it is still in time.
        took_s = self.predict(queue.count, rows, outstanding, max_rows, now)
        if took_s is None or now + took_s <= deadline:
            return 0.0
        took_s = self.predict(queue.ahead(level, tenant, deadline), rows, outstanding, max_rows, now) or 0.0
        return max(0.0, now + took_s - deadline)

    def _gap(self, rows: float, now: float) -> float | None:
        """Seconds between results for bundles of so many rows."""
        age_s = now - self._seen_at
        gap_s = self._gaps.predict(rows, self._seen_at)
        if gap_s is not None and age_s > STALE_S and age_s > STALE_GAPS * gap_s:
            self._gaps = LatencyModel()
            return None
        return gap_s
