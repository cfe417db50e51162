"""What a spent budget does: nothing starts, what runs drains once it has answered, and requests are refused or wait."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence

from headrace_autoscaler.sim.door import Door
from headrace_autoscaler.sim.model_run import TICK, ModelRun, World
from headrace_autoscaler.sim.purse import REVIEW_S, Purse

_FIRST = -1
"""Number among the ticks of one moment: before any model is asked."""


class Treasury:
    """Reviews the budgets every second, for as long as a model of theirs is not over."""

    def __init__(self, purse: Purse, doors: Mapping[str, Door], models: Sequence[ModelRun], world: World) -> None:
        self._purse = purse
        self._doors = doors
        self._world = world
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
        for model in models:
            if door.spent and not model.present:
                model.stop_all(now, self._purse.reason(tenant))
            elif was and not door.spent:
                model.resume(now)
