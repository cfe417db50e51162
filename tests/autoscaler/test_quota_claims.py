"""Who may ask for what is lent: only whose own it is."""

from __future__ import annotations

import pytest

from headrace_autoscaler.core.planner import plan
from headrace_autoscaler.core.plans import DrainInstance, Holding, Snapshot, Want
from headrace_autoscaler.core.room import MACHINE, Room
from headrace_autoscaler.domain import Limits, Resources, Tenant

ONE = Resources(1000, 1 << 20)
FULL = Limits(cpu_millicores=2000, memory_bytes=64 << 30)
BORROWED = tuple(Holding(f"h{n}", "a-m", 1, "a", ONE, True, False, float(n)) for n in range(2))


@pytest.mark.parametrize(
    ("nominal", "claimed"),
    [
        (Limits(cpu_millicores=1000), ["a"]),
        (Limits(cpu_millicores=0), []),
        (Limits(), []),
        (Limits(memory_bytes=1 << 30), []),
    ],
    ids=["its own is lent", "it would borrow", "nothing is its own", "of another dimension alone"],
)
def test_only_what_is_a_tenants_own_is_given_back_for_it(nominal: Limits, claimed: list[str]) -> None:
    """Tenant a has one CPU and holds both of a full machine; another one of its cohort wants an instance."""
    tenants = (
        Tenant("a", Limits(cpu_millicores=1000), cohort="c"),
        Tenant("b", nominal, cohort="c"),
        Tenant("idle", Limits(cpu_millicores=2000), cohort="c"),
    )
    asked, kept = Want("b-m", 1, "b", ONE, 1), Want("a-m", 1, "a", ONE, 2)
    room = Room(tenants, FULL)
    for holding in BORROWED:
        room.add(holding)
    refusal = room.refusal(asked)
    assert refusal is not None
    assert refusal.tenant == MACHINE
    assert (room.lenders_claim(asked, refusal), room.is_lent(asked)) == (claimed, bool(claimed))
    decided = plan(Snapshot((kept, asked), BORROWED, ("s",), 0, 1, FULL, tenants=tenants))
    assert len([each for each in decided.actions if isinstance(each, DrainInstance)]) == len(claimed)
