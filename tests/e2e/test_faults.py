"""What happens at three in the morning: processes die under load, and nobody notices."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper


def plus_one(asked: float, got: float) -> bool:
    return got == asked + 1


def test_kill_9_of_a_runner_under_load(fresh_mesh: Any, models: Path, load: Any, eventually: Any) -> None:
    mesh = fresh_mesh("--standby", "1")
    mesh.cli("deploy", str(models / "add.onnx"), "--name", "add", "--min-instances", "2", "--wait")
    eventually(lambda: ready(mesh, "add") == 2, "two instances are ready")
    with load(mesh, "add", plus_one) as clients:
        clients.more(500)
        victim = mesh.describe("add")["instances"][0]
        os.kill(int(victim["pid"]), signal.SIGKILL)
        clients.more(500)
        eventually(
            lambda: (
                ready(mesh, "add") == 2 and victim["id"] not in {i["id"] for i in mesh.describe("add")["instances"]}
            ),
            "a replacement is ready",
        )
        clients.more(500)
    assert (clients.errors, clients.wrong) == ([], [])


def test_kill_9_of_the_only_runner_under_load(fresh_mesh: Any, models: Path, load: Any) -> None:
    mesh = fresh_mesh("--standby", "1")
    mesh.cli("deploy", str(models / "add.onnx"), "--name", "add", "--wait")
    with load(mesh, "add", plus_one) as clients:
        clients.more(200)
        os.kill(int(mesh.describe("add")["instances"][0]["pid"]), signal.SIGKILL)
        clients.more(200)
    assert (clients.errors, clients.wrong) == ([], [])


def test_a_leak_is_replaced_and_clients_see_no_error(
    fresh_mesh: Any, tmp_path: Path, load: Any, eventually: Any
) -> None:
    tensors = [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
    leaky = {"inputs": tensors, "outputs": [{**tensors[0], "name": "y"}], "latency_ms": 20, "leak_bytes": 1 << 20}
    (tmp_path / "leaky.fake.json").write_text(json.dumps(leaky))
    mesh = fresh_mesh("--standby", "2")
    mesh.cli("deploy", str(tmp_path / "leaky.fake.json"), "--name", "leaky", "--memory", "192Mi",
             "--min-instances", "1", "--wait")  # fmt: skip
    [first] = mesh.describe("leaky")["instances"]
    assert first["enforced"]["memory"] in ("cgroup and watchdog", "RLIMIT_DATA and watchdog")
    with load(mesh, "leaky", lambda asked, got: asked == got) as clients:
        eventually(lambda: first["id"] not in {i["id"] for i in mesh.describe("leaky")["instances"]}, "it is replaced")
        clients.more(50)
    assert (clients.errors, clients.wrong) == ([], [])
    view = mesh.describe("leaky")
    assert f"instance {first['id']} is replaced: over its memory: it holds" in view["last_failure"]["reason"]
    assert any(first["id"] in each["reason"] for each in view["decisions"]), "an event in its history"
    told = mesh.cli("describe", "leaky").stdout
    assert "192Mi (" in told, told
    assert "cpu enforced by" in mesh.cli("status").stdout
    assert "instance over its memory" in mesh.cli("logs", "leaky").stdout


def test_kill_9_of_the_autoscaler(fresh_mesh: Any, models: Path, load: Any, eventually: Any) -> None:
    mesh = fresh_mesh("--standby", "1")
    mesh.cli("tenant", "set", "acme", "--concurrency", "64")
    mesh.cli("deploy", str(models / "add.onnx"), "--name", "add", "--tenant", "acme", "--share-with", "*",
             "--min-instances", "1", "--wait")  # fmt: skip
    before = mesh.describe("add")
    [autoscaler] = mesh.pids("headrace_autoscaler")
    epoch = mesh.status()["epoch"]
    with load(mesh, "add", plus_one) as clients:
        clients.more(200)
        os.kill(autoscaler, signal.SIGKILL)
        clients.more(500)
        eventually(lambda: mesh.cli("describe", "add", check=False).returncode == 0, "the autoscaler is back")
        clients.more(200)
    assert (clients.errors, clients.wrong) == ([], [])
    after = mesh.describe("add")
    assert [i["id"] for i in after["instances"]] == [i["id"] for i in before["instances"]], "the runner was adopted"
    assert after["versions"] == before["versions"]
    assert mesh.cli("tenant", "describe", "acme").stdout
    assert mesh.status()["epoch"] == epoch + 1


@pytest.mark.parametrize("routers", ["1", "2"])
def test_sigterm_under_load(fresh_mesh: Any, models: Path, load: Any, routers: str) -> None:
    """What was accepted is answered; what comes too late is refused, and never answered wrongly."""
    mesh = fresh_mesh("--standby", "1", "--routers", routers)
    mesh.cli("deploy", str(models / "slow.fake.json"), "--name", "slow", "--min-instances", "1", "--wait")
    outcome: list[int] = []
    with load(mesh, "slow", lambda asked, got: asked == got, threads=16) as clients:
        clients.more(100)
        stopping = threading.Thread(target=lambda: outcome.append(mesh.stop(signal.SIGTERM)))
        stopping.start()
        stopping.join(60)
    assert outcome == [0]
    assert clients.wrong == []
    accepted_and_lost = [error for error in clients.errors if not never_accepted(error)]
    assert accepted_and_lost == []


def never_accepted(error: str) -> bool:
    """Refused at the door, by name, or not even written: its connection was closed before (sendmsg)."""
    refusals = ("failed to connect", "Connection refused", "stopping", "GOAWAY", "sendmsg: Broken pipe")
    return "UNAVAILABLE" in error and any(refusal in error for refusal in refusals)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda s: s.name)
def test_nothing_is_left_behind(fresh_mesh: Any, models: Path, eventually: Any, how: signal.Signals) -> None:
    mesh = fresh_mesh("--standby", "2")
    mesh.cli("deploy", str(models / "add.onnx"), "--name", "add", "--min-instances", "1", "--wait")
    assert len(mesh.pids("headrace_runner")) >= 2
    code = mesh.stop(how)
    assert code == (-signal.SIGKILL if how is signal.SIGKILL else 0)
    eventually(lambda: mesh.pids("") == [], "every process is gone")
    again = fresh_mesh("--standby", "0", state=mesh.state)
    assert again.describe("add")["name"] == "add", "the state is not locked"


def test_a_restart_knows_everything(fresh_mesh: Any, models: Path, tmp_path: Path) -> None:
    mesh = fresh_mesh("--standby", "1")
    mesh.cli("tenant", "set", "acme", "--cpu", "2")
    mesh.cli("deploy", str(models / "add.onnx"), "--name", "add", "--max-instances", "3", "--wait")
    before = mesh.describe("add")
    assert mesh.stop() == 0
    again = fresh_mesh("--standby", "1", state=mesh.state)
    after = again.describe("add")
    for key in ("name", "tenant", "versions", "min_instances", "max_instances"):
        assert after[key] == before[key]
    answer = again.cli("infer", "add", "-i", "x=[[1,2,3,4]]").stdout
    assert json.loads(answer)["outputs"]["y"] == [[2, 3, 4, 5]]
    assert again.cli("tenant", "describe", "acme").stdout


def test_a_redeploy_under_load(fresh_mesh: Any, models: Path, tmp_path: Path, load: Any, eventually: Any) -> None:
    """Every answer is of the one version or the other, none fails, and the old one goes away."""
    mesh = fresh_mesh("--standby", "2")
    mesh.cli("deploy", str(models / "add.onnx"), "--name", "add", "--wait")
    onnx.save(plus(100.0), tmp_path / "add.onnx")
    with load(mesh, "add", lambda asked, got: got in (asked + 1, asked + 100)) as clients:
        clients.more(300)
        mesh.cli("deploy", str(tmp_path / "add.onnx"), "--name", "add", "--wait")
        clients.more(300)
        eventually(lambda: [v["version"] for v in mesh.describe("add")["versions"]] == ["2"], "only version 2 is left")
        clients.more(300)
    assert (clients.errors, clients.wrong) == ([], [])
    with load(mesh, "add", lambda asked, got: got == asked + 100) as clients:
        clients.more(50)
    assert (clients.errors, clients.wrong) == ([], [])


def plus(added: float) -> onnx.ModelProto:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in ("x", "y"))
    constant = helper.make_tensor("c", TensorProto.FLOAT, [1], [added])
    graph = helper.make_graph([helper.make_node("Add", ["x", "c"], ["y"])], "g", [x], [y], [constant])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def test_a_poison_request_dies_alone(fresh_mesh: Any, models: Path, load: Any) -> None:
    """A request that kills its runner is refused in the end; its neighbours are answered."""
    mesh = fresh_mesh("--standby", "3")
    mesh.cli("deploy", str(models / "fragile.fake.json"), "--name", "fragile", "--wait")
    poison = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [66, 0, 0, 0]}]}
    with load(mesh, "fragile", lambda asked, got: asked == got, threads=1) as clients:
        clients.more(2)
        status, answer, _ = mesh.post("/v2/models/fragile/infer", poison)
        assert (status, "engine failed" in answer["error"]) == (500, True)
        clients.more(2)
    assert clients.wrong == []
    assert [error for error in clients.errors if "engine failed" not in error] == []


def ready(mesh: Any, name: str) -> int:
    return sum(instance["state"] == "ready" for instance in mesh.describe(name)["instances"])


def instances(mesh: Any) -> set[str]:
    return {instance["id"] for instance in mesh.describe("add")["instances"]}
