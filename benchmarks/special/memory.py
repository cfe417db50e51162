"""Whether memory grows with the number of requests served."""

from __future__ import annotations

from benchmarks import h2load, workloads
from benchmarks.plan import Settings
from benchmarks.processes import resident_bytes
from benchmarks.records import Special
from benchmarks.systems.headrace import Headrace

_IN_FLIGHT = 64
_MIB = 1 << 20


def memory(settings: Settings, round_: int) -> Special:
    """Resident MiB of router and runner after so many `mlp` requests, and the later over the earlier."""
    values: dict[str, float] = {}
    first, last = settings.memory_requests
    with Headrace().running(workloads.load("mlp")) as running:
        done = 0
        for requests in settings.memory_requests:
            h2load.send(running.url, running.body, running.headers, _IN_FLIGHT, requests - done)
            done = requests
            for name, pid in running.pids().items():
                values[f"{name} after {requests:,}"] = resident_bytes(pid) / _MIB
        if running.counts is not None:
            values["served"] = running.counts().ok
    for name in ("router", "runner"):
        values[f"{name} growth"] = values[f"{name} after {last:,}"] / values[f"{name} after {first:,}"]
    return Special("memory", round_, values)
