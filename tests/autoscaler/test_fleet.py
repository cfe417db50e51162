"""What the fleet does about demand, deploys and deaths, over fake runners with a real RunnerService."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from headrace_autoscaler.core.demand import Counts
from headrace_autoscaler.core.policies.targets import NO_GPU_MEMORY
from headrace_autoscaler.domain import Limits, Loaded, Model, ModelFile, ModelSpec, Revision, RevisionState, Tenant
from headrace_autoscaler.fleet.reports import ColdStartEntry, DemandEntry, Report
from headrace_common.errors import InvalidArgument, Unavailable

World = Any
"""See conftest.py."""
OpenWorld = Callable[..., Awaitable[World]]
LOADING = RevisionState.LOADING
RETIRING = RevisionState.RETIRING


def revision_of(
    model: str, number: int = 1, state: RevisionState = RevisionState.SERVING, loaded: Loaded | None = None
) -> Revision:
    files = (ModelFile("model.onnx", "a" * 64, 10),)
    return Revision(model, number, "1", state, "artifact", files, "model.onnx", "fake", loaded=loaded)


async def with_standby(open_world: OpenWorld, count: int = 1, **settings: object) -> World:
    world = await open_world(standby=count, **settings)
    await world.until(lambda: world.standby() == count)
    return world


async def test_first_demand_loads_on_a_standby_and_the_pool_is_refilled(open_world: OpenWorld) -> None:
    world = await with_standby(open_world)
    world.catalogue.put(ModelSpec("m", tenant="acme"), revision_of("m"))
    world.demand("m", queued=3, urgent=True)
    await world.until(lambda: world.instances("m"))
    world.answered("m")
    await world.until(lambda: world.standby() == 1)
    [load] = world.machine.loads
    assert (load.model, load.revision, load.tenant, load.epoch, load.entry_point) == ("m", 1, "acme", 7, "model.onnx")
    assert load.files[0].sha256 == "a" * 64
    assert load.directory.endswith("artifacts/artifact")
    assert load.shape.price.micros_per_hour == 42_500
    assert len(world.machine.runners) == 2


async def test_the_refill_leaves_the_first_answer_alone(open_world: OpenWorld) -> None:
    world = await with_standby(open_world)
    world.catalogue.put(ModelSpec("m"), revision_of("m"))
    world.demand("m", queued=1, urgent=True)
    await world.until(lambda: world.instances("m"))
    world.fleet.decide_now()
    assert (world.standby(), len(world.machine.runners)) == (0, 1), "it would take CPU from the first execution"
    world.answered("m")
    await world.until(lambda: world.standby() == 1)


async def test_an_answer_that_nobody_tells_of_holds_the_refill_for_a_second(open_world: OpenWorld) -> None:
    world = await with_standby(open_world)
    world.catalogue.put(ModelSpec("m"), revision_of("m"))
    world.demand("m", queued=1, urgent=True)
    await world.until(lambda: world.instances("m"))
    world.fleet.decide_now()
    world.pass_time(1.0)
    await world.until(lambda: world.standby() == 1)


async def test_the_pool_grows_to_what_was_wanted_at_once_and_says_why(open_world: OpenWorld) -> None:
    world = await with_standby(open_world, standby_max=8)
    names = ("a", "b", "c")
    for name in names:
        world.catalogue.put(ModelSpec(name), revision_of(name))
        world.demand(name, queued=1, urgent=True)
    await world.until(lambda: all(world.instances(name) for name in names))
    for name in names:
        world.answered(name)
    await world.until(lambda: world.standby() == 3)
    target = world.fleet.overview().standby_target
    assert (target.runners, target.reason) == (3, "as many as were wanted at once")
    world.pass_time(3601)
    await world.until(lambda: world.standby() == 1)


async def test_a_deploys_first_load_makes_the_pool_no_larger(open_world: OpenWorld) -> None:
    world = await with_standby(open_world, standby_max=8)
    await asyncio.gather(*(world.fleet.verify(ModelSpec(name), revision_of(name, state=LOADING)) for name in "abc"))
    world.fleet.decide_now()
    assert world.fleet.overview().standby_target.runners == 1


async def test_only_a_load_that_requests_wait_for_goes_without_trial_runs(open_world: OpenWorld) -> None:
    world = await with_standby(open_world)
    world.catalogue.put(ModelSpec("kept", min_instances=1), revision_of("kept"))
    world.fleet.catalogue_changed()
    await world.until(lambda: world.instances("kept") and world.standby() == 1)
    world.catalogue.put(ModelSpec("m"), revision_of("m"))
    world.demand("m", queued=1, urgent=True)
    await world.until(lambda: world.instances("m"))
    assert [(load.model, load.requests_wait) for load in world.machine.loads] == [("kept", False), ("m", True)]


async def test_routers_hear_of_an_instance_while_it_loads(open_world: OpenWorld) -> None:
    world = await with_standby(open_world)
    world.machine.may_load.clear()
    world.catalogue.put(ModelSpec("m"), revision_of("m"))
    world.demand("m", queued=1)
    await world.until(lambda: world.announcements.placements)
    [notice] = world.announcements.placements.values()
    assert (notice.state, notice.target) == ("loading", f"unix:{world.machine.runtime_dir / notice.instance}.sock")
    world.machine.may_load.set()
    await world.until(lambda: world.announcements.states[notice.instance] == ["loading", "ready"])


async def test_a_cold_start_is_recorded_by_phase_and_completed_by_the_router(open_world: OpenWorld) -> None:
    world = await with_standby(open_world)
    world.catalogue.put(ModelSpec("m"), revision_of("m"))
    world.demand("m", queued=1, waited_s=0.004, urgent=True)
    await world.until(lambda: world.instances("m"))
    await world.until(lambda: world.fleet.view("m").cold_start_count == 1)
    [cold] = world.fleet.view("m").cold_starts
    assert (cold.decide_s, cold.place_s, cold.from_standby) == (pytest.approx(0.004), 0.0, True)
    assert (cold.load_s, cold.warm_s) == (pytest.approx(0.02), pytest.approx(0.01))
    entry = ColdStartEntry(world.instances("m")[0], "m", 1, 0.02, 0.01, 0.003, 0.05)
    world.fleet.report(Report("router-0", cold_starts=(entry,)))
    [cold] = world.fleet.view("m").cold_starts
    assert (cold.first_answer_s, cold.total_s) == (0.003, 0.05)
    assert world.fleet.view("m").cold_start_count == 1


async def test_without_a_standby_a_runner_is_started_and_loaded_when_it_is_ready(open_world: OpenWorld) -> None:
    world = await open_world(standby=0)
    world.catalogue.put(ModelSpec("m"), revision_of("m"))
    world.demand("m", queued=1)
    await world.until(lambda: world.fleet.view("m").cold_start_count == 1)
    assert not world.fleet.view("m").cold_starts[0].from_standby
    assert world.standby() == 0


async def test_an_idle_model_goes_to_zero_by_draining(open_world: OpenWorld) -> None:
    world = await with_standby(open_world)
    world.catalogue.put(ModelSpec("m", idle_timeout_s=60, idle_timeout_asked=True), revision_of("m"))
    world.demand("m", queued=1)
    await world.until(lambda: world.instances("m"))
    [instance] = world.instances("m")
    world.demand("m", arrivals=1, completed=1, busy_us=1000)
    world.clock.advance(0.5)
    world.fleet.decide_now()
    world.pass_time(50)
    await world.until(lambda: world.fleet.view("m").decisions[-1].reason == "kept until the idle timeout")
    assert world.instances("m") == [instance]
    world.pass_time(11)
    # Its process is gone before the next pass tells the routers.
    await world.until(lambda: world.announcements.states[instance][-1] == "gone")
    assert not world.fleet.view("m").instances
    assert world.machine.unloads == [instance]
    assert world.announcements.states[instance] == ["loading", "ready", "draining", "gone"]
    assert world.fleet.view("m").decisions[-1].reason == "idle for the idle timeout"


async def test_the_minimum_is_kept_without_demand(open_world: OpenWorld) -> None:
    world = await with_standby(open_world)
    world.catalogue.put(ModelSpec("m", min_instances=2), revision_of("m"))
    world.fleet.catalogue_changed()
    await world.until(lambda: len(world.instances("m")) == 2)
    assert world.fleet.view("m").cold_start_count == 0


async def test_a_runner_that_dies_is_replaced_where_there_is_demand(open_world: OpenWorld) -> None:
    world = await with_standby(open_world)
    world.catalogue.put(ModelSpec("m"), revision_of("m"))
    world.demand("m", queued=1)
    await world.until(lambda: world.instances("m"))
    [first] = world.instances("m")
    world.clock.advance(5)
    await world.machine.runners[first].die("killed by SIGKILL")
    await world.until(lambda: world.instances("m") not in ([], [first]))
    assert world.announcements.states[first][-1] == "gone"


async def test_a_deploy_is_verified_and_its_runner_serves_on(open_world: OpenWorld) -> None:
    world = await with_standby(open_world)
    revision = revision_of("m", 1, LOADING)
    loaded = await world.fleet.verify(ModelSpec("m"), revision)
    assert (loaded.max_batch_size, loaded.profile_us) == (8, ((1, 1000), (8, 2000)))
    assert loaded.signature.batchable
    assert world.announcements.placements == {}
    serving = replace(revision, state=RevisionState.SERVING, loaded=loaded)
    world.catalogue.put(ModelSpec("m", idle_timeout_s=60), serving)
    world.fleet.catalogue_changed()
    await world.until(lambda: world.announcements.placements)
    assert len(world.machine.loads) == 1
    world.pass_time(61)
    await world.until(lambda: not world.fleet.view("m").instances)


async def test_a_deploy_that_the_engine_refuses_leaves_no_runner_behind(open_world: OpenWorld) -> None:
    world = await with_standby(open_world)
    world.machine.load_refusals["m"] = "model.onnx: unsupported opset 99"
    with pytest.raises(InvalidArgument, match="unsupported opset 99"):
        await world.fleet.verify(ModelSpec("m"), revision_of("m", 1, LOADING))
    await world.until(lambda: not world.fleet.view("m").instances and world.standby() == 1)
    assert len(world.machine.runners) == 1


async def test_a_deploy_given_up_is_discarded(open_world: OpenWorld) -> None:
    world = await with_standby(open_world)
    await world.fleet.verify(ModelSpec("m"), revision_of("m", 1, LOADING))
    await world.fleet.discard("m", 1)
    await world.until(lambda: not world.fleet.view("m").instances)


async def test_a_deploy_whose_caller_goes_away_stops_its_load(open_world: OpenWorld) -> None:
    world = await with_standby(open_world)
    world.machine.may_load.clear()
    deploy = asyncio.create_task(world.fleet.verify(ModelSpec("m"), revision_of("m", 1, LOADING)))
    await world.until(lambda: world.machine.loads)
    deploy.cancel()
    with pytest.raises(asyncio.CancelledError):
        await deploy
    await world.until(lambda: not world.fleet.view("m").instances)


async def test_a_deploy_fails_with_the_reason_when_no_runner_can_be_started(open_world: OpenWorld) -> None:
    world = await open_world(standby=0)
    world.machine.start_failure = "no space left"
    deploy = asyncio.create_task(world.fleet.verify(ModelSpec("m"), revision_of("m", 1, LOADING)))
    await world.until(lambda: not world.clock.advance(1) and (world.fleet.catalogue_changed() or deploy.done()))
    with pytest.raises(Unavailable, match="no space left"):
        await deploy


async def test_a_redeploy_keeps_the_old_revision_until_routers_are_done_with_it(open_world: OpenWorld) -> None:
    world = await with_standby(open_world)
    world.catalogue.put(ModelSpec("m"), revision_of("m"))
    world.demand("m", queued=1)
    await world.until(lambda: world.instances("m"))
    [old] = world.instances("m")
    new = revision_of("m", 2, LOADING)
    world.catalogue.put(ModelSpec("m"), revision_of("m", 1), new)
    loaded = await world.fleet.verify(ModelSpec("m"), new)
    world.announcements.heard = False
    serving = replace(new, state=RevisionState.SERVING, loaded=loaded)
    world.catalogue.put(ModelSpec("m"), revision_of("m", 1, RETIRING), serving)
    world.demand("m", 1, in_flight=2)
    await world.until(lambda: len(world.announcements.placements) == 2)
    world.announcements.heard = True
    world.pass_time(1)
    await world.until(lambda: world.fleet.view("m").decisions[-2].reason == "replaced: answers what it had accepted")
    assert old in world.instances("m")
    world.announcements.heard = False
    world.demand("m", 1)
    await world.until(lambda: "not known" in "".join(each.reason for each in world.fleet.view("m").decisions[-2:]))
    assert old in world.instances("m")
    world.announcements.heard = True
    world.pass_time(1)
    await world.until(lambda: world.catalogue.finished == [("m", 1)])
    assert world.machine.unloads == [old]
    assert len(world.instances("m")) == 1


async def test_a_deleted_model_drains_and_is_forgotten(open_world: OpenWorld) -> None:
    world = await with_standby(open_world)
    world.catalogue.put(ModelSpec("m", min_instances=1), revision_of("m"))
    world.fleet.catalogue_changed()
    await world.until(lambda: world.instances("m"))
    world.catalogue.by_name["m"] = Model(ModelSpec("m"), 0.0, (revision_of("m", 1, RETIRING),), deleting=True)
    world.fleet.catalogue_changed()
    await world.until(lambda: world.catalogue.finished == [("m", 1)] or world.pass_time(0.5))
    world.fleet.catalogue_changed()
    await world.until(lambda: not world.machine.loads or len(world.machine.runners) == 1)
    assert world.fleet.view("m").instances == ()


async def test_a_load_that_keeps_failing_blocks_the_model_with_the_reason(open_world: OpenWorld) -> None:
    world = await with_standby(open_world)
    world.machine.load_refusals["m"] = "out of memory"
    world.catalogue.put(ModelSpec("m"), revision_of("m"))
    for failures in (1, 2, 3):
        world.demand("m", queued=1)
        await world.until(lambda count=failures: world.fleet.placing.failed_count == count and world.standby() == 1)
        if failures < 3:
            world.fleet.catalogue_changed()
            assert world.fleet.view("m").blocked_reason == ""
            world.clock.advance(5)
    world.demand("m", queued=1)
    await world.until(lambda: world.fleet.view("m").blocked_reason)
    assert world.fleet.view("m").blocked_reason == "model 'm' cannot be loaded: out of memory"
    assert world.announcements.blocked == {("m", 1): "model 'm' cannot be loaded: out of memory"}
    world.machine.load_refusals.clear()
    world.pass_time(31)
    await world.until(lambda: world.instances("m"))
    assert world.fleet.view("m").blocked_reason == ""


async def test_a_tenants_limit_blocks_with_a_sentence(open_world: OpenWorld) -> None:
    world = await with_standby(open_world)
    world.catalogue.tenant_list.append(Tenant("acme", Limits(cpu_millicores=500)))
    world.catalogue.put(ModelSpec("m", tenant="acme"), revision_of("m"))
    world.demand("m", queued=1)
    await world.until(lambda: "raise the tenant's cpu" in world.fleet.view("m").blocked_reason)
    assert world.machine.loads == []
    world.catalogue.tenant_list[0] = Tenant("acme", Limits(cpu_millicores=1000))
    world.fleet.catalogue_changed()
    await world.until(lambda: world.instances("m"))


async def test_a_successor_adopts_what_runs_and_restarts_nothing(open_world: OpenWorld) -> None:
    world = await with_standby(open_world)
    world.catalogue.put(ModelSpec("m"), revision_of("m"))
    world.demand("m", queued=1)
    await world.until(lambda: world.instances("m"))
    world.answered("m")
    await world.until(lambda: world.standby() == 1)
    runners = set(world.machine.runners)
    await world.fleet.close()
    successor = await world.successor()
    try:
        assert len(successor.instances("m")) == 1
        assert successor.standby() == 1
        assert set(world.machine.runners) == runners
        [notice] = world.announcements.placements.values()
        assert notice.state == "ready"
        assert successor.fleet.overview().epoch == 8
    finally:
        await successor.fleet.close()


async def test_a_successor_keeps_every_instance_until_it_has_watched_for_a_window(open_world: OpenWorld) -> None:
    world = await with_standby(open_world)
    world.catalogue.put(ModelSpec("m", min_instances=3), revision_of("m"))
    world.fleet.catalogue_changed()
    await world.until(lambda: len(world.instances("m")) == 3)
    world.catalogue.put(ModelSpec("m", idle_timeout_s=600), revision_of("m"))
    await world.fleet.close()
    successor = await world.successor()
    try:
        successor.pass_time(5)
        await successor.until(lambda: successor.fleet.view("m").decisions)
        assert len(successor.instances("m")) == 3
        successor.pass_time(6)
        await successor.until(lambda: len(successor.fleet.view("m").instances) == 1)
    finally:
        await successor.fleet.close()


async def test_a_successor_unloads_what_was_deleted_meanwhile(open_world: OpenWorld) -> None:
    world = await with_standby(open_world)
    world.catalogue.put(ModelSpec("m", min_instances=1), revision_of("m"))
    world.fleet.catalogue_changed()
    await world.until(lambda: world.instances("m"))
    [instance] = world.instances("m")
    await world.fleet.close()
    world.catalogue.by_name.clear()
    successor = await world.successor()
    try:
        await until_unloaded(successor, instance)
    finally:
        await successor.fleet.close()


async def until_unloaded(world: World, instance: str) -> None:
    await world.until(lambda: instance not in world.machine.runners)
    assert world.machine.unloads == [instance]


async def test_an_instance_that_does_not_finish_draining_is_killed(open_world: OpenWorld) -> None:
    world = await with_standby(open_world, drain_timeout_s=30.0)
    world.catalogue.put(ModelSpec("m", idle_timeout_s=1), revision_of("m"))
    world.demand("m", queued=1)
    await world.until(lambda: world.instances("m"))
    world.machine.may_exit.clear()
    world.demand("m", arrivals=1, completed=1)
    world.clock.advance(0.5)
    world.fleet.decide_now()
    world.pass_time(2)
    await world.until(lambda: world.machine.unloads)
    world.pass_time(36)
    await world.until(lambda: not world.fleet.view("m").instances)
    world.machine.may_exit.set()


async def test_shutting_down_unloads_instances_and_leaves_no_runner(open_world: OpenWorld) -> None:
    world = await with_standby(open_world)
    world.catalogue.put(ModelSpec("m", min_instances=1), revision_of("m"))
    world.fleet.catalogue_changed()
    await world.until(lambda: world.instances("m") and world.standby() == 1)
    [instance] = world.instances("m")
    await world.fleet.shut_down(30)
    assert world.machine.runners == {}
    assert world.machine.unloads == [instance]


async def test_the_books_hold_instances_standby_and_requests(open_world: OpenWorld) -> None:
    world = await with_standby(open_world)
    world.clock.advance(10)
    world.catalogue.put(ModelSpec("m", tenant="acme"), revision_of("m"))
    world.demand("m", queued=1)
    await world.until(lambda: world.instances("m"))
    world.answered("m")
    await world.until(lambda: world.standby() == 1)
    world.demand("m", arrivals=3, completed=3, busy_us=250_000, tenant="guest")
    world.clock.advance(20)
    await world.fleet.close()
    booked = {(key.tenant, key.model): usage for key, usage in world.usage.items() if key.shape}
    assert booked["acme", "m"].instance_seconds == pytest.approx(20.0)
    assert booked["acme", "m"].cold_starts == 1
    assert booked["operator", ""].instance_seconds == pytest.approx(30.0)
    assert booked["guest", "m"] == replace(booked["guest", "m"], requests=3, busy_seconds=0.25, cost_micros=0)
    assert booked["acme", "m"].cost_micros == 42_500 * 20 // 3600


async def test_what_the_cache_answers_is_counted_and_keeps_no_instance(open_world: OpenWorld) -> None:
    world = await with_standby(open_world)
    world.catalogue.put(ModelSpec("m", tenant="acme", idle_timeout_s=5.0), revision_of("m"))
    world.demand("m", queued=1)
    await world.until(lambda: world.instances("m"))
    world.demand("m", arrivals=1, completed=1)
    for _ in range(20):
        world.demand("m", cache_hits=1000)
        world.clock.advance(1.0)
        world.fleet.decide_now()
    await world.until(lambda: not world.fleet.view("m").instances)
    assert world.fleet.view("m").requests == 20_001
    await world.fleet.close()
    assert sum(usage.requests for key, usage in world.usage.items() if key.model == "m") == 20_001


async def test_decisions_are_kept_where_they_change(open_world: OpenWorld) -> None:
    world = await with_standby(open_world)
    world.catalogue.put(ModelSpec("m"), revision_of("m"))
    world.demand("m", queued=1)
    await world.until(lambda: world.instances("m"))
    before = len(world.fleet.view("m").decisions)
    for _ in range(5):
        world.demand("m", queued=1)
        await asyncio.sleep(0)
    assert len(world.fleet.view("m").decisions) <= before + 1
    first = next(each for each in world.fleet.view("m").decisions if each.desired)
    assert (first.current, first.desired, first.reason) == (0, 1, "demand: one instance is enough for it")
    assert dict(first.inputs)["queued"] == 1.0


async def test_a_target_on_gpu_memory_follows_what_runners_report_and_says_where_none_does(
    open_world: OpenWorld,
) -> None:
    world = await with_standby(open_world)
    world.catalogue.put(ModelSpec("m", targets=(("gpu_memory", 0.5),)), revision_of("m"))
    world.demand("m", queued=1, urgent=True)
    await world.until(lambda: world.instances("m"))
    world.pass_time(1)
    await world.until(lambda: world.fleet.view("m").decisions[-1].reason.endswith(NO_GPU_MEMORY))
    [first] = world.instances("m")
    await world.machine.runners[first].measure(9, 10)
    await world.until(lambda: world.fleet.registry.get(first).gpu_memory is not None)
    world.demand("m", queued=1)
    world.pass_time(1)
    await world.until(lambda: len(world.instances("m")) == 2)
    assert world.fleet.view("m").decisions[-1].reason == "the target on gpu memory use"


async def test_a_policy_that_fails_stops_no_other_model(open_world: OpenWorld) -> None:
    world = await with_standby(open_world)
    world.catalogue.put(ModelSpec("broken", schedules=("0 8 * * 1-5 Nowhere/AtAll=4",)), revision_of("broken"))
    world.catalogue.put(ModelSpec("m"), revision_of("m"))
    world.demand("m", queued=1, urgent=True)
    await world.until(lambda: world.instances("m"))
    world.answered("m")
    world.demand("broken", queued=1, urgent=True)
    await world.until(lambda: world.instances("broken"))
    assert "Nowhere/AtAll" in world.fleet.view("broken").decisions[-1].reason


async def test_what_was_counted_while_nobody_listened_is_not_what_comes_now(open_world: OpenWorld) -> None:
    world = await with_standby(open_world)
    world.catalogue.put(ModelSpec("m"), revision_of("m"))
    entry = DemandEntry("acme", "m", 1, Counts(arrivals=6000, rows=6000, completed=6000, bundles=6000))
    world.fleet.report(Report("router-0", (entry,), period_s=60.0))
    world.clock.advance(1.0)
    world.fleet.decide_now()
    assert dict(world.fleet.view("m").decisions[-1].inputs)["arrival_rate"] == 25.0
    assert world.fleet.view("m").requests == 6000, "the books count them all"


async def test_a_router_that_is_not_heard_for_a_moment_takes_no_instance_along(open_world: OpenWorld) -> None:
    world = await with_standby(open_world)
    world.catalogue.put(ModelSpec("m"), revision_of("m"))
    world.demand("m", queued=1, arrivals=1, urgent=True)
    await world.until(lambda: world.instances("m"))
    world.fleet.router_gone("router-0")
    world.clock.advance(9.0)
    world.fleet.decide_now()
    assert world.instances("m")
    world.pass_time(2.0)
    await world.until(lambda: not world.fleet.view("m").instances)
