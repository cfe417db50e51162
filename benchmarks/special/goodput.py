"""Twice as much as the engine can do, with a deadline: how much is still answered in time."""

from __future__ import annotations

from benchmarks import h2load, open_loop
from benchmarks.generator.schedule import Plan
from benchmarks.plan import Settings
from benchmarks.records import Special
from benchmarks.special.engine import MODEL, body, slow_engine
from benchmarks.systems.headrace import TENANT_HEADER, counts
from benchmarks.systems.open_inference import GRPC_HEADERS, PATH

DEADLINE_MS = 50
# Enough to keep two bundles at the runner and one in the making, and more.
_PEAK_LOADS = (32, 64)


def goodput(settings: Settings, round_: int) -> Special:
    """`peak` and `good` are requests per second; `p99_ms` of what was answered well, from when it was due.

    An answer is good if its grpc-status is 0 and it came within the deadline. The mesh's own count of
    successes stands beside it.
    """
    content, headers = body(), GRPC_HEADERS | TENANT_HEADER
    with slow_engine() as (mesh, _):
        url = mesh.url + PATH
        peak = 0.0
        for in_flight in _PEAK_LOADS:
            h2load.load(url, content, headers, True, in_flight, settings.warm_up_s)
            before = counts(mesh, MODEL).ok
            seen = h2load.load(url, content, headers, True, in_flight, settings.seconds)
            peak = max(peak, min(seen.ok, counts(mesh, MODEL).ok - before) / seen.seconds)
        before = counts(mesh, MODEL).ok
        plan = Plan(2 * peak, settings.warm_up_s, settings.seconds)
        deadline = headers | {"grpc-timeout": f"{DEADLINE_MS}m"}
        outcome = open_loop.offer(url, content, deadline, True, plan, DEADLINE_MS / 1000)
        served = counts(mesh, MODEL).ok - before
    return Special(
        "goodput",
        round_,
        {
            "peak": peak,
            "offered": outcome.offered / settings.seconds,
            "good": outcome.in_time / settings.seconds,
            "ok": outcome.ok / settings.seconds,
            "share": outcome.in_time / settings.seconds / peak,
            "p99_ms": outcome.p99_ms if outcome.unanswered == 0 else -1.0,
            "served_by_mesh": served / (settings.seconds + settings.warm_up_s),
            "late_p99_ms": outcome.late_p99_ms,
        },
    )
