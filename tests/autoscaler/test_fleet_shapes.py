"""A model with a range of CPUs on a fleet: what loads measure is kept, and instances change their shape."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from headrace_autoscaler.core.resizing import CONFIRM_S
from headrace_autoscaler.domain import Loaded, ModelSpec, Resources, ShapeProfile, Signature
from tests.autoscaler.test_fleet import revision_of

World = Any
"""See conftest.py."""
OpenWorld = Callable[..., Awaitable[World]]
ONE, TWO = Resources(), Resources(cpu_millicores=2000)
RANGED = ModelSpec("m", tenant="acme", slo_s=0.1, min_instances=1, max_cpu_millicores=2000)
SIGNATURE = Signature((), (), True)


def deployed(world: World, spec: ModelSpec, **profiles: dict[int, int]) -> None:
    """As a deploy leaves it. Profiles: one, two: microseconds by rows of a shape that was measured."""
    found = {"one": ONE, "two": TWO}
    known = tuple(ShapeProfile(found[name], tuple(times.items())) for name, times in profiles.items())
    loaded = Loaded(SIGNATURE, 8, "scripted", "fake", 0, known[0].profile_us)
    world.catalogue.put(spec, replace(revision_of("m", loaded=loaded), profiles=known))
    world.fleet.catalogue_changed()


def cpus(world: World, state: str = "ready") -> list[int]:
    return sorted(each.resources.cpu_millicores for each in world.fleet.view("m").instances if each.state == state)


def decisions(world: World) -> list[str]:
    return [each.reason for each in world.fleet.view("m").decisions]


async def test_a_model_that_misses_its_objective_gets_more_cpus_and_answers_meanwhile(open_world: OpenWorld) -> None:
    world = await open_world(standby=2)
    world.machine.profiles = {1000: {1: 120_000}, 2000: {1: 70_000}}
    deployed(world, RANGED, one={1: 120_000})
    await world.until(lambda: cpus(world) == [2000] and not cpus(world, "draining"))
    first, second = world.machine.loads
    assert [load.shape.cpu_millicores for load in (first, second)] == [1000, 2000]
    assert second.shape.name == "local-2cpu-1Gi"
    assert not second.requests_wait
    assert world.machine.held[second.instance_id] == TWO, "it is held to its own shape"
    states = world.announcements.states
    assert states[first.instance_id][:3] == ["loading", "ready", "draining"]
    assert states[second.instance_id] == ["loading", "ready"]
    assert any("tries 2 CPUs per instance" in each for each in decisions(world))
    assert any("2 CPUs per instance meet the objective" in each for each in decisions(world))
    [revision] = world.catalogue.models()[0].revisions
    assert ShapeProfile(TWO, ((1, 70_000),)) in revision.profiles
    assert world.announcements.placements[second.instance_id].profile_us == ((1, 70_000),)


async def test_the_books_have_each_instance_at_its_own_shape(open_world: OpenWorld) -> None:
    world = await open_world(standby=2)
    world.machine.profiles = {1000: {1: 120_000}, 2000: {1: 70_000}}
    deployed(world, RANGED, one={1: 120_000})
    await world.until(lambda: cpus(world) == [2000] and not cpus(world, "draining"))
    world.clock.advance(3600)
    world.demand("m", arrivals=1, completed=1, busy_us=70_000)
    await world.fleet.shut_down(0.0)
    of_two = [usage for key, usage in world.usage.items() if key.shape == "local-2cpu-1Gi"]
    assert sum(each.instance_seconds for each in of_two) == 3600
    assert sum(each.cost_micros for each in of_two) == 85_000, "0.0425 for each of its CPUs"
    assert sum(each.busy_seconds for each in of_two) == 0.07


async def test_a_cheaper_shape_takes_over_once_it_has_been_cheaper_for_a_while(open_world: OpenWorld) -> None:
    world = await open_world(standby=2)
    world.machine.profiles = {1000: {1: 5_000}, 2000: {1: 4_000}}
    deployed(world, RANGED, one={1: 120_000}, two={1: 70_000})
    await world.until(lambda: cpus(world) == [2000])
    await world.until(lambda: [each.profile_us for each in world.fleet.view("m").instances] == [((1, 4_000),)])
    assert len(world.machine.loads) == 1, "from zero, the shape that meets the objective"
    # A load on a machine that is less busy finds that one CPU is enough.
    deployed(world, RANGED, one={1: 5_000}, two={1: 4_000})
    world.fleet.decide_now()
    world.pass_time(CONFIRM_S + 1)
    await world.until(lambda: cpus(world) == [1000] and not cpus(world, "draining"))
    assert any("sixth less" in each for each in decisions(world))


async def test_without_a_range_nothing_is_tried(open_world: OpenWorld) -> None:
    world = await open_world(standby=2)
    deployed(world, replace(RANGED, max_cpu_millicores=None), one={1: 120_000})
    await world.until(lambda: cpus(world) == [1000])
    world.pass_time(CONFIRM_S + 1)
    world.pass_time(CONFIRM_S + 1)
    await world.until(lambda: world.standby() == 2)
    assert [load.shape.cpu_millicores for load in world.machine.loads] == [1000]


async def test_a_successor_takes_over_instances_with_their_shapes(open_world: OpenWorld) -> None:
    world = await open_world(standby=2)
    world.machine.profiles = {1000: {1: 120_000}, 2000: {1: 70_000}}
    deployed(world, RANGED, one={1: 120_000})
    await world.until(lambda: cpus(world) == [2000] and not cpus(world, "draining"))
    await world.fleet.close()
    second = await world.successor()
    try:
        second.pass_time(30)
        second.fleet.decide_now()
        await second.until(lambda: second.standby() == 2)
        assert cpus(second) == [2000]
        assert len(world.machine.loads) == 2
        [adopted] = second.fleet.view("m").instances
        assert adopted.profile_us == ((1, 70_000),), "as its shape was measured, by whoever was before"
        assert second.announcements.placements[adopted.id].profile_us == ((1, 70_000),)
    finally:
        await second.fleet.close()
