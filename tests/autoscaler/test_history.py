"""What was decided and started, and what is left of it after a restart."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from headrace_autoscaler.domain import ColdStart, DecisionRecord, Learnt, ModelFile, ModelPast, ModelSpec, Revision
from headrace_autoscaler.domain import RevisionState as State
from headrace_autoscaler.fleet.history import PHASES, History
from headrace_autoscaler.store.history_files import HistoryFiles

World = Any
"""See conftest.py."""
OpenWorld = Callable[..., Awaitable[World]]
START = ColdStart(1000.5, 1, 0.001, 0.002, 0.03, 0.0, 0.01, 0.05, True)
PAST = ModelPast(7, (("runner-1", START),), (DecisionRecord(1000.0, 1, 0, 1, "first demand", (("queued", 3.0),)),))


def cold_start(history: History, runner: str, total_s: float) -> None:
    """One start from zero, seen to its end by a router."""
    history.demand_at_zero(("m", 1), 1000.0, 10.0, 0.001, frozenset({runner}))
    history.placed(("m", 1), runner, 10.001)
    history.loaded(("m", 1), runner, 0.02, 0.0)
    history.completed("m", runner, 0.02, 0.0, 0.01, total_s)


def test_p95_of_the_recent_cold_starts() -> None:
    history = History()
    assert (history.cold_start_p95("m"), history.phases_p95("m")) == (None, {})
    cold_start(history, "first", 0.04)
    assert history.cold_start_p95("m") == 0.04
    for number in range(2, 101):
        cold_start(history, f"r{number}", number / 1000)
    assert history.cold_start_p95("m") == 0.099, "the 31st of the last 32"
    assert set(history.phases_p95("m")) == set(PHASES)
    assert history.phases_p95("m")["place_s"] == pytest.approx(0.001)


def test_a_router_may_know_of_the_first_answer_before_the_load_is_known_to_have_ended() -> None:
    history = History()
    history.demand_at_zero(("m", 1), 1000.0, 10.0, 0.001, frozenset({"r"}))
    history.placed(("m", 1), "r", 10.001)
    history.completed("m", "r", 0.02, 0.001, 0.01, 0.04)
    assert history.cold_starts("m") == ()
    assert history.loaded(("m", 1), "r", 0.02, 0.0)
    [cold] = history.cold_starts("m")
    assert (cold.warm_s, cold.first_answer_s, cold.total_s) == (0.001, 0.01, 0.04)
    assert history.cold_start_p95("m") == 0.04


def test_what_a_start_takes_is_known_by_the_best_that_there_is() -> None:
    history = History()
    assert history.start_p95("m") is None
    history.verified("m", 1.9)
    assert history.start_p95("m") == 1.9, "the first load, which tries what later ones need not"
    assert not history.loaded(("m", 1), "second", 0.02, 0.01)
    assert not history.loaded(("m", 1), "third", 0.02, 0.01, runner_s=1.0)
    assert history.start_p95("m") == pytest.approx(1.03), "its runner had to start before it"
    assert (history.cold_start_p95("m"), history.cold_start_count("m")) == (None, 0)
    again = History()
    again.recall({"m": history.past("m")})
    assert again.start_p95("m") == history.start_p95("m")
    cold_start(history, "fourth", 0.04)
    history.verified("m", 1.9)
    assert history.start_p95("m") == 0.04, "one from zero says more than all others"


def test_reasons_that_take_turns_are_told_once_a_minute() -> None:
    history = History()

    def told(at: float, desired: int, reason: str) -> bool:
        return history.decided("m", DecisionRecord(at, 1, 1, desired, reason))

    assert [told(0.0, 1, "a"), told(0.2, 1, "a"), told(0.5, 1, "b")] == [True, False, True]
    assert [told(1.0, 1, "a"), told(2.0, 1, "b"), told(3.0, 1, "c")] == [False, False, True]
    assert [told(4.0, 2, "a"), told(5.0, 1, "a")] == [True, True], "another number is another decision"
    assert [told(6.0, 1, "b"), told(61.0, 1, "a"), told(66.0, 1, "a")] == [True, False, True]


def test_what_was_told_before_a_restart_is_not_told_again() -> None:
    history = History()
    history.recall({"m": PAST})
    assert not history.decided("m", replace(PAST.decisions[0], at=1001.0))
    assert history.decided("m", replace(PAST.decisions[0], at=1001.0, desired=2))


def test_what_changed_is_taken_once() -> None:
    history = History()
    history.recall({"m": PAST})
    assert history.take_changed() == {}
    cold_start(history, "runner-2", 0.04)
    changed = history.take_changed()
    assert changed["m"] is not None
    assert (changed["m"].cold_start_count, len(changed["m"].cold_starts)) == (8, 2)
    assert history.take_changed() == {}
    history.give_back(changed)
    assert history.take_changed() == changed


def test_a_router_may_tell_of_a_start_from_before() -> None:
    history = History()
    history.recall({"m": PAST})
    history.completed("m", "runner-1", 0.0, 0.0, 0.02, 0.06)
    assert history.cold_starts("m") == (replace(START, first_answer_s=0.02, total_s=0.06),)
    assert set(history.take_changed()) == {"m"}


def test_a_model_that_is_gone_leaves_nothing() -> None:
    history = History()
    history.recall({"m": PAST})
    history.keep_only({("other", 1)})
    assert history.take_changed() == {"m": None}
    assert history.cold_start_count("m") == 0


def test_files_hold_what_was_written(tmp_path: Path) -> None:
    files = HistoryFiles(tmp_path / "history")
    assert files.read() == {}
    files.write({"m": PAST, "v1.2-b": ModelPast(), "gone": PAST})
    files.write({"gone": None, "never": None})
    assert files.read() == {"m": PAST, "v1.2-b": ModelPast()}


@pytest.mark.parametrize("content", ["", "[1]", '[{"cold_start_count": "many"}]'], ids=["empty", "a list", "no number"])
def test_a_file_that_cannot_be_read_takes_nothing_else_with_it(tmp_path: Path, content: str) -> None:
    files = HistoryFiles(tmp_path)
    files.write({"m": PAST})
    (tmp_path / "broken.json").write_text(content)
    assert files.read() == {"m": PAST}


async def test_a_restart_keeps_decisions_and_cold_starts(open_world: OpenWorld) -> None:
    world = await open_world()
    file = ModelFile("model.onnx", "a" * 64, 10)
    revision = Revision("m", 1, "1", State.SERVING, "artifact", (file,), "model.onnx", "fake")
    world.catalogue.put(ModelSpec("m"), revision)
    world.demand("m", queued=1, waited_s=0.004, urgent=True)
    await world.until(lambda: world.fleet.view("m").cold_start_count == 1)
    world.answered("m")
    before = world.fleet.view("m")
    await world.fleet.shut_down(1.0)
    successor = await world.successor()
    try:
        after = successor.fleet.view("m")
        assert (after.cold_start_count, after.cold_starts) == (1, before.cold_starts)
        assert after.decisions[: len(before.decisions)] == before.decisions
        assert after.cold_start_p95_s == 0.05
    finally:
        await successor.fleet.close()


async def test_a_model_that_never_was_at_zero_has_a_start_time(open_world: OpenWorld) -> None:
    world = await open_world(standby=2)
    file = ModelFile("model.onnx", "a" * 64, 10)
    revision = Revision("m", 1, "1", State.SERVING, "artifact", (file,), "model.onnx", "fake")
    world.catalogue.put(ModelSpec("m", min_instances=1, policy="headrace"), revision)
    world.fleet.catalogue_changed()
    await world.until(lambda: world.instances("m"))
    world.clock.advance(1.0)
    world.demand("m", arrivals=1, completed=1, busy_us=1000)
    world.fleet.decide_now()
    [*_, last] = world.fleet.view("m").decisions
    assert dict(last.inputs)["cold_start_s"] == pytest.approx(0.03)
    assert world.fleet.view("m").cold_start_count == 0


async def test_a_kill_loses_the_last_seconds_at_most(open_world: OpenWorld) -> None:
    world = await open_world()
    file = ModelFile("model.onnx", "a" * 64, 10)
    revision = Revision("m", 1, "1", State.SERVING, "artifact", (file,), "model.onnx", "fake")
    world.catalogue.put(ModelSpec("m"), revision)
    world.demand("m", queued=1, urgent=True)
    await world.until(lambda: world.fleet.view("m").cold_start_count == 1)
    world.clock.advance(5.0)
    written = world.parts.context.state_dir / "history/m.json"
    await world.until(written.exists)


async def learnt(open_world: OpenWorld) -> World:
    """A model that was asked and is kept warm, and a minute that has passed since: all of it is written."""
    world = await open_world(standby=1, standby_max=8)
    file = ModelFile("model.onnx", "a" * 64, 10)
    revision = Revision("m", 1, "1", State.SERVING, "artifact", (file,), "model.onnx", "fake")
    world.catalogue.put(ModelSpec("m", idle_timeout_s=600, idle_timeout_asked=True), revision)
    world.demand("m", queued=1, urgent=True)
    await world.until(lambda: world.instances("m"))
    world.answered("m")
    world.demand("m", arrivals=1, completed=1, busy_us=1000)
    world.clock.advance(0.5)
    world.fleet.decide_now()
    world.pass_time(60)
    written = world.parts.context.state_dir / "history/m.json"
    await world.until(lambda: written.exists() and '"held"' in written.read_text())
    await world.until((written.parent / "_standby.json").exists)
    return world


async def test_after_a_kill_an_idle_model_goes_when_it_would_have_gone(open_world: OpenWorld) -> None:
    world = await learnt(open_world)
    [instance] = world.instances("m")
    successor = await world.successor()
    try:
        successor.pass_time(530)
        await successor.until(lambda: "idle timeout" in successor.fleet.view("m").decisions[-1].reason)
        assert successor.instances("m") == [instance], "600 s are not over"
        successor.pass_time(11)
        await successor.until(lambda: not successor.instances("m"))
        assert successor.fleet.view("m").decisions[-1].reason == "idle for the idle timeout"
    finally:
        await successor.fleet.close()


async def test_after_a_kill_the_pool_knows_what_was_wanted(open_world: OpenWorld) -> None:
    world = await learnt(open_world)
    before = dict(world.fleet.overview().standby_target.inputs)
    assert before["wanted_last_hour"] == 1
    successor = await world.successor()
    try:
        assert dict(successor.fleet.overview().standby_target.inputs) == before
    finally:
        await successor.fleet.close()


async def test_memory_that_cannot_be_used_is_said_once_and_the_rest_is_kept(
    open_world: OpenWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    world = await learnt(open_world)
    directory = world.parts.context.state_dir / "history"
    for name in ("m", "_standby"):
        text = (directory / f"{name}.json").read_text()
        (directory / f"{name}.json").write_text(text.replace('"form":1', '"form":0'))
    capsys.readouterr()
    successor = await world.successor()
    try:
        lines = [line for line in capsys.readouterr().out.splitlines() if "learnt anew" in line]
        assert len(lines) == 1
        assert "another version of headrace" in lines[0]
        assert successor.fleet.view("m").decisions
        assert dict(successor.fleet.overview().standby_target.inputs)["wanted_last_hour"] == 0
    finally:
        await successor.fleet.close()


def test_the_pools_file_is_no_models(tmp_path: Path) -> None:
    files, pool = HistoryFiles(tmp_path), Learnt(1, 1000.0, 1.75e9, {"times": [0.1 + 0.2, 1e300]})
    assert files.read_pool() is None
    files.write({"m": replace(PAST, policies=((1, pool),))}, pool)
    assert files.read() == {"m": replace(PAST, policies=((1, pool),))}
    assert files.read_pool() == pool
    files.write({"m": None})
    assert files.read_pool() == pool, "it stays as it was"
    (tmp_path / "_standby.json").write_text("[")
    assert files.read_pool() is None
