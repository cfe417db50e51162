"""API messages as plain data for --json and for tables. Names are the API's; durations are in ms or s, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from google.protobuf.timestamp_pb2 import Timestamp

from headrace.v1 import mesh_pb2, models_pb2, resources_pb2, tenants_pb2
from headrace_common.quantities import format_micros


def model_view(model: models_pb2.Model) -> dict[str, Any]:
    """Everything that `describe --json` shows."""
    failure = model.last_failure
    return {
        "name": model.name,
        "tenant": model.tenant,
        "state": state_word(model.state),
        "reason": model.reason,
        "versions": [_version_view(version) for version in model.versions],
        "instances": [instance_view(instance) for instance in model.instances],
        "min_instances": model.min_instances,
        "max_instances": model.max_instances if model.HasField("max_instances") else None,
        "instance_concurrency": model.spec.instance_concurrency or None,
        "batching": next((v.batching for v in reversed(model.versions) if v.state == _SERVING), ""),
        "created_at": moment(model.created_at),
        "cold_starts": {
            "count": model.cold_starts.count,
            "p95_ms": _millis(model.cold_starts.p95) if model.cold_starts.HasField("p95") else None,
            "recent": [_cold_start_view(start) for start in model.cold_starts.recent],
        },
        "decisions": [_decision_view(decision) for decision in model.decisions],
        "job": job_view(model.job) if model.HasField("job") else None,
        "variant": model.variant or None,
        "traffic": {
            "requests": model.traffic.requests,
            "cache_hits": model.traffic.cache_hits,
            "mean_rate": round(model.traffic.mean_rate, 3),
            "busiest_rate": round(model.traffic.busiest_rate, 3),
            "mean_batch": round(model.traffic.mean_batch, 3),
            "mean_execution_ms": _millis(model.traffic.mean_execution),
        },
        "last_failure": {"at": moment(failure.at), "reason": failure.reason}
        if model.HasField("last_failure")
        else None,
        "spec": MessageToDict(model.spec, preserving_proto_field_name=True),
    }


def job_view(job: models_pb2.OptimizeJob) -> dict[str, Any]:
    return {
        "state": word(models_pb2.JobState.Name(job.state), "JOB_STATE_"),
        "reason": job.reason,
        "stage": job.stage,
        "stage_done": job.stage_done,
        "stage_total": job.stage_total,
        "attempts": job.attempts,
        "chosen": job.chosen or None,
        "automatic": job.automatic,
        "switched": job.switched,
        "created_at": moment(job.created_at),
        "started_at": moment(job.started_at),
        "ended_at": moment(job.ended_at),
        "optimization": MessageToDict(job.optimization, preserving_proto_field_name=True),
    }


def variants_view(listed: models_pb2.ListVariantsResponse) -> dict[str, Any]:
    """Everything that `variants --json` shows."""
    return {"job": job_view(listed.job), "variants": [_variant_view(each) for each in listed.variants]}


def explanation_view(explanation: models_pb2.ExplainModelResponse) -> dict[str, Any]:
    """Everything that `explain --json` shows."""
    return MessageToDict(explanation, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


def instance_view(instance: models_pb2.Instance) -> dict[str, Any]:
    return {
        "id": instance.id,
        "state": instance.state,
        "version": instance.version,
        "revision": instance.revision,
        "pid": instance.pid,
        "started_at": moment(instance.started_at),
        "resident_bytes": instance.resident_bytes,
        "requests": instance.requests,
        "shape": _shape_view(instance.shape),
        "private_bytes": instance.private_bytes,
        "profile_us": {str(rows): instance.profile_us[rows] for rows in sorted(instance.profile_us)},
        "enforced": {"cpu": instance.cpu_enforcement, "memory": instance.memory_enforcement},
    }


def status_view(status: mesh_pb2.GetStatusResponse) -> dict[str, Any]:
    """Everything that `status --json` shows."""
    return {
        "version": status.version,
        "epoch": status.epoch,
        "uptime_s": _seconds(status.uptime),
        "enforced": {"cpu": status.cpu_enforcement, "memory": status.memory_enforcement},
        "routers": [
            {
                "id": router.id,
                "queued": router.queued,
                "in_flight": router.in_flight,
                "requests": router.requests,
                "refused": router.refused,
                "connected_at": moment(router.connected_at),
            }
            for router in status.routers
        ],
        "standby": [instance_view(instance) for instance in status.standby],
        "standby_target": {
            "runners": status.standby_target.runners,
            "reason": status.standby_target.reason,
            "inputs": dict(sorted(status.standby_target.inputs.items())),
        },
        "models": [
            {
                "name": model.name,
                "tenant": model.tenant,
                "state": state_word(model.state),
                "instances": model.instances,
                "queued": model.queued,
                "in_flight": model.in_flight,
                "requests": model.requests,
            }
            for model in status.models
        ],
        "budgets": [standing_view(standing) for standing in status.budgets],
    }


def tenant_view(tenant: tenants_pb2.Tenant) -> dict[str, Any]:
    """Quotas in the API's own words; what is absent has no limit."""
    return {
        "name": tenant.name,
        "models": list(tenant.models),
        "created_at": moment(tenant.created_at),
        "spec": MessageToDict(tenant.spec, preserving_proto_field_name=True),
        "budgets": [standing_view(standing) for standing in tenant.budgets],
    }


