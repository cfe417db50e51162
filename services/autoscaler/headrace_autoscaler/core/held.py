"""A revision's policy with what is known of it between two questions, which outlives the autoscaler."""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass, field, fields, replace
from typing import ClassVar

from headrace_autoscaler.core.demand import Counts, Demand, DemandWindow
from headrace_autoscaler.core.memory import COUNT, FLAG, MOMENT, NUMBER, TEXT, Kind, Schema, maybe, part, row
from headrace_autoscaler.core.policies.base import Policy, Wish
from headrace_autoscaler.core.policies.readings import Meter
from headrace_autoscaler.domain import ModelSpec

_COUNTS = row(*[COUNT] * len(fields(Counts)), make=lambda each: Counts(*each))
_WISH = row(COUNT, TEXT, MOMENT, FLAG, COUNT, make=lambda each: Wish(each[0], each[1], (), *each[2:]))


@dataclass(slots=True)
class Held:
    """One revision's policy, and what it was asked about last.

    Attributes:
        counted: by routers so far; from nothing after a restart.
        arrived: a request has come for it.
        service_time_s: as it was measured last.
        unheard_until: it was recalled, and until then waits for a router to tell of its revision.
    """

    MEMORY: ClassVar[Schema] = {
        "policy": part(),
        "meter": part(),
        "unread": Kind(lambda each: _COUNTS.put(astuple(each)), _COUNTS.take),
        "asked_at": MOMENT,
        "wish": maybe(Kind(lambda each: _WISH.put(_essence(each)), _WISH.take)),
        "arrived": FLAG,
        "service_time_s": maybe(NUMBER),
    }
    spec: ModelSpec
    policy: Policy
    meter: Meter
    choice: tuple[object, ...]
    new_until: float = 0.0
    asked_at: float = 0.0
    wish: Wish | None = None
    seen: tuple[int, int, int] = (0, 0, 0)
    counted: Counts = field(default_factory=Counts)
    arrived: bool = False
    service_time_s: float | None = None
    unheard_until: float = -math.inf

    @property
    def unread(self) -> Counts:
        """Counted since the policy was asked last."""
        return self.counted - self.meter.seen

    @unread.setter
    def unread(self, counts: Counts) -> None:
        self.meter.seen = self.counted - counts

    def observe(self, window: DemandWindow | None, demand: Demand) -> Demand:
        """Demand, and what was known before of what it does not say."""
        if window is not None:
            self.counted = window.total
            self.arrived = self.arrived or window.arrived_at is not None
        if demand.service_time_s is None and self.service_time_s is not None:
            return replace(demand, service_time_s=self.service_time_s)
        self.service_time_s = demand.service_time_s
        return demand


def _essence(wish: Wish) -> tuple[int, str, float, bool, int]:
    """Without the numbers behind it, which are told again with the next one."""
    return (wish.desired, wish.reason, wish.holds_until, wish.spare, wish.needed)
