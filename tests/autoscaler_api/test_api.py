"""What the API shows: models, tenants, usage, status."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from headrace.v1 import mesh_pb2, models_pb2, resources_pb2, tenants_pb2, usage_pb2
from headrace_autoscaler.api.convert_time import seconds
from headrace_autoscaler.core.budgets import Budget, BudgetState, Period, Standing
from headrace_autoscaler.core.explaining import Explanation, Obstacle, RefusedRequests
from headrace_autoscaler.domain import (
    ColdStart,
    DecisionRecord,
    DeployFailure,
    Enforcement,
    FleetView,
    InstanceView,
    ModelView,
    Posting,
    Resources,
    RouterView,
    StandbyTarget,
    Usage,
    UsageKey,
)

Code = grpc.StatusCode


OnnxModel = Callable[..., bytes]


async def refused(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return error.value.code(), error.value.details() or ""


# Conversions.


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
    assert (third.cohort, third.HasField("cohort")) == ("c", True)
    third = await set_tenant(api, name="acme", cohort="")
    assert not third.HasField("cohort"), "it has left"
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
        ({"name": "a", "nominal": {"requests_per_second": 1e-4}}, "nominal.requests_per_second: expected 0, or 0.001"),
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


async def test_a_deploy_on_a_spent_budget_is_refused_at_once(api: Any, onnx_model: OnnxModel) -> None:
    await api.deploy("m", {"m.onnx": onnx_model()}, tenant="acme")
    spent = Standing(Budget("acme", "", Period.HOUR, 20), 21, 0, BudgetState.SPENT, 7200, "EUR")
    api.fleet.budgets = {"acme": (spent,)}
    for wait in (True, False):
        code, told = await refused(api.deploy("n", {"n.onnx": onnx_model(3.0)}, tenant="acme", wait=wait))
        assert code is Code.RESOURCE_EXHAUSTED
        assert told.startswith("tenant 'acme' has spent its 0.00002 EUR per hour")
    assert api.catalogue.model("n") is None
    await api.deploy("m", tenant="acme", min_instances=1)
    assert api.catalogue.model("m").spec.min_instances == 1, "what loads nothing costs nothing"


@pytest.mark.parametrize("budget", [None, "100"], ids=["deployed anew after a delete", "raised"])
async def test_a_budget_that_a_model_will_not_have_any_more_does_not_count(
    api: Any, onnx_model: OnnxModel, budget: str | None
) -> None:
    per_hour = None if budget is None else resources_pb2.Budget(per_hour=budget)
    spent = Standing(Budget("acme", "n", Period.HOUR, 20), 21, 0, BudgetState.SPENT, 7200, "EUR")
    api.fleet.budgets = {"acme/n": (spent,)}
    await api.deploy("n", {"n.onnx": onnx_model()}, tenant="acme", budget=per_hour)
    same = resources_pb2.Budget(per_hour="0.00002")
    code, _ = await refused(api.deploy("n", {"n.onnx": onnx_model(3.0)}, tenant="acme", budget=same))
    assert code is Code.RESOURCE_EXHAUSTED
