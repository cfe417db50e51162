"""Plots as SVG: throughput against requests in flight, latency against offered load."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.figures import median, spread
from benchmarks.records import Open, Run
from benchmarks.report.tables import loads_of, systems_of

_COLOURS = {
    "headrace": "#0b6e4f",
    "triton": "#d1495b",
    "mosec": "#2e4057",
    "mlserver": "#edae49",
    "ray": "#00798c",
    "litserve": "#8d6a9f",
    "bentoml": "#7a7a7a",
}
_MISSING = "plots need matplotlib: pip install -e '.[bench]'"


def throughput(run: Run, workload: str, titles: dict[str, str], path: Path) -> None:
    """Medians with their range. Raises SystemExit without matplotlib."""

    def draw(axes: Any) -> None:
        for system in systems_of(run, workload):
            if system not in _COLOURS:
                continue
            points = [
                (load, rates) for load in loads_of(run, workload) if (rates := run.closed_rates(system, workload, load))
            ]
            spreads = [spread(rates) for _, rates in points]
            middles = [found.median for found in spreads]
            error = [
                [found.median - found.low for found in spreads],
                [found.high - found.median for found in spreads],
            ]
            loads = [load for load, _ in points]
            axes.errorbar(loads, middles, error, marker="o", capsize=3, label=titles[system], color=_COLOURS[system])
        axes.set_xscale("log", base=2)
        ticks = loads_of(run, workload)
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.set_ylim(bottom=0)
        axes.set_xlabel("requests in flight")
        axes.set_ylabel("requests served per second")
        axes.set_title(f"{workload}: throughput, closed loop")

    _save(path, draw)


def latency(run: Run, titles: dict[str, str], path: Path) -> None:
    """p50 and p99 by offered rate. Raises SystemExit without matplotlib."""

    def draw(axes: Any) -> None:
        for system in dict.fromkeys(item.system for item in run.open):
            points = _points([item for item in run.open if item.system == system])
            for index, (name, style) in enumerate((("p50", "--"), ("p99", "-"))):
                rates = [rate for rate, *_ in points]
                values = [point[1 + index] for point in points]
                axes.plot(rates, values, style, marker="o", label=f"{titles[system]} {name}", color=_COLOURS[system])
        axes.set_yscale("log")
        axes.set_xlim(left=0)
        axes.set_xlabel("requests offered per second")
        axes.set_ylabel("milliseconds from when it was due")
        axes.set_title("mlp: latency, open loop")

    _save(path, draw)


def _points(items: list[Open]) -> list[tuple[float, float, float]]:
    """(rate, p50, p99) by rate; rates where a system fell behind without end are left out."""
    by_cell: dict[tuple[float, float], list[Open]] = {}
    for item in items:
        by_cell.setdefault((item.fraction, 0.0 if item.fraction else item.rate), []).append(item)
    points = []
    for cell in by_cell.values():
        if all(item.p99_ms >= 0 for item in cell):
            middles = (median([getattr(item, name) for item in cell]) for name in ("rate", "p50_ms", "p99_ms"))
            points.append(tuple(middles))
    return sorted(points)  # type: ignore[arg-type] # three numbers each


def _save(path: Path, draw: Callable[[Any], None]) -> None:
    try:
        matplotlib = importlib.import_module("matplotlib")
        matplotlib.use("svg")
        pyplot = importlib.import_module("matplotlib.pyplot")
    except ImportError:
        raise SystemExit(_MISSING) from None
    # Ids in the file are random otherwise, and every report would be a change.
    matplotlib.rcParams["svg.hashsalt"] = path.name
    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    draw(axes)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
