"""`headrace simulate`: what policies would cost, and how long requests would wait, before any of them is adopted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from headrace.cli import flags
from headrace.cli.printing import print_json, print_table
from headrace.cli.problems import UsageProblem, found_here

_COLUMNS = (
    ("policy", lambda s: s["policy"]),
    ("in slo", lambda s: f"{s['slo_share']:.4%}"),
    ("cost", lambda s: f"{s['cost']:.4f}"),
    ("instance s", lambda s: f"{s['instance_seconds']:,.0f}"),
    ("service s", lambda s: f"{s['service_seconds']:,.0f}"),
    ("excess s", lambda s: f"{s['excess_seconds']:,.0f}"),
    ("p50 wait", lambda s: f"{s['p50_wait_ms']:,.0f} ms"),
    ("p99 wait", lambda s: f"{s['p99_wait_ms']:,.0f} ms"),
    ("cold starts", lambda s: s["cold_starts"]),
    ("changes/h", lambda s: f"{s['scale_changes_per_hour']:.1f}"),
    ("refused", lambda s: _refused(s["refused_by_reason"])),
    ("over quota", lambda s: s["quota_violations"]),
)


def simulate(
    trace: Annotated[Path | None, typer.Option(metavar="FILE", help="CSV with a TIMESTAMP column.")] = None,
    scenario: Annotated[
        str, typer.Option(metavar="NAME", help="steady, diurnal, flash-crowd, sparse, zipf-1000, on-off or tight.")
    ] = "",
    policy: Annotated[str, typer.Option(metavar="P[,P...]", help="Policies by name.")] = "all",
    service_ms: Annotated[
        float | None, typer.Option(metavar="N", help="What a request takes. Default: 200, or the scenario's.")
    ] = None,
    service_per_token: Annotated[
        float | None, typer.Option(metavar="MS", help="What a generated token takes, for traces that count them.")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(metavar="N", help="Requests that an instance executes at once. Default: 1.")
    ] = None,
    slo: Annotated[
        str | None, typer.Option(metavar="TIME", help="Objective. Default: 5 mean service times, or the scenario's.")
    ] = None,
    cold_start: Annotated[
        str | None, typer.Option(metavar="TIME", help="Until a start answers. Default: 2s, or the scenario's.")
    ] = None,
    models: Annotated[
        int | None, typer.Option(metavar="N", help="Spread the requests over this many models, by Zipf's law.")
    ] = None,
    nodes: Annotated[int | None, typer.Option(metavar="N", help="Nodes. Default: room for everything.")] = None,
    instances_per_node: Annotated[
        int | None, typer.Option(metavar="N", help="Instances that a node has room for. Default: 8.")
    ] = None,
    tenants: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Limits of tenants, TOML, named as by headrace tenant set.")
    ] = None,
    cpu: Annotated[str | None, typer.Option(metavar="CPUS", help="CPUs of one instance. Default: 1.")] = None,
    memory: Annotated[str | None, typer.Option(metavar="BYTES", help="Memory of one instance. Default: 1Gi.")] = None,
    gpu: Annotated[str | None, typer.Option(metavar="GPUS", help="GPUs of one instance.")] = None,
    gpu_memory: Annotated[str | None, typer.Option(metavar="BYTES", help="GPU memory of one instance.")] = None,
    tenant_instances: Annotated[
        int | None, typer.Option(metavar="N", help="Quota: instances of one tenant. Default: none.")
    ] = None,
    standby: Annotated[
        int | None, typer.Option(metavar="N", help="Standby runners. Default: 1 if a cold start is under 500 ms.")
    ] = None,
    starts_per_second: Annotated[
        float | None, typer.Option(metavar="N", help="Starts that can begin per second. Default: 6 per node.")
    ] = None,
    queue_length: Annotated[
        int | None, typer.Option(metavar="N", help="Requests of a model that may wait. Default: any number.")
    ] = None,
    price: Annotated[
        str | None, typer.Option(metavar="MONEY", help="Of an instance per hour. Default: 0.0425.")
    ] = None,
    slo_credit: Annotated[
        str | None, typer.Option(metavar="MONEY", help="Worth of a request inside the objective. Default: 0.001.")
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            metavar="WHEN", help="When the run begins, such as 2026-11-02T00:00Z. Default: the trace's first date."
        ),
    ] = None,
    cost_sensitivity: Annotated[
        str, typer.Option(metavar="LEVEL", help="high, normal or low, for policies that it adjusts.")
    ] = "",
    target: Annotated[
        list[str] | None,
        typer.Option(metavar="METRIC=VALUE", help="What instances are added for, such as queue-wait=50ms."),
    ] = None,
    min_instances: Annotated[int | None, typer.Option(metavar="N", help="Of every model. Default: 0.")] = None,
    max_instances: Annotated[int | None, typer.Option(metavar="N", help="Of every model. Default: any number.")] = None,
    idle_timeout: Annotated[
        str | None, typer.Option(metavar="TIME", help="Keep an idle model's last instance. Default: as it learns.")
    ] = None,
    schedule: Annotated[
        list[str] | None, typer.Option(metavar="CRON=N", help="At least N instances of every model from then on.")
    ] = None,
    events: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write every start, stop, arrival and answer, JSON lines.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw instances over time: .png (needs matplotlib) or .html.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Simulate policies on a trace or a scenario and print their scores. Needs no mesh."""
    if (trace is None) == (not scenario):
        raise UsageProblem("simulate: expected --trace FILE or --scenario NAME, one of the two")
    given = {name: value for name, value in locals().items() if name != "as_json" and value is not None and value != ""}
    with found_here():
        given["target"] = [f"{metric}={value}" for metric, value in flags.targets(target or []).items()]
    scores = _simulated([text for name, value in given.items() for text in _flags(name, value)])
    if as_json:
        print_json(scores)
    else:
        print_table([title.upper() for title, _ in _COLUMNS], [[show(s) for _, show in _COLUMNS] for s in scores])


def _simulated(arguments: list[str]) -> list[dict[str, Any]]:
    """The simulator is the autoscaler's code, which this package does not import; it says itself what is wrong."""
    done = subprocess.run(  # noqa: S603 - the program is ours
        [sys.executable, "-m", "headrace_autoscaler.sim", *arguments], stdout=subprocess.PIPE, check=False
    )
    if done.returncode:
        raise typer.Exit(done.returncode)
    scores: list[dict[str, Any]] = json.loads(done.stdout)
    return scores


def _flags(name: str, value: Any) -> list[str]:
    """With a value that begins like a flag as well."""
    values = value if isinstance(value, list) else [value]
    return [f"--{name.replace('_', '-')}={each}" for each in values]


def _refused(by_reason: dict[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in by_reason.items()) or "0"
