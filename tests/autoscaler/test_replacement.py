"""A slow instance is replaced: once, beside it where there is room, and never in a quick cycle."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

import pytest

from headrace_autoscaler.core.replacement import APART_S, CONFIRM_S, Health, Replacements
from headrace_autoscaler.domain import Limits, ModelFile, ModelSpec, Resources, Revision, RevisionState
from headrace_autoscaler.fleet.reports import Report

World = Any
OpenWorld = Callable[..., Awaitable[World]]
KEY = ("m", 1)
SLOW, FINE = Health("a", slow=True, slowdown=5.0), Health("a", slow=False, slowdown=1.0)
UNKNOWN = Health("a", slow=False)


@pytest.mark.parametrize(
    ("said", "replaced"),
    [([SLOW], True), ([FINE], False), ([SLOW, FINE], False), ([SLOW, SLOW, FINE], True), ([SLOW, UNKNOWN], True)],
    ids=["the only router", "it is fine", "one against one", "most say so", "who cannot tell does not count"],
)
def test_routers_have_to_agree(said: list[Health], replaced: bool) -> None:
    replacements = Replacements()
    for number, health in enumerate(said):
        replacements.report(f"router-{number}", [health])
    assert replacements.review({"a": KEY, "b": KEY}, 0.0) == frozenset()
    assert replacements.review({"a": KEY, "b": KEY}, CONFIRM_S) == (frozenset("a") if replaced else frozenset())


def test_one_at_a_time_and_further_apart_each_time() -> None:
    replacements = Replacements()
    replaced_at, now = [], 0.0
    names = [f"i{number}" for number in range(40)]
    ready = {names.pop(): KEY for _ in range(3)}
    while now < 1000.0:
        replacements.report("router-0", [Health(each, slow=True, slowdown=9.0) for each in ready])
        chosen = replacements.review(ready, now)
        assert len(chosen) <= 1
        for instance in chosen:
            replaced_at.append(now)
            del ready[instance]
            ready[names.pop()] = KEY
        now += 1.0
    gaps = [later - earlier for earlier, later in pairwise(replaced_at)]
    assert gaps[0] >= APART_S
    assert all(later >= 2 * earlier for earlier, later in pairwise(gaps))
    assert len(replaced_at) == 5


def test_one_that_recovers_in_time_stays_and_a_router_that_leaves_has_no_say() -> None:
    replacements = Replacements()
    replacements.report("router-0", [SLOW])
    replacements.review({"a": KEY}, 0.0)
    replacements.report("router-0", [FINE])
    assert replacements.review({"a": KEY}, CONFIRM_S) == frozenset()
    replacements.report("router-0", [SLOW])
    replacements.review({"a": KEY}, 10.0)
    replacements.router_gone("router-0")
    assert replacements.review({"a": KEY}, 10.0 + CONFIRM_S) == frozenset()


def revision_of(model: str) -> Revision:
    files = (ModelFile("model.onnx", "a" * 64, 10),)
    return Revision(model, 1, "1", RevisionState.SERVING, "artifact", files, "model.onnx", "fake")


async def two_instances(open_world: OpenWorld, **settings: Any) -> tuple[World, str, str]:
    world = await open_world(**settings)
    world.catalogue.put(ModelSpec("m", min_instances=2, resources=Resources(1000, 1 << 30)), revision_of("m"))
    world.fleet.catalogue_changed()
    await world.until(lambda: len(world.instances("m")) == 2)
    one, other = world.instances("m")
    return world, one, other


def tell(world: World, *slow: str) -> None:
    healths = tuple(Health(each, each in slow, 5.0 if each in slow else 1.0) for each in world.instances("m"))
    world.fleet.report(Report("router-0", runners=healths))
    world.fleet.decide_now()
    world.clock.advance(CONFIRM_S)
    world.fleet.decide_now()


async def test_a_replacement_is_ready_before_the_slow_one_goes(open_world: OpenWorld) -> None:
    world, slow, fine = await two_instances(open_world, standby=1)
    await world.until(lambda: world.standby() == 1)
    world.machine.may_load.clear()
    tell(world, slow)
    await world.until(lambda: len(world.machine.loads) == 3)
    world.fleet.decide_now()
    assert set(world.instances("m")) == {slow, fine}
    world.machine.may_load.set()
    await world.until(lambda: slow not in world.instances("m") and len(world.instances("m")) == 2)
    await world.until(lambda: world.machine.unloads == [slow])
    assert fine in world.instances("m")


async def test_it_is_replaced_once_however_often_it_is_told(open_world: OpenWorld) -> None:
    world, slow, _ = await two_instances(open_world, standby=1)
    for _ in range(5):
        tell(world, slow)
    await world.until(lambda: world.machine.unloads == [slow] and len(world.instances("m")) == 2)
    for _ in range(5):
        tell(world, *world.instances("m"))
    assert len(world.instances("m")) == 2
    assert len(world.machine.loads) == 3
    assert world.machine.unloads == [slow]


async def test_without_room_beside_it_the_slow_one_goes_first(open_world: OpenWorld) -> None:
    room = Limits(cpu_millicores=2000, memory_bytes=2 << 30, gpu_millis=0, gpu_memory_bytes=0)
    world, slow, fine = await two_instances(open_world, standby=1, capacity=room)
    tell(world, slow)
    await world.until(lambda: slow not in world.instances("m") and len(world.instances("m")) == 2)
    assert fine in world.instances("m")
    assert (world.machine.unloads, len(world.machine.loads)) == ([slow], 3)
