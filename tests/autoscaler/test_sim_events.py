"""The events file holds all that a score is made of: here it is made again from nothing else."""

import io
import json
from collections import defaultdict
from typing import Any

import numpy as np
import pytest

from headrace_autoscaler.core.policies.named import POLICIES
from headrace_autoscaler.domain import Limits, Tenant
from headrace_autoscaler.sim.engine import simulate
from headrace_autoscaler.sim.events import write_events
from headrace_autoscaler.sim.score import score
from headrace_autoscaler.sim.workload import Case, Conditions, Workload

_RANDOM = np.random.default_rng(5)
_ARRIVALS = np.sort(np.concatenate([_RANDOM.uniform(0, 900, 300), _RANDOM.uniform(300, 310, 200)]))
CASES = {
    "one model": Case(
        Workload(
            "w", _ARRIVALS, np.zeros(500, np.int32), _RANDOM.uniform(0.05, 2, 500), ("m",), ("t",), 900.0, False
        ),
        Conditions(slo_s=3.0, concurrency=2),
    ),
    "three models on two nodes, with a quota and a short queue": Case(
        Workload(
            "w",
            _ARRIVALS,
            _RANDOM.integers(0, 3, 500).astype(np.int32),
            np.full(500, 0.8),
            ("a", "b", "c"),
            ("x", "x", "y"),
            900.0,
        ),
        Conditions(slo_s=2.0, cold_start_s=0.06, standby=1, nodes=2, instances_per_node=3, tenant_instances=4,
                   queue_length=20),
    ),
    "two tenants of a cohort, with a budget and office hours": Case(
        Workload(
            "w",
            _ARRIVALS,
            _RANDOM.integers(0, 2, 500).astype(np.int32),
            np.full(500, 0.8),
            ("a", "b"),
            ("x", "y"),
            900.0,
        ),
        Conditions(slo_s=2.0, tenants=(
            Tenant("x", Limits(cpu_millicores=1000, concurrency=9), cohort="c"),
            Tenant("y", Limits(cpu_millicores=1000, requests_per_second=2.0, budget_micros_per_hour=5000), cohort="c"),
        ), began=1_792_886_400.0, schedules=("5 * * * *=1",)),
    ),
}  # fmt: skip


def _lines(name: str, policy: str) -> tuple[list[dict[str, Any]], Any]:
    outcome = simulate(CASES[name], policy, POLICIES[policy])
    file = io.BytesIO()
    write_events(outcome, file)
    return [json.loads(line) for line in file.getvalue().splitlines()], score(outcome)


def _rescored(lines: list[dict[str, Any]]) -> dict[str, Any]:
    run, events = lines[0], lines[1:]
    began: dict[int, float] = {}
    arrived: dict[int, float] = {}
    started: dict[int, float] = {}
    waits, latencies, service_s, instance_s, refused, cold = [], [], 0.0, 0.0, 0, 0
    running: dict[str, int] = defaultdict(int)
    changes = set()
    cold_at: set[tuple[str, float]] = set()
    held: dict[str, int] = defaultdict(int)
    violations = 0
    for event in events:
        match event["event"]:
            case "arrival":
                arrived[event["request"]] = event["at"]
            case "begin":
                began[event["request"]] = event["at"]
                waits.append(event["at"] - arrived[event["request"]])
            case "answer":
                latencies.append(event["at"] - arrived[event["request"]])
                service_s += event["at"] - began[event["request"]]
            case "refused":
                refused += 1
            case "start":
                started[event["instance"]] = event["at"]
                cold_at |= {(event["model"], event["at"])} if not running[event["model"]] else set()
                running[event["model"]] += 1
                changes.add((event["model"], event["at"]))
                held[event["tenant"]] += 1
                held[f"node {event.get('node')}"] += 1
                violations += run["tenant_instances"] is not None and held[event["tenant"]] > run["tenant_instances"]
                violations += run["nodes"] is not None and held[f"node {event['node']}"] > run["instances_per_node"]
            case "stop":
                running[event["model"]] -= 1
                if event["reason"] != "end of the run":
                    changes.add((event["model"], event["at"]))
            case "gone":
                instance_s += event["at"] - started[event["instance"]]
                held[event["tenant"]] -= 1
                held[f"node {event.get('node')}"] -= 1
    cold = len(cold_at)
    charged_s = instance_s + run["standby"] * run["horizon_s"]
    charged_s += run["replacement_cpu_s"] * len(started) if run["standby"] else 0.0
    return {
        "policy": run["policy"],
        "slo_share": sum(each <= run["slo_s"] + 1e-9 for each in latencies) / len(arrived),
        "cost": charged_s * run["price_micros_per_hour"] / 3600e6,
        "instance_seconds": instance_s,
        "service_seconds": service_s / run["concurrency"],
        "p50_wait_ms": sorted(waits)[(len(waits) + 1) // 2 - 1] * 1e3,
        "p99_wait_ms": sorted(waits)[-(-len(waits) * 99 // 100) - 1] * 1e3,
        "cold_starts": cold,
        "refused": refused,
        "scale_changes_per_hour": len(changes) / run["horizon_s"] * 3600,
        "quota_violations": violations,
    }


def test_what_is_refused_long_after_it_came_is_refused_then() -> None:
    arrivals = np.arange(40) / 100
    limits = Limits(cpu_millicores=1000, concurrency=40, budget_micros_per_hour=1000)
    case = Case(
        Workload("w", arrivals, np.zeros(40, np.int32), np.full(40, 10.0), ("m",), ("ann",), float(arrivals[-1])),
        Conditions(slo_s=50.0, tenants=(Tenant("ann", limits),)),
    )
    file = io.BytesIO()
    write_events(simulate(case, "hpa", POLICIES["hpa"]), file)
    events = [json.loads(line) for line in file.getvalue().splitlines()][1:]
    assert [each["at"] for each in events] == sorted(each["at"] for each in events)
    spent = {each["at"] for each in events if each.get("reason") == "budget spent"}
    [stop] = [each for each in events if each["event"] == "stop"]
    assert spent == {stop["at"]}
    assert stop["at"] > 30
    assert stop["reason"] == "tenant 'ann' has spent its 0.001 per hour"


@pytest.mark.parametrize("policy", sorted(POLICIES))
@pytest.mark.parametrize("name", CASES)
def test_a_score_can_be_recomputed_from_the_events_alone(name: str, policy: str) -> None:
    lines, found = _lines(name, policy)
    view = found.view()
    for key, value in _rescored(lines).items():
        assert view[key] == (pytest.approx(value, rel=1e-9, abs=1e-9) if isinstance(value, float) else value), key


def test_events_are_in_order_of_time_and_what_begins_at_a_moment_comes_after_what_ends() -> None:
    lines, _ = _lines("three models on two nodes, with a quota and a short queue", "kpa")
    times = [line["at"] for line in lines[1:]]
    assert times == sorted(times)
    executing: dict[int, int] = defaultdict(int)
    for line in lines:
        executing[line.get("instance", -1)] += {"begin": 1, "answer": -1}.get(line["event"], 0)
        assert executing[line.get("instance", -1)] <= 1