def standing_view(standing: tenants_pb2.BudgetStanding) -> dict[str, Any]:
    """How a budget stands; amounts are decimal text."""
    return {
        "tenant": standing.tenant,
        "model": standing.model,
        "period": word(tenants_pb2.BudgetPeriod.Name(standing.period), "BUDGET_PERIOD_"),
        "budget": format_micros(standing.budget_micros),
        "spent": format_micros(standing.spent_micros),
        "reserved": format_micros(standing.reserved_micros),
        "status": word(tenants_pb2.BudgetStatus.Name(standing.status), "BUDGET_STATUS_"),
        "returns_at": moment(standing.returns_at),
        "currency": standing.currency,
    }


def standing_line(view: Mapping[str, Any]) -> str:
    """ "1.25 of 1.50 USD per hour spent: warned; whole again at 2026-11-21T15:00:00Z"."""
    return (
        f"{view['spent']} of {view['budget']} {view['currency']} per {view['period']} spent: {view['status']}; "
        f"whole again at {view['returns_at']}"
    )


def state_word(state: models_pb2.ModelState) -> str:
    """ "ready", "idle", "starting", "loading", "blocked", "deleting"."""
    return word(models_pb2.ModelState.Name(state), "MODEL_STATE_")


def moment(at: Timestamp) -> str | None:
    """RFC 3339; None where it was never set."""
    return at.ToJsonString() if at.seconds or at.nanos else None


def word(enum_name: str, prefix: str) -> str:
    """The value of an enumeration, as people write it."""
    return enum_name.removeprefix(prefix).lower()


_SERVING = models_pb2.VERSION_STATE_SERVING


def _version_view(version: models_pb2.ModelVersion) -> dict[str, Any]:
    return {
        "version": version.version,
        "revision": version.revision,
        "state": word(models_pb2.VersionState.Name(version.state), "VERSION_STATE_"),
        "engine": version.engine,
        "max_batch_size": version.max_batch_size,
        "batching": version.batching,
        "inputs": [_tensor_view(tensor) for tensor in version.signature.inputs],
        "outputs": [_tensor_view(tensor) for tensor in version.signature.outputs],
        "artifact": version.artifact,
        "size_bytes": version.size_bytes,
        "deployed_at": moment(version.deployed_at),
        "profile_us": {str(rows): version.profile_us[rows] for rows in sorted(version.profile_us)},
    }


def _variant_view(variant: models_pb2.Variant) -> dict[str, Any]:
    measured = variant.samples > 0
    return {
        "name": variant.name,
        "serves": variant.serves,
        "chosen": variant.chosen,
        "usable": bool(variant.artifact),
        "what": variant.what,
        "verdict": variant.verdict,
        "reason": variant.reason,
        "on_front": variant.on_front,
        "engines": list(variant.engines),
        "size_bytes": variant.size_bytes,
        "quality": variant.quality,
        "share": variant.share if measured else None,
        "lower": variant.lower if measured else None,
        "upper": variant.upper if measured else None,
        "samples": variant.samples,
        "cpu_per_row_ms": variant.cpu_per_row.ToNanoseconds() / 1e6 if variant.HasField("cpu_per_row") else None,
        "timings": [
            {
                "rows": each.rows,
                "latency_ms": _millis(each.latency),
                "rows_per_second": round(each.rows_per_second, 1),
            }
            for each in variant.timings
        ],
    }


def _tensor_view(tensor: models_pb2.TensorSpec) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "datatype": tensor.datatype,
        "shape": list(tensor.shape),
        "optional": tensor.optional,
    }


def _shape_view(shape: resources_pb2.InstanceShape) -> dict[str, Any]:
    return {
        "name": shape.name,
        "cpu_millicores": shape.cpu_millicores,
        "memory_bytes": shape.memory_bytes,
        "gpu_millis": shape.gpu_millis,
        "gpu_memory_bytes": shape.gpu_memory_bytes,
        "price_per_hour": format_micros(shape.price.micros_per_hour),
        "currency": shape.price.currency,
    }


def _cold_start_view(start: models_pb2.ColdStart) -> dict[str, Any]:
    return {
        "at": moment(start.at),
        "revision": start.revision,
        "from_standby": start.from_standby,
        "decide_ms": _millis(start.decide),
        "place_ms": _millis(start.place),
        "load_ms": _millis(start.load),
        "warm_ms": _millis(start.warm),
        "first_answer_ms": _millis(start.first_answer),
        "total_ms": _millis(start.total),
    }


def _decision_view(decision: models_pb2.Decision) -> dict[str, Any]:
    return {
        "at": moment(decision.at),
        "revision": decision.revision,
        "current": decision.current,
        "desired": decision.desired,
        "reason": decision.reason,
        "inputs": dict(decision.inputs),
    }


def _millis(span: Duration) -> float:
    return round(span.ToNanoseconds() / 1e6, 3)


def _seconds(span: Duration) -> float:
    return round(span.ToNanoseconds() / 1e9, 3)
