"""What serves a model on a fleet and what it has to serve, as the choice among its variants sees it."""

from __future__ import annotations

from dataclasses import replace

from headrace_autoscaler.core.sizing import HEADROOM
from headrace_autoscaler.domain import Limits, ModelSpec, ShapeProfile, Tenant
from tests.autoscaler.test_fleet_shapes import ONE, TWO, OpenWorld, World, cpus, deployed

SPEC = ModelSpec("m", tenant="acme", slo_s=0.1, min_instances=1, max_instances=8)


def busy(world: World, per_s: int, seconds: int = 20) -> None:
    for _ in range(seconds):
        world.demand("m", arrivals=per_s, completed=per_s, busy_us=per_s * 10_000)
        world.clock.advance(1.0)
    world.fleet.decide_now()


async def test_a_model_that_serves_has_a_load_by_what_arrives_and_what_it_measured(open_world: OpenWorld) -> None:
    world = await open_world(standby=2)
    world.machine.profiles = {1000: {1: 10_000}}
    deployed(world, SPEC, one={1: 10_000})
    assert world.fleet.load_of("m") is None, "nothing serves yet"
    await world.until(lambda: cpus(world) == [1000])
    busy(world, 40)
    await world.until(lambda: world.fleet.load_of("m"))
    found = world.fleet.load_of("m")
    assert (found.resources, found.profile_us, found.slo_s, found.bounds) == (ONE, ((1, 10_000),), 0.1, (1, 8))
    assert found.micros_per_hour == 42_500
    assert 20 * HEADROOM < found.rate <= 100
    assert world.fleet.load_of("nobody") is None


async def test_what_leaves_room_for_itself_is_not_counted_against_it(open_world: OpenWorld) -> None:
    world = await open_world(standby=2)
    world.catalogue.tenant_list = [Tenant("acme", Limits(cpu_millicores=3000))]
    deployed(world, SPEC, one={1: 10_000})
    await world.until(lambda: cpus(world) == [1000])
    assert world.fleet.load_of("m").room_for(9) == 3


async def test_while_its_shape_changes_it_has_none(open_world: OpenWorld) -> None:
    world = await open_world(standby=2)
    world.machine.profiles = {1000: {1: 120_000}, 2000: {1: 70_000}}
    deployed(world, replace(SPEC, max_cpu_millicores=2000), one={1: 120_000})
    seen = []

    def changed() -> bool:
        seen.append((tuple(cpus(world)), world.fleet.load_of("m")))
        return cpus(world) == [2000] and not cpus(world, "draining")

    await world.until(changed)
    assert all(load is None for shapes, load in seen if shapes == (1000, 2000))
    assert world.fleet.load_of("m").resources == TWO


async def test_what_a_load_measures_on_a_quieter_machine_is_kept(open_world: OpenWorld) -> None:
    world = await open_world(standby=2)
    world.machine.profiles = {1000: {1: 6_000}}
    deployed(world, SPEC, one={1: 15_000})
    await world.until(lambda: cpus(world) == [1000])
    await world.until(lambda: getattr(world.fleet.load_of("m"), "profile_us", None) == ((1, 6_000),))
    [revision] = world.catalogue.models()[0].revisions
    assert revision.profiles == (ShapeProfile(ONE, ((1, 15_000),)), ShapeProfile(ONE, ((1, 6_000),)))
