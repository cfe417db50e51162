"""Draws what each variant costs against what it keeps, where matplotlib is installed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from headrace_runner.optimizer.core.choice import Judgement, Verdict
from headrace_runner.optimizer.core.statistics import Interval
from headrace_runner.optimizer.results import Result

_COLORS = {
    Verdict.FITS: "#2a7f3f",
    Verdict.UNDECIDED: "#b8860b",
    Verdict.BELOW_FLOOR: "#b03030",
    Verdict.TOO_SLOW: "#777777",
}
_SMALLEST_AREA, _LARGEST_AREA = 20.0, 300.0


def can_draw() -> bool:
    return find_spec("matplotlib") is not None


def draw(result: Result, path: Path) -> None:
    """Processor time per row against quality with its interval; a point's area is the variant's size."""
    from matplotlib.figure import Figure

    shown = [each for each in result.choice.judgements if each.cost_s is not None]
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    largest = max((each.candidate.size_bytes for each in shown), default=1)
    for each in shown:
        if interval := each.candidate.interval:
            _point(axes, each, interval, largest)
    front = sorted((each for each in shown if each.on_front), key=lambda each: each.cost_s or 0.0)
    axes.plot(
        [(each.cost_s or 0.0) * 1e3 for each in front],
        [each.candidate.right / each.candidate.total for each in front],
        color="#999999", linewidth=0.8, zorder=0,
    )  # fmt: skip
    axes.axhline(result.demand.floor, linestyle="--", linewidth=0.8, color="#b03030")
    axes.set_xlabel("processor time per row, ms")
    axes.set_ylabel(f"{result.demand.quality}, 95 % interval")
    axes.set_title(f"{Path(result.source).name}: {result.choice.chosen or 'nothing'} chosen")
    figure.savefig(path)


def _point(axes: Any, each: Judgement, interval: Interval, largest: int) -> None:
    cost_ms = (each.cost_s or 0.0) * 1e3
    color = _COLORS.get(each.verdict, "#777777")
    area = max(_SMALLEST_AREA, _LARGEST_AREA * each.candidate.size_bytes / largest)
    reach = [[interval.share - interval.lower], [interval.upper - interval.share]]
    axes.errorbar([cost_ms], [interval.share], yerr=reach, color=color, capsize=3)
    axes.scatter([cost_ms], [interval.share], s=area, color=color, alpha=0.6)
    axes.annotate(each.candidate.name, (cost_ms, interval.share), textcoords="offset points", xytext=(8, 6), fontsize=8)
