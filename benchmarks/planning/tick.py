"""Times plans of worlds of 1,250 to 10,000 models, draws the curves and writes their table."""

from __future__ import annotations

import gc
import re
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.planning.picture import draw
from benchmarks.planning.worlds import TENANTS, carried_out, world
from headrace_autoscaler.core.allocator import Snapshot, plan

SIZES = (1250, 2500, 5000, 10000)
CASES = (
    ("one in ten active", 0.1, 60.0),
    ("all active", 1.0, 60.0),
    ("all active, nodes full", 1.0, 600.0),
)
"""Name, share of the models with demand, and mean requests per second of each of those."""
ROOT = Path(__file__).parents[2]
PICTURE = ROOT / "docs/img/planning.svg"
PAGE = ROOT / "docs/allocator.md"
_TABLE = re.compile(r"(<!-- planning -->\n).*?(<!-- /planning -->)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Tick:
    """Seconds, medians.

    Attributes:
        cold_s: a plan where nothing runs yet.
        steady_s: a plan where all that the cold one started runs.
    """

    case: str
    models: int
    nodes: int
    instances: int
    cold_s: float
    steady_s: float


def measure(rounds: int) -> None:
    ticks: list[Tick] = []
    print(f"{'case':24} {'models':>7} {'nodes':>6} {'instances':>9} {'cold ms':>8} {'steady ms':>9}")
    for case, active, rate in CASES:
        for models in SIZES:
            ticks.append(tick := _measure(case, models, active, rate, rounds))
            print(
                f"{case:24} {tick.models:7,} {tick.nodes:6,} {tick.instances:9,} {tick.cold_s * 1e3:8.0f} "
                f"{tick.steady_s * 1e3:9.0f}",
                flush=True,
            )
    draw(ticks, PICTURE)
    text = PAGE.read_text()
    PAGE.write_text(_TABLE.sub(lambda found: found[1] + _table(ticks) + found[2], text))
    print(f"wrote {PICTURE.relative_to(ROOT)} and the table of {PAGE.relative_to(ROOT)}")


def _measure(case: str, models: int, active: float, rate: float, rounds: int) -> Tick:
    empty = world(models, active, rate)
    running = carried_out(empty, plan(empty))
    again = plan(running)
    if again.actions:
        raise SystemExit(f"{case}, {models} models: the plan of what a plan led to does {len(again.actions)} things")
    cold, steady = _median_s(empty, rounds), _median_s(running, rounds)
    return Tick(case, models, len(empty.nodes), len(running.instances), cold, steady)


def _median_s(snapshot: Snapshot, rounds: int) -> float:
    taken = []
    for _ in range(rounds):
        gc.collect()
        began = time.process_time()
        plan(snapshot)
        taken.append(time.process_time() - began)
    return statistics.median(taken)


def _table(ticks: Sequence[Tick]) -> str:
    lines = [
        f"{TENANTS} tenants in cohorts of ten; processor time of one core, milliseconds, medians.",
        "",
        "| | models | nodes | instances | cold plan | nothing changed |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {each.case} | {each.models:,} | {each.nodes:,} | {each.instances:,} | {each.cold_s * 1e3:,.0f} | "
        f"{each.steady_s * 1e3:,.0f} |"
        for each in ticks
    ]
    return "\n".join([*lines, ""])
