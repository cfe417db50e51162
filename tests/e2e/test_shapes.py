"""A model with a range of CPUs: its instances change their shape while clients ask, and none is refused or failed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOM = {"autoscaler": {"cpu_overcommit": 8.0}}


def test_a_model_that_misses_its_objective_is_resized_under_load(
    fresh_mesh: Any, tmp_path: Path, load: Any, eventually: Any
) -> None:
    """Of a run's 120 ms, two threads divide nine tenths: 66 ms. Needs a machine with two CPUs."""
    tensors = [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
    heavy = {"inputs": tensors, "outputs": [{**tensors[0], "name": "y"}], "latency_ms": 120, "parallel": 0.9}
    (tmp_path / "heavy.fake.json").write_text(json.dumps(heavy))
    mesh = fresh_mesh("--standby", "2", config=ROOM)
    options = "--name heavy --cpu 1 --max-cpu 2 --slo 100ms --min-instances 1 --max-instances 1 --wait"
    mesh.cli("deploy", str(tmp_path / "heavy.fake.json"), *options.split())
    with load(mesh, "heavy", lambda asked, got: asked == got, threads=2) as clients:
        eventually(lambda: cpus(mesh) == [2000], "its only instance has two CPUs")
        clients.more(20)
    assert (clients.errors, clients.wrong) == ([], [])
    [instance] = mesh.describe("heavy")["instances"]
    assert instance["profile_us"]["1"] < 100_000
    reasons = [each["reason"] for each in mesh.describe("heavy")["decisions"]]
    assert any("tries 2 CPUs per instance" in each for each in reasons), reasons
    assert any("2 CPUs per instance meet the objective" in each for each in reasons), reasons
    assert "local-2cpu-1Gi" in mesh.cli("usage").stdout


def test_one_machine_is_one_failure_domain(mesh: Any, models: Path) -> None:
    done = mesh.cli("deploy", str(models / "add.onnx"), "--name", "spread", "--spread", "2", check=False)
    assert done.returncode != 0
    assert "spread: this mesh is one machine, which is one failure domain; expected 1, got 2" in done.stderr


def cpus(mesh: Any) -> list[int]:
    return [each["shape"]["cpu_millicores"] for each in mesh.describe("heavy")["instances"]]
