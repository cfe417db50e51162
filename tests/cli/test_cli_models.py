"""deploy, list, describe, delete, apply: what is sent, what is printed, what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from headrace import errors
from headrace.client import methods
from headrace.v1 import models_pb2, tenants_pb2

Run = Callable[..., Any]

MODEL = models_pb2.Model(
    name="iris",
    tenant="acme",
    state=models_pb2.MODEL_STATE_READY,
    min_instances=1,
    versions=[
        {
            "version": "2",
            "revision": 5,
            "state": models_pb2.VERSION_STATE_SERVING,
            "batching": "batchable: two rows answered as two single ones",
            "max_batch_size": 64,
            "engine": "onnxruntime",
            "signature": {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]},
        }
    ],
    instances=[{"id": "i1", "state": "draining", "version": "2", "pid": 7}],
    cold_starts={
        "p95": {"nanos": 41_500_000},
        "count": 3,
        "recent": [{"decide": {"nanos": 1_500_000}, "load": {"nanos": 20_000_000}, "from_standby": True}],
    },
    decisions=[{"current": 0, "desired": 1, "reason": "a request waits", "inputs": {"queued": 1.0}}],
    last_failure={"reason": "bad opset", "at": {"seconds": 1}},
)


@pytest.fixture
def deployable(mesh: Any, tmp_path: Path) -> str:
    mesh.on(methods.UPLOAD, models_pb2.UploadArtifactResponse(artifact="sha256:abc"), "stream_unary")
    mesh.on(methods.DEPLOY, lambda request: models_pb2.DeployModelResponse(model=MODEL))
    source = tmp_path / "m.fake.json"
    source.write_text("{}")
    return str(source)


def test_deploy_builds_the_whole_spec_out_of_flags(mesh: Any, run: Run, deployable: str) -> None:
    flags = (
        "--name iris --tenant acme --min-instances 1 --max-instances 4 --idle-timeout 90s --slo 100ms --max-batch 8 "
        "--cpu 500m --memory 2Gi --gpu 0.5 --gpu-memory 1Gi --concurrency 7 --rps 2.5 --budget 1.50/h "
        "--budget 200/month --engine fake --share-with b --share-with c --response-cache --pad ids=0 --pad x=-1.5 "
        "--cache-ttl 90s --cache-shared --wait --queue-length 9 --queue-bytes 1Gi --instance-concurrency 3 "
        "--spot --spread 2 --gpu-architecture sm_86 --gpu-architecture sm_89 --max-cpu 2"
    )
    done = run("deploy", deployable, *flags.split())
    assert (done.code, done.err) == (0, "")
    assert done.out == "deployed iris version 2 for tenant acme: ready\n"
    [request] = mesh.requests(methods.DEPLOY)
    assert request.wait
    assert mesh.seen[methods.DEPLOY.path][0].metadata["x-headrace-tenant"] == "acme"
    assert request.model == models_pb2.ModelSpec(
        name="iris",
        tenant="acme",
        artifact="sha256:abc",
        min_instances=1,
        max_instances=4,
        idle_timeout={"seconds": 90},
        slo={"nanos": 100_000_000},
        max_batch_size=8,
        resources={"cpu": "500m", "memory": "2Gi", "gpu": "0.5", "gpu_memory": "1Gi"},
        limits={"concurrency": 7, "requests_per_second": 2.5, "queue_length": 9, "queue_bytes": "1Gi"},
        instance_concurrency=3,
        budget={"per_hour": "1.50", "per_month": "200"},
        engine="fake",
        shared_with=["b", "c"],
        response_cache=True,
        tolerates_spot=True,
        spread=2,
        gpu_architectures=["sm_86", "sm_89"],
        cache_ttl={"seconds": 90},
        cache_shared=True,
        padding={"ids": 0.0, "x": -1.5},
        max_cpu="2",
    )


def test_deploy_without_flags_leaves_defaults_to_the_mesh(mesh: Any, run: Run, deployable: str) -> None:
    assert run("deploy", deployable, "--name", "iris").code == 0
    [request] = mesh.requests(methods.DEPLOY)
    assert not request.wait
    assert request.model == models_pb2.ModelSpec(name="iris", tenant="default", artifact="sha256:abc")


def test_deploy_says_what_is_state(mesh: Any, run: Run, deployable: str) -> None:
    done = run(
        "deploy", deployable, "--name", "vad", "--state", "h_out=h", "--state", "c_out=c", "--sequence-idle", "5m"
    )
    assert done.code == 0, done.err
    [request] = mesh.requests(methods.DEPLOY)
    assert dict(request.model.states) == {"h_out": "h", "c_out": "c"}
    assert request.model.sequence_idle.seconds == 300


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        (["h_out"], "--state: expected an output and an input such as state_out=state; got 'h_out'"),
        (["=h"], "expected an output and an input"),
        (["a=h", "b=h"], "--state: 'b=h' names a tensor that another --state names"),
    ],
    ids=["no input", "no output", "one input twice"],
)
def test_deploy_refuses_a_state_that_is_none(mesh: Any, run: Run, deployable: str, pairs: list[str], said: str) -> None:
    done = run("deploy", deployable, "--name", "vad", *(word for pair in pairs for word in ("--state", pair)))
    assert done.code == 2
    assert said in done.err
    assert mesh.requests(methods.DEPLOY) == []


def test_deploy_says_who_decides_how_many(mesh: Any, run: Run, deployable: str) -> None:
    flags = (
        "--policy balanced --traffic steady --cost-sensitivity high --slo-credit 0.001 --target cpu=70% --target rate=9"
    )
    schedules = ["--schedule", "0 8 * * 1-5 Europe/Paris=4", "--target", "queue-wait=50ms"]
    assert run("deploy", deployable, "--name", "iris", *flags.split(), *schedules).code == 0
    assert mesh.requests(methods.DEPLOY)[0].model == models_pb2.ModelSpec(
        name="iris",
        tenant="default",
        artifact="sha256:abc",
        policy="balanced",
        traffic="steady",
        cost_sensitivity="high",
        schedules=["0 8 * * 1-5 Europe/Paris=4"],
        targets={"cpu": 0.7, "rate": 9.0, "queue_wait": 0.05},
        slo_credit="0.001",
    )


def test_options_of_an_engine_are_passed_on_as_they_are(mesh: Any, run: Run, deployable: str) -> None:
    options = ("providers=cuda,cpu", "cuda.gpu_mem_limit=1=2")
    flags = [word for each in options for word in ("--engine-option", each)]
    assert run("deploy", deployable, "--name", "iris", *flags).code == 0
    spec = mesh.requests(methods.DEPLOY)[0].model
    assert dict(spec.engine_options) == {"providers": "cuda,cpu", "cuda.gpu_mem_limit": "1=2"}


def test_a_url_is_passed_on(mesh: Any, run: Run, deployable: str) -> None:
    assert run("deploy", "s3://bucket/m.onnx", "--name", "iris").code == 0
    assert mesh.requests(methods.DEPLOY)[0].model.source == "s3://bucket/m.onnx"
    assert not mesh.requests(methods.UPLOAD)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--memory", "1GiB"], "--memory: expected bytes like 4Gi"),
        (["--cpu", "fast"], "--cpu: expected a count like 2"),
        (["--slo", "100"], "--slo: expected a duration like 100ms"),
        (["--budget", "5/day"], "--budget: expected an amount per time"),
        (["--budget", "1/h", "--budget", "2/h"], "--budget: per hour is given twice"),
        (["--target", "speed=9"], "--target: expected METRIC=VALUE with a metric of concurrency, queue-wait"),
        (["--target", "cpu=hot"], "--target cpu: expected a share such as 70%"),
        (["--target", "queue-wait=5"], "--target queue-wait: expected a duration"),
        (["--target", "rate=1", "--target", "rate=2"], "--target: rate is given twice"),
        (["--slo-credit", "much"], "--slo-credit: expected"),
        (["--pad", "tokens"], "--pad: expected an input and a number such as tokens=0; got 'tokens'"),
        (["--pad", "tokens=x"], "--pad: expected an input and a number"),
        (["--pad", "a=0", "--pad", "a=1"], "--pad: input 'a' is given twice"),
        (
            ["--engine-option", "spinning"],
            "--engine-option: expected an option such as arena_shrink=on; got 'spinning'",
        ),
        (["--engine-option", "a=1", "--engine-option", "a=2"], "--engine-option: 'a' is given twice"),
        (["--max-instances", "0"], "--max-instances"),
        (["--min-instances", "x"], "--min-instances"),
    ],
)
def test_a_wrong_flag_is_one_line_and_exit_code_2(
    mesh: Any, run: Run, deployable: str, flags: list[str], expected: str
) -> None:
    done = run("deploy", deployable, "--name", "iris", *flags)
    assert done.code == 2
    assert expected in done.err
    assert done.err.count("\n") == 1
    assert not mesh.seen


def test_a_source_that_is_not_there_is_exit_code_2(mesh: Any, run: Run) -> None:
    done = run("deploy", "gone.onnx", "--name", "iris")
    assert done.code == 2
    assert done.err.startswith("headrace: gone.onnx: no such file or directory; expected an .onnx, .pt2 or .plan file")
    assert not mesh.seen


def test_what_the_mesh_refuses_is_exit_code_1(mesh: Any, run: Run, deployable: str) -> None:
    mesh.on(methods.DEPLOY, errors.InvalidArgument("onnxruntime: opset 99 is not supported"))
    done = run("deploy", deployable, "--name", "iris", "--wait")
    assert (done.code, done.out) == (1, "")
    assert done.err == "headrace: onnxruntime: opset 99 is not supported\n"


def test_describe_as_json_has_what_programs_need(mesh: Any, run: Run) -> None:
    mesh.on(methods.GET_MODEL, models_pb2.GetModelResponse(model=MODEL))
    shown = json.loads(run("describe", "iris", "--json").out)
    assert (shown["name"], shown["tenant"], shown["state"]) == ("iris", "acme", "ready")
    assert (shown["min_instances"], shown["max_instances"]) == (1, None)
    assert shown["versions"][0]["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4], "optional": False}]
    assert shown["instances"][0]["state"] == "draining"
    assert (shown["cold_starts"]["count"], shown["cold_starts"]["p95_ms"]) == (3, 41.5)
    recent = shown["cold_starts"]["recent"][0]
    assert (recent["decide_ms"], recent["load_ms"], recent["from_standby"]) == (1.5, 20.0, True)
    assert shown["decisions"][0]["reason"] == "a request waits"
    assert shown["batching"].startswith("batchable")
    assert shown["last_failure"] == {"at": "1970-01-01T00:00:01Z", "reason": "bad opset"}


@pytest.mark.parametrize(
    ("state", "word"),
    [
        (models_pb2.MODEL_STATE_IDLE, "idle"),
        (models_pb2.MODEL_STATE_STARTING, "starting"),
        (models_pb2.MODEL_STATE_LOADING, "loading"),
        (models_pb2.MODEL_STATE_BLOCKED, "blocked"),
        (models_pb2.MODEL_STATE_DELETING, "deleting"),
    ],
)
def test_states_are_words(mesh: Any, run: Run, state: models_pb2.ModelState, word: str) -> None:
    mesh.on(methods.GET_MODEL, models_pb2.GetModelResponse(model={"state": state, "max_instances": 3}))
    shown = json.loads(run("describe", "iris", "--json").out)
    assert (shown["state"], shown["max_instances"], shown["last_failure"]) == (word, 3, None)


def test_describe_for_people_says_the_same(mesh: Any, run: Run) -> None:
    mesh.on(methods.GET_MODEL, models_pb2.GetModelResponse(model=MODEL))
    out = run("describe", "iris").out
    for part in ("acme", "1 (min 1, max by quota)", "batchable: two rows", "bad opset", "a request waits", "[-1, 4]"):
        assert part in out


def test_describe_says_what_holds_each_instance(mesh: Any, run: Run) -> None:
    why = "threads only, millicores are not enforced on this machine: there are no control groups v2"
    shape = {"cpu_millicores": 1500, "memory_bytes": 1 << 30}
    instances = [
        {"id": "a", "shape": shape, "cpu_enforcement": "cgroup", "memory_enforcement": "cgroup and watchdog"},
        {"id": "b", "shape": shape, "cpu_enforcement": why, "memory_enforcement": "RLIMIT_DATA and watchdog",
         "private_bytes": 77 << 20},
    ]  # fmt: skip
    mesh.on(methods.GET_MODEL, models_pb2.GetModelResponse(model={"instances": instances}))
    out = run("describe", "iris").out
    for part in ("1.5 (cgroup)", "1Gi (cgroup and watchdog)", f"1.5 ({why})", "1Gi (RLIMIT_DATA and watchdog)", "77Mi"):
        assert part in out
    shown = json.loads(run("describe", "iris", "--json").out)["instances"]
    assert shown[1]["enforced"] == {"cpu": why, "memory": "RLIMIT_DATA and watchdog"}
    assert shown[1]["private_bytes"] == 77 << 20


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (
            {"response_cache": True, "cache_ttl": {"seconds": 90}, "cache_shared": True},
            "kept for 90s, shared by all tenants",
        ),
        ({"response_cache": True}, "kept as long as the mesh is configured to, each tenant its own"),
    ],
    ids=["as the model says", "by default"],
)
def test_describe_says_how_answers_are_kept(mesh: Any, run: Run, spec: dict[str, Any], words: str) -> None:
    mesh.on(methods.GET_MODEL, models_pb2.GetModelResponse(model={"name": "iris", "spec": spec}))
    assert f"response cache: {words}" in " ".join(run("describe", "iris").out.split())


def test_list_is_plain_and_stable_without_a_terminal(mesh: Any, run: Run) -> None:
    blocked = models_pb2.Model(name="b", tenant="default", state=models_pb2.MODEL_STATE_BLOCKED, reason="no\nmemory")
    mesh.on(methods.LIST_MODELS, models_pb2.ListModelsResponse(models=[MODEL, blocked]))
    assert run("list").out.splitlines() == [
        "NAME  TENANT   STATE    VERSIONS  INSTANCES  MIN  MAX  REASON",
        "iris  acme     ready    2         1          1    -    -",
        "b     default  blocked  -         0          0    -    no memory",
    ]


def test_delete_and_not_found(mesh: Any, run: Run) -> None:
    mesh.on(methods.DELETE_MODEL, [models_pb2.DeleteModelResponse(), errors.NotFound("there is no model 'iris'")])
    assert run("delete", "iris").out == "deleted iris\n"
    done = run("delete", "iris")
    assert (done.code, done.err) == (1, "headrace: there is no model 'iris'\n")


def write_yaml(path: Path, *documents: Any) -> str:
    path.write_text(yaml.safe_dump_all(documents))
    return str(path)


def test_apply_sets_tenants_first_and_uploads_paths_beside_the_file(
    mesh: Any, run: Run, deployable: str, tmp_path: Path
) -> None:
    order: list[str] = []
    mesh.on(
        methods.SET_TENANT,
        lambda request: order.append("tenant") or tenants_pb2.SetTenantResponse(tenant={"name": "a"}),
    )
    mesh.on(methods.DEPLOY, lambda request: order.append("model") or models_pb2.DeployModelResponse(model=MODEL))
    model = {
        "name": "iris",
        "tenant": "a",
        "source": "m.fake.json",
        "slo": "100ms",
        "idle_timeout": "5m",
        "resources": {"cpu": 2, "memory": "1Gi"},
        "engine_options": {"intra_op_threads": 1},
        "padding": {"ids": 0},
        "states": {"h_out": "h"},
        "sequence_idle": "5m",
    }
    tenant = {"name": "a", "nominal": {"cpu": 4, "concurrency": 10}, "budget": {"per_hour": 1.5}}
    file = write_yaml(tmp_path / "mesh.yaml", {"model": model}, None, {"tenant": tenant})
    done = run("apply", "-f", file)
    assert done.code == 0, done.err
    assert order == ["tenant", "model"]
    [deploy] = mesh.requests(methods.DEPLOY)
    assert deploy.model == models_pb2.ModelSpec(
        name="iris",
        tenant="a",
        artifact="sha256:abc",
        slo={"nanos": 100_000_000},
        idle_timeout={"seconds": 300},
        resources={"cpu": "2", "memory": "1Gi"},
        engine_options={"intra_op_threads": "1"},
        padding={"ids": 0.0},
        states={"h_out": "h"},
        sequence_idle={"seconds": 300},
    )
    [set_tenant] = mesh.requests(methods.SET_TENANT)
    assert set_tenant.tenant == tenants_pb2.TenantSpec(
        name="a", nominal={"cpu": "4", "concurrency": 10}, budget={"per_hour": "1.5"}
    )


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"model": {"name": "m", "replicas": 3}}, "replicas"),
        ({"modle": {"name": "m"}}, "modle"),
        ({"model": {"name": "m", "min_instances": "many"}}, "min_instances"),
        ({"model": {"name": "m", "slo": "soon"}}, "slo: expected a duration"),
        ({"model": {"source": "m.fake.json"}}, "model.name is missing"),
        ({"model": {"name": "m"}, "tenant": {"name": "t"}}, "document 2 (model 'm'): expected exactly one"),
        ({"model": {"name": "m", "resources": {"gpus": 1}}}, "model.resources.gpus: there is no such field"),
        ({"model": {"name": "m", "replica": 3}}, "min_instances"),
        ({"tenant": {"name": "t", "nominal": 3}}, "document 2 (tenant 't'): tenant.nominal: expected fields"),
        ({"model": {"name": "m", "shared_with": "all"}}, "model.shared_with: expected a list; got 'all'"),
        ({"model": {"name": "m", "slo": 3}}, "model.slo: expected a duration"),
        ({"model": {"name": "m", "tenant": "ünï"}}, "document 2 (model 'm'): tenant: 'ünï' does not name"),
        ({}, "exactly one of `model:` and `tenant:`"),
        ([1], "expected `model:` or `tenant:`; got list"),
        ({"model": {"name": "m", "source": "gone.onnx"}}, "document 2 (model 'm'): "),
    ],
)
def test_a_wrong_document_is_named_and_nothing_is_applied(
    mesh: Any, run: Run, tmp_path: Path, document: Any, expected: str
) -> None:
    file = write_yaml(tmp_path / "mesh.yaml", {"tenant": {"name": "first"}}, document)
    done = run("apply", "-f", file)
    assert done.code == 2
    assert expected in done.err
    assert done.err.count("\n") == 1
    assert not mesh.seen


@pytest.mark.parametrize("text", ["a: [", "", "---\n---\n"])
def test_a_file_without_documents_is_refused(run: Run, tmp_path: Path, text: str) -> None:
    file = tmp_path / "mesh.yaml"
    file.write_text(text)
    done = run("apply", "-f", str(file))
    assert done.code == 2
    assert str(file) in done.err
    assert "<unicode string>" not in done.err


def test_flags_and_yaml_are_one_schema(mesh: Any, run: Run, deployable: str, tmp_path: Path) -> None:
    flags = ["--name", "iris", "--slo", "250ms", "--cpu", "2", "--rps", "10", "--budget", "3/h", "--max-batch", "4"]
    run("deploy", deployable, *flags)
    document = {
        "name": "iris",
        "tenant": "default",
        "source": deployable,
        "slo": "250ms",
        "resources": {"cpu": 2},
        "limits": {"requests_per_second": 10},
        "budget": {"per_hour": 3},
        "max_batch_size": 4,
    }
    run("apply", "-f", write_yaml(tmp_path / "mesh.yaml", {"model": document}))
    by_flags, by_yaml = mesh.requests(methods.DEPLOY)
    assert by_flags == by_yaml


@pytest.mark.parametrize(("flags", "code"), [([], 0), (["--wait"], 1)])
def test_a_deploy_that_is_blocked_says_why(
    mesh: Any, run: Run, deployable: str, tmp_path: Path, flags: list[str], code: int
) -> None:
    blocked = models_pb2.Model(
        name="iris", tenant="acme", state=models_pb2.MODEL_STATE_BLOCKED, reason="needs 8 CPUs\nof 4"
    )
    mesh.on(methods.DEPLOY, models_pb2.DeployModelResponse(model=blocked))
    line = "deployed iris for tenant acme: blocked: needs 8 CPUs of 4\n"
    done = run("deploy", deployable, "--name", "iris", *flags)
    assert (done.code, done.out) == (code, line)
    file = write_yaml(tmp_path / "mesh.yaml", {"model": {"name": "iris", "source": deployable}})
    done = run("apply", "-f", file, *flags)
    assert (done.code, done.out) == (code, line)


def test_what_the_mesh_refuses_of_a_file_names_the_document(mesh: Any, run: Run, tmp_path: Path) -> None:
    mesh.on(methods.SET_TENANT, [tenants_pb2.SetTenantResponse(tenant={"name": "a"}), errors.InvalidArgument("no")])
    file = write_yaml(tmp_path / "mesh.yaml", {"tenant": {"name": "a"}}, {"tenant": {"name": "b"}})
    done = run("apply", "-f", file)
    assert (done.code, done.out) == (1, "set tenant a\n")
    assert done.err == f"headrace: {file}, document 2 (tenant 'b'): no\n"
