"""Twenty times the load from one second to the next, on a mesh with one instance."""

from __future__ import annotations

from benchmarks import open_loop
from benchmarks.generator.schedule import Outcome, Plan
from benchmarks.special.engine import LATENCY_MS, MODEL, body, slow_engine
from benchmarks.systems.headrace import TENANT, TENANT_HEADER, outcomes
from benchmarks.systems.open_inference import GRPC_HEADERS, PATH

RATE = 100.0
TIMES = 20
SLO_MS = 50
_BEFORE_S, _AFTER_S, _FIRST_S = 10.0, 20.0, 1.0
_CPU = "500m"


def measure() -> None:
    """Prints the table. A generator's own lateness is in its latencies: they count from when a request was due.

    Nothing is sent while the second generator starts, for some tenths of a second before the step.
    """
    deploy = {"min_instances": 0, "max_instances": 8, "slo": f"{SLO_MS}ms", "resources": {"cpu": _CPU}, "wait": True}
    with slow_engine(2, **deploy) as (mesh, client):
        url, content, headers = mesh.url + PATH, body(), GRPC_HEADERS | TENANT_HEADER

        def offer(plan: Plan) -> Outcome:
            return open_loop.offer(url, content, headers, True, plan, SLO_MS / 1000)

        before = outcomes(mesh.metrics_text(), MODEL, TENANT)
        parts = [offer(Plan(RATE, _FIRST_S, _BEFORE_S - _FIRST_S))]
        parts.append(offer(Plan(TIMES * RATE, _FIRST_S, _AFTER_S - _FIRST_S)))
        most = len(client.model(MODEL).instances)
        after = outcomes(mesh.metrics_text(), MODEL, TENANT)
        decisions = [(each.current, each.desired, each.reason) for each in client.model(MODEL).decisions]
    print(_table(parts, after.ok - before.ok, after.failed - before.failed, most))
    for current, desired, reason in decisions[-8:]:
        print(f"  {current} -> {desired}: {reason}")


def _table(parts: list[Outcome], ok: int, failed: int, instances: int) -> str:
    offered, in_time = sum(each.offered for each in parts), sum(each.in_time for each in parts)
    bad = sum(each.failed + each.unanswered for each in parts)
    rows = {
        "load": f"{RATE:g} to {TIMES * RATE:g} requests/s; {LATENCY_MS:g} ms a batch; objective {SLO_MS} ms",
        "answered by the mesh": f"{ok:,}",
        "failed, by the mesh's count, the first second included": f"{failed:,}",
        "failed or unanswered, by the client's, outside the first second": f"{bad:,}",
        "within the objective, outside the first second": f"{100 * in_time / offered:.3f} %",
        "p99 before and after the step": " ms, ".join(f"{each.p99_ms:.1f}" for each in parts) + " ms",
        "instances at the end": str(instances),
    }
    return "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows.items())])
