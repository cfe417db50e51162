"""Deploying, scaling to zero and back, and what `describe` says of it."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"


def test_from_zero_and_back_with_the_cold_start_told(mesh: Any, models: Path, eventually: Any) -> None:
    mesh.cli("deploy", str(models / "add.onnx"), "--name", "sleeper", "--idle-timeout", "200ms", "--wait")
    eventually(lambda: mesh.describe("sleeper")["instances"] == [], "it has gone to zero")
    assert mesh.describe("sleeper")["state"] == "idle"
    before = mesh.describe("sleeper")["cold_starts"]["count"]
    answer = json.loads(mesh.cli("infer", "sleeper", "-i", "x=[[1,2,3,4]]").stdout)
    assert answer["outputs"]["y"] == [[2, 3, 4, 5]]
    described = eventually(
        lambda: (d := mesh.describe("sleeper"))["cold_starts"]["count"] > before and d, "the cold start is counted"
    )
    newest = described["cold_starts"]["recent"][-1]
    phases = {"decide_ms", "place_ms", "load_ms", "warm_ms", "first_answer_ms", "total_ms"}
    assert phases <= newest.keys()
    assert newest["total_ms"] > 0
    assert newest["load_ms"] > 0


def test_describe_has_what_scripts_rely_on(mesh: Any) -> None:
    described = json.loads(mesh.cli("describe", "add", "--json").stdout)
    assert {"name", "tenant", "state", "versions", "instances", "min_instances", "max_instances"} <= described.keys()
    assert described["state"] == "ready"
    assert (described["min_instances"], described["max_instances"]) == (1, None)
    [instance] = described["instances"]
    assert instance["state"] == "ready"
    assert "add" in mesh.cli("list").stdout
    assert json.loads(mesh.cli("status", "--json").stdout)["models"]


def test_a_model_that_cannot_be_batched_says_why(mesh: Any) -> None:
    [version] = mesh.describe("fixed")["versions"]
    assert version["max_batch_size"] == 1
    assert "first dimension" in version["batching"]


BROKEN = {
    "garbage": b"this is no model",
    "truncated": None,
    "empty": b"",
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_model_fails_its_deploy_and_leaves_nothing(
    mesh: Any, models: Path, tmp_path: Path, eventually: Any, kind: str
) -> None:
    content = BROKEN[kind]
    if content is None:
        content = (models / "add.onnx").read_bytes()[:-20]
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    done = mesh.cli("deploy", str(path), "--name", f"broken-{kind}", "--wait", check=False)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert str(mesh.state) not in done.stderr
    assert f"broken-{kind}" not in mesh.cli("list").stdout
    described = mesh.cli("describe", f"broken-{kind}", check=False)
    assert described.returncode == 1
    artifacts = {p.name for p in (mesh.state / "artifacts").iterdir() if p.is_dir()}
    assert not any((mesh.state / "artifacts" / name / "broken.onnx").exists() for name in artifacts)
    eventually(lambda: len(mesh.status()["standby"]) >= 1, "the pool has recovered")


def test_a_triton_repository_is_honoured(mesh: Any, models: Path, tmp_path: Path) -> None:
    repository = tmp_path / "repo"
    for version in ("1", "3"):
        (repository / version).mkdir(parents=True)
        (repository / version / "model.onnx").write_bytes((models / "add.onnx").read_bytes())
    (repository / "config.pbtxt").write_text(
        'platform: "onnxruntime_onnx"\nmax_batch_size: 8\n'
        'input [{ name: "x" data_type: TYPE_FP32 dims: [4] }]\noutput [{ name: "y" data_type: TYPE_FP32 dims: [4] }]\n'
        "version_policy { all {} }\ndynamic_batching { preferred_batch_size: [4] max_queue_delay_microseconds: 100 }\n"
    )
    mesh.cli("deploy", str(repository), "--name", "triton", "--wait")
    described = mesh.describe("triton")
    assert {v["version"] for v in described["versions"]} == {"1", "3"}
    assert {v["max_batch_size"] for v in described["versions"]} == {8}
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}
    for version in ("1", "3"):
        status, answer, _ = mesh.post(f"/v2/models/triton/versions/{version}/infer", {"inputs": [tensor]})
        assert (status, answer["model_version"]) == (200, version)
    assert mesh.post("/v2/models/triton/infer", {"inputs": [tensor]})[1]["model_version"] == "3"


def test_what_a_repository_asks_in_vain_is_named(mesh: Any, models: Path, tmp_path: Path) -> None:
    repository = tmp_path / "repo"
    (repository / "1").mkdir(parents=True)
    (repository / "1/model.onnx").write_bytes((models / "add.onnx").read_bytes())
    (repository / "config.pbtxt").write_text('platform: "onnxruntime_onnx"\nsequence_batching {}\n')
    done = mesh.cli("deploy", str(repository), "--name", "sequences", "--wait", check=False)
    assert done.returncode == 1
    assert "sequence_batching" in done.stderr


def test_apply_is_the_same_schema(mesh: Any, models: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "mesh.yaml"
    (tmp_path / "add.onnx").write_bytes((models / "add.onnx").read_bytes())
    manifest.write_text(
        "tenant: {name: applied, nominal: {cpu: '4', concurrency: 100}}\n---\n"
        "model: {name: applied, tenant: applied, source: add.onnx, idle_timeout: 5s, resources: {cpu: 500m}}\n"
    )
    mesh.cli("apply", "-f", str(manifest))
    assert mesh.describe("applied")["tenant"] == "applied"
    mesh.cli("apply", "-f", str(manifest))
    assert len(mesh.describe("applied")["versions"]) == 1, "nothing changed, so nothing was loaded anew"
    manifest.write_text("model: {name: applied, idel_timeout: 5s}\n")
    done = mesh.cli("apply", "-f", str(manifest), check=False)
    assert done.returncode in (1, 2)
    assert "idel_timeout" in done.stderr


def test_the_api_speaks_json(mesh: Any) -> None:
    status, answer, _ = mesh.get("/v1/models/add")
    assert (status, answer["model"]["name"]) == (200, "add")
    status, answer, _ = mesh.get("/v1/models/nobody")
    assert status == 404
    assert "nobody" in answer["message"]
    assert mesh.get("/v1/status")[0] == 200
    assert len(mesh.get("/v1/logs?tail=2")[1]) == 2

    def call(verb: str, path: str, body: str = "") -> tuple[int, Any]:
        request = urllib.request.Request(mesh.url + path, data=body.encode() or None, method=verb)
        try:
            with urllib.request.urlopen(request, timeout=30) as reply:
                return reply.status, json.loads(reply.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    status, answer = call("PUT", "/v1/tenants/spoken", '{"weight": 2, "nominal": {"cpu": "2"}}')
    assert (status, answer["tenant"]["spec"]["weight"]) == (200, 2)
    for wrong in ('{"wieght": 1}', '{"tenant": {"weight": 1}}'):
        status, answer = call("PUT", "/v1/tenants/spoken", wrong)
        assert status == 400
        assert wrong.split('"')[1] in answer["message"]
    assert call("PUT", "/v1/tenants/spoken", '{"name": "other"}')[0] == 400
    assert call("PATCH", "/v1/tenants/spoken", "{}")[0] == 405
    assert call("GET", "/v1/tenants/spoken")[1]["tenant"]["spec"]["nominal"] == {"cpu": "2"}, "nothing has changed"
    assert call("DELETE", "/v1/tenants/spoken")[0] == 200
    assert call("GET", "/v1/tenants/spoken")[0] == 404
    assert call("GET", "/v1/models/%ff")[0] == 400


def test_delete_takes_everything_with_it(mesh: Any, models: Path, tmp_path: Path, eventually: Any) -> None:
    mesh.cli("deploy", str(models / "add.onnx"), "--name", "brief", "--min-instances", "1", "--wait")
    mesh.cli("delete", "brief")
    eventually(lambda: mesh.cli("describe", "brief", check=False).returncode == 1, "it is forgotten")
    assert "brief" not in mesh.cli("list").stdout


def test_files_in_and_out(mesh: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((3, 4), np.float32))
    mesh.cli("infer", "add", "-i", f"x=@{tmp_path}/x.npy", "-o", f"npz={tmp_path}/out.npz")
    np.testing.assert_array_equal(np.load(tmp_path / "out.npz")["y"], np.full((3, 4), 2, np.float32))


def scraped(mesh: Any) -> str:
    line = next(line for line in mesh.log if "metrics" in line and "http" in line)
    url = re.search(r"http://[0-9.]+:[0-9]+/metrics", line)
    assert url
    text: str = urllib.request.urlopen(url[0], timeout=10).read().decode()
    return text


def test_metrics_cover_every_process(mesh: Any) -> None:
    mesh.cli("infer", "add", "-i", "x=[[1,2,3,4]]")
    text = scraped(mesh)
    assert re.search(r'headrace_requests_total\{[^}]*model="add"[^}]*outcome="ok"', text)
    for process in ("router-0", "autoscaler", "runner-"):
        assert f'process="{process}' in text


def test_dashboard_and_alerts_use_metrics_that_exist(mesh: Any) -> None:
    mesh.cli("infer", "add", "-i", "x=[[1,2,3,4]]")
    served = set(re.findall(r"^# TYPE (headrace_\w+)", scraped(mesh), re.MULTILINE))
    served |= {f"{name}_{part}" for name in served for part in ("bucket", "sum", "count")}
    dashboard = json.loads((DEPLOY / "grafana/headrace.json").read_text())
    alerts = yaml.safe_load((DEPLOY / "prometheus/alerts.yaml").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    expressions += [rule["expr"] for group in alerts["groups"] for rule in group["rules"]]
    used = {name for expression in expressions for name in re.findall(r"headrace_\w+", expression)}
    assert len(used) > 10
    assert used <= served


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param(["--listen", "0.0.0.0:0"], "loopback", id="not loopback"),
        pytest.param(["--listen", "nonsense"], "HOST:PORT", id="no address"),
        pytest.param(["--state", "/proc/nowhere"], "/proc/nowhere", id="unwritable state"),
    ],
)
def test_up_refuses_in_one_line(mesh: Any, arguments: list[str], says: str) -> None:
    done = mesh.cli("up", *arguments, check=False)
    assert done.returncode == 2
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_second_up_on_the_same_state(mesh: Any) -> None:
    done = mesh.cli("up", "--listen", "127.0.0.1:0", "--state", str(mesh.state), check=False)
    assert done.returncode == 2
    assert str(mesh.state) in done.stderr


def test_a_port_in_use(mesh: Any, tmp_path: Path) -> None:
    done = mesh.cli("up", "--listen", mesh.target, "--state", str(tmp_path / "s"), check=False)
    assert done.returncode == 2
    assert mesh.target.split(":")[1] in done.stderr
