"""From a trace or a named scenario, and what the user changed about it, to what is simulated."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from headrace_autoscaler.core.policies.schedules import parse_schedule
from headrace_autoscaler.core.policies.targets import parse_target
from headrace_autoscaler.domain import Resources, Tenant
from headrace_autoscaler.sim.scenarios import Scenario
from headrace_autoscaler.sim.trace import Trace
from headrace_autoscaler.sim.workload import (
    DEFAULT_TENANT,
    STARTS_PER_S,
    Case,
    Conditions,
    Indices,
    Workload,
    zipf_models,
)
from headrace_common.errors import InvalidArgument

_SLO_OF_SERVICE = 5.0
_FROM_STANDBY_S = 0.5
"""A cold start below this is a load on a runner that is already started, so a standby pool is paid for."""
_SPREAD_SEED = 1
_DEFAULT_SERVICE_S = 0.2
_NAMES_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Changes:
    """What the user said; None: as the trace or the scenario has it, or the default."""

    service_s: float | None = None
    service_per_token_s: float | None = None
    concurrency: int | None = None
    slo_s: float | None = None
    cold_start_s: float | None = None
    models: int | None = None
    nodes: int | None = None
    instances_per_node: int | None = None
    resources: Resources | None = None
    tenants: tuple[Tenant, ...] | None = None
    tenant_instances: int | None = None
    standby: int | None = None
    starts_per_s: float | None = None
    queue_length: int | None = None
    price_micros_per_hour: int | None = None
    credit_micros: int | None = None
    began: float | None = None
    schedules: tuple[str, ...] = ()
    targets: tuple[tuple[str, float], ...] = ()
    min_instances: int | None = None
    max_instances: int | None = None
    idle_timeout_s: float | None = None


def case_of_trace(name: str, trace: Trace, changes: Changes) -> Case:
    """Raises InvalidArgument where the trace lacks what is asked for."""
    if changes.service_per_token_s is None:
        each_s = _DEFAULT_SERVICE_S if changes.service_s is None else changes.service_s
        service = np.full(len(trace.arrival_s), each_s)
    elif trace.tokens is None:
        raise InvalidArgument(f"--service-per-token: trace {name} has no GeneratedTokens column; use --service-ms")
    else:
        service = trace.tokens * changes.service_per_token_s
    names, model = _models_of(name, trace, changes)
    owner = dict(zip(model.tolist(), trace.tenants or (), strict=False))
    workload = Workload(
        name=name,
        arrival_s=trace.arrival_s,
        model=model,
        service_s=service,
        models=names,
        tenants=tuple(owner.get(index, DEFAULT_TENANT) for index in range(len(names))),
        horizon_s=float(trace.arrival_s[-1]),
        service_known=changes.service_per_token_s is None,
    )
    slo_s = _SLO_OF_SERVICE * float(service.mean()) if changes.slo_s is None else changes.slo_s
    notes = (f"{trace.unsorted} rows were out of order; sorted",) if trace.unsorted else ()
    conditions = _changed(Conditions(slo_s, began=trace.began), changes)
    return Case(workload, conditions, notes + _strangers(workload, conditions))


def case_of_scenario(scenario: Scenario, changes: Changes) -> Case:
    """Raises InvalidArgument where the scenario lacks what is asked for."""
    if changes.service_per_token_s is not None:
        raise InvalidArgument(f"--service-per-token: scenario {scenario.name} has no tokens; use --service-ms")
    workload = scenario.workload(changes.models, changes.service_s)
    conditions = _changed(scenario.conditions, changes)
    return Case(workload, conditions, _strangers(workload, conditions))


def _strangers(workload: Workload, conditions: Conditions) -> tuple[str, ...]:
    """A name that is spelt otherwise would limit nobody."""
    known = set(workload.tenants)
    return tuple(
        f"tenant {tenant.name} has limits and sends no request; requests are of {_some(sorted(known))}"
        for tenant in conditions.tenants
        if tenant.name not in known
    )


def _some(names: list[str]) -> str:
    more = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _models_of(name: str, trace: Trace, changes: Changes) -> tuple[tuple[str, ...], Indices]:
    """A model that two tenants call is two: an instance serves one tenant for life."""
    if trace.models is None and trace.tenants is None:
        count = changes.models or 1
        return tuple(f"m{k}" for k in range(count)), zipf_models(len(trace.arrival_s), count, _SPREAD_SEED)
    if changes.models is not None:
        raise InvalidArgument(f"--models: trace {name} has its own model or tenant column")
    requests = len(trace.arrival_s)
    keys = list(zip(trace.tenants or [""] * requests, trace.models or ["m0"] * requests, strict=True))
    order = {key: index for index, key in enumerate(dict.fromkeys(keys))}
    names = tuple(f"{tenant}/{model}" if tenant else model for tenant, model in order)
    return names, np.array([order[key] for key in keys], dtype=np.int32)


def _changed(conditions: Conditions, changes: Changes) -> Conditions:
    given = {field: value for field in Conditions.__slots__ if (value := getattr(changes, field, None)) is not None}
    changed = replace(conditions, **given)
    from_standby = changed.cold_start_s < _FROM_STANDBY_S
    if changes.standby is None and not (conditions.standby and from_standby):
        changed = replace(changed, standby=int(from_standby))
    if changes.tenants is not None:
        if changes.tenant_instances is not None:
            raise InvalidArgument("--tenant-instances: --tenants has the limits; expected one of the two")
        changed = replace(changed, tenant_instances=None)
    for text in changed.schedules:
        parse_schedule(text, "--schedule")
    for metric, value in changed.targets:
        parse_target(metric, value, "--target")
    if changed.max_instances is not None and changed.min_instances > changed.max_instances:
        raise InvalidArgument(
            f"--min-instances: expected {changed.max_instances} (--max-instances) at most; got {changed.min_instances}"
        )
    if changed.schedules and changed.began is None:
        raise InvalidArgument(
            "--schedule: the time of day at which the run begins is not known; give it: --start 2026-11-02T00:00Z"
        )
    if changes.starts_per_s is None and changed.nodes is not None:
        changed = replace(changed, starts_per_s=STARTS_PER_S * changed.nodes)
    return changed
