"""What the fleet does when something goes wrong between two steps, over fake runners."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from headrace.runner.v1 import runner_pb2, runner_pb2_grpc
from headrace_autoscaler.core.backoff import Failures
from headrace_autoscaler.domain import (
    DecisionRecord,
    Limits,
    ModelFile,
    ModelSpec,
    Resources,
    Revision,
    RevisionState,
    Tenant,
)
from headrace_autoscaler.fleet.history import History
from headrace_autoscaler.fleet.link import RunnerLink
from headrace_autoscaler.providers.fake import FakeProvider
from headrace_common.config import RouterConfig
from headrace_common.errors import Unavailable

World = Any
"""See conftest.py."""
OpenWorld = Callable[..., Awaitable[World]]


def revision_of(model: str, number: int = 1, **fields: Any) -> Revision:
    files = (ModelFile("model.onnx", "a" * 64, 10),)
    return Revision(model, number, "1", RevisionState.SERVING, "artifact", files, "model.onnx", "fake", **fields)


async def with_standby(open_world: OpenWorld, count: int = 1, **settings: object) -> World:
    world = await open_world(standby=count, **settings)
    await world.until(lambda: world.standby() == count)
    return world


async def test_a_runner_that_shows_itself_late_is_adopted(open_world: OpenWorld) -> None:
    """It was starting when the autoscaler before died: its socket came after the successor had looked."""
    world = await with_standby(open_world)
    await FakeProvider(world.machine).start("runner-late")
    await world.until(lambda: len(world.machine.runners) == 1)
    assert world.standby() == 1, "one too many: adopted and stopped"


async def test_a_runner_that_shows_itself_much_later_is_a_successors(open_world: OpenWorld) -> None:
    world = await with_standby(open_world, decision_period_s=0.1)
    world.pass_time(121)
    await FakeProvider(world.machine).start("runner-theirs")
    world.fleet.catalogue_changed()
    for _ in range(2):
        flushed = dict(world.usage)
        world.clock.advance(1)
        await world.until(lambda seen=flushed: world.usage != seen)
    assert "runner-theirs" in world.machine.runners


async def test_a_cold_start_that_had_to_make_room_still_came_from_the_standby(open_world: OpenWorld) -> None:
    world = await with_standby(open_world)
    world.catalogue.tenant_list.append(Tenant("acme", Limits(cpu_millicores=1000)))
    world.catalogue.put(ModelSpec("idle", tenant="acme"), revision_of("idle"))
    world.demand("idle", queued=1)
    await world.until(lambda: world.instances("idle"))
    world.answered("idle")
    await world.until(lambda: world.standby() == 1)
    world.demand("idle")
    world.pass_time(11)
    world.catalogue.put(ModelSpec("wanted", tenant="acme"), revision_of("wanted"))
    world.demand("wanted", queued=1, urgent=True)
    await world.until(lambda: world.fleet.view("wanted").cold_start_count == 1)
    assert world.machine.unloads, "room was made first"
    assert world.fleet.view("wanted").cold_starts[0].from_standby


async def test_a_load_that_fails_unexpectedly_fails_its_deploy(open_world: OpenWorld) -> None:
    world = await with_standby(open_world)
    beyond_the_wire = revision_of("m", max_batch_size=1 << 40)
    async with asyncio.timeout(5):
        with pytest.raises(Unavailable, match=r"model 'm' did not end: an unexpected error, .*log"):
            await world.fleet.verify(ModelSpec("m"), beyond_the_wire)
    await world.until(lambda: not world.fleet.view("m").instances and world.standby() == 1)


async def test_what_runs_does_not_hide_that_no_runner_can_be_started(open_world: OpenWorld) -> None:
    world = await with_standby(open_world)
    world.catalogue.put(ModelSpec("runs", min_instances=1), revision_of("runs"))
    world.machine.start_failure = "no space left"
    world.fleet.catalogue_changed()
    await world.until(lambda: world.instances("runs"))
    world.catalogue.put(ModelSpec("m"), revision_of("m"))
    world.demand("m", queued=1)
    await world.until(lambda: world.fleet.view("m").blocked_reason or world.pass_time(1))
    world.machine.may_exit.clear()
    await world.until(lambda: world.fleet.view("m").decisions[-1].reason.endswith("no space left"))
    said = len(world.fleet.view("m").decisions)
    [instance] = world.instances("runs")
    async with grpc.aio.insecure_channel(f"unix:{world.machine.runners[instance].socket}") as channel:
        await runner_pb2_grpc.RunnerServiceStub(channel).Unload(runner_pb2.UnloadRequest(epoch=7))
    await world.until(lambda: world.fleet.view("runs").decisions[-1].reason.endswith("no space left"))
    assert world.fleet.view("m").blocked_reason == "no space left"
    assert len(world.fleet.view("m").decisions) == said, "nothing has changed for it, not even for a moment"
    world.machine.may_exit.set()


async def test_a_runner_that_obeys_a_successor_is_not_killed(open_world: OpenWorld) -> None:
    world = await with_standby(open_world)
    [(name, runner)] = world.machine.runners.items()
    async with grpc.aio.insecure_channel(f"unix:{runner.socket}") as channel:
        stub = runner_pb2_grpc.RunnerServiceStub(channel)
        await stub.Load(runner_pb2.LoadRequest(epoch=8, instance_id=name, tenant="acme", model="theirs", revision=1))
    # To us the model is unknown, so we would stop it: it refuses, and is left alone.
    await world.until(lambda: world.fleet.view("theirs").instances)
    await world.until(lambda: world.standby() == 1)
    world.pass_time(100)
    await world.until(lambda: world.fleet.view("theirs").instances[0].state == "gone" or not world.instances("theirs"))
    assert name in world.machine.runners
    assert world.machine.unloads == []


async def test_a_count_that_is_cut_off_by_the_runners_end_is_unknown(runtime_dir: Path) -> None:
    hangs = asyncio.Event()

    class Hanging(runner_pb2_grpc.RunnerServiceServicer):
        async def GetStats(self, _request: Any, _context: Any) -> runner_pb2.GetStatsResponse:
            hangs.set()
            await asyncio.Event().wait()
            raise AssertionError

    server = grpc.aio.server()
    runner_pb2_grpc.add_RunnerServiceServicer_to_server(Hanging(), server)
    target = f"unix:{runtime_dir / 'runner-a.sock'}"
    server.add_insecure_port(target)
    await server.start()
    link = RunnerLink(target)
    asked = asyncio.create_task(link.requests())
    await hangs.wait()
    await link.close()
    assert await asked is None
    assert await link.requests() is None
    await server.stop(None)


def test_what_was_said_of_a_revision_is_forgotten_with_it() -> None:
    history = History()
    record = DecisionRecord(0.0, 1, 0, 1, "first demand")
    assert history.decided("m", record)
    assert not history.decided("m", record)
    history.keep_only({("m", 2)})
    assert history.decided("m", record)
    assert len(history.decisions("m")) == 2


def test_attempts_that_fail_together_are_one_failure() -> None:
    once = Failures().failed("no space left", 100.0)
    assert once.failed("no space left", 100.5) == once
    again = once.failed("no space left", 101.0)
    assert (again.count, again.retry_at) == (2, 103.0)
    assert not again.blocking


async def test_an_instance_that_keeps_dying_as_soon_as_it_serves_is_replaced_with_pauses(open_world: OpenWorld) -> None:
    world = await with_standby(open_world)
    world.catalogue.put(ModelSpec("m", min_instances=1), revision_of("m"))
    world.fleet.catalogue_changed()
    poison = RouterConfig().max_attempts
    for deaths in range(1, poison + 1):
        await world.until(lambda: world.instances("m") and world.standby() == 1)
        [instance] = world.instances("m")
        await world.machine.runners[instance].die("killed by SIGKILL")
        await world.until(lambda count=deaths: len(world.machine.loads) == count + 1)
        assert not world.fleet.placing.failures, "one poison request may have done it: replaced at once"
    for deaths in (1, 2, 3):
        await world.until(lambda: world.instances("m") and world.standby() == 1)
        [instance] = world.instances("m")
        assert world.fleet.view("m").blocked_reason == "", "two deaths may be bad luck"
        await world.machine.runners[instance].die("killed by SIGKILL")
        await world.until(lambda count=deaths: world.fleet.placing.failed_count == count)
        await world.until(lambda: not world.fleet.view("m").instances)
        world.fleet.decide_now()
        assert len(world.machine.loads) == poison + deaths, "not at once"
        if deaths < 3:
            world.pass_time(2.0**deaths)
    assert world.fleet.view("m").blocked_reason == (
        "model 'm' does not keep running: its runner ended within 5 s of being ready (killed by SIGKILL); "
        "runners.log may say why"
    )
    world.pass_time(5)
    await world.until(lambda: world.instances("m"))
    world.pass_time(5)
    await world.until(lambda: not world.fleet.placing.failures)


async def test_a_hanging_load_holds_the_pools_refill_for_a_second(open_world: OpenWorld) -> None:
    world = await with_standby(open_world)
    world.machine.may_load.clear()
    world.catalogue.put(ModelSpec("m", min_instances=1), revision_of("m"))
    world.fleet.catalogue_changed()
    await world.until(lambda: world.machine.loads)
    world.fleet.decide_now()
    assert len(world.machine.runners) == 1, "the load has the CPU for itself"
    world.pass_time(1)
    await world.until(lambda: world.standby() == 1)
    assert not world.instances("m")
    world.machine.may_load.set()


async def test_a_deploy_beyond_the_quota_says_so_at_once_and_its_instance_goes(open_world: OpenWorld) -> None:
    world = await with_standby(open_world)
    world.catalogue.tenant_list.append(Tenant("acme", Limits(cpu_millicores=1000)))
    for name in ("q1", "q2", "q3"):
        spec, revision = ModelSpec(name, tenant="acme", min_instances=1), revision_of(name)
        loaded = await world.fleet.verify(spec, revision)
        world.catalogue.put(spec, replace(revision, loaded=loaded))
        world.fleet.decide_now()
        assert ("uses 1; model" in world.fleet.view(name).blocked_reason) is (name != "q1")
    [first] = world.instances("q1")
    await world.until(lambda: not world.fleet.view("q2").instances and not world.fleet.view("q3").instances)
    for _ in range(5):
        world.pass_time(3)
        await world.until(lambda: world.standby() == 1)
    assert world.instances("q1") == [first]
    assert len(world.machine.loads) == 3, "each was verified once, and nothing was started in vain"
    world.catalogue.tenant_list[0] = Tenant("acme", Limits(cpu_millicores=3000))
    world.fleet.catalogue_changed()
    await world.until(lambda: world.instances("q2") and world.instances("q3"))


async def test_an_instance_over_its_memory_is_replaced_and_the_tenant_told(open_world: OpenWorld) -> None:
    world = await with_standby(open_world)
    world.catalogue.put(ModelSpec("m", tenant="acme", min_instances=1), revision_of("m"))
    world.fleet.catalogue_changed()
    await world.until(lambda: world.instances("m") and world.standby() == 1)
    [first] = world.instances("m")
    assert world.machine.held[first] == Resources(), "held before it loads"
    [view] = world.fleet.view("m").instances
    assert view.enforcement.cpu.startswith("threads only, millicores are not enforced on this machine: ")
    world.machine.may_exit.clear()
    await world.machine.runners[first].outgrow("over its memory: it holds 2Gi, and 1Gi is its share", 2 << 30)
    # Another one serves while it answers what it holds.
    await world.until(lambda: world.instances("m") not in ([], [first]))
    world.machine.may_exit.set()
    view = world.fleet.view("m")
    said = f"instance {first} is replaced: over its memory: it holds 2Gi, and 1Gi is its share"
    assert view.outgrown is not None
    assert view.outgrown.reason == said
    assert [(each.reason, dict(each.inputs)) for each in view.decisions if each.reason == said] == [
        (said, {"memory_bytes": float(1 << 30)})
    ]
    assert world.fleet.placing.outgrown == {("acme", "m"): 1}
    assert not world.fleet.placing.failures, "once is bad luck"


async def test_what_the_kernel_killed_for_want_of_memory_counts_as_outgrown(open_world: OpenWorld) -> None:
    world = await with_standby(open_world)
    world.catalogue.put(ModelSpec("m", min_instances=1), revision_of("m"))
    world.fleet.catalogue_changed()
    await world.until(lambda: world.instances("m"))
    [first] = world.instances("m")
    await world.machine.runners[first].die("killed by SIGKILL", over_memory=True)
    await world.until(lambda: world.fleet.view("m").outgrown)
    assert world.fleet.view("m").outgrown.reason == (
        f"instance {first} is replaced: over its memory: 1Gi is its share (killed by SIGKILL); "
        "deploy the model with more memory"
    )


async def test_a_model_that_outgrows_its_memory_again_and_again_is_started_with_pauses(open_world: OpenWorld) -> None:
    world = await with_standby(open_world)
    world.catalogue.put(ModelSpec("m", min_instances=1), revision_of("m"))
    world.fleet.catalogue_changed()
    poison = RouterConfig().max_attempts
    for round_ in range(poison + 3):
        await world.until(lambda: world.instances("m") and world.standby() == 1)
        [instance] = world.instances("m")
        world.pass_time(20)
        await world.machine.runners[instance].outgrow("over its memory", 2 << 30)
        await world.until(lambda count=round_: sum(world.fleet.placing.outgrown.values()) == count + 1)
        failed = max(0, round_ + 1 - poison)
        assert world.fleet.placing.failed_count == failed
        if failed:
            await world.until(lambda: not world.fleet.view("m").instances)
            world.fleet.decide_now()
            assert len(world.machine.loads) == round_ + 1, "not at once"
            if failed < 3:
                world.pass_time(2.0**failed)
    assert world.fleet.view("m").blocked_reason == (
        "model 'm' outgrows its memory within 60 s of being ready: over its memory"
    )
    world.pass_time(5)
    await world.until(lambda: world.instances("m"))
    world.pass_time(59)
    world.fleet.decide_now()
    assert world.fleet.placing.failures, "it has not lasted long enough"
    world.pass_time(1)
    await world.until(lambda: not world.fleet.placing.failures)


async def test_one_that_lasts_a_minute_is_replaced_without_a_pause(open_world: OpenWorld) -> None:
    world = await with_standby(open_world)
    world.catalogue.put(ModelSpec("m", min_instances=1), revision_of("m"))
    world.fleet.catalogue_changed()
    for round_ in range(RouterConfig().max_attempts + 2):
        await world.until(lambda: world.instances("m") and world.standby() == 1)
        [instance] = world.instances("m")
        world.pass_time(61)
        await world.machine.runners[instance].outgrow("over its memory", 2 << 30)
        await world.until(lambda count=round_: sum(world.fleet.placing.outgrown.values()) == count + 1)
    assert world.fleet.placing.failed_count == 0


async def test_an_adopted_instance_is_held_again(open_world: OpenWorld) -> None:
    world = await with_standby(open_world)
    world.catalogue.put(ModelSpec("m", min_instances=1), revision_of("m"))
    world.fleet.catalogue_changed()
    await world.until(lambda: world.instances("m"))
    [instance] = world.instances("m")
    await world.fleet.close()
    world.machine.held.clear()
    successor = await world.successor()
    await successor.until(lambda: world.machine.held.get(instance) == Resources())
    await successor.until(lambda: successor.fleet.view("m").instances[0].enforcement.cpu)
    await successor.fleet.close()
