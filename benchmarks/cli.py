"""`python -m benchmarks [install | run | report | cold-start | planning | step | neighbour]`.

Bare: install, run all, write the page.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

from benchmarks import cold_start, peers, plan, planning, records
from benchmarks.live import neighbour, step
from benchmarks.mesh import running_mesh
from benchmarks.report.page import write
from benchmarks.runs import Runner
from benchmarks.systems import SYSTEMS
from benchmarks.workloads import NAMES


def main() -> None:
    options = _parser().parse_args()
    match options.command:
        case "install":
            peers.install(_words(options.peers) or [peer.name for peer in peers.PEERS])
        case "run":
            _run(_settings(options))
        case "report":
            runs = [records.load(Path(name)) for name in options.results] or [records.load(records.newest())]
            print(f"wrote {write(records.merged(runs))}")
        case "cold-start":
            with running_mesh(standby=1) as mesh:
                cold_start.measure(mesh.url, options.rounds)
        case "planning":
            planning.measure(options.rounds)
        case "step":
            step.measure()
        case "neighbour":
            neighbour.measure(options.rounds)
        case _:
            failures = peers.install([peer.name for peer in peers.PEERS])
            print(f"wrote {write(records.load(_run(plan.Settings(), failures)))}")


def _run(settings: plan.Settings, not_installed: Mapping[str, str] | None = None) -> Path:
    path = records.new_path()
    print(f"results: {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}", flush=True)
    run = Runner(settings, path, not_installed or {}).all()
    print(f"{run.minutes:.0f} minutes; {len(run.failures)} not measured")
    return path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command")
    install = commands.add_parser("install", help="make the peers' virtual environments below .cache/bench")
    install.add_argument("--peers", default="", help=f"of {','.join(peer.name for peer in peers.PEERS)}; default: all")
    run = commands.add_parser("run", help="measure, and keep the figures below .cache/bench/results")
    defaults = plan.Settings()
    for name in ("systems", "workloads", "loads", "specials"):
        default = ",".join(map(str, getattr(defaults, name)))
        run.add_argument(f"--{name}", default=default, metavar="A,B", help=f"default: {default}; 'none': none")
    for name in ("rounds", "slow_rounds", "seconds", "warm_up_s"):
        default = getattr(defaults, name)
        run.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default, help=f"default: {default}")
    run.add_argument("--no-open-loop", action="store_true", help="leave the fixed arrival rates out")
    requests = ",".join(map(str, defaults.memory_requests))
    run.add_argument("--memory-requests", default=requests, metavar="A,B", help=f"default: {requests}")
    report = commands.add_parser("report", help="write docs/benchmarks.md")
    report.add_argument("results", nargs="*", help="JSON files, together one run; default: the newest")
    cold = commands.add_parser("cold-start", help="magika from zero instances: quantiles, and phase by phase")
    cold.add_argument("--rounds", type=int, default=cold_start.ROUNDS, help=f"default: {cold_start.ROUNDS}")
    tick = commands.add_parser("planning", help="the allocator's tick by the number of models; docs/allocator.md")
    tick.add_argument("--rounds", type=int, default=5, help="plans of each size; the median counts; default: 5")
    commands.add_parser("step", help="20 times the load from one second to the next, on a mesh that scales")
    flood = commands.add_parser(
        "neighbour", help="a tenant's p99, alone and beside one at ten times its quota, by what they share"
    )
    flood.add_argument("--rounds", type=int, default=neighbour.ROUNDS, help=f"default: {neighbour.ROUNDS}")
    return parser


def _settings(options: argparse.Namespace) -> plan.Settings:
    values = {
        field.name: getattr(options, field.name) for field in fields(plan.Settings) if hasattr(options, field.name)
    }
    known = {"systems": SYSTEMS, "workloads": NAMES, "specials": plan.SPECIALS}
    for name in ("systems", "workloads", "specials"):
        values[name] = _words(values[name])
        unknown = sorted(set(values[name]) - set(known[name]))
        if unknown:
            raise SystemExit(f"--{name}: there is no {unknown[0]!r}; there are {', '.join(known[name])}")
    values["loads"] = tuple(map(int, _words(options.loads)))
    first, last = map(int, _words(options.memory_requests))
    return plan.Settings(**{**values, "memory_requests": (first, last), "open_loop": not options.no_open_loop})


def _words(text: str) -> tuple[str, ...]:
    return () if text == "none" else tuple(filter(None, text.split(",")))
