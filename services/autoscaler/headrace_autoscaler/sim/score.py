"""The score of a policy: what it cost, what it served, and what it did for that. The same for every policy."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from headrace_autoscaler.sim.outcome import END_OF_RUN, Outcome
from headrace_autoscaler.sim.violations import quota_violations
from headrace_autoscaler.sim.workload import Seconds

_ROUNDING_S = 1e-9
_SLO_ROUNDING = 1e-9
_SHORTEST_S = 1.0
"""A run that is over sooner changes at a rate that says nothing."""


@dataclass(frozen=True, slots=True)
class Score:
    """Attributes:
    slo_share: of all requests, those answered within the objective; 1 where there was none.
    cost: money for instance-seconds, standby-seconds and the CPU of replacing standbys.
    instance_seconds: from the start command until drained, summed over instances.
    service_seconds: what the requests themselves took: time in an instance over its concurrency.
    excess_seconds: instance_seconds - service_seconds, the only part that a policy can save.
    standby_seconds: of the standby pool; the same for every policy.
    p50_wait_ms .. p99_latency_ms: of answered requests; a wait ends when the request begins to execute.
    cold_starts: starts while the model had no instance, neither ready nor starting.
    starts: all of them.
    refused: requests that were never answered.
    refused_by_reason: the same, by reason.
    starts_refused: starts that capacity or a quota did not allow.
    scale_changes_per_hour: moments at which a model's instances were changed by its policy.
    credit: money that the requests inside the objective are worth.
    net: credit - cost.
    """

    policy: str
    slo_share: float
    cost: float
    instance_seconds: float
    service_seconds: float
    excess_seconds: float
    standby_seconds: float
    p50_wait_ms: float
    p99_wait_ms: float
    p50_latency_ms: float
    p99_latency_ms: float
    cold_starts: int
    starts: int
    requests: int
    refused: int
    refused_by_reason: dict[str, int]
    starts_refused: int
    scale_changes_per_hour: float
    quota_violations: int
    credit: float
    net: float

    def view(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self)

    def better_than(self, other: Score) -> bool:
        """No worse on SLO share and cheaper, or no dearer and better on SLO share."""
        no_worse = self.slo_share >= other.slo_share - _SLO_ROUNDING
        if no_worse and self.cost < other.cost:
            return True
        return self.cost <= other.cost and self.slo_share > other.slo_share + _SLO_ROUNDING


def score(outcome: Outcome) -> Score:
    case, conditions = outcome.case, outcome.case.conditions
    workload = case.workload
    answered = ~np.isnan(outcome.begin_s)
    waits = outcome.begin_s[answered] - workload.arrival_s[answered]
    latencies = waits + workload.service_s[answered]
    in_time = int(np.count_nonzero(latencies <= conditions.slo_s + _ROUNDING_S))
    instance_s = sum(life.gone - life.started for life in outcome.lifetimes)
    service_s = float(workload.service_s[answered].sum()) / conditions.concurrency
    standby_s = conditions.standby * outcome.case.workload.horizon_s
    replacing_s = conditions.replacement_cpu_s * len(outcome.lifetimes) if conditions.standby else 0.0
    cost = (instance_s + standby_s + replacing_s) * conditions.price_micros_per_hour / 3600 / 1e6
    credit = in_time * conditions.credit_micros / 1e6
    return Score(
        policy=outcome.policy,
        slo_share=in_time / workload.requests if workload.requests else 1.0,
        cost=cost,
        instance_seconds=instance_s,
        service_seconds=service_s,
        excess_seconds=instance_s - service_s,
        standby_seconds=standby_s,
        p50_wait_ms=_percentile_ms(waits, 50),
        p99_wait_ms=_percentile_ms(waits, 99),
        p50_latency_ms=_percentile_ms(latencies, 50),
        p99_latency_ms=_percentile_ms(latencies, 99),
        cold_starts=_cold_starts(outcome),
        starts=len(outcome.lifetimes),
        requests=workload.requests,
        refused=len(outcome.refused),
        refused_by_reason=dict(Counter(outcome.refused.values())),
        starts_refused=outcome.starts_refused,
        scale_changes_per_hour=_changes(outcome) * 3600 / max(_SHORTEST_S, workload.horizon_s),
        quota_violations=quota_violations(outcome),
        credit=credit,
        net=credit - cost,
    )


def _percentile_ms(values: Seconds, percent: float) -> float:
    """Nearest rank, so that it is a value that occurred."""
    return float(np.percentile(values, percent, method="inverted_cdf")) * 1e3 if len(values) else 0.0


def _changes(outcome: Outcome) -> int:
    moments = {(life.model, life.started) for life in outcome.lifetimes}
    moments |= {(life.model, life.stopped) for life in outcome.lifetimes if life.stop_reason != END_OF_RUN}
    return len(moments)


def _cold_starts(outcome: Outcome) -> int:
    """An instance counts from its start command until its stop command."""
    until: dict[int, float] = {}
    running: dict[int, list[float]] = {}
    count = 0
    for life in outcome.lifetimes:
        stops = [stop for stop in running.get(life.model, []) if stop > life.started]
        # Instances that start at one moment are one cold start.
        if not stops and until.get(life.model) != life.started:
            count += 1
        until[life.model] = life.started
        running[life.model] = [*stops, life.stopped]
    return count
