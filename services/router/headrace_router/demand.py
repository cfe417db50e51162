"""Demand reports: accounts and runners as the autoscaler wants them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from google.protobuf.duration_pb2 import Duration

from headrace.control.v1 import control_pb2
from headrace_router.control import Report
from headrace_router.core.accounts import Account, Totals
from headrace_router.core.band import Standing
from headrace_router.measures import CacheUse, ColdStart
from headrace_router.runners import Runner


def build(
    period_s: float,
    accounts: Iterable[Account],
    runners: Iterable[Runner],
    cold_starts: list[ColdStart],
    cache_use: CacheUse,
) -> Report:
    """What is new since the last commit. A commit marks exactly what this reading saw as reported."""
    message = control_pb2.DemandReport(period=duration(period_s))
    seen: list[tuple[Account, Totals, dict[str, int]]] = []
    for account in accounts:
        if account.idle:
            continue
        totals, outcomes = replace(account.totals), dict(account.outcomes)
        seen.append((account, totals, outcomes))
        message.demands.append(_demand(account, totals, outcomes))
    message.runners.extend(_health(runner) for runner in runners)
    taken = cache_use.whole()
    message.caches.extend(control_pb2.CacheUse(model=model, byte_seconds=count) for model, count in taken.items())
    reported = list(cold_starts)
    message.cold_starts.extend(_cold_start(start) for start in reported)

    def commit() -> None:
        for account, totals, outcomes in seen:
            account.reported, account.reported_outcomes = totals, outcomes
        cache_use.commit(taken)
        del cold_starts[: len(reported)]

    return Report(message, commit)


def duration(seconds: float) -> Duration:
    value = Duration()
    value.FromNanoseconds(int(seconds * 1e9))
    return value


def _demand(account: Account, totals: Totals, outcomes: dict[str, int]) -> control_pb2.Demand:
    new = totals.minus(account.reported)
    was = account.reported_outcomes
    spared = new.spared
    return control_pb2.Demand(
        tenant=account.tenant,
        model=account.model,
        revision=account.revision,
        arrivals=new.arrivals - spared,
        rows=new.rows - new.spared_rows,
        # What waits for money needs no instance yet.
        queued=account.queued - account.held,
        in_flight=account.in_flight,
        completed=new.completed - spared,
        failed=new.failed,
        service_time_us=int(new.service_s * 1e6),
        queue_time_us=int(new.queue_s * 1e6),
        within_slo=new.within_slo,
        refusals={reason: count - was.get(reason, 0) for reason, count in outcomes.items() if count != was.get(reason)},
        oldest_wait_us=int(account.oldest_wait_s * 1e6),
        bundles=new.bundles,
        input_bytes=new.input_bytes,
        output_bytes=new.output_bytes,
        cache_hits=spared,
        following=account.following,
        held=account.held,
    )


def _health(runner: Runner) -> control_pb2.RunnerHealth:
    return control_pb2.RunnerHealth(
        instance_id=runner.placement.instance_id,
        connected=runner.serving,
        bundles=runner.bundles,
        mean_service_time_us=int(runner.recent_s * 1e6),
        lost_bundles=runner.lost_bundles,
        slow=runner.watch.standing is Standing.PAUSED,
        slowdown=runner.watch.slowdown,
    )


def _cold_start(start: ColdStart) -> control_pb2.ColdStartReport:
    return control_pb2.ColdStartReport(
        instance_id=start.instance_id,
        model=start.model,
        revision=start.revision,
        load=duration(start.load_s),
        warm=duration(start.warm_s),
        first_answer=duration(start.first_answer_s),
        total=duration(start.total_s),
    )
