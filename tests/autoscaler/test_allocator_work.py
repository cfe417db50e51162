"""How much work a plan is, in function calls: so many for an instance, however many models there are. No clock."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from dataclasses import replace
from types import FrameType

import pytest

from benchmarks.planning.worlds import carried_out, unlike, world
from headrace_autoscaler.core.allocator import Snapshot, plan


def calls(snapshot: Snapshot) -> int:
    """Of functions, those of the interpreter included, that a plan of it makes."""
    found = 0

    def count(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal found
        found += event in {"call", "c_call"}

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        plan(snapshot)
    finally:
        sys.setprofile(before)
    return found


def full(models: int) -> Snapshot:
    return world(models, 1.0, 600.0)


@pytest.mark.parametrize(
    ("crowd", "cold", "steady"),
    [
        pytest.param(full, 330, 160, id="sizes alike"),
        pytest.param(lambda models: unlike(full(models)), 440, 220, id="no two sizes alike"),
        pytest.param(
            lambda models: replace(unlike(full(models)), tenants=()), 440, 220, id="no two sizes alike and no quota"
        ),
    ],
)
def test_where_nodes_are_full_an_instance_takes_a_bounded_number_of_calls(
    crowd: Callable[[int], Snapshot], cold: int, steady: int
) -> None:
    """A third above what was counted when this was written. Before, 700 and 250 where sizes are alike, and where they
    are not, 1,280 with 400 models and 4,300 with 1,600."""
    for models in (400, 1600):
        empty = crowd(models)
        decided = plan(empty)
        assert decided.refused, "somebody looks in vain"
        running = carried_out(empty, decided)
        assert calls(empty) / len(running.instances) <= cold
        assert calls(running) / len(running.instances) <= steady


@pytest.mark.parametrize("models", [400, 1600])
def test_where_demand_jumps_and_tenants_ask_for_their_own_what_nobody_can_make_room_for_is_asked_once(
    models: int,
) -> None:
    """440 calls for an instance; 570 and rising if what is hopeless were remembered by the size alone."""
    empty = unlike(world(models, 1.0, 300.0))
    running = carried_out(empty, plan(empty))
    chance = random.Random(1)
    demands = tuple(replace(each, rate=each.rate * chance.choice((0.2, 1, 6))) for each in running.demands)
    assert calls(replace(running, demands=demands)) / len(running.instances) <= 510
