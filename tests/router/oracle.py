"""The rules of scheduling, said as slowly and plainly as possible."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from headrace_router.core.backlog import PATIENCE_S
from headrace_router.core.batching import Decision
from headrace_router.core.judging import SHARE
from headrace_router.core.waiting import Waiting

Promise = Callable[[int], float | None]
"""Rows to seconds until they would be answered; None: not known."""


def by_deadline(item: Waiting) -> tuple[float, int]:
    return (min(item.deadline, item.arrived + PATIENCE_S), item.seq)


@dataclass
class Oracle:
    """What may be given next. Between equals it allows any."""

    weights: dict[str, float]
    items: list[Waiting] = field(default_factory=list)
    clocks: dict[tuple[int, str], float] = field(default_factory=dict)
    level_clock: dict[int, float] = field(default_factory=dict)
    latest: dict[int, float] = field(default_factory=dict)

    def push(self, item: Waiting) -> None:
        key = (item.level, item.tenant)
        if not any((other.level, other.tenant) == key for other in self.items):
            self.clocks[key] = max(self.clocks.get(key, 0.0), self.level_clock.get(item.level, 0.0))
        self.items.append(item)

    def next_of(self, group: Hashable, passed: list[Waiting]) -> list[Waiting]:
        """Any of these may be next for a bundle of this group, of which some have been looked at already."""
        rivals = [item for item in self.items if item.group == group and item not in passed]
        if not rivals:
            return []
        first = min(item.level for item in rivals)
        rivals = [item for item in rivals if item.level == first]
        least = min(self.clocks[first, item.tenant] for item in rivals)
        behind = [item for item in rivals if self.clocks[first, item.tenant] == least]
        mates = ([mate for mate in behind if mate.tenant == item.tenant] for item in behind)
        return [item for item, own in zip(behind, mates, strict=True) if item is min(own, key=by_deadline)]

    def heads(self) -> list[Waiting]:
        """Any of these may decide the next bundle's group."""
        first = min((item.level for item in self.items), default=0)
        rivals = [item for item in self.items if item.level == first]
        least = min((self.clocks[first, item.tenant] for item in rivals), default=0.0)
        behind = [item for item in rivals if self.clocks[first, item.tenant] == least]
        mates = ([mate for mate in behind if mate.tenant == item.tenant] for item in behind)
        return [item for item, own in zip(behind, mates, strict=True) if item is min(own, key=by_deadline)]

    def may_be_next(self, item: Waiting, group: Hashable) -> bool:
        return item in self.next_of(group, [])

    def serve(self, item: Waiting) -> None:
        key = (item.level, item.tenant)
        self.level_clock[item.level] = max(self.level_clock.get(item.level, 0.0), self.clocks[key])
        self.clocks[key] += item.rows / self.weights[item.tenant]
        self.latest[item.level] = max(self.latest.get(item.level, 0.0), self.clocks[key])
        self.remove(item)

    def remove(self, item: Waiting) -> None:
        self.items.remove(item)
        if not any(other.level == item.level for other in self.items):
            self.level_clock[item.level] = self.latest.get(item.level, 0.0)

    def branch(self) -> Oracle:
        other = copy.copy(self)
        other.items, other.clocks = list(self.items), dict(self.clocks)
        other.level_clock, other.latest = dict(self.level_clock), dict(self.latest)
        return other


