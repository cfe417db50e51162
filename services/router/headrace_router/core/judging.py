"""Which requests go into a bundle, asked of one after the other in the queue's order.

A bundle ends at the model's maximum batch, at a number of bytes, and at the size whose predicted completion at
its runner still meets the earliest deadline in it. What has missed its deadline, or is known to miss it even
alone at any runner, is dropped before it costs anything; what this runner would make late and another would not
is left for that one.

A request that has waited too long can still be met, but only by a bundle of few rows, and the next one will have
waited as long: an overloaded model would execute bundles of one row. Early drop, as in Nexus (Shen et al., SOSP
2019): what would begin a bundle counts as too late here if its deadline leaves less than `SHARE` of the rows that
would go without it. Those are the rows that wait at its level with about its deadline, at most the maximum, and at
most what its whole time, from its arrival to its deadline, would have allowed: who came with little time, or waits
where little waits, holds up nobody.
"""

from __future__ import annotations

from bisect import bisect_right
from math import inf

from headrace_router.core.pace import Guesser, Predictor
from headrace_router.core.queue import Queue, Verdict
from headrace_router.core.waiting import Waiting

MOST_LEFT = 256
"""So many requests are left for another runner before the search for one that this runner can serve ends."""
SHARE = 0.75


class Judge:
    """Decides request by request, for one bundle.

    Attributes:
        rows, deadline: of the bundle so far; infinity without a deadline.
        left: requests that are left for another runner.
    """

    __slots__ = (
        "_bytes",
        "_expired",
        "_left_from",
        "_left_rows",
        "_left_until",
        "_max_bytes",
        "_max_rows",
        "_now",
        "_pace",
        "_queue",
        "_soonest",
        "deadline",
        "left",
        "rows",
    )

    def __init__(
        self,
        now: float,
        pace: Guesser,
        soonest: Predictor | None,
        max_rows: int,
        max_bytes: int,
        expired: list[Waiting],
        queue: Queue | None = None,
    ) -> None:
        """
        Args:
            pace, soonest: as of `cut`.
            expired: takes what is dropped.
            queue: what waits besides, for dropping early; None: nothing is.
        """
        self.rows = 0
        self.deadline = inf
        self.left = 0
        self._now = now
        self._pace = pace
        self._soonest = soonest
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._expired = expired
        self._queue = queue
        self._bytes = 0
        self._left_rows = 0
        self._left_from = self._left_until = 0.0

    def __call__(self, item: Waiting) -> Verdict:
        rows = self.rows + item.rows
        size = self._bytes + item.size_bytes
        if self.rows and (rows > self._max_rows or size > self._max_bytes):
            return Verdict.STOP
        deadline = item.deadline if item.deadline < self.deadline else self.deadline
        if deadline != inf:
            if item.deadline <= self._now:
                return self._drop(item)
            needed_s = self._pace.predict(rows, self._now)
            if needed_s is not None:
                if self._now + needed_s > deadline:
                    return Verdict.STOP if self.rows else self._too_late_here(item, needed_s)
                if not self.rows and (target := self._held_up(item)):
                    return self._leave_or_drop(item, target)
            elif self.rows and self._guessed_too_late(rows, deadline):
                return Verdict.STOP
            self.deadline = deadline
        self.rows = rows
        self._bytes = size
        return Verdict.TAKE

    def _guessed_too_late(self, rows: int, deadline: float) -> bool:
        """After a lull: what was known before it still says how large the first bundle should be."""
        needed_s = self._pace.guess(rows, self._now)
        return needed_s is not None and self._now + needed_s > deadline

    def _held_up(self, item: Waiting) -> int:
        """Rows that must go in a bundle, and would not if this began it; 0: it holds up nobody."""
        now, queue, predict = self._now, self._queue, self._pace.predict
        if queue is None or now + (predict(self._max_rows, now) or 0.0) <= item.deadline:
            return 0
        given_s = item.deadline - item.arrived
        rows = min(self._max_rows, queue.rows_before(item, item.deadline + given_s, self._max_rows))
        if now + (predict(int(SHARE * rows), now) or 0.0) <= item.deadline:
            return 0
        could = bisect_right(range(1, rows + 1), given_s, key=lambda size: predict(size, now) or 0.0)
        target = int(SHARE * could)
        return target if now + (predict(target, now) or 0.0) > item.deadline else 0

    def _too_late_here(self, item: Waiting, needed_s: float) -> Verdict:
        # Mostly many in a row are alike: what lies between one that was left and what this runner can meet.
        if item.rows == self._left_rows and self._left_from <= item.deadline < self._left_until:
            return self._leave()
        verdict = self._leave_or_drop(item, item.rows)
        if verdict is Verdict.LEAVE:
            self._left_rows, self._left_from, self._left_until = item.rows, item.deadline, self._now + needed_s
        return verdict

    def _leave_or_drop(self, item: Waiting, rows: int) -> Verdict:
        """Left, if another runner could have so many rows ready in time."""
        if self._soonest is not None:
            needed_s = self._soonest.predict(rows, self._now)
            if needed_s is None or self._now + needed_s <= item.deadline:
                return self._leave()
        return self._drop(item)

    def _leave(self) -> Verdict:
        self.left += 1
        return Verdict.LEAVE if self.left <= MOST_LEFT else Verdict.STOP

    def _drop(self, item: Waiting) -> Verdict:
        self._expired.append(item)
        return Verdict.DROP


class CountingJudge:
    """Ends the bundle after a number of requests, too."""

    __slots__ = ("_judge", "_most")

    def __init__(self, judge: Judge, most: int) -> None:
        self._judge = judge
        self._most = most

    def __call__(self, item: Waiting) -> Verdict:
        if self._most <= 0:
            return Verdict.STOP
        verdict = self._judge(item)
        if verdict is Verdict.TAKE:
            self._most -= 1
        return verdict
