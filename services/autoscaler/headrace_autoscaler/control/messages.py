"""Domain types to control messages, and reports back."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf import duration_pb2

from headrace.control.v1 import control_pb2
from headrace.v1 import models_pb2
from headrace_autoscaler.control.sequence_rules import sequence_rules
from headrace_autoscaler.core.demand import Counts, Level
from headrace_autoscaler.core.leases import Share
from headrace_autoscaler.core.plans import Key
from headrace_autoscaler.core.pricing import LocalPrices
from headrace_autoscaler.core.replacement import Health
from headrace_autoscaler.domain import Batching, Limits, Model, Revision, RevisionState
from headrace_autoscaler.fleet.announcements import BudgetNotice, PlacementNotice
from headrace_autoscaler.fleet.link import signature_message
from headrace_autoscaler.fleet.placing import shape_message
from headrace_autoscaler.fleet.reports import CacheEntry, ColdStartEntry, DemandEntry, Report
from headrace_autoscaler.sequences import public_signature

_STATES = {
    "loading": control_pb2.PLACEMENT_STATE_LOADING,
    "ready": control_pb2.PLACEMENT_STATE_READY,
    "draining": control_pb2.PLACEMENT_STATE_DRAINING,
}
_BUDGETS = {
    "warning": control_pb2.BUDGET_STATE_WARNING,
    "refuse": control_pb2.BUDGET_STATE_EXHAUSTED_REFUSE,
    "queue": control_pb2.BUDGET_STATE_EXHAUSTED_QUEUE,
}


def duration(seconds: float) -> duration_pb2.Duration:
    message = duration_pb2.Duration()
    message.FromNanoseconds(round(seconds * 1e9))
    return message


def seconds(message: duration_pb2.Duration) -> float:
    return message.ToNanoseconds() / 1e9


def model_entry(
    model: Model, blocked: Mapping[Key, str], routers: int, budget: BudgetNotice | None = None
) -> control_pb2.ModelEntry:
    """A revision in its first load is named only where it is all that there is: until it has succeeded,
    nobody may be sent there.

    Args:
        routers: that have equal parts of what an instance takes at once.
        budget: its instances are not paid for any more.
    """
    spec = model.spec
    at_once = max(1, spec.instance_concurrency // routers) if spec.instance_concurrency else 0
    loading = [each for each in model.revisions if each.state is RevisionState.LOADING]
    shown = [each for each in model.revisions if each.state is not RevisionState.LOADING] or loading
    current = model.current
    entry = control_pb2.ModelEntry(
        name=spec.name,
        tenant=spec.tenant,
        shared_with=spec.shared_with,
        revisions=[
            _revision(each, each is current, blocked.get((each.model, each.revision), ""), at_once) for each in shown
        ],
        response_cache=spec.response_cache,
        cache_shared=spec.cache_shared,
    )
    entry.created_at.FromMicroseconds(round(model.created_at * 1e6))
    if spec.slo_s is not None:
        entry.slo.CopyFrom(duration(spec.slo_s))
    if spec.cache_ttl_s is not None:
        entry.cache_ttl.CopyFrom(duration(spec.cache_ttl_s))
    if budget is not None:
        entry.budget_reason, entry.budget_subject = budget.reason, budget.subject
        entry.budget_returns_at.FromSeconds(budget.returns_at)
    return entry


def _revision(revision: Revision, current: bool, blocked_reason: str, at_once: int) -> control_pb2.Revision:
    loaded = revision.loaded
    public = public_signature(loaded.signature, revision.sequences) if loaded else None
    rules = sequence_rules(revision.sequences, loaded.signature) if revision.sequences and loaded else None
    return control_pb2.Revision(
        revision=revision.revision,
        version=revision.version,
        current=current,
        retiring=revision.state is RevisionState.RETIRING,
        signature=signature_message(public) if public else models_pb2.Signature(),
        max_batch_size=loaded.max_batch_size if loaded else 0,
        batching=_batching(revision.batching),
        model_config=revision.model_config,
        platform=loaded.platform if loaded else "",
        blocked_reason=blocked_reason,
        loading=revision.state is RevisionState.LOADING,
        instance_concurrency=at_once,
        sequences=rules,
    )


def _batching(batching: Batching) -> control_pb2.BatchingPolicy:
    return control_pb2.BatchingPolicy(
        preferred_batch_sizes=batching.preferred_batch_sizes,
        max_queue_delay_us=batching.max_queue_delay_us,
        priority_levels=batching.priority_levels,
        default_priority_level=batching.default_priority_level,
        max_queue_size=batching.max_queue_size,
        default_timeout_us=batching.default_timeout_us,
        pad=dict(batching.padding),
    )


def placement(notice: PlacementNotice, prices: LocalPrices) -> control_pb2.Placement:
    message = control_pb2.Placement(
        instance_id=notice.instance,
        model=notice.model,
        revision=notice.revision,
        target=notice.target,
        state=_STATES[notice.state],
        shape=shape_message(prices, notice.resources),
        profile_us=dict(notice.profile_us),
    )
    if notice.decide_s is not None and notice.place_s is not None:
        message.decide.CopyFrom(duration(notice.decide_s))
        message.place.CopyFrom(duration(notice.place_s))
    return message


def lease(
    tenant: str, model: str, weight: float, share: Share, ttl_s: float, answers: int, budget: BudgetNotice | None
) -> control_pb2.QuotaLease:
    """What has no limit does not expire either."""
    message = control_pb2.QuotaLease(
        tenant=tenant,
        model=model,
        limits=_limits(share.limits),
        floor=_limits(share.floor),
        ttl=duration(ttl_s if share.limited else 0.0),
        budget_state=control_pb2.BUDGET_STATE_WITHIN,
        weight=weight,
        answers=answers,
    )
    if budget is not None:
        message.budget_state = _BUDGETS[budget.state]
        message.budget_reason = budget.reason
        message.budget_returns_at.FromSeconds(budget.returns_at)
    return message


def _limits(limits: Limits) -> control_pb2.QuotaLimits:
    return control_pb2.QuotaLimits(
        concurrency=limits.concurrency,
        requests_per_second=limits.requests_per_second,
        queue_length=limits.queue_length,
        queue_bytes=limits.queue_bytes,
    )


def excess_of(request: control_pb2.SyncRequest) -> dict[str, Limits]:
    """What is in hand beyond leases, by their keys."""
    return {
        f"{each.tenant}/{each.model}" if each.model else each.tenant: Limits(
            concurrency=each.in_hand.concurrency,
            queue_length=each.in_hand.queue_length,
            queue_bytes=each.in_hand.queue_bytes,
        )
        for each in request.excess
    }


def report_of(router: str, message: control_pb2.DemandReport) -> Report:
    return Report(
        router=router,
        entries=tuple(_entry(demand) for demand in message.demands),
        cold_starts=tuple(_cold_start(each) for each in message.cold_starts),
        runners=tuple(Health(each.instance_id, each.slow, each.slowdown) for each in message.runners),
        urgent=message.urgent,
        period_s=message.period.ToNanoseconds() / 1e9,
        caches=tuple(CacheEntry(each.model, each.byte_seconds) for each in message.caches),
    )


def _entry(demand: control_pb2.Demand) -> DemandEntry:
    return DemandEntry(
        tenant=demand.tenant,
        model=demand.model,
        revision=demand.revision,
        counts=Counts(
            arrivals=demand.arrivals,
            rows=demand.rows,
            completed=demand.completed,
            bundles=demand.bundles,
            service_time_us=demand.service_time_us,
        ),
        level=Level(demand.queued, demand.in_flight, demand.oldest_wait_us / 1e6),
        refused=sum(demand.refusals.values()),
        cache_hits=demand.cache_hits,
        following=demand.following,
        held=demand.held,
        over_rate=demand.refusals.get("requests_per_second", 0),
        network_bytes=demand.input_bytes + demand.output_bytes,
        refusals=dict(demand.refusals),
    )


def _cold_start(message: control_pb2.ColdStartReport) -> ColdStartEntry:
    return ColdStartEntry(
        instance=message.instance_id,
        model=message.model,
        revision=message.revision,
        load_s=seconds(message.load),
        warm_s=seconds(message.warm),
        first_answer_s=seconds(message.first_answer),
        total_s=seconds(message.total),
    )
