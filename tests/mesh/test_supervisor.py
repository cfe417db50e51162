"""The supervisor over stand-ins, from outside: it comes up, keeps up, and however it ends nothing is left."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Start = Callable[..., Any]


def nothing_is_left(mesh: Any, group: int, runtime: Path) -> None:
    mesh.eventually(lambda: not mesh.members(group), "the group to be empty")
    mesh.eventually(lambda: not mesh.is_locked(), "the lock to be free")
    mesh.eventually(lambda: not runtime.exists(), "the runtime directory to be gone")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_a_wanted_stop_drains_in_order_and_leaves_nothing(start_up: Start, number: signal.Signals) -> None:
    mesh = start_up()
    mesh.until_ready()
    group, runtime, runner = mesh.guard, mesh.runtime, mesh.runner
    assert {group, runner} < set(mesh.members(group))
    assert mesh.is_locked()
    mesh.process.send_signal(number)
    assert mesh.exit_code() == 0, mesh.stderr
    assert mesh.events == [
        "router-0 POST /drain_listeners?graceful&skip_exit",
        "router-0 drain",
        "router-0 POST /drain_listeners",
        "router-0 in flight 1",
        "router-0 in flight 0",
        "router-0 SIGTERM",
        "autoscaler SIGTERM",
    ]
    assert mesh.members(group) == []
    assert not mesh.is_locked()
    assert not runtime.exists()
    assert mesh.process.stdout.read() == "", "standard output holds one line"


def test_killed_itself_it_leaves_nothing_not_even_stubborn_runners(start_up: Start) -> None:
    mesh = start_up(STANDIN_STUBBORN="1")
    mesh.until_ready()
    group, runtime = mesh.guard, mesh.runtime
    assert mesh.runner in mesh.members(group)
    mesh.process.send_signal(signal.SIGKILL)
    mesh.process.wait()
    assert mesh.is_locked(), "the state is locked until everything is dead"
    nothing_is_left(mesh, group, runtime)


def test_a_new_mesh_waits_for_the_guard_of_a_killed_one(start_up: Start) -> None:
    first = start_up(STANDIN_STUBBORN="1")
    first.until_ready()
    assert first.runner
    first.process.send_signal(signal.SIGKILL)
    first.process.wait()
    (first.state / "runner.pid").unlink()
    second = start_up()
    second.until_ready()
    second.process.send_signal(signal.SIGTERM)
    assert second.exit_code() == 0


def test_what_dies_is_started_again(start_up: Start) -> None:
    mesh = start_up(routers=2)
    mesh.until_ready()
    router, autoscaler = mesh.pid_of("router-0"), mesh.pid_of("autoscaler")
    os.kill(router, signal.SIGKILL)
    os.kill(autoscaler, signal.SIGKILL)
    mesh.eventually(lambda: mesh.pid_of("router-0") != router, "another router")
    mesh.eventually(lambda: mesh.pid_of("autoscaler") != autoscaler, "another autoscaler")
    deaths = {line["died"]: line for line in mesh.log("process died")}
    assert deaths["router-0"]["how"] == "signal SIGKILL"
    assert deaths["router-0"]["restart_in_s"] == 0.05
    metrics = mesh.eventually(
        lambda: (text := mesh.metrics()) and 'headrace_process_up{process="router-0"} 1.0' in text and text,
        "metrics of the new router",
    )
    assert 'headrace_process_restarts_total{process="router-0"} 1.0' in metrics
    assert 'work_total{process="router-1"} 2.0' in metrics


def test_runners_of_a_dead_autoscaler_do_not_stay_as_zombies(start_up: Start) -> None:
    mesh = start_up()
    mesh.until_ready()
    runner = mesh.runner
    os.kill(mesh.pid_of("autoscaler"), signal.SIGKILL)
    mesh.eventually(lambda: len(mesh.log("process died")) == 1, "the supervisor to see it")
    os.kill(runner, signal.SIGKILL)
    mesh.eventually(lambda: not Path(f"/proc/{runner}").exists(), "the runner to be waited for")


def test_a_second_signal_hurries(start_up: Start) -> None:
    mesh = start_up(STANDIN_HANG="1")
    mesh.until_ready()
    group, runtime = mesh.guard, mesh.runtime
    mesh.process.send_signal(signal.SIGTERM)
    mesh.eventually(lambda: "router-0 drain" in mesh.events, "the drain to begin")
    assert mesh.process.poll() is None
    mesh.process.send_signal(signal.SIGTERM)
    assert mesh.exit_code() == 0
    nothing_is_left(mesh, group, runtime)


def test_stopped_while_starting_it_ends_at_once(start_up: Start) -> None:
    mesh = start_up(STANDIN_NEVER="router-0")
    mesh.eventually(lambda: mesh.log("process started"), "the services to start")
    group, runtime = mesh.guard, mesh.runtime
    mesh.process.send_signal(signal.SIGTERM)
    assert mesh.exit_code() == 0
    nothing_is_left(mesh, group, runtime)


def test_without_its_guard_it_stops(start_up: Start) -> None:
    mesh = start_up(STANDIN_STUBBORN="1")
    mesh.until_ready()
    group, runtime = mesh.guard, mesh.runtime
    assert mesh.runner
    os.kill(group, signal.SIGKILL)
    assert mesh.exit_code() == 1
    assert "the guard ended (signal SIGKILL)" in mesh.stderr
    nothing_is_left(mesh, group, runtime)


def test_a_service_that_cannot_start_fails_the_start_with_its_own_words(start_up: Start) -> None:
    mesh = start_up(STANDIN_CRASH="router-0")
    assert mesh.exit_code() == 1
    assert "router-0 died 3 times while starting, last with exit code 3" in mesh.stderr
    assert "there is no libfoo here" in mesh.stderr
    assert not mesh.is_locked()


@pytest.mark.parametrize(
    ("silent", "timeout_s", "reason"),
    [
        ("autoscaler", 2, "not ready after 2 s: the autoscaler does not answer"),
        # The others must have come up by then.
        ("router-0", 6, "not ready after 6 s: the front does not answer that it is ready"),
    ],
)
def test_a_service_that_says_nothing_fails_the_start_with_the_reason(
    start_up: Start, silent: str, timeout_s: int, reason: str
) -> None:
    mesh = start_up(ready_timeout_s=timeout_s, STANDIN_NEVER=silent)
    assert mesh.exit_code() == 1
    assert reason in mesh.stderr
    assert not mesh.is_locked()


def test_without_standby_none_is_waited_for(start_up: Start) -> None:
    mesh = start_up(standby=0)
    mesh.until_ready()


def test_under_nohup_a_hang_up_changes_nothing(start_up: Start) -> None:
    mesh = start_up(under=("nohup",))
    mesh.until_ready()
    mesh.process.send_signal(signal.SIGHUP)
    os.kill(mesh.pid_of("router-0"), signal.SIGKILL)
    mesh.eventually(lambda: len(mesh.log("process started")) == 3, "the router to be started again")
    assert not mesh.log("stopping")


def test_a_reader_of_its_log_that_leaves_does_not_stop_it(start_up: Start) -> None:
    mesh = start_up(log_reader=("head", "-n", "4"))
    mesh.until_ready()
    mesh.eventually(lambda: len(mesh.stderr.splitlines()) == 4, "the reader to have seen enough")
    metrics, router = mesh.metrics(), mesh.pid_of("router-0")
    assert 'headrace_process_restarts_total{process="router-0"} 0.0' in metrics
    os.kill(router, signal.SIGKILL)
    restarted = 'headrace_process_restarts_total{process="router-0"} 1.0'
    mesh.eventually(lambda: restarted in mesh.metrics(), "the router to be started again")
    mesh.process.send_signal(signal.SIGTERM)
    assert mesh.exit_code() == 0


@pytest.mark.parametrize("process", ["autoscaler", "router-0"])
def test_a_service_that_says_it_cannot_start_is_believed_the_first_time(start_up: Start, process: str) -> None:
    mesh = start_up(STANDIN_REFUSE=process)
    assert mesh.exit_code() == 1
    assert mesh.stderr.splitlines()[-1] == f"the mesh cannot start: {process}: there is no room here"
    assert [line["started"] for line in mesh.log("process started")].count(process) == 1
    assert mesh.process.stdout.read() == ""
    assert not mesh.is_locked()


def test_once_the_mesh_serves_it_is_started_again_whatever_it_says(start_up: Start) -> None:
    mesh = start_up()
    mesh.until_ready()
    refuse = mesh.state / "refuse-router-0"
    refuse.touch()
    os.kill(mesh.pid_of("router-0"), signal.SIGKILL)
    mesh.eventually(lambda: len(mesh.log("process died")) >= 3, "the router to refuse twice")
    killed, refused, *_ = mesh.log("process died")
    assert (killed["how"], "error" in killed) == ("signal SIGKILL", False)
    assert (refused["how"], refused["error"]) == ("exit code 2", "there is no room here")
    refuse.unlink()
    mesh.eventually(lambda: 'headrace_process_up{process="router-0"} 1.0' in mesh.metrics(), "the router")
