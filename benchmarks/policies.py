"""`python -m benchmarks.policies`: every policy on the real trace's four settings and on every scenario, and a verdict.

Target of the four settings: the share inside the objective at least min(KPA's, 0.999), at least 0.99 wherever any
policy reaches that, and at most half of KPA's excess; better than every other policy. Of the scenarios: no worse than
KPA on share and cost, better on one. Over quota: never.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from headrace_autoscaler.core.policies.named import POLICIES, policy_factory
from headrace_autoscaler.sim.cases import Changes, case_of_scenario, case_of_trace
from headrace_autoscaler.sim.engine import simulate
from headrace_autoscaler.sim.scenarios import SCENARIOS
from headrace_autoscaler.sim.score import Score, score
from headrace_autoscaler.sim.trace import read_trace
from headrace_autoscaler.sim.workload import Case

TRACE = Path(__file__).parent / "traces" / "azure_llm_2023_code.csv"
SETTINGS = tuple((service_ms, cold_ms) for service_ms in (200, 2000) for cold_ms in (2000, 60))
HEADER = (
    "| policy | in SLO | instance-s | excess-s | of KPA's | cost | p50 wait | p99 wait | cold starts | changes/h "
    "| refused | over quota | ours is |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|"
)
_EQUAL = 1e-9


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.policies", description=__doc__)
    parser.add_argument("--policy", default=",".join(POLICIES), metavar="P[,P...]", help="default: all")
    parser.add_argument("--only", default="", metavar="WORD", help="cases with this in their name")
    parser.add_argument("--ours", default="headrace", metavar="P", help="the one that the targets are for")
    arguments = parser.parse_args()
    names = list(dict.fromkeys([*arguments.policy.split(","), "kpa"]))
    met = []
    for title, case, is_setting in _cases(arguments.only):
        begin = time.perf_counter()
        scores = {name: score(simulate(case, name, policy_factory(name))) for name in names}
        took_s = time.perf_counter() - begin
        print(f"\n### {title}\n\n{case.workload.requests:,} requests, {len(names)} policies in {took_s:.1f} s.\n")
        print(HEADER)
        ours = scores.get(arguments.ours)
        for found in scores.values():
            print(_row(found, scores["kpa"], ours))
        if ours is not None:
            verdicts = list(_verdicts(ours, scores, is_setting))
            met += [each for each, _ in verdicts]
            print(
                "\n" + "\n".join(f"- {'met' if good else '**missed**'}: {text}" for good, text in verdicts), flush=True
            )
    sys.exit(0 if all(met) else 1)


def _cases(only: str) -> Iterator[tuple[str, Case, bool]]:
    trace = read_trace(TRACE)
    for service_ms, cold_ms in SETTINGS:
        title = f"azure_llm_2023_code, service {service_ms} ms, SLO {5 * service_ms} ms, cold start {cold_ms} ms"
        if only in title:
            changes = Changes(service_s=service_ms / 1e3, slo_s=5 * service_ms / 1e3, cold_start_s=cold_ms / 1e3)
            yield title, case_of_trace(TRACE.stem, trace, changes), True
    for scenario in SCENARIOS.values():
        if only in scenario.name:
            yield f"{scenario.name}: {scenario.about}", case_of_scenario(scenario, Changes()), False


def _row(found: Score, kpa: Score, ours: Score | None) -> str:
    cells = (
        found.policy,
        f"{found.slo_share:.4%}",
        f"{found.instance_seconds:,.0f}",
        f"{found.excess_seconds:,.0f}",
        f"{found.excess_seconds / kpa.excess_seconds:.2f}",
        f"{found.cost:.4f}",
        f"{found.p50_wait_ms:,.0f} ms",
        f"{found.p99_wait_ms:,.0f} ms",
        f"{found.cold_starts:,}",
        f"{found.scale_changes_per_hour:,.1f}",
        f"{found.refused:,}",
        f"{found.quota_violations:,}",
        _comparison(ours, found),
    )
    return "| " + " | ".join(cells) + " |"


def _comparison(ours: Score | None, other: Score) -> str:
    if ours is None or ours.policy == other.policy:
        return ""
    if ours.better_than(other):
        return "better"
    return "worse" if other.better_than(ours) else "neither"


def _verdicts(ours: Score, scores: dict[str, Score], is_setting: bool) -> Iterator[tuple[bool, str]]:
    kpa = scores["kpa"]
    yield not any(each.quota_violations for each in scores.values()), "no quota was violated by any policy"
    if not is_setting:
        no_worse = ours.slo_share >= kpa.slo_share - _EQUAL and ours.cost <= kpa.cost
        yield no_worse and ours.better_than(kpa), "no worse than KPA on either count, better on one"
        return
    floor = min(kpa.slo_share, 0.999)
    yield ours.slo_share >= floor - _EQUAL, f"{ours.slo_share:.4%} inside the objective, at least {floor:.4%}"
    if any(each.slo_share >= 0.99 for each in scores.values()):
        yield ours.slo_share >= 0.99, f"{ours.slo_share:.4%}, at least 99 %, which some policy reaches"
    ratio = ours.excess_seconds / kpa.excess_seconds
    yield ratio <= 0.5, f"{ratio:.3f} of KPA's excess, at most 0.5"
    for other in scores.values():
        if other.policy not in (ours.policy, "kpa"):
            yield ours.better_than(other), f"better than {other.policy}"


if __name__ == "__main__":
    main()
