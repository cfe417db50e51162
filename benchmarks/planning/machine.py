"""One machine as the live planner sees it: models of 200 tenants in cohorts of ten, and standby runners for all."""

from __future__ import annotations

import random
from dataclasses import replace

from benchmarks.planning.worlds import COHORTS, TENANTS
from headrace_autoscaler.core.plans import Holding, LoadOnStandby, Plan, Snapshot, Want
from headrace_autoscaler.domain import Limits, Resources, Tenant

_ONE = Resources(100, 64 << 20)


def machine(models: int, room: float) -> Snapshot:
    """Nothing runs yet, and every model wants one instance or two.

    Args:
        room: of the machine, and of every tenant's quota, over what is wanted.
    """
    chance = random.Random(7)
    wants = tuple(
        Want(f"m{number}", 1, f"t{number % TENANTS}", _ONE, chance.choice((1, 1, 2))) for number in range(models)
    )
    wanted = sum(want.desired for want in wants)
    part = int(room * wanted / TENANTS)
    tenants = tuple(Tenant(f"t{number}", _limits(part), cohort=f"c{number % COHORTS}") for number in range(TENANTS))
    standby = tuple(f"standby-{number}" for number in range(wanted))
    return Snapshot(wants, (), standby, 0, 0, _limits(part * TENANTS), tenants=tenants)


def loaded(before: Snapshot, plan: Plan) -> Snapshot:
    """All that the plan loads is ready, and no runner stands by."""
    tenants = {want.key: want.tenant for want in before.wants}
    loads = [each for each in plan.actions if isinstance(each, LoadOnStandby)]
    holdings = tuple(
        Holding(
            each.runner, each.model, each.revision, tenants[each.model, each.revision], _ONE, True, False, float(at)
        )
        for at, each in enumerate(loads)
    )
    return replace(before, holdings=holdings, standby=())


def _limits(instances: int) -> Limits:
    return Limits(instances * _ONE.cpu_millicores, instances * _ONE.memory_bytes)
