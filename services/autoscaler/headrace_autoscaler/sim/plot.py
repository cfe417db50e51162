"""Instances over time, one panel per policy, over the load that they were there for."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from headrace_autoscaler.sim.outcome import Outcome
from headrace_autoscaler.sim.score import Score
from headrace_autoscaler.sim.workload import Seconds
from headrace_common.errors import FailedPrecondition, InvalidArgument

_POINTS = 600
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 900, 190, 52, 26, 34
_INSTANCES, _LOAD = "#0b6e4f", "#d1495b"


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """Means over equal bins of the run.

    Attributes:
        at_s: [bins] middle of each.
        instances: [bins] that were billed.
        load: [bins] that the arriving requests would have kept busy.
    """

    title: str
    at_s: Seconds
    instances: Seconds
    load: Seconds


def check_plot(path: Path) -> None:
    """Before anything is simulated.

    Raises:
        InvalidArgument: neither .png nor .html.
        FailedPrecondition: .png, and matplotlib is not installed.
    """
    if path.suffix not in (".png", ".html"):
        raise InvalidArgument(f"--plot: expected a name that ends in .png or .html; got {str(path)!r}")
    if path.suffix == ".png":
        _pyplot()


def draw(outcomes: Sequence[Outcome], scores: Sequence[Score], path: Path) -> None:
    """Writes the picture; an .html file holds it as SVG and needs nothing else."""
    series = [_series(outcome, score) for outcome, score in zip(outcomes, scores, strict=True)]
    name = outcomes[0].case.workload.name
    if path.suffix == ".png":
        _draw_png(series, name, path)
    else:
        path.write_text(_html(series, name), encoding="utf-8")


def _series(outcome: Outcome, score: Score) -> Series:
    workload = outcome.case.workload
    # Requests of one moment have a run without a length.
    span_s = workload.horizon_s or 1.0
    edges = np.linspace(0.0, span_s, min(_POINTS, max(1, int(span_s))) + 1)
    width = edges[1] - edges[0]
    begun = np.array([life.started for life in outcome.lifetimes])
    gone = np.array([life.gone for life in outcome.lifetimes])
    held = np.array([np.maximum(0.0, edge - begun).sum() - np.maximum(0.0, edge - gone).sum() for edge in edges])
    work, _ = np.histogram(workload.arrival_s, edges, weights=workload.service_s)
    return Series(
        f"{outcome.policy}: {score.slo_share:.2%} in the objective, {score.instance_seconds:,.0f} instance-seconds",
        (edges[:-1] + edges[1:]) / 2,
        np.diff(held) / width,
        work / width / outcome.case.conditions.concurrency,
    )


def _pyplot() -> Any:
    try:
        matplotlib = importlib.import_module("matplotlib")
    except ImportError:
        raise FailedPrecondition(
            "--plot: a .png needs matplotlib: pip install matplotlib; an .html file needs nothing"
        ) from None
    matplotlib.use("Agg")
    return importlib.import_module("matplotlib.pyplot")


def _draw_png(series: Sequence[Series], name: str, path: Path) -> None:
    figure, panels = _pyplot().subplots(
        len(series), 1, figsize=(9, 2.1 * len(series) + 0.5), sharex=True, sharey=True, squeeze=False
    )
    for panel, each in zip(panels[:, 0], series, strict=True):
        panel.fill_between(each.at_s, each.load, color=_LOAD, alpha=0.5, label="load")
        panel.plot(each.at_s, each.instances, color=_INSTANCES, linewidth=1, label="instances")
        panel.set_title(each.title, fontsize=9, loc="left")
    panels[0, 0].legend(fontsize=8)
    panels[-1, 0].set_xlabel("seconds")
    figure.suptitle(name, fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def _html(series: Sequence[Series], name: str) -> str:
    highest = max(float(max(each.instances.max(), each.load.max())) for each in series) or 1.0
    panels = "\n".join(_panel(each, highest) for each in series)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(name)}</title></head>\n'
        f'<body style="font: 14px sans-serif; max-width: {_WIDTH}px; margin: 2em auto">\n<h1>{escape(name)}</h1>\n'
        f'<p><span style="color:{_INSTANCES}">instances</span> over time, and the '
        f'<span style="color:{_LOAD}">load</span> that they were there for (instances that would be busy).</p>\n'
        f"{panels}\n</body></html>\n"
    )


def _panel(series: Series, highest: float) -> str:
    end_s = float(series.at_s[-1]) or 1.0
    ground, right = _HEIGHT - _BOTTOM, _WIDTH - 10

    def points(values: Seconds) -> str:
        across = _LEFT + series.at_s / end_s * (right - _LEFT)
        up = ground - values / highest * (ground - _TOP)
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(across, up, strict=True))

    small = 'font-size="11" fill="#555"'
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="100%" role="img" font-family="sans-serif">'
        f'<text x="{_LEFT}" y="20" font-size="13">{escape(series.title)}</text>'
        f'<polygon points="{_LEFT},{ground} {points(series.load)} {right},{ground}" fill="{_LOAD}" opacity="0.5"/>'
        f'<polyline points="{points(series.instances)}" fill="none" stroke="{_INSTANCES}" stroke-width="1.2"/>'
        f'<path d="M{_LEFT},{_TOP} V{ground} H{right}" fill="none" stroke="#555"/>'
        f'<text x="{_LEFT - 6}" y="{_TOP + 4}" text-anchor="end" {small}>{highest:.3g}</text>'
        f'<text x="{_LEFT - 6}" y="{ground}" text-anchor="end" {small}>0</text>'
        f'<text x="{right}" y="{_HEIGHT - 8}" text-anchor="end" {small}>{series.at_s[-1]:.0f} s</text></svg>'
    )
