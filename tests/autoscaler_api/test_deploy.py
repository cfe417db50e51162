"""Deploying, redeploying and deleting through the API."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import grpc
import magika
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from google.protobuf.duration_pb2 import Duration

from headrace.v1 import models_pb2, resources_pb2, tenants_pb2
from headrace_autoscaler.deploy_plan import Offer
from headrace_autoscaler.domain import ModelSpec, ModelView, Resources, Revision, RevisionState, ShapeProfile
from headrace_autoscaler.store import SqlStore, sqlite_url
from headrace_common.clock import FakeClock
from headrace_common.config import AutoscalerConfig
from headrace_common.errors import Unavailable

MAGIKA = Path(magika.__file__).parent / "models" / "standard_v3_3" / "model.onnx"
Code = grpc.StatusCode
OnnxModel = Callable[..., bytes]


async def refused(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return error.value.code(), error.value.details() or ""


def versions(model: models_pb2.Model) -> list[tuple[str, int, str]]:
    return [
        (v.version, v.revision, models_pb2.VersionState.Name(v.state).removeprefix("VERSION_STATE_").lower())
        for v in model.versions
    ]


def traces(api: Any) -> tuple[object, ...]:
    """Everything that a deploy could leave behind, but the recorded reason."""
    return (api.store.models(), api.store.tenants(), api.stored_artifacts(), api.catalogue.models())


async def retire_all(api: Any, name: str) -> None:
    for revision in api.catalogue.model(name).revisions:
        await api.catalogue.finish_retiring(name, revision.revision)


# First deploys.


async def test_a_real_model_is_deployed_and_described(api: Any) -> None:
    model = await api.deploy("magika", {"model.onnx": MAGIKA.read_bytes()}, tenant="acme", max_instances=3)
    assert await api.describe("magika") == model
    assert (model.name, model.tenant, model.min_instances, model.max_instances) == ("magika", "acme", 0, 3)
    assert model.state == models_pb2.MODEL_STATE_IDLE
    (version,) = model.versions
    assert versions(model) == [("1", 1, "serving")]
    assert (version.engine, version.max_batch_size, version.signature.batchable) == ("onnxruntime", 64, True)
    assert version.batching.startswith("batchable: ")
    assert version.size_bytes == MAGIKA.stat().st_size
    assert [tensor.name for tensor in version.signature.inputs] == ["bytes"]
    assert version.signature.inputs[0].shape[0] == -1
    assert version.deployed_at.seconds == model.created_at.seconds == int(api.clock.wall())
    assert api.catalogue.tenant("acme") is not None, "an unknown tenant comes to be"
    assert api.fleet.changes > 0


async def test_a_batch_of_fixed_rows_is_described_with_its_reason(api: Any, onnx_model: OnnxModel) -> None:
    model = await api.deploy("fixed", {"m.onnx": onnx_model(rows=1)})
    assert model.versions[0].max_batch_size == 1
    assert model.versions[0].batching == "not batchable: input 'x' is fixed"
    assert not model.HasField("max_instances")


async def test_what_the_spec_says_comes_back(api: Any, onnx_model: OnnxModel) -> None:
    model = await api.deploy(
        "m",
        {"m.onnx": onnx_model()},
        min_instances=1,
        idle_timeout=Duration(seconds=5, nanos=500_000_000),
        slo=Duration(nanos=100_000_000),
        max_batch_size=8,
        resources=resources_pb2.Quantities(cpu="500m", memory="1536Mi"),
        limits=resources_pb2.Quantities(concurrency=4),
        budget=resources_pb2.Budget(per_hour="1.50"),
        shared_with=["globex"],
        engine_options={"intra_op_threads": "1"},
    )
    spec = model.spec
    assert (spec.tenant, spec.policy, spec.response_cache) == ("default", "headrace", False)
    assert (spec.idle_timeout.nanos, spec.slo.nanos, spec.max_batch_size) == (500_000_000, 100_000_000, 8)
    assert (spec.resources.cpu, spec.resources.memory, spec.budget.per_hour) == ("0.5", "1536Mi", "1.5")
    assert (list(spec.shared_with), dict(spec.engine_options)) == (["globex"], {"intra_op_threads": "1"})
    assert model.versions[0].max_batch_size == 8
    again = await api.deploy("m", **{f.name: v for f, v in spec.ListFields() if f.name != "name"})
    assert again.spec == spec
    assert versions(again) == [("1", 1, "serving")], "the echoed spec changes nothing"


async def test_a_corrupt_model_fails_with_the_engine_reason_and_leaves_nothing(api: Any) -> None:
    before = traces(api)
    code, reason = await refused(api.deploy("bad", {"model.onnx": b"not a model"}, tenant="acme"))
    assert code is Code.INVALID_ARGUMENT
    assert reason == "Load model from model.onnx failed: Protobuf parsing failed", "without the mesh's own paths"
    assert traces(api) == before
    assert api.fleet.discarded == [("bad", 1)]
    code, told = await refused(api.describe("bad"))
    assert code is Code.NOT_FOUND
    assert told == f"there is no model 'bad': its last deploy failed at 2025-06-15T15:06:40Z: {reason}"


async def test_a_tenant_that_was_set_during_a_failing_deploy_stays(api: Any, onnx_model: OnnxModel) -> None:
    api.fleet.gate.clear()
    api.fleet.refuse["1"] = Unavailable("no runner")
    deploy = asyncio.create_task(api.deploy("m", {"m.onnx": onnx_model()}, tenant="acme"))
    await api.fleet.verifying.acquire()
    spec = tenants_pb2.TenantSpec(name="acme", nominal=resources_pb2.Quantities(cpu="2"))
    await api.tenants.SetTenant(tenants_pb2.SetTenantRequest(tenant=spec))
    api.fleet.gate.set()
    assert (await refused(deploy))[0] is Code.UNAVAILABLE
    assert api.catalogue.tenant("acme").nominal.cpu_millicores == 2000


async def test_no_runner_is_told_as_unavailable(api: Any, onnx_model: OnnxModel) -> None:
    api.fleet.refuse["1"] = Unavailable("no runner: the machine's memory is promised")
    code, reason = await refused(api.deploy("m", {"m.onnx": onnx_model()}))
    assert (code, reason) == (Code.UNAVAILABLE, "no runner: the machine's memory is promised")


async def test_what_is_not_ours_is_told_in_general_terms(api: Any, onnx_model: OnnxModel) -> None:
    api.fleet.refuse["1"] = RuntimeError("secret detail")
    code, reason = await refused(api.deploy("m", {"m.onnx": onnx_model()}))
    assert code is Code.INTERNAL
    assert "secret" not in reason
    assert "secret" not in (await refused(api.describe("m")))[1]
    assert api.catalogue.models() == ()


async def test_a_success_forgets_the_failure_before(api: Any, onnx_model: OnnxModel) -> None:
    await refused(api.deploy("m", {"m.onnx": b"bad"}))
    model = await api.deploy("m", {"m.onnx": onnx_model()})
    assert not model.HasField("last_failure")
    assert versions(model) == [("1", 2, "serving")], "a revision number is never used twice, a version's name is"


# Redeploys.


async def test_a_new_file_becomes_the_next_version_and_the_old_one_retires(api: Any, onnx_model: OnnxModel) -> None:
    first = await api.deploy("m", {"m.onnx": onnx_model(2.0)})
    second = await api.deploy("m", {"m.onnx": onnx_model(3.0)}, min_instances=2)
    assert versions(second) == [("1", 1, "retiring"), ("2", 2, "serving")]
    assert second.min_instances == 2
    await api.catalogue.finish_retiring("m", 1)
    await api.catalogue.finish_retiring("m", 1)
    assert versions(await api.describe("m")) == [("2", 2, "serving")]
    assert api.stored_artifacts() == {second.versions[-1].artifact}
    assert first.versions[0].artifact not in api.stored_artifacts()


async def test_a_failing_redeploy_changes_nothing_and_shows_why(api: Any, onnx_model: OnnxModel) -> None:
    await api.deploy("m", {"m.onnx": onnx_model()}, min_instances=1)
    before = traces(api)
    api.clock.advance(10)
    code, reason = await refused(api.deploy("m", {"m.onnx": b"bad"}, min_instances=5))
    assert code is Code.INVALID_ARGUMENT
    assert traces(api) == before
    model = await api.describe("m")
    assert (model.min_instances, versions(model)) == (1, [("1", 1, "serving")])
    assert model.last_failure.reason == reason
    assert model.last_failure.at.seconds == int(api.clock.wall())


async def test_the_same_again_or_only_a_new_spec_loads_nothing(api: Any, onnx_model: OnnxModel) -> None:
    artifact = await api.upload({"m.onnx": onnx_model()})
    await api.deploy("m", artifact)
    await api.deploy("m", artifact)
    await api.deploy("m", artifact, max_instances=4, slo=Duration(seconds=1))
    model = await api.deploy("m", min_instances=1, idle_timeout=Duration(seconds=1))
    assert versions(model) == [("1", 1, "serving")]
    assert (model.min_instances, model.HasField("max_instances")) == (1, False)
    assert api.fleet.verified == [("m", 1, "1")]
    assert SqlStore.models(api.store)[0].spec.idle_timeout_s == 1.0, "and it is stored"


@pytest.mark.parametrize(
    "changed",
    [{"max_batch_size": 4}, {"engine_options": {"intra_op_threads": "2"}}],
    ids=["maximum batch", "engine option"],
)
async def test_a_setting_that_a_load_depends_on_loads_anew(
    api: Any, onnx_model: OnnxModel, changed: dict[str, Any]
) -> None:
    await api.deploy("m", {"m.onnx": onnx_model()})
    assert versions(await api.deploy("m", **changed)) == [("1", 1, "retiring"), ("2", 2, "serving")]


async def test_a_repository_keeps_its_version_names(api: Any, onnx_model: OnnxModel) -> None:
    config = b'name: "m" version_policy { all {} } max_batch_size: 4 instance_group { count: 3 }'
    one, two, three = onnx_model(1.0), onnx_model(2.0), onnx_model(3.0)
    first = await api.deploy("m", {"config.pbtxt": config, "1/model.onnx": one, "2/model.onnx": two})
    assert versions(first) == [("1", 1, "serving"), ("2", 2, "serving")]
    assert [v.max_batch_size for v in first.versions] == [4, 4]
    second = await api.deploy("m", {"config.pbtxt": config, "1/model.onnx": three, "2/model.onnx": two})
    assert versions(second) == [("1", 1, "retiring"), ("2", 2, "serving"), ("1", 3, "serving")]
    assert api.fleet.verified[2:] == [("m", 3, "1")], "version 2 is as it was"
    assert api.catalogue.model("m").current.version == "2"
    assert api.catalogue.model("m").current.slots == 3
    third = await api.deploy("m", min_instances=1)
    assert versions(third) == versions(second), "a change of the spec alone is of the newest artifact"
    await retire_all(api, "m")
    assert versions(await api.describe("m")) == [("2", 2, "serving"), ("1", 3, "serving")]


async def test_one_bad_version_fails_all_of_them(api: Any, onnx_model: OnnxModel) -> None:
    before = traces(api)
    files = {"config.pbtxt": b"version_policy { all {} }", "1/model.onnx": onnx_model(), "2/model.onnx": b"bad"}
    code, reason = await refused(api.deploy("m", files))
    assert code is Code.INVALID_ARGUMENT
    assert reason == "Load model from 2/model.onnx failed: Protobuf parsing failed"
    assert sorted(api.fleet.discarded) == [("m", 1), ("m", 2)], "what had loaded is stopped too"
    assert traces(api) == before


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ('name: "x"', "config.pbtxt: name: expected 'm'"),
        ("sequence_batching {}", "config.pbtxt: not supported: sequence_batching"),
        ("what: 1", "config.pbtxt: line 1:1"),
        ('input { name: "x" data_type: TYPE_INT8 dims: [-1, 3] }', "config.pbtxt: input 'x': expected INT8, the model"),
        ('backend: "fake"', "engine: 'fake' cannot load '1/model.onnx'"),
    ],
    ids=["name", "not supported", "syntax", "tensor", "engine"],
)
async def test_a_configuration_that_does_not_fit_fails_the_deploy(
    api: Any, onnx_model: OnnxModel, config: str, message: str
) -> None:
    before = traces(api)
    code, reason = await refused(api.deploy("m", {"config.pbtxt": config.encode(), "1/model.onnx": onnx_model()}))
    assert code is Code.INVALID_ARGUMENT
    assert reason.startswith(message)
    assert traces(api) == before


@pytest.mark.parametrize(("asked", "cached"), [({}, True), ({"response_cache": False}, False)])
async def test_the_request_overrides_the_configuration(
    api: Any, onnx_model: OnnxModel, asked: dict[str, Any], cached: bool
) -> None:
    files = {"config.pbtxt": b"response_cache { enable: true } max_batch_size: 4", "1/model.onnx": onnx_model()}
    model = await api.deploy("m", files, max_batch_size=2, **asked)
    assert model.spec.response_cache is cached
    assert model.versions[0].max_batch_size == 2


async def test_how_answers_are_kept_is_part_of_the_model(api: Any, onnx_model: OnnxModel) -> None:
    files = {"config.pbtxt": b"response_cache { enable: true }", "1/model.onnx": onnx_model()}
    spec = (await api.deploy("m", files, cache_shared=True, cache_ttl={"seconds": 90})).spec
    assert (spec.response_cache, spec.cache_shared, spec.cache_ttl.seconds) == (True, True, 90)
    spec = (await api.deploy("m", files)).spec
    assert (spec.response_cache, spec.cache_shared, spec.HasField("cache_ttl")) == (True, False, False)


@pytest.mark.parametrize(
    "kept", [{"cache_shared": True}, {"cache_ttl": {"seconds": 1}}], ids=["cache_shared", "cache_ttl"]
)
async def test_saying_how_answers_are_kept_without_keeping_them_is_refused(
    api: Any, onnx_model: OnnxModel, kept: dict[str, Any]
) -> None:
    code, reason = await refused(api.deploy("m", {"1/model.onnx": onnx_model()}, **kept))
    assert code is Code.INVALID_ARGUMENT
    assert reason == f"{next(iter(kept))}: the model has no response cache; expected response_cache as well"


# Bad requests.


@pytest.mark.parametrize(
    ("spec", "code", "message"),
    [
        ({"name": "-m"}, Code.INVALID_ARGUMENT, r"^model name '-m': expected 1 to 128 letters, digits, "),
        ({"name": "a b"}, Code.INVALID_ARGUMENT, "begin and end with a letter or digit$"),
        ({"name": ""}, Code.INVALID_ARGUMENT, "^model name '': expected 1 to 128 "),
        ({"name": "m" * 129}, Code.INVALID_ARGUMENT, "^model name 'm{129}': expected 1 to 128 "),
        ({"tenant": "a b"}, Code.INVALID_ARGUMENT, "^tenant name 'a b': expected 1 to 64 "),
        ({"tenant": "operator"}, Code.PERMISSION_DENIED, "'operator' is the mesh's own"),
        ({"min_instances": 3, "max_instances": 2}, Code.INVALID_ARGUMENT, "min_instances: expected at most"),
        ({"spread": 2}, Code.INVALID_ARGUMENT, "^spread: this mesh is one machine, .* expected 1, got 2$"),
        ({"max_cpu": "500m"}, Code.INVALID_ARGUMENT, r"^max_cpu: expected at least resources.cpu \(1\), got 0.5$"),
        (
            {"max_cpu": "2", "engine_options": {"intra_op_threads": "1"}},
            Code.INVALID_ARGUMENT,
            "^max_cpu: engine_options set intra_op_threads",
        ),
        (
            {"policy": "magic"},
            Code.INVALID_ARGUMENT,
            "policy: expected headrace, conservative, .* or none, got 'magic'",
        ),
        ({"policy": "kpa", "cost_sensitivity": "high"}, Code.INVALID_ARGUMENT, "policy 'kpa' has nothing to adjust"),
        ({"traffic": "wild"}, Code.INVALID_ARGUMENT, "model.traffic: "),
        ({"schedules": ["0 8 * * 1-5 Europe/Paris"]}, Code.INVALID_ARGUMENT, "schedules: expected CRON=N such as"),
        (
            {"targets": {"cpu": 70.0}},
            Code.INVALID_ARGUMENT,
            "targets cpu: expected a share from 0.001 to 1; got 70",
        ),
        ({"slo_credit": "much"}, Code.INVALID_ARGUMENT, "slo_credit: expected"),
        ({"engine": "fake2"}, Code.INVALID_ARGUMENT, "model.engine: must be in list"),
        ({"engine": "fake"}, Code.INVALID_ARGUMENT, "engine: 'fake' is not .*; expected onnxruntime, torch or none"),
        ({"engine": "excel"}, Code.INVALID_ARGUMENT, "model.engine: "),
        ({"artifact": ""}, Code.INVALID_ARGUMENT, "source: expected a path or URL"),
        ({"artifact": "f" * 64}, Code.INVALID_ARGUMENT, "not there: never uploaded, or removed"),
        ({"artifact": "../../etc"}, Code.INVALID_ARGUMENT, "artifact '../../etc': not there"),
        ({"source": "s3://b/m", "artifact": ""}, Code.INVALID_ARGUMENT, "autoscaler.source_schemes"),
        ({"source": "/m.onnx", "artifact": ""}, Code.INVALID_ARGUMENT, "source: expected a URL"),
        ({"source": "s3://b/m"}, Code.INVALID_ARGUMENT, "source and artifact: expected one"),
        ({"resources": {"cpu": "much"}}, Code.INVALID_ARGUMENT, "model.resources.cpu: "),
        ({"resources": {"cpu": "0"}}, Code.INVALID_ARGUMENT, "resources.cpu: expected more than 0"),
        ({"resources": {"concurrency": 1}}, Code.INVALID_ARGUMENT, "resources.concurrency: an instance does not"),
        ({"limits": {"memory": "9999999999Ti"}}, Code.INVALID_ARGUMENT, "limits.memory: .* over the largest"),
        ({"slo": Duration()}, Code.INVALID_ARGUMENT, "model.slo: "),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
async def test_requests_that_are_wrong_are_told_what_is(
    api: Any, onnx_model: OnnxModel, spec: dict[str, Any], code: grpc.StatusCode, message: str
) -> None:
    if "artifact" not in spec:
        spec = {**spec, "artifact": await api.upload({"m.onnx": onnx_model()})}
    request = models_pb2.DeployModelRequest(model=models_pb2.ModelSpec(**{"name": "m", **spec}), wait=True)
    got, told = await refused(api.models.DeployModel(request))
    assert got is code
    assert re.search(message, told), told
    assert api.catalogue.models() == api.catalogue.tenants() == ()


async def test_the_owner_of_a_model_never_changes(api: Any, onnx_model: OnnxModel) -> None:
    await api.deploy("m", {"m.onnx": onnx_model()}, tenant="acme")
    code, told = await refused(api.deploy("m", {"m.onnx": onnx_model(5.0)}, tenant="globex"))
    assert code is Code.PERMISSION_DENIED
    assert "belongs to tenant 'acme'" in told
    model = await api.describe("m")
    assert (model.tenant, model.HasField("last_failure")) == ("acme", False)
    assert api.catalogue.tenant("globex") is None


# Time: waiting, going away, at once, restart.


async def test_without_wait_the_answer_comes_while_it_loads(api: Any, onnx_model: OnnxModel) -> None:
    api.fleet.gate.clear()
    model = await api.deploy("m", {"m.onnx": onnx_model()}, wait=False)
    assert versions(model) == [("1", 1, "loading")]
    assert model.state == models_pb2.MODEL_STATE_LOADING
    await api.fleet.verifying.acquire()
    second = asyncio.create_task(api.deploy("m", {"m.onnx": onnx_model()}))
    api.fleet.gate.set()
    assert versions(await second) == [("1", 1, "serving")], "deploys of one name run one after the other"


async def test_without_wait_what_can_be_told_at_once_is(api: Any) -> None:
    code, told = await refused(api.deploy("m", {"x.txt": b""}, wait=False))
    assert code is Code.INVALID_ARGUMENT
    assert "found no model" in told


async def test_a_deploy_goes_on_when_its_client_has_gone(api: Any, onnx_model: OnnxModel) -> None:
    api.fleet.gate.clear()
    artifact = await api.upload({"m.onnx": onnx_model()})
    request = models_pb2.DeployModelRequest(model=models_pb2.ModelSpec(name="m", artifact=artifact), wait=True)
    call = api.models.DeployModel(request)
    await api.fleet.verifying.acquire()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    api.fleet.gate.set()
    assert versions(await api.deploy("m", artifact)) == [("1", 1, "serving")]
    assert api.fleet.verified == [("m", 1, "1")]


async def test_deploys_of_one_name_at_once_end_in_one_consistent_model(api: Any, onnx_model: OnnxModel) -> None:
    models = [onnx_model(float(i)) for i in range(1, 6)]
    await asyncio.gather(*(api.deploy("m", {"m.onnx": content}) for content in models))
    model = await api.describe("m")
    assert [v.version for v in model.versions] == ["1", "2", "3", "4", "5"]
    assert [state for _, _, state in versions(model)] == ["retiring"] * 4 + ["serving"]
    assert api.store.models() == api.catalogue.models()


async def test_one_artifact_failing_under_one_name_serves_under_another(api: Any, onnx_model: OnnxModel) -> None:
    artifact = await api.upload({"config.pbtxt": b'name: "right"', "1/model.onnx": onnx_model()})
    api.fleet.gate.clear()
    right = asyncio.create_task(api.deploy("right", artifact))
    await api.fleet.verifying.acquire()
    assert (await refused(api.deploy("wrong", artifact)))[0] is Code.INVALID_ARGUMENT
    api.fleet.gate.set()
    assert versions(await right) == [("1", 1, "serving")]
    assert api.stored_artifacts() == {artifact}


async def test_a_first_deploy_that_a_crash_cut_off_is_cleared_away(state: Path, clock: FakeClock, api: Any) -> None:
    # The store as a crash leaves it: one first deploy and one redeploy in progress, one model half deleted.
    other = state.parent / "crashed"
    other.mkdir()
    store = SqlStore.open(sqlite_url(other / "headrace.db"))
    loading = Revision("new", 0, "1", RevisionState.LOADING, "a" * 64, (), "m.onnx", "onnxruntime")
    for name in ("new", "old", "gone"):
        store.put_model(ModelSpec(name=name), 1.0)
    store.add_revision(loading)
    for _ in range(2):
        store.add_revision(Revision("old", 0, "1", RevisionState.LOADING, "b" * 64, (), "m.onnx", "onnxruntime"))
    store.activate_revisions("old", [1])
    store.mark_deleting("gone")
    store.close()
    again = type(api)(other, clock, AutoscalerConfig())
    await again.start()
    try:
        assert [model.spec.name for model in again.catalogue.models()] == ["old"]
        model = await again.describe("old")
        assert versions(model) == [("1", 1, "serving")]
        assert "restarted during the first load; deploy again" in model.last_failure.reason
        assert "restarted during the first load" in (await refused(again.describe("new")))[1]
        assert (await refused(again.describe("gone")))[1] == "there is no model 'gone'"
        assert again.store.models() == again.catalogue.models()
    finally:
        await again.stop()


async def test_a_restart_finds_all_that_was(state: Path, clock: FakeClock, api: Any, onnx_model: OnnxModel) -> None:
    await api.deploy("m", {"m.onnx": onnx_model()}, tenant="acme")
    await refused(api.deploy("bad", {"m.onnx": b"bad"}))
    shown = await api.describe("m")
    await api.deploys.close()
    again = type(api)(state, clock, AutoscalerConfig())
    await again.start()
    try:
        assert await again.describe("m") == shown
        assert "its last deploy failed" in (await refused(again.describe("bad")))[1]
        assert versions(await again.deploy("m", tenant="acme", min_instances=1)) == versions(shown)
    finally:
        await again.stop()


async def test_closing_stops_loads_and_says_so(api: Any, onnx_model: OnnxModel) -> None:
    api.fleet.gate.clear()
    deploy = asyncio.create_task(api.deploy("m", {"m.onnx": onnx_model()}))
    await api.fleet.verifying.acquire()
    await api.deploys.close()
    code, told = await refused(deploy)
    assert code is Code.UNAVAILABLE
    assert "stopped during the first load; deploy again" in told
    assert api.fleet.discarded == [("m", 1)]
    assert api.store.models() == ()
    assert "stopped during" in api.store.failures()["m"].reason
    code, told = await refused(api.deploy("m", {"m.onnx": onnx_model()}))
    assert (code, told) == (Code.UNAVAILABLE, "the autoscaler is stopping; deploy again")


# Deletion.


async def test_a_deleted_model_drains_and_goes_with_its_files(api: Any, onnx_model: OnnxModel) -> None:
    shared = await api.upload({"m.onnx": onnx_model()})
    await api.deploy("m", shared)
    await api.deploy("twin", shared)
    await api.models.DeleteModel(models_pb2.DeleteModelRequest(name="m"))
    model = await api.describe("m")
    assert (model.state, versions(model)) == (models_pb2.MODEL_STATE_DELETING, [("1", 1, "retiring")])
    await api.models.DeleteModel(models_pb2.DeleteModelRequest(name="m"))
    api.deploys.deletion_patience_s = 0.0
    code, told = await refused(api.deploy("m", shared))
    assert code is Code.FAILED_PRECONDITION
    assert "is being deleted; deploy again once it is gone" in told
    await retire_all(api, "m")
    assert (await refused(api.describe("m")))[0] is Code.NOT_FOUND
    assert api.stored_artifacts() == {shared}, "another model uses it"
    await api.models.DeleteModel(models_pb2.DeleteModelRequest(name="twin"))
    await retire_all(api, "twin")
    assert api.stored_artifacts() == set()
    assert api.store.models() == ()
    assert versions(await api.deploy("m", {"m.onnx": onnx_model()})) == [("1", 2, "serving")]


async def test_a_deploy_right_after_the_delete_of_the_same_model_waits_for_that(
    api: Any, onnx_model: OnnxModel
) -> None:
    await api.deploy("m", {"m.onnx": onnx_model()})
    await api.models.DeleteModel(models_pb2.DeleteModelRequest(name="m"))
    deploying = asyncio.ensure_future(api.deploy("m", {"m.onnx": onnx_model()}))
    async with asyncio.timeout(10):
        while not api.deploys._locks or not api.deploys._lock("m").locked():
            await api.describe("m")
    await retire_all(api, "m")
    assert versions(await deploying) == [("1", 2, "serving")]


async def test_deleting_during_the_first_load_stops_it(api: Any, onnx_model: OnnxModel) -> None:
    api.fleet.gate.clear()
    deploy = asyncio.create_task(api.deploy("m", {"m.onnx": onnx_model()}))
    await api.fleet.verifying.acquire()
    await api.models.DeleteModel(models_pb2.DeleteModelRequest(name="m"))
    code, told = await refused(deploy)
    assert (code, told) == (Code.FAILED_PRECONDITION, "model 'm' was deleted during its deploy")
    assert (await refused(api.describe("m")))[1] == "there is no model 'm'", "no failure is kept of what is not wanted"
    assert api.fleet.discarded == [("m", 1)]
    assert api.stored_artifacts() == set()


async def test_deleting_twice_during_a_load_leaves_nothing(api: Any, onnx_model: OnnxModel) -> None:
    before = traces(api)
    api.fleet.gate.clear()
    api.fleet.discard_gate.clear()
    deploy = asyncio.create_task(api.deploy("m", {"m.onnx": onnx_model()}))
    await api.fleet.verifying.acquire()
    deletes = [asyncio.create_task(api.deploys.delete("m", api.deploys.owners("m")))]
    while not api.fleet.discarded:  # noqa: ASYNC110 - what the first delete stopped is being undone
        await asyncio.sleep(0.002)
    deletes.append(asyncio.create_task(api.deploys.delete("m", api.deploys.owners("m"))))
    await asyncio.sleep(0)
    api.fleet.discard_gate.set()
    await asyncio.gather(*deletes)
    assert (await refused(deploy))[0] is Code.FAILED_PRECONDITION
    assert traces(api) == before


async def test_deleting_nothing_is_not_found(api: Any) -> None:
    code, told = await refused(api.models.DeleteModel(models_pb2.DeleteModelRequest(name="m")))
    assert (code, told) == (Code.NOT_FOUND, "there is no model 'm'")


async def test_what_a_shape_measured_is_kept_with_its_revision_and_survives_a_restart(
    api: Any, onnx_model: OnnxModel
) -> None:
    await api.deploy("m", {"m.onnx": onnx_model()})
    one, two = Resources(), Resources(cpu_millicores=2000)
    await api.catalogue.profiled("m", 1, ShapeProfile(two, ((1, 700),)))
    await api.catalogue.profiled("m", 1, ShapeProfile(two, ((1, 600),)))
    await api.catalogue.profiled("m", 7, ShapeProfile(two, ((1, 500),)))
    await api.catalogue.profiled("nobody", 1, ShapeProfile(two, ((1, 500),)))
    [stored] = api.store.models()
    [revision] = stored.revisions
    assert [each.resources for each in revision.profiles] == [one, two], "the first load's, and the newest of the other"
    assert revision.profiles[1].profile_us == ((1, 600),)
    assert revision == api.catalogue.model("m").revisions[0]
    # Another deploy of the same files is the same revision, which keeps them.
    await api.deploy("m", {"m.onnx": onnx_model()})
    [again] = api.store.models()[0].revisions
    assert (again.revision, again.profiles) == (1, revision.profiles)


async def test_a_serving_revision_is_not_forgotten_by_mistake(api: Any, onnx_model: OnnxModel) -> None:
    await api.deploy("m", {"m.onnx": onnx_model()})
    await api.catalogue.finish_retiring("m", 1)
    await api.catalogue.finish_retiring("nobody", 1)
    assert versions(await api.describe("m")) == [("1", 1, "serving")]


# Who calls.


@pytest.mark.parametrize("claimed", ["operator", "a b", "", "-x", "x" * 65])
async def test_a_header_that_names_no_tenant_is_unauthenticated(api: Any, claimed: str) -> None:
    code, told = await refused(
        api.models.ListModels(models_pb2.ListModelsRequest(), metadata=(("x-headrace-tenant", claimed),))
    )
    assert code is Code.UNAUTHENTICATED
    assert "x-headrace-tenant does not name a tenant" in told


async def test_two_tenants_in_one_call_are_nobody(api: Any) -> None:
    both = (("x-headrace-tenant", "a"), ("x-headrace-tenant", "b"))
    request = tenants_pb2.ListTenantsRequest()
    assert (await refused(api.tenants.ListTenants(request, metadata=both)))[0] is Code.UNAUTHENTICATED


async def test_a_tenant_that_names_itself_changes_only_its_own_models(api: Any, onnx_model: OnnxModel) -> None:
    acme, globex = ((("x-headrace-tenant", name),) for name in ("acme", "globex"))
    artifact = await api.upload({"m.onnx": onnx_model()})

    def deploy(tenant: str, metadata: Any) -> Any:
        spec = models_pb2.ModelSpec(name="m", artifact=artifact, tenant=tenant)
        return api.models.DeployModel(models_pb2.DeployModelRequest(model=spec, wait=True), metadata=metadata)

    delete = models_pb2.DeleteModelRequest(name="m")
    assert (await deploy("", acme)).model.tenant == "acme", "who names itself deploys for itself"
    assert (await refused(deploy("acme", globex)))[0] is Code.PERMISSION_DENIED
    assert (await refused(deploy("", globex)))[0] is Code.PERMISSION_DENIED
    assert (await refused(api.models.DeleteModel(delete, metadata=globex)))[0] is Code.PERMISSION_DENIED
    assert (await deploy("acme", ())).model.tenant == "acme", "who names nobody is the operator"
    await api.models.DeleteModel(delete, metadata=acme)


# Housekeeping.


async def test_what_nobody_deployed_and_old_failures_are_cleared(api: Any, onnx_model: OnnxModel) -> None:
    used = (await api.deploy("m", {"m.onnx": onnx_model()})).versions[0].artifact
    await api.upload({"m.onnx": onnx_model(9.0)})
    await refused(api.deploy("bad", {"m.onnx": b"bad"}))
    api.clock.advance(8 * 86400)
    await api.deploys.collect()
    assert api.stored_artifacts() == {used}
    assert (await refused(api.describe("bad")))[1] == "there is no model 'bad'"


async def test_a_url_of_an_allowed_scheme_is_fetched_and_shown_without_its_signature(
    state: Path, clock: FakeClock, api: Any, onnx_model: OnnxModel
) -> None:
    bucket = fsspec.filesystem("memory")
    bucket.pipe("/bucket/m.onnx?sig=s3cr3t", onnx_model())
    config = AutoscalerConfig.model_construct(
        max_artifact_bytes=1 << 20, source_schemes=("memory",), artifact_ttl_s=3600.0
    )
    fetching = type(api)(state / "fetching", clock, config)
    fetching.state.mkdir()
    await fetching.start()
    try:
        model = await fetching.deploy("m", source="memory://bucket/m.onnx?sig=s3cr3t")
        assert versions(model) == [("1", 1, "serving")]
        assert model.spec.source == "memory://bucket/m.onnx"
        code, told = await refused(fetching.deploy("m", source="memory://bucket/none"))
        assert code is Code.INVALID_ARGUMENT
        assert told.startswith("source memory://bucket/none: cannot be read: ")
        assert len(fetching.stored_artifacts()) == 1
    finally:
        await fetching.stop()
        bucket.store.clear()


async def test_the_same_retirement_told_twice_at_once_is_harmless(api: Any, onnx_model: OnnxModel) -> None:
    await api.deploy("m", {"m.onnx": onnx_model()})
    await api.models.DeleteModel(models_pb2.DeleteModelRequest(name="m"))
    await asyncio.gather(*(api.catalogue.finish_retiring("m", 1) for _ in range(4)))
    assert api.catalogue.models() == api.store.models() == ()
    assert api.stored_artifacts() == set()


async def test_slow_fetches_do_not_hold_up_what_is_written(api: Any) -> None:
    """Fetches and uploads take up the threads that the event loop has; the books must go on."""
    released = threading.Event()
    slow = [asyncio.create_task(asyncio.to_thread(released.wait)) for _ in range(64)]
    try:
        async with asyncio.timeout(10):
            await api.tenants.SetTenant(tenants_pb2.SetTenantRequest(tenant=tenants_pb2.TenantSpec(name="acme")))
    finally:
        released.set()
        await asyncio.gather(*slow)
    assert api.catalogue.tenant("acme") is not None


# What fits.


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        (
            {"resources": {"memory": "1000Ti"}},
            "this machine has 16Gi of memory to promise and an instance of model 'm' asks for 1000Ti: deploy it with "
            "a smaller --memory, or raise autoscaler.memory_share",
        ),
        (
            {"resources": {"cpu": "1000"}},
            "this machine has 8 CPUs to promise and an instance of model 'm' asks for 1000: deploy it with a smaller "
            "--cpu, or raise autoscaler.cpu_overcommit",
        ),
        (
            {"resources": {"gpu": "1"}},
            "this machine has no GPU to promise and model 'm' asks for 1: deploy it without --gpu",
        ),
        (
            {"tenant": "acme"},
            "tenant 'acme' may use 500Mi of memory and an instance of model 'm' asks for 1Gi: deploy it with a "
            "smaller --memory, or raise the tenant's memory (`headrace tenant describe acme` shows all its limits; "
            "`tenant set` replaces them)",
        ),
        (
            {"limits": {"cpu": "0.5"}},
            "model 'm' may use 0.5 CPUs by its own limits and an instance of it asks for 1: deploy it with a smaller "
            "--cpu, or raise the model's limits",
        ),
    ],
    ids=["the machine's memory", "its CPUs", "its GPUs", "the tenant's quota", "the model's own limits"],
)
async def test_an_instance_that_could_never_run_is_refused_at_once(
    api: Any, onnx_model: OnnxModel, spec: dict[str, Any], told: str
) -> None:
    quota = tenants_pb2.TenantSpec(name="acme", nominal=resources_pb2.Quantities(memory="500Mi"))
    await api.tenants.SetTenant(tenants_pb2.SetTenantRequest(tenant=quota))
    before = traces(api)[:2]
    for wait in (True, False):
        assert await refused(api.deploy("m", {"m.onnx": onnx_model()}, wait=wait, **spec)) == (
            Code.FAILED_PRECONDITION,
            told,
        )
    assert traces(api)[:2] == before
    assert api.fleet.verified == []


async def test_a_deploy_whose_minimum_cannot_run_now_answers_with_the_reason(api: Any, onnx_model: OnnxModel) -> None:
    api.fleet.decided["m"] = ModelView(blocked_reason="tenant 'acme' may use 1 CPU and uses 1")
    model = await api.deploy("m", {"m.onnx": onnx_model()}, min_instances=1)
    assert (model.state, model.reason) == (models_pb2.MODEL_STATE_BLOCKED, "tenant 'acme' may use 1 CPU and uses 1")


async def test_the_fake_engine_is_offered_only_where_it_is_allowed(state: Path, clock: FakeClock, api: Any) -> None:
    told = (await refused(api.deploy("m", {"m.onnx": b""}, engine="fake")))[1]
    assert told == "engine: 'fake' is not available in this mesh; expected onnxruntime, torch or none"
    allowing = type(api)(state / "allowing", clock, AutoscalerConfig(), Offer(fake_engine=True))
    allowing.state.mkdir()
    await allowing.start()
    try:
        told = (await refused(allowing.deploy("m", {"m.onnx": b""}, engine="fake")))[1]
        assert told == "engine: 'fake' cannot load 'm.onnx', which is for 'onnxruntime'"
    finally:
        await allowing.stop()


async def test_deleting_during_a_first_fetch_stops_it(state: Path, clock: FakeClock, api: Any) -> None:
    fetching, opened, released = asyncio.Event(), asyncio.get_running_loop(), threading.Event()

    class Slow(MemoryFileSystem):
        protocol = "slow"

        def info(self, path: str, **_options: Any) -> dict[str, Any]:
            opened.call_soon_threadsafe(fetching.set)
            released.wait(10)
            raise FileNotFoundError(path)

    fsspec.register_implementation("slow", Slow, clobber=True)
    config = AutoscalerConfig.model_construct(max_artifact_bytes=1 << 20, source_schemes=("slow",), artifact_ttl_s=9.0)
    slow = type(api)(state / "slow", clock, config)
    slow.state.mkdir()
    await slow.start()
    try:
        deploy = asyncio.create_task(slow.deploy("m", source="slow://bucket/m.onnx", tenant="acme"))
        await fetching.wait()
        request = models_pb2.DeleteModelRequest(name="m")
        globex = (("x-headrace-tenant", "globex"),)
        assert (await refused(slow.models.DeleteModel(request, metadata=globex)))[0] is Code.PERMISSION_DENIED
        delete = asyncio.ensure_future(slow.models.DeleteModel(request))
        opened.call_later(0.05, released.set)
        await delete
        assert await refused(deploy) == (Code.FAILED_PRECONDITION, "model 'm' was deleted during its deploy")
        assert (await refused(slow.describe("m")))[1] == "there is no model 'm'"
        assert slow.stored_artifacts() == set()
    finally:
        released.set()
        await slow.stop()
