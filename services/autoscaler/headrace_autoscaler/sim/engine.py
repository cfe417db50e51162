"""The loop: the next event of all, in order, until every request is answered.

A run begins with no instance and the policy asked once at time 0. Up to the horizon instances run as the policy says.
From the horizon on a model's instances stop as soon as none of its requests is left; its policy is asked until then.
What is not answered `GIVE_UP_S` after the horizon is refused.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from itertools import chain

import numpy as np

from headrace_autoscaler.core.policies.base import Policy, Profile
from headrace_autoscaler.core.policies.choose import governed
from headrace_autoscaler.core.policies.schedules import parse_schedule
from headrace_autoscaler.core.policies.targets import parse_target
from headrace_autoscaler.sim.door import door_of
from headrace_autoscaler.sim.gate import Gate, OpenGate, QuotaGate
from headrace_autoscaler.sim.leasing import Leasing, lending
from headrace_autoscaler.sim.model_run import ARRIVAL, DONE, END, READY, ModelRun, World
from headrace_autoscaler.sim.outcome import Outcome
from headrace_autoscaler.sim.purse import Purse
from headrace_autoscaler.sim.starts import StartRate
from headrace_autoscaler.sim.taking_back import TakingBack
from headrace_autoscaler.sim.treasury import Treasury
from headrace_autoscaler.sim.workload import Case

GIVE_UP_S = 3600.0


def simulate(case: Case, name: str, factory: Callable[[], Policy], gate: Gate | None = None) -> Outcome:
    """Runs a policy on a workload, under the schedules that the conditions have.

    Args:
        name: of the policy, for the outcome.
        factory: makes one policy per model.
        gate: who may start; None: as the conditions say.
    """
    workload, conditions = case.workload, case.conditions
    purse = _purse(case)
    if gate is None:
        gate = _gate(case, purse)
    world = World(
        workload.arrival_s.tolist(),
        workload.service_s.tolist(),
        gate,
        StartRate(conditions.starts_per_s, conditions.standby),
        conditions.began,
    )
    profile = _profile(case)
    schedules = [parse_schedule(text) for text in conditions.schedules]
    targets = [parse_target(metric, value) for metric, value in conditions.targets]
    doors = {tenant.name: door for tenant in conditions.tenants if (door := door_of(tenant)) is not None}
    models = [
        ModelRun(
            index,
            model,
            tenant,
            governed(factory(), schedules, targets),
            profile,
            world,
            conditions.queue_length,
            doors.get(tenant),
        )
        for index, (model, tenant) in enumerate(zip(workload.models, workload.tenants, strict=True))
    ]
    if isinstance(gate, QuotaGate) and any(tenant.cohort for tenant in conditions.tenants):
        world.lenders = TakingBack(gate, models)
    model_of = workload.model.tolist()
    if lenders := lending(conditions.tenants):
        Leasing(lenders, doors, models, model_of, world).begin()
    if purse is not None:
        Treasury(purse, doors, models, world).tick(0.0)
    for model in models:
        model.begin()
    _loop(world, models, model_of, workload.horizon_s)
    gone = (instance.gone for instance in world.lifetimes)
    return Outcome(
        policy=name,
        case=case,
        lifetimes=world.lifetimes,
        begin_s=np.array(world.begin),
        instance=np.array(world.instance, dtype=np.int32),
        refused=world.refused,
        refused_at=world.refused_at,
        starts_refused=world.starts_refused,
        ended_s=max(chain(gone, (workload.horizon_s,))),
    )


def _loop(world: World, models: list[ModelRun], model_of: list[int], horizon_s: float) -> None:
    """Arrivals come from their list and everything else from a heap, so that a request costs one push and one pop."""
    events, arrivals, pop = world.events, world.arrivals, heapq.heappop
    next_request, requests = 0, len(arrivals)
    arrival = arrivals[0] if requests else math.inf
    give_up = horizon_s + GIVE_UP_S
    heapq.heappush(events, (horizon_s, END, 0, models[0]))
    over = False
    while events or next_request < requests:
        if not events or arrival < events[0][0] or (arrival == events[0][0] and events[0][1] > ARRIVAL):
            models[model_of[next_request]].arrive(arrival, next_request)
            next_request += 1
            arrival = arrivals[next_request] if next_request < requests else math.inf
            continue
        now, kind, number, subject = pop(events)
        if kind == END:
            over = world.over = True
            _end(models, now, everything=now >= give_up)
            if now < give_up:
                heapq.heappush(events, (give_up, END, 0, models[0]))
        elif kind == DONE:
            model = models[subject.model]
            model.complete(now, number, subject)
            if over and not model.present and not model.ended:
                model.end(now)
        elif kind == READY:
            models[subject.model].become_ready(now, subject)
        else:
            subject.tick(now)


def _end(models: list[ModelRun], now: float, everything: bool) -> None:
    for model in models:
        if not model.ended and (everything or not model.present):
            model.end(now)


def _purse(case: Case) -> Purse | None:
    """None: nobody has a budget."""
    conditions = case.conditions
    purse = Purse(conditions.tenants, conditions.price_micros_per_hour, conditions.began or 0.0)
    return purse if purse.tenants else None


def _gate(case: Case, purse: Purse | None) -> Gate:
    conditions, tenants = case.conditions, case.tenants
    if conditions.nodes is None and not tenants:
        return OpenGate()
    return QuotaGate(tenants, conditions.resources, conditions.nodes, conditions.instances_per_node, purse)


def _profile(case: Case) -> Profile:
    conditions, workload = case.conditions, case.workload
    known = float(workload.service_s[0]) if workload.service_known and workload.requests else None
    return Profile(
        concurrency=conditions.concurrency,
        slo_s=conditions.slo_s,
        service_s=None if known is None else known / conditions.concurrency,
        latency_s=known,
        cold_start_s=conditions.cold_start_s,
        starts_per_s=conditions.starts_per_s,
        instance_micros_per_hour=conditions.price_micros_per_hour,
        credit_micros=conditions.credit_micros,
        min_instances=conditions.min_instances,
        max_instances=conditions.max_instances,
        idle_timeout_s=conditions.idle_timeout_s,
    )
