"""What the API shows: uploads, models, tenants, usage, status, logs."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import orjson
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from headrace.v1 import mesh_pb2, models_pb2, resources_pb2, tenants_pb2, usage_pb2
from headrace_autoscaler.api.convert_quantities import budget_pb, exact_bytes, limits_of, quantities_pb
from headrace_autoscaler.api.convert_specs import deploy_request, model_spec_pb
from headrace_autoscaler.api.convert_time import duration, seconds, timestamp
from headrace_autoscaler.api.log_files import LogFiles
from headrace_autoscaler.core.budgets import Budget, BudgetState, Period, Standing
from headrace_autoscaler.core.explaining import Explanation, Obstacle, RefusedRequests
from headrace_autoscaler.domain import (
    ColdStart,
    DecisionRecord,
    DeployFailure,
    Enforcement,
    FleetView,
    InstanceView,
    Limits,
    ModelSpec,
    ModelView,
    Posting,
    Resources,
    RouterView,
    StandbyTarget,
    Usage,
    UsageKey,
)
from headrace_common.quantities import parse_bytes
from headrace_common.validation import validate

Code = grpc.StatusCode
OnnxModel = Callable[..., bytes]


async def refused(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return error.value.code(), error.value.details() or ""


# Conversions.

amounts = st.none() | st.integers(0, 2**62)
limits = st.builds(
    Limits, amounts, amounts, amounts, amounts, amounts, st.none() | st.floats(0, 1e9), amounts, amounts
).filter(lambda value: all((m or 0) < 10**18 for m in (value.budget_micros_per_hour, value.budget_micros_per_month)))
specs = st.builds(
    ModelSpec,
    name=st.just("m"),
    tenant=st.sampled_from(["acme", "default"]),
    min_instances=st.integers(0, 9),
    max_instances=st.none() | st.integers(9, 99),
    idle_timeout_s=st.integers(0, 10**6).map(lambda ms: ms / 1000),
    slo_s=st.none() | st.integers(1, 10**6).map(lambda ms: ms / 1000),
    max_batch_size=st.none() | st.integers(1, 65536),
    resources=st.builds(
        Resources, st.integers(1, 10**9), st.integers(1, 2**50), st.integers(0, 9000), st.integers(0, 2**40)
    ),
    limits=limits,
    shared_with=st.lists(st.sampled_from(["*", "globex"]), max_size=2).map(tuple),
    engine=st.sampled_from(["", "onnxruntime"]),
    engine_options=st.dictionaries(st.sampled_from("ab"), st.text(max_size=3)).map(lambda d: tuple(sorted(d.items()))),
    source=st.sampled_from(["", "s3://b/m"]),
    padding=st.dictionaries(st.sampled_from("xy"), st.floats(-9, 9)).map(lambda d: tuple(sorted(d.items()))),
    tolerates_spot=st.booleans(),
    spread=st.integers(1, 64),
    gpu_architectures=st.sets(st.sampled_from(["sm_75", "sm_86", "sm_89"])).map(lambda found: tuple(sorted(found))),
    idle_timeout_asked=st.just(True),
    policy=st.sampled_from(["headrace", "balanced"]),
    traffic=st.sampled_from(["", "spiky"]),
    cost_sensitivity=st.sampled_from(["", "high"]),
    schedules=st.lists(st.just("0 8 * * 1-5 Europe/Paris=4"), max_size=2).map(tuple),
    targets=st.dictionaries(st.sampled_from(["cpu", "rate"]), st.floats(0.1, 1)).map(
        lambda d: tuple(sorted(d.items()))
    ),
    slo_credit_micros=st.none() | st.integers(1, 10**9),
    max_cpu_millicores=st.none() | st.integers(1, 10**9),
    states=st.dictionaries(st.sampled_from("xy"), st.sampled_from("ab")).map(lambda d: tuple(sorted(d.items()))),
    sequence_idle_s=st.none() | st.integers(1, 10**6).map(lambda ms: ms / 1000),
)


@given(specs)
def test_a_shown_spec_is_valid_and_means_the_same(spec: ModelSpec) -> None:
    shown = model_spec_pb(spec)
    validate(shown)
    assert deploy_request(shown, "somebody").spec == spec


@given(limits)
def test_limits_come_back_exactly(value: Limits) -> None:
    shown, budget = quantities_pb(value), budget_pb(value) or resources_pb2.Budget()
    validate(budget)
    assert limits_of(shown, budget, "nominal") == value


@given(st.integers(0, 2**62))
def test_bytes_are_written_exactly(count: int) -> None:
    assert parse_bytes(exact_bytes(count), "x") == count


@given(st.integers(0, 10**15))
def test_times_come_back_to_the_microsecond(micros: int) -> None:
    assert seconds(duration(micros / 1e6)) == pytest.approx(micros / 1e6, abs=1e-6)
    assert seconds(timestamp(micros / 1e6)) == pytest.approx(micros / 1e6, abs=1e-6)


# Uploads.


async def parts(*requests: models_pb2.UploadArtifactRequest) -> AsyncIterator[models_pb2.UploadArtifactRequest]:
    for request in requests:
        yield request


def announce(path: str, content: bytes = b"", sha256: str = "") -> models_pb2.UploadArtifactRequest:
    header = models_pb2.UploadArtifactRequest.FileHeader(
        path=path, size_bytes=len(content), sha256=sha256 or hashlib.sha256(content).hexdigest()
    )
    return models_pb2.UploadArtifactRequest(file=header)


async def test_an_upload_answers_the_artifact_and_its_size(api: Any) -> None:
    content = b"x" * 5000
    chunks = [models_pb2.UploadArtifactRequest(chunk=content[at : at + 2048]) for at in range(0, 5000, 2048)]
    answer = await api.models.UploadArtifact(parts(announce("m.onnx", content), *chunks))
    assert answer.size_bytes == 5000
    assert (api.artifacts.directory / answer.artifact / "m.onnx").read_bytes() == content


@pytest.mark.parametrize(
    ("requests", "code", "message"),
    [
        ([], Code.INVALID_ARGUMENT, "holds no file"),
        ([models_pb2.UploadArtifactRequest()], Code.INVALID_ARGUMENT, "part"),
        ([announce("m", sha256="XYZ")], Code.INVALID_ARGUMENT, "file.sha256: "),
        ([announce("")], Code.INVALID_ARGUMENT, "file.path: "),
        ([announce("../m")], Code.INVALID_ARGUMENT, "'../m': the path holds"),
        ([models_pb2.UploadArtifactRequest(chunk=b"x")], Code.INVALID_ARGUMENT, "before any file header"),
        ([announce("m", b"x" * (17 << 20))], Code.RESOURCE_EXHAUSTED, "over the limit of 16Mi"),
    ],
    ids=["nothing", "no part", "bad digest", "no path", "traversal", "no header", "too large"],
)
async def test_a_broken_upload_is_refused(
    api: Any, requests: list[models_pb2.UploadArtifactRequest], code: grpc.StatusCode, message: str
) -> None:
    got, told = await refused(api.models.UploadArtifact(parts(*requests)))
    assert got is code
    assert message in told
    assert api.stored_artifacts() == set()


async def eventually(condition: Callable[[], bool]) -> bool:
    """Waits for what another process or thread does, five seconds at most."""
    for _ in range(500):
        if condition():
            return True
        await asyncio.sleep(0.01)
    return False


async def test_an_upload_whose_client_goes_away_leaves_nothing(api: Any) -> None:
    begun = asyncio.Event()

    async def stalls() -> AsyncIterator[models_pb2.UploadArtifactRequest]:
        yield announce("m.onnx", b"abc")
        begun.set()
        await asyncio.Event().wait()

    call = api.models.UploadArtifact(stalls())
    await begun.wait()
    incoming = api.artifacts.directory / ".incoming"
    assert await eventually(lambda: bool(list(incoming.glob("*/m.onnx"))))
    call.cancel()
    assert await eventually(lambda: not list(incoming.iterdir()))
    assert api.stored_artifacts() == set()


# Models.


def instance(state: str, revision: int = 1) -> InstanceView:
    return InstanceView("i1", "m", revision, "1", state, Resources(500, 2**30), 1000.25, 42, 2**20, 7)


@pytest.mark.parametrize(
    ("view", "expected", "reason"),
    [
        (ModelView(), "IDLE", ""),
        (ModelView(instances=(instance("loading"),)), "STARTING", ""),
        (ModelView(instances=(instance("starting"),)), "STARTING", ""),
        (ModelView(instances=(instance("loading"), instance("ready"))), "READY", ""),
        (ModelView(instances=(instance("draining"),)), "IDLE", ""),
        (ModelView(instances=(instance("ready", revision=9),)), "IDLE", ""),
        (ModelView(blocked_reason="no memory"), "BLOCKED", "no memory"),
        (ModelView(instances=(instance("ready"),), blocked_reason="no memory"), "READY", "no memory"),
    ],
    ids=[
        "at zero",
        "a cold start loads",
        "a runner starts",
        "one is ready",
        "the last one drains",
        "only a replaced revision is up",
        "nothing can be started",
        "no more can be started",
    ],
)
async def test_the_state_follows_from_what_runs(
    api: Any, onnx_model: OnnxModel, view: ModelView, expected: str, reason: str
) -> None:
    await api.deploy("m", {"m.onnx": onnx_model()})
    api.fleet.views["m"] = view
    model = await api.describe("m")
    assert (models_pb2.ModelState.Name(model.state), model.reason) == (f"MODEL_STATE_{expected}", reason)
    assert len(model.instances) == len(view.instances), "draining ones too"


async def test_describe_shows_instances_cold_starts_and_decisions(api: Any, onnx_model: OnnxModel) -> None:
    await api.deploy("m", {"m.onnx": onnx_model()})
    api.fleet.views["m"] = ModelView(
        instances=(instance("ready"),),
        cold_start_count=3,
        cold_starts=(ColdStart(1000.5, 1, 0.001, 0.002, 0.003, 0.004, 0.005, 0.015, True),),
        cold_start_p95_s=0.015,
        decisions=(DecisionRecord(1001.0, 1, 0, 1, "demand", (("queued", 2.0),)),),
    )
    model = await api.describe("m")
    (shown,) = model.instances
    assert (shown.id, shown.state, shown.pid, shown.requests, shown.shape.cpu_millicores) == ("i1", "ready", 42, 7, 500)
    assert shown.started_at == Timestamp(seconds=1000, nanos=250_000_000)
    assert (model.cold_starts.count, seconds(model.cold_starts.p95)) == (3, 0.015)
    (start,) = model.cold_starts.recent
    phases = [start.decide, start.place, start.load, start.warm, start.first_answer, start.total]
    assert [phase.nanos // 1_000_000 for phase in phases] == [1, 2, 3, 4, 5, 15]
    assert start.from_standby
    (decision,) = model.decisions
    assert (decision.current, decision.desired, decision.reason, dict(decision.inputs)) == (
        0,
        1,
        "demand",
        {"queued": 2.0},
    )


async def test_explain_shows_what_the_fleet_says(api: Any, onnx_model: OnnxModel) -> None:
    await api.deploy("m", {"m.onnx": onnx_model()})
    obstacle = Obstacle("nominal", "acme", "too little", "headrace tenant set", "cpu", "1", "1", "1", "0.5")
    api.fleet.explanations["m"] = Explanation("m", "acme", 1, 2, "too little", (obstacle,))
    shown = await api.models.ExplainModel(models_pb2.ExplainModelRequest(name="m"))
    assert (shown.name, shown.tenant, shown.current, shown.desired, shown.sentence) == ("m", "acme", 1, 2, "too little")
    (each,) = shown.obstacles
    assert (each.kind, each.owner, each.command, each.dimension) == ("nominal", "acme", "headrace tenant set", "cpu")
    assert (each.limit, each.used, each.asked, each.missing) == ("1", "1", "1", "0.5")
    assert list(shown.refused) == []
    over = RefusedRequests("globex", "concurrency", 3, (obstacle,))
    api.fleet.explanations["m"] = Explanation("m", "acme", 1, 1, "nothing binds").with_refused((over,))
    shown = await api.models.ExplainModel(models_pb2.ExplainModelRequest(name="m"))
    (each,) = shown.refused
    assert (shown.sentence, each.tenant, each.reason, each.count) == ("too little", "globex", "concurrency", 3)
    assert (each.obstacles[0].command, each.obstacles[0].missing) == ("headrace tenant set", "0.5")
    nowhere = models_pb2.ExplainModelRequest(name="nowhere")
    assert await refused(api.models.ExplainModel(nowhere)) == (Code.NOT_FOUND, "there is no model 'nowhere'")


async def test_models_are_listed_by_name_and_tenant(api: Any, onnx_model: OnnxModel) -> None:
    artifact = await api.upload({"m.onnx": onnx_model()})
    for name, tenant in (("b", "acme"), ("a", "globex"), ("c", "acme")):
        await api.deploy(name, artifact, tenant=tenant)

    async def listed(tenant: str) -> list[str]:
        return [m.name for m in (await api.models.ListModels(models_pb2.ListModelsRequest(tenant=tenant))).models]

    assert await listed("") == ["a", "b", "c"]
    assert await listed("acme") == ["b", "c"]
    assert await listed("nobody") == []


async def test_an_empty_name_is_refused(api: Any) -> None:
    code, told = await refused(api.models.GetModel(models_pb2.GetModelRequest()))
    assert (code, told.partition(":")[0]) == (Code.INVALID_ARGUMENT, "name")


# Tenants.


async def set_tenant(api: Any, **fields: Any) -> tenants_pb2.TenantSpec:
    request = tenants_pb2.SetTenantRequest(tenant=tenants_pb2.TenantSpec(**fields))
    return (await api.tenants.SetTenant(request)).tenant.spec


async def test_setting_a_tenant_replaces_what_is_set(api: Any) -> None:
    quota = resources_pb2.Quantities
    first = await set_tenant(
        api,
        name="acme",
        nominal=quota(cpu="2", memory="4Gi", concurrency=10, queue_length=5, queue_bytes="2Ki"),
        budget=resources_pb2.Budget(per_month="100"),
        cohort="c",
        budget_action=tenants_pb2.BUDGET_ACTION_QUEUE,
    )
    assert (first.nominal.cpu, first.nominal.memory, first.weight, first.cohort) == ("2", "4Gi", 1.0, "c")
    assert (first.nominal.queue_length, first.nominal.queue_bytes) == (5, "2Ki")
    second = await set_tenant(api, name="acme", weight=2.0, borrowing_limit=quota(cpu="500m"))
    assert (second.nominal, second.budget.per_month, second.cohort) == (first.nominal, "100", "c")
    assert (second.weight, second.borrowing_limit.cpu) == (2.0, "0.5")
    assert second.budget_action == tenants_pb2.BUDGET_ACTION_QUEUE
    third = await set_tenant(api, name="acme", nominal=quota())
    assert not third.nominal.HasField("cpu"), "an empty quota lifts the limits"
    assert third.budget.per_month == "100"
    shown = (await api.tenants.GetTenant(tenants_pb2.GetTenantRequest(name="acme"))).tenant
    assert shown.spec == third
    assert shown.created_at.seconds == int(api.clock.wall())
    assert len(api.store.tenants()) == 1


async def test_a_tenant_with_models_cannot_be_deleted(api: Any, onnx_model: OnnxModel) -> None:
    await set_tenant(api, name="globex")
    await api.deploy("m", {"m.onnx": onnx_model()}, tenant="acme")
    request = tenants_pb2.DeleteTenantRequest
    code, told = await refused(api.tenants.DeleteTenant(request(name="acme")))
    assert code is Code.FAILED_PRECONDITION
    assert "owns 1 model(s): m; delete them first" in told
    await api.tenants.DeleteTenant(request(name="globex"))
    (left,) = (await api.tenants.ListTenants(tenants_pb2.ListTenantsRequest())).tenants
    assert (left.name, list(left.models)) == ("acme", ["m"])
    assert (await refused(api.tenants.DeleteTenant(request(name="globex"))))[0] is Code.NOT_FOUND
    assert (await refused(api.tenants.GetTenant(tenants_pb2.GetTenantRequest(name="x"))))[0] is Code.NOT_FOUND


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "operator"}, "the mesh's own"),
        ({"name": ""}, "tenant name '': expected 1 to 64 "),
        ({"name": "a", "weight": 0.0}, "tenant.weight: "),
        ({"name": "a", "nominal": {"memory": "1.0000000001"}}, "nominal.memory: .*whole number"),
        ({"name": "a", "budget": {"per_hour": "1,5"}}, "tenant.budget.per_hour: "),
    ],
)
async def test_tenants_that_are_wrong_are_refused(api: Any, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match=message) as error:
        await set_tenant(api, **fields)
    assert error.value.code() is Code.INVALID_ARGUMENT
    assert api.store.tenants() == ()


# Books and status.


async def test_usage_is_read_by_tenant_and_time(api: Any) -> None:
    key = UsageKey(7200, "acme", "m", "1cpu", "on_demand")
    increments = {key: Usage(10.0, 2.5, 3, 1, 99, network_bytes=7), UsageKey(3600, "globex", "", "", "spot"): Usage()}
    await api.catalogue.post(Posting(1, 1, increments, 0))

    async def rows(**fields: Any) -> list[usage_pb2.UsageRow]:
        return list((await api.usage.GetUsage(usage_pb2.GetUsageRequest(**fields))).rows)

    assert len(await rows()) == 2
    (row,) = await rows(tenant="acme", since=Timestamp(seconds=7000))
    assert row == usage_pb2.UsageRow(
        hour=Timestamp(seconds=7200),
        tenant="acme",
        model="m",
        shape="1cpu",
        capacity_class=resources_pb2.CAPACITY_CLASS_ON_DEMAND,
        instance_seconds=10.0,
        busy_seconds=2.5,
        requests=3,
        cold_starts=1,
        cost_micros=99,
        currency="EUR",
        network_bytes=7,
    )
    assert await rows(since=Timestamp(seconds=90000)) == []


async def test_status_shows_routers_standby_and_models(api: Any, onnx_model: OnnxModel) -> None:
    await api.deploy("m", {"m.onnx": onnx_model()}, tenant="acme")
    api.fleet.views["m"] = ModelView(instances=(instance("ready"),), queued=1, in_flight=2, requests=3)
    standby = InstanceView("s", "", 0, "", "standby", Resources(), 1.0)
    target = StandbyTarget(2, "as many as were wanted at once", (("predicted", 2.0),))
    api.fleet.fleet = FleetView(
        7,
        api.clock.wall() - 90.5,
        (RouterView("router-0", 5.0, 1, 2, 3, 4),),
        (standby,),
        standby_target=target,
    )
    status = await api.mesh.GetStatus(mesh_pb2.GetStatusRequest())
    assert (status.epoch, seconds(status.uptime)) == (7, 90.5)
    assert status.version
    assert [(r.id, r.queued, r.in_flight, r.requests, r.refused) for r in status.routers] == [("router-0", 1, 2, 3, 4)]
    assert [(i.id, i.state) for i in status.standby] == [("s", "standby")]
    assert (status.standby_target.runners, status.standby_target.reason) == (2, target.reason)
    assert dict(status.standby_target.inputs) == {"predicted": 2.0}
    (model,) = status.models
    assert (model.name, model.tenant, model.instances, model.requests) == ("m", "acme", 1, 3)
    assert model.state == models_pb2.MODEL_STATE_READY


async def test_what_holds_instances_is_shown_and_the_newer_failure(api: Any, onnx_model: OnnxModel) -> None:
    await api.deploy("m", {"m.onnx": onnx_model()}, tenant="acme")
    held = Enforcement("cgroup", "cgroup and watchdog")
    shown = replace(instance("ready"), enforcement=held, private_bytes=77)
    outgrown = DeployFailure(api.clock.wall(), "instance i1 is replaced: over its memory")
    api.fleet.views["m"] = ModelView(instances=(shown,), outgrown=outgrown)
    api.fleet.fleet = FleetView(7, 0.0, enforcement=held)
    model = (await api.models.GetModel(models_pb2.GetModelRequest(name="m"))).model
    (one,) = model.instances
    assert (one.cpu_enforcement, one.memory_enforcement, one.private_bytes) == ("cgroup", "cgroup and watchdog", 77)
    assert model.last_failure.reason == "instance i1 is replaced: over its memory"
    status = await api.mesh.GetStatus(mesh_pb2.GetStatusRequest())
    assert (status.cpu_enforcement, status.memory_enforcement) == ("cgroup", "cgroup and watchdog")


async def test_how_budgets_stand_is_told_of_a_tenant_and_of_the_mesh_where_little_is_left(api: Any) -> None:
    await set_tenant(api, name="acme")
    await set_tenant(api, name="globex")
    hour = Budget("acme", "", Period.HOUR, 1_500_000)
    fine = Standing(hour, 10, 5, BudgetState.OK, 7200, "EUR")
    spent = Standing(Budget("acme", "ocr", Period.MONTH, 20), 21, 0, BudgetState.SPENT, 9000, "EUR")
    api.fleet.budgets = {"acme": (fine,), "acme/ocr": (spent,)}
    told = tenants_pb2.BudgetStanding(
        tenant="acme",
        model="ocr",
        period=tenants_pb2.BUDGET_PERIOD_MONTH,
        budget_micros=20,
        spent_micros=21,
        status=tenants_pb2.BUDGET_STATUS_SPENT,
        returns_at=Timestamp(seconds=9000),
        currency="EUR",
    )
    acme = (await api.tenants.GetTenant(tenants_pb2.GetTenantRequest(name="acme"))).tenant
    assert list(acme.budgets)[1:] == [told]
    first = acme.budgets[0]
    assert (first.model, first.spent_micros, first.reserved_micros) == ("", 10, 5)
    assert (first.period, first.status) == (tenants_pb2.BUDGET_PERIOD_HOUR, tenants_pb2.BUDGET_STATUS_OK)
    assert not (await api.tenants.GetTenant(tenants_pb2.GetTenantRequest(name="globex"))).tenant.budgets
    assert list((await api.mesh.GetStatus(mesh_pb2.GetStatusRequest())).budgets) == [told]


# Logs.


def log_line(ts: int, event: str, **fields: object) -> bytes:
    return orjson.dumps({"ts": f"2026-01-01T00:00:{ts:02}Z", "level": "info", "event": event, **fields}) + b"\n"


async def read(api: Any, **fields: Any) -> list[str]:
    stream = api.mesh.ReadLogs(mesh_pb2.ReadLogsRequest(**fields))
    return [orjson.loads(answer.line)["event"] async for answer in stream]


@pytest.fixture
def logs(state: Path) -> Path:
    directory = state / "logs"
    directory.mkdir()
    (directory / "a.log").write_bytes(log_line(1, "one", model="m") + log_line(3, "three") + log_line(5, "five"))
    (directory / "b.log").write_bytes(log_line(2, "two") + log_line(4, "four", model="m") + b'{"ts": "cut o')
    (directory / "notes.txt").write_bytes(log_line(9, "no log"))
    return directory


async def test_logs_of_all_processes_are_one_by_time(api: Any, logs: Path) -> None:
    assert await read(api) == ["one", "two", "three", "four", "five"]
    assert await read(api, tail=2) == ["four", "five"]
    assert await read(api, model="m") == ["one", "four"]
    assert await read(api, model="m", tail=1) == ["four"]
    assert await read(api, model="mm") == []


async def test_there_may_be_no_logs_yet(api: Any) -> None:
    assert await read(api) == []


async def test_output_that_is_no_json_is_shown_under_the_time_before_it(api: Any, logs: Path) -> None:
    (logs / "a.log").write_bytes(log_line(1, "one") + b"Traceback: boom\n[1]\n" + log_line(3, "three"))
    lines = [answer.line async for answer in api.mesh.ReadLogs(mesh_pb2.ReadLogsRequest())]
    assert [orjson.loads(line)["event"] for line in lines] == ["one", "output", "output", "two", "three", "four"]
    assert orjson.loads(lines[1]) == {
        "ts": "2026-01-01T00:00:01Z",
        "level": "error",
        "process": "a",
        "event": "output",
        "output": "Traceback: boom",
    }


async def test_the_newest_lines_of_a_large_file_are_found_from_its_end(api: Any, logs: Path) -> None:
    padding = "x" * 500
    lines = [log_line(i % 60, f"e{i}", padding=padding, model="rare" if i == 7 else "m") for i in range(3000)]
    (logs / "a.log").write_bytes(b"".join(lines))
    (logs / "b.log").unlink()
    stamped = [line.replace(b"2026-01-01T00:00:", f"2026-01-01T{i:06}:".encode()) for i, line in enumerate(lines)]
    (logs / "a.log").write_bytes(b"".join(stamped))
    assert await read(api, tail=300) == [f"e{i}" for i in range(2700, 3000)]
    assert await read(api, model="rare") == ["e7"]


async def test_following_tells_what_is_added_until_the_client_goes(api: Any, logs: Path) -> None:
    stream = api.mesh.ReadLogs(mesh_pb2.ReadLogsRequest(follow=True, tail=1))

    async def following() -> str:
        return str(orjson.loads((await asyncio.wait_for(stream.read(), 10)).line)["event"])

    assert await following() == "five"
    with (logs / "b.log").open("ab") as file:
        file.write(b'ff", "event": "completed"}\n' + log_line(6, "six"))
    assert [await following(), await following()] == ["six", "completed"]
    (logs / "c.log").write_bytes(log_line(7, "seven"))
    assert await following() == "seven"
    (logs / "a.log").unlink()
    (logs / "a.log").write_bytes(log_line(8, "rotated"))
    assert await following() == "rotated"
    stream.cancel()


@pytest.mark.parametrize("beyond", [-1, 0, 1, 2])
def test_a_line_that_a_block_cuts_is_never_taken_for_a_line(tmp_path: Path, beyond: int) -> None:
    lines = [log_line(0, f"{i:06}", padding="x" * 20) for i in range(3000)]
    count = (1 << 16) // len(lines[0]) + beyond  # As many as a block of 64 KiB holds, and one or two more.
    (tmp_path / "a.log").write_bytes(b"".join(lines))
    found = [orjson.loads(line)["event"] for line in LogFiles(tmp_path).newest(count)]
    assert found == [f"{i:06}" for i in range(3000 - count, 3000)]


def test_a_line_is_told_once_it_is_complete(tmp_path: Path) -> None:
    files, path = LogFiles(tmp_path), tmp_path / "a.log"
    assert files.newest(10) == []
    told = []
    for piece in (log_line(1, "one")[:20], log_line(1, "one")[20:] + log_line(2, "two")[:9], log_line(2, "two")[9:]):
        with path.open("ab") as file:
            file.write(piece)
        told.append([orjson.loads(line)["event"] for line in files.added()])
    assert told == [[], ["one"], ["two"]]
    path.write_bytes(log_line(3, "anew"))
    assert [orjson.loads(line)["event"] for line in files.added()] == ["anew"]
