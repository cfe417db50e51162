"""ModelSpec and TenantSpec between the API and the domain."""

from __future__ import annotations

from dataclasses import replace

from headrace.v1 import models_pb2, resources_pb2, tenants_pb2
from headrace_autoscaler.api.convert_quantities import (
    budget_pb,
    limits_of,
    money_text,
    quantities_pb,
    resources_of,
    resources_pb,
)
from headrace_autoscaler.api.convert_time import duration, seconds
from headrace_autoscaler.core.policies.choose import policy_name
from headrace_autoscaler.deploy_plan import DeployRequest
from headrace_autoscaler.domain import Limits, ModelSpec, Tenant
from headrace_common.quantities import format_millis, parse_micros, parse_millis

_DEFAULT = ModelSpec(name="")


def deploy_request(spec: models_pb2.ModelSpec, caller: str) -> DeployRequest:
    """A validated spec with its defaults settled; the owner of one that names none is the caller."""
    return DeployRequest(
        spec=ModelSpec(
            name=spec.name,
            tenant=spec.tenant or caller,
            min_instances=spec.min_instances,
            max_instances=spec.max_instances if spec.HasField("max_instances") else None,
            idle_timeout_s=seconds(spec.idle_timeout) if spec.HasField("idle_timeout") else _DEFAULT.idle_timeout_s,
            slo_s=seconds(spec.slo) if spec.HasField("slo") else None,
            max_batch_size=spec.max_batch_size if spec.HasField("max_batch_size") else None,
            resources=resources_of(spec.resources, "resources"),
            limits=limits_of(spec.limits, spec.budget, "limits"),
            shared_with=tuple(spec.shared_with),
            engine=spec.engine,
            engine_options=tuple(sorted(spec.engine_options.items())),
            policy=policy_name(spec.policy, spec.traffic, spec.cost_sensitivity),
            source=spec.source,
            cache_shared=spec.cache_shared,
            cache_ttl_s=seconds(spec.cache_ttl) if spec.HasField("cache_ttl") else None,
            instance_concurrency=spec.instance_concurrency if spec.HasField("instance_concurrency") else None,
            padding=tuple(sorted(spec.padding.items())),
            tolerates_spot=spec.tolerates_spot,
            spread=max(1, spec.spread),
            gpu_architectures=tuple(sorted(set(spec.gpu_architectures))),
            idle_timeout_asked=spec.HasField("idle_timeout"),
            traffic=spec.traffic,
            cost_sensitivity=spec.cost_sensitivity,
            schedules=tuple(spec.schedules),
            targets=tuple(sorted(spec.targets.items())),
            slo_credit_micros=parse_micros(spec.slo_credit, "slo_credit") if spec.slo_credit else None,
            max_cpu_millicores=parse_millis(spec.max_cpu, "max_cpu") if spec.HasField("max_cpu") else None,
            states=tuple(sorted(spec.states.items())),
            sequence_idle_s=seconds(spec.sequence_idle) if spec.HasField("sequence_idle") else None,
        ),
        artifact=spec.artifact,
        response_cache=spec.response_cache if spec.HasField("response_cache") else None,
    )


def model_spec_pb(spec: ModelSpec) -> models_pb2.ModelSpec:
    """The settled spec; deploying it again would change nothing but, perhaps, the files."""
    return models_pb2.ModelSpec(
        name=spec.name,
        tenant=spec.tenant,
        source=spec.source,
        min_instances=spec.min_instances,
        max_instances=spec.max_instances,
        idle_timeout=duration(spec.idle_timeout_s) if spec.idle_timeout_asked else None,
        slo=None if spec.slo_s is None else duration(spec.slo_s),
        max_batch_size=spec.max_batch_size,
        resources=resources_pb(spec.resources),
        limits=quantities_pb(spec.limits),
        budget=budget_pb(spec.limits),
        shared_with=spec.shared_with,
        engine=spec.engine,
        engine_options=dict(spec.engine_options),
        response_cache=spec.response_cache,
        policy=spec.policy,
        cache_shared=spec.cache_shared,
        cache_ttl=None if spec.cache_ttl_s is None else duration(spec.cache_ttl_s),
        instance_concurrency=spec.instance_concurrency,
        padding=dict(spec.padding),
        tolerates_spot=spec.tolerates_spot,
        spread=spec.spread if spec.spread > 1 else 0,
        gpu_architectures=spec.gpu_architectures,
        traffic=spec.traffic,
        cost_sensitivity=spec.cost_sensitivity,
        schedules=spec.schedules,
        targets=dict(spec.targets),
        slo_credit="" if spec.slo_credit_micros is None else money_text(spec.slo_credit_micros),
        max_cpu=None if spec.max_cpu_millicores is None else format_millis(spec.max_cpu_millicores),
        states=dict(spec.states),
        sequence_idle=None if spec.sequence_idle_s is None else duration(spec.sequence_idle_s),
    )


def tenant_of_spec(spec: tenants_pb2.TenantSpec, old: Tenant | None, now: float) -> Tenant:
    """The tenant with what the spec sets; what it leaves out stays as it was.

    Quantities and budget are replaced as wholes: setting `nominal` to an empty message lifts all its limits.
    """
    tenant = old or Tenant(spec.name, created_at=now)
    return replace(
        tenant,
        nominal=_nominal(spec, tenant.nominal),
        borrowing_limit=_limits(spec, "borrowing_limit", tenant.borrowing_limit),
        lending_limit=_limits(spec, "lending_limit", tenant.lending_limit),
        cohort=spec.cohort if spec.HasField("cohort") else tenant.cohort,
        weight=spec.weight if spec.HasField("weight") else tenant.weight,
        refuse_at_budget=(
            spec.budget_action == tenants_pb2.BUDGET_ACTION_REFUSE if spec.budget_action else tenant.refuse_at_budget
        ),
    )


def tenant_pb(tenant: Tenant) -> tenants_pb2.TenantSpec:
    refuse = tenant.refuse_at_budget
    return tenants_pb2.TenantSpec(
        name=tenant.name,
        nominal=quantities_pb(tenant.nominal),
        borrowing_limit=quantities_pb(tenant.borrowing_limit),
        lending_limit=quantities_pb(tenant.lending_limit),
        budget=budget_pb(tenant.nominal),
        cohort=tenant.cohort or None,
        weight=tenant.weight,
        budget_action=tenants_pb2.BUDGET_ACTION_REFUSE if refuse else tenants_pb2.BUDGET_ACTION_QUEUE,
    )


def _nominal(spec: tenants_pb2.TenantSpec, old: Limits) -> Limits:
    quantities = spec.nominal if spec.HasField("nominal") else quantities_pb(old)
    budget = spec.budget if spec.HasField("budget") else budget_pb(old) or resources_pb2.Budget()
    return limits_of(quantities, budget, "nominal")


def _limits(spec: tenants_pb2.TenantSpec, field: str, old: Limits) -> Limits:
    return limits_of(getattr(spec, field), resources_pb2.Budget(), field) if spec.HasField(field) else old