@dataclass
class Round:
    """One decision to be explained: everything that it depends on."""

    now: float
    promise: Promise
    best: Promise
    guess: Promise
    max_rows: int
    max_bytes: int

    def verdict(self, item: Waiting, taken: list[Waiting], beside: list[Waiting]) -> str:
        """`beside`: all that waits in the ordered queue and was not left."""
        together = [*taken, item]
        rows = sum(each.rows for each in together)
        if taken and (rows > self.max_rows or sum(each.size_bytes for each in together) > self.max_bytes):
            return "stop"
        if item.deadline <= self.now:
            return "drop"
        first = min(each.deadline for each in together)
        needed_s = self.promise(rows)
        if not self._meets(needed_s, first):
            return "stop" if taken else self._elsewhere(item, item.rows)
        if taken and needed_s is None and not self._meets(self.guess(rows), first):
            return "stop"
        target = 0 if taken else self._held_up(item, beside)
        return "take" if self._meets(self.promise(target), item.deadline) else self._elsewhere(item, target)

    def _held_up(self, item: Waiting, beside: list[Waiting]) -> int:
        """Rows that should go at least, of what waits at its level for about as long and came with as much time."""
        given_s = item.deadline - item.arrived
        alike = [each for each in beside if each.group == item.group and each.level == item.level]
        due = [each.rows for each in alike if by_deadline(each)[0] <= item.deadline + given_s]
        could = [rows for rows in range(1, min(self.max_rows, sum(due)) + 1) if (self.promise(rows) or 0.0) <= given_s]
        return int(SHARE * max(could, default=0))

    def _elsewhere(self, item: Waiting, rows: int) -> str:
        return "leave" if self._meets(self.best(rows), item.deadline) else "drop"

    def _meets(self, needed_s: float | None, deadline: float) -> bool:
        return needed_s is None or self.now + needed_s <= deadline

    def returned(self, waiting: list[Waiting]) -> dict[str, list[Waiting]]:
        """What becomes of the first bundle that came back."""
        fate: dict[str, list[Waiting]] = {"take": [], "drop": [], "leave": [], "stop": []}
        for item in waiting:
            fate[self.verdict(item, fate["take"], [])].append(item)
        return fate

    def explain(self, oracle: Oracle, taken: list[Waiting], dropped: list[Waiting]) -> Oracle | None:
        """The oracle after a bundle of exactly these, in this order, from the ordered queue; None: it is wrong."""
        return _Search(self, taken).explain(oracle, dropped)


class _Search:
    """Tries every order between equals, each state once."""

    def __init__(self, round_: Round, taken: list[Waiting]) -> None:
        self.verdict = round_.verdict
        self.taken = taken
        self.seen: set[Hashable] = set()

    def explain(
        self, oracle: Oracle, dropped: list[Waiting], tried: frozenset[Hashable] = frozenset()
    ) -> Oracle | None:
        """`tried`: groups of which all that waits was left."""
        untried = [item for item in oracle.items if item.group not in tried]
        if not untried:
            return oracle if not self.taken and not dropped else None
        for group in {item.group for item in (untried if tried else oracle.heads())}:
            found = self.follow(oracle.branch(), group, 0, [], dropped, tried)
            if found is not None:
                return found
        return None

    def follow(
        self, oracle: Oracle, group: Hashable, count: int, left: list[Waiting], dropped: list[Waiting],
        tried: frozenset[Hashable],
    ) -> Oracle | None:  # fmt: skip
        """From the state in which so many were taken and these left; `dropped` are still to be explained."""
        state = (group, count, frozenset(map(id, left)), frozenset(map(id, dropped)), tried)
        if state in self.seen:
            return None
        self.seen.add(state)
        done = count == len(self.taken) and not dropped
        candidates = oracle.next_of(group, left)
        if not candidates:
            if count:
                return oracle if done else None
            return self.explain(oracle, dropped, tried | {group} if left else tried)
        for item in candidates:
            found = self.step(oracle, group, item, count, left, dropped, done, tried)
            if found is not None:
                return found
        return None

    def step(
        self, oracle: Oracle, group: Hashable, item: Waiting, count: int, left: list[Waiting],
        dropped: list[Waiting], done: bool, tried: frozenset[Hashable],
    ) -> Oracle | None:  # fmt: skip
        beside = [each for each in oracle.items if each not in left]
        verdict = self.verdict(item, self.taken[:count], beside)
        if verdict == "stop":
            return oracle if done else None
        if verdict == "leave":
            return self.follow(oracle, group, count, [*left, item], dropped, tried)
        after = oracle.branch()
        if verdict == "take" and not done and count < len(self.taken) and self.taken[count] is item:
            after.serve(item)
            return self.follow(after, group, count + 1, left, dropped, tried)
        if verdict == "drop" and item in dropped:
            after.remove(item)
            return self.follow(after, group, count, left, [each for each in dropped if each is not item], tried)
        return None


def parts(decision: Decision) -> tuple[list[Waiting], list[Waiting]]:
    """Taken and dropped."""
    return (decision.bundle.items if decision.bundle else []), decision.expired
