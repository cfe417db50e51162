"""The standby pool as it is kept: what the operator allows, what was wanted, and the target that follows."""

from __future__ import annotations

from typing import ClassVar

from headrace_autoscaler.core.memory import Schema, part
from headrace_autoscaler.core.plans import LoadOnStandby, Plan
from headrace_autoscaler.core.pricing import LocalPrices
from headrace_autoscaler.core.standby import Bounds, StartTimes, Wanted, size
from headrace_autoscaler.domain import Resources, StandbyTarget
from headrace_common.config import AutoscalerConfig
from headrace_common.logs import get_logger
from headrace_common.quantities import parse_micros

STARTS_AT_ONCE = 4


class StandbyPool:
    """Attributes:
    target: what was decided last.
    """

    MEMORY: ClassVar[Schema] = {"_wanted": part(), "_starts": part()}

    def __init__(self, bounds: Bounds, starts: StartTimes) -> None:
        self._bounds = bounds
        self._starts = starts
        self._wanted = Wanted()
        self.target = StandbyTarget(bounds.minimum, "nothing was decided yet")

    def decide(self, now: float) -> StandbyTarget:
        before, self.target = self.target, size(self._wanted, self._starts.typical_s, self._bounds, now)
        if before.runners != self.target.runners:
            get_logger().info("standby pool", runners=self.target.runners, reason=self.target.reason)
        return self.target

    def planned(self, decided: Plan, now: float) -> None:
        """A deploy's first load is not counted: it waits for nobody, and comes when its user likes."""
        loads = (action for action in decided.actions if isinstance(action, LoadOnStandby))
        self._wanted.note(sum(not load.verification for load in loads), decided.waiting, now)

    def start_limit(self, starting: int, now: float) -> int:
        """Runners that may be starting, those that already are included."""
        return min(STARTS_AT_ONCE, starting + self._starts.allowed(STARTS_AT_ONCE, now))


def bounds_of(config: AutoscalerConfig, prices: LocalPrices) -> Bounds:
    """Raises InvalidArgument for a budget that is not money."""
    budget = config.standby_budget_per_hour
    return Bounds(
        minimum=config.standby,
        maximum=config.standby_max,
        runner_micros_per_hour=prices.shape(Resources()).micros_per_hour,
        budget_micros_per_hour=parse_micros(budget, "autoscaler.standby_budget_per_hour") if budget else None,
    )
