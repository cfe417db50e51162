"""Times plans for 1,250 to 10,000 models, of the allocator and of the live planner; draws the curves and writes their
table."""

from __future__ import annotations

import gc
import re
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.planning.machine import loaded, machine
from benchmarks.planning.picture import draw
from benchmarks.planning.worlds import TENANTS, carried_out, unlike, world
from headrace_autoscaler.core import planner
from headrace_autoscaler.core.allocator import plan

SIZES = (1250, 2500, 5000, 10000)
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


@dataclass(frozen=True, slots=True)
class _Trial:
    """Attributes:
    cold, steady: make the plan, and that of what it leads to.
    """

    nodes: int
    instances: int
    cold: Callable[[], object]
    steady: Callable[[], object]


def _allocator(models: int, active: float, rate: float, *, alike: bool = True) -> _Trial:
    """Args:
    active: share of the models with demand.
    rate: mean requests per second of each of those.
    """
    empty = world(models, active, rate)
    empty = empty if alike else unlike(empty)
    running = carried_out(empty, plan(empty))
    _check_rest(plan(running).actions)
    return _Trial(len(empty.nodes), len(running.instances), lambda: plan(empty), lambda: plan(running))


def _machine(models: int, room: float) -> _Trial:
    empty = machine(models, room)
    running = loaded(empty, planner.plan(empty))
    _check_rest(planner.plan(running).actions)
    return _Trial(1, len(running.holdings), lambda: planner.plan(empty), lambda: planner.plan(running))


def _check_rest(actions: Sequence[object]) -> None:
    if actions:
        raise SystemExit(f"the plan of what a plan led to does {len(actions)} things")


CASES: tuple[tuple[str, Callable[[int], _Trial]], ...] = (
    ("one in ten active", lambda models: _allocator(models, 0.1, 60.0)),
    ("all active", lambda models: _allocator(models, 1.0, 60.0)),
    ("all active, nodes full", lambda models: _allocator(models, 1.0, 600.0)),
    ("the same, no two sizes alike", lambda models: _allocator(models, 1.0, 600.0, alike=False)),
    ("live planner, one machine, full", lambda models: _machine(models, 0.9)),
)


def measure(rounds: int) -> None:
    ticks: list[Tick] = []
    print(f"{'case':32} {'models':>7} {'nodes':>6} {'instances':>9} {'cold ms':>8} {'steady ms':>9}")
    for case, trial_of in CASES:
        for models in SIZES:
            trial = trial_of(models)
            cold_s, steady_s = _median_s(trial.cold, rounds), _median_s(trial.steady, rounds)
            ticks.append(tick := Tick(case, models, trial.nodes, trial.instances, cold_s, steady_s))
            print(
                f"{case:32} {tick.models:7,} {tick.nodes:6,} {tick.instances:9,} {tick.cold_s * 1e3:8.0f} "
                f"{tick.steady_s * 1e3:9.0f}",
                flush=True,
            )
    draw(ticks, PICTURE)
    text = PAGE.read_text()
    PAGE.write_text(_TABLE.sub(lambda found: found[1] + _table(ticks) + found[2], text))
    print(f"wrote {PICTURE.relative_to(ROOT)} and the table of {PAGE.relative_to(ROOT)}")


def _median_s(make: Callable[[], object], rounds: int) -> float:
    taken = []
    for _ in range(rounds):
        gc.collect()
        began = time.process_time()
        make()
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
