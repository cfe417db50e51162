"""The one central queue of a revision, in this router.

Order: first what came back from a lost runner, then priority levels (1 is the most urgent), inside a
level fair between tenants, inside a tenant by deadline (`backlog.py`). Only requests of one group go
into one bundle; lower levels of the same group fill what the higher ones leave of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterator
from enum import IntEnum

from headrace_router.core.backlog import Backlog
from headrace_router.core.waiting import Stage, Waiting

AGEING_S = 5.0
"""A request that waited this long at a level goes one level up, so that no priority starves."""
LITTER = 64
"""What is kept for nothing may be this much more than what waits, before it is swept."""


class Verdict(IntEnum):
    """What to do with the next request: into the bundle, out of the queue, end the bundle here, or look past it."""

    TAKE = 0
    DROP = 1
    STOP = 2
    LEAVE = 3


Judge = Callable[[Waiting], Verdict]


class Queue:
    """Requests that wait. Operations cost O(log n); sums are kept.

    Attributes:
        count, size_bytes: of what waits.
    """

    __slots__ = ("_default_level", "_levels", "_litter", "_returned", "_seq", "_weights", "count", "size_bytes")

    def __init__(self, levels: int = 1, default_level: int = 1) -> None:
        self.count = 0
        self.size_bytes = 0
        self._levels = [Backlog() for _ in range(max(1, levels))]
        self._default_level = min(max(1, default_level), len(self._levels))
        self._returned: deque[list[Waiting]] = deque()
        self._weights: dict[str, float] = {}
        self._seq = 0
        self._litter = 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Waiting]:
        """All that waits, in no order."""
        for items in self._returned:
            yield from (item for item in items if item.stage is Stage.QUEUED)
        for level in self._levels:
            yield from level

    def level_of(self, priority: int) -> int:
        """1 is the most urgent; 0 asks for the default; more than there are is the last."""
        return min(priority, len(self._levels)) if priority > 0 else self._default_level

    def set_weight(self, tenant: str, weight: float) -> None:
        """A tenant's share of the queue against the others'; 1 until it is set."""
        if weight == 1.0:
            self._weights.pop(tenant, None)
        else:
            self._weights[tenant] = weight
        for level in self._levels:
            level.set_weight(tenant, weight)

    def push(self, item: Waiting) -> None:
        self._seq += 1
        item.seq = self._seq
        item.stage = Stage.QUEUED
        self.count += 1
        self.size_bytes += item.size_bytes
        self._levels[item.level - 1].push(item, self._weights.get(item.tenant, 1.0) if self._weights else 1.0)

    def put_back(self, items: list[Waiting]) -> None:
        """To the head, to be sent again as one bundle of exactly these."""
        for item in items:
            item.stage = Stage.QUEUED
            self.count += 1
            self.size_bytes += item.size_bytes
        if items:
            self._returned.append(items)

    def withdraw(self, item: Waiting) -> None:
        """Takes out a request that waits. It is never given out afterwards."""
        self._leave(item)
        item.stage = Stage.DONE
        if item.backlog is not None:
            self._levels[item.level - 1].remove(item)
            self._litter += 1
            self._sweep_litter()

    def hold_back(self, may_go: Callable[[Waiting], bool]) -> list[Waiting]:
        """Takes out what may not go now, except what came back. It can be pushed again."""
        held = [item for item in self if item.backlog is not None and not may_go(item)]
        for item in held:
            self.withdraw(item)
            item.stage = Stage.HELD
        if held:
            # What stands for an item that is pushed again must not be taken for it.
            self._litter = 0
            for level in self._levels:
                level.compact()
        return held

    def returned(self) -> list[Waiting]:
        """The first bundle that came back, as far as it still waits; empty: none. Stays."""
        while self._returned:
            items = [item for item in self._returned[0] if item.stage is Stage.QUEUED]
            if items:
                return items
            self._returned.popleft()
        return []

    def split_returned(self, most: int) -> None:
        """Of the first bundle that came back, only so many go together; the rest of it is next."""
        items = self.returned()
        self._returned.popleft()
        self._returned.extendleft([items[most:], items[:most]])

    def take_returned(self, judge: Judge) -> list[Waiting]:
        """What the judge takes of the first bundle that came back. What it leaves or stops at stays the first."""
        taken: list[Waiting] = []
        kept: list[Waiting] = []
        waiting = self.returned()
        if waiting:
            self._returned.popleft()
        for item in waiting:
            verdict = judge(item)
            if verdict in (Verdict.STOP, Verdict.LEAVE):
                kept.append(item)
                continue
            self._leave(item)
            item.stage = Stage.SENT if verdict is Verdict.TAKE else Stage.DONE
            if verdict is Verdict.TAKE:
                taken.append(item)
        if kept:
            self._returned.appendleft(kept)
        return taken

    def head(self) -> Waiting | None:
        """The next request by right, of those that did not come back."""
        for level in self._levels:
            if level.count:
                return level.head()
        return None

    def ahead(self, level: int, tenant: str, deadline: float) -> float:
        """Requests that would go before one that came now, about: the urgent ones, and its level's by turns."""
        urgent = sum(each.count for each in self._levels[: level - 1])
        back = sum(len(items) for items in self._returned)
        return back + urgent + self._levels[level - 1].ahead(tenant, self._weights.get(tenant, 1.0), deadline)

    def take(self, group: Hashable, judge: Judge) -> list[Waiting]:
        """Takes requests of a group in order, until the judge stops or there are no more."""
        taken: list[Waiting] = []
        for level in self._levels:
            if level.count and self._take_of(level, group, judge, taken):
                break
        return taken

    def _take_of(self, level: Backlog, group: Hashable, judge: Judge, taken: list[Waiting]) -> bool:
        """Whether the judge stopped."""
        passed_over: list[Waiting] = []
        verdict = Verdict.TAKE
        while verdict is not Verdict.STOP and (item := level.next_of(group)) is not None:
            verdict = judge(item)
            if verdict is Verdict.TAKE:
                level.serve(item, charge=True)
                self._leave(item)
                item.stage = Stage.SENT
                taken.append(item)
            elif verdict is Verdict.DROP:
                level.serve(item, charge=False)
                self._leave(item)
                item.stage = Stage.DONE
            elif verdict is Verdict.LEAVE:
                level.skip(item)
                passed_over.append(item)
        for item in passed_over:
            level.unskip(item)
        return verdict is Verdict.STOP

    def heads(self) -> Iterator[Waiting]:
        """The next request of each group, the next by right first; of a group in several levels, of each."""
        first = self.head()
        if first is not None:
            yield first
        for level in self._levels:
            for group in level.groups():
                item = level.next_of(group)
                if item is not None and item is not first:
                    yield item

    def survey(
        self, group: Hashable, enough_rows: int, enough_bytes: int, enough_requests: int = 0
    ) -> tuple[bool, int, float]:
        """Whether there is enough of a group; if not, its rows, and when the oldest came. 0 requests never are."""
        rows, size, requests, oldest = 0, 0, 0, float("inf")
        for item in self:
            if item.group == group and item.backlog is not None:
                rows += item.rows
                size += item.size_bytes
                requests += 1
                oldest = min(oldest, item.arrived)
                if rows >= enough_rows or size >= enough_bytes or requests == enough_requests:
                    return True, rows, oldest
        return False, rows, oldest

    def rows_before(self, item: Waiting, deadline: float, enough: int) -> int:
        """Rows of its group and level that are due before then; the count ends once there are enough."""
        return self._levels[item.level - 1].rows_before(item.group, deadline, enough)

    def age(self, now: float) -> int:
        """Moves requests up that waited long at their level. How many."""
        moved = 0
        for number, level in enumerate(self._levels[1:], start=2):
            for item in [item for item in level if now - item.enqueued >= AGEING_S]:
                level.remove(item)
                item.level = number - 1
                item.enqueued = now
                self._levels[number - 2].push(item, self._weights.get(item.tenant, 1.0))
                self._litter += 1
                moved += 1
        self._sweep_litter()
        return moved

    def _leave(self, item: Waiting) -> None:
        self.count -= 1
        self.size_bytes -= item.size_bytes

    def _sweep_litter(self) -> None:
        """Amortised: costs O(n) after at least as many withdrawals."""
        if self._litter > self.count + LITTER:
            self._litter = 0
            for level in self._levels:
                level.compact()

    def tidy(self, slack: int = LITTER) -> None:
        """Forgets tenants and shapes that are not there any more, if they are many. For now and then."""
        for level in self._levels:
            if level.litter > 2 * level.count + slack:
                level.compact()
