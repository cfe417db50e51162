"""What a spent budget does: nothing starts, and requests are refused or wait. Where they wait, what runs drains at
once; where they are refused, once it has answered what was admitted before, or has had its time for that."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence

from headrace_autoscaler.sim.door import Door
from headrace_autoscaler.sim.model_run import TICK, ModelRun, World
from headrace_autoscaler.sim.purse import REVIEW_S, Purse

ANSWER_S = 30.0
"""What was admitted before a budget was spent has this long, as by the default of `autoscaler.drain_timeout_s`."""
_FIRST = -1
"""Number among the ticks of one moment: before any model is asked."""


class Treasury:
    """Reviews the budgets every second, for as long as a model of theirs is not over."""

    def __init__(self, purse: Purse, doors: Mapping[str, Door], models: Sequence[ModelRun], world: World) -> None:
        self._purse = purse
        self._doors = doors
        self._world = world
        self._spent_at: dict[str, float] = {}
        self._models: dict[str, list[ModelRun]] = {}
        for model in models:
            if model.tenant in purse.tenants:
                self._models.setdefault(model.tenant, []).append(model)

    def tick(self, now: float) -> None:
        self._purse.review(now)
        for tenant, models in self._models.items():
            self._settle(tenant, models, now)
        if any(not model.ended for models in self._models.values() for model in models):
            heapq.heappush(self._world.events, (now + REVIEW_S, TICK, _FIRST, self))

    def _settle(self, tenant: str, models: list[ModelRun], now: float) -> None:
        door = self._doors[tenant]
        was, door.spent = door.spent, self._purse.spent(tenant)
        if door.spent and not was:
            self._spent_at[tenant] = now
        for model in models:
            if door.spent:
                self._drain(model, door, now)
            elif was:
                model.resume(now)

    def _drain(self, model: ModelRun, door: Door, now: float) -> None:
        reason = self._purse.reason(model.tenant)
        if door.holds:
            model.hold(now, reason)
        elif not model.present:
            model.stop_all(now, reason)
        elif now - self._spent_at[model.tenant] >= ANSWER_S:
            model.cut_off(now, reason)
        if self._world.over and not model.present and not model.ended:
            model.end(now)
