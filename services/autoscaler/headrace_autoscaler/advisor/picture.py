"""Cost by rate of requests, drawn: serverless, always on, reserved, and where they cross; below, each variant's cost.

SVG is written by hand, HTML holds it, and PNG is drawn by matplotlib, which `pip install 'headrace[bench]'` brings.
"""

from __future__ import annotations

import html
import importlib
import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace_autoscaler.advisor.bars import HEAD, STEP, bars_of, draw_bars, svg_bars
from headrace_autoscaler.advisor.report import lines
from headrace_autoscaler.core.allocator.advice import Advice, reserved_micros, serverless_micros
from headrace_autoscaler.core.allocator.catalog import CapacityClass, Catalog
from headrace_autoscaler.core.allocator.choice import part_of
from headrace_autoscaler.core.allocator.options import Option
from headrace_autoscaler.core.allocator.types import Kind
from headrace_common.errors import FailedPrecondition, InvalidArgument

KINDS = (".svg", ".html", ".png")
_POINTS = 160
_COLOURS = ("#0b6e4f", "#2e4057", "#d1495b")
_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 760, 420, 70, 50, 20, 60


@dataclass(frozen=True, slots=True)
class Line:
    """Money per hour by requests per second."""

    name: str
    points: tuple[tuple[float, float], ...]


def check_picture(path: Path) -> None:
    """Before anything is worked out: could it be drawn?

    Raises:
        InvalidArgument: the name's end says no kind that we draw.
        FailedPrecondition: it takes matplotlib, which is not there.
    """
    if path.suffix not in KINDS:
        raise InvalidArgument(f"--plot: expected a name that ends in {', '.join(KINDS)}; got {str(path)!r}")
    if path.suffix == ".png" and importlib.util.find_spec("matplotlib") is None:
        raise FailedPrecondition(
            "--plot: a .png takes matplotlib: pip install 'headrace[bench]'; .svg and .html do not"
        )


def draw(advice: Advice, catalog: Catalog, path: Path) -> None:
    curves = curves_of(advice, catalog)
    marks = _marks(advice)
    if path.suffix == ".png":
        _draw_png(advice, curves, marks, path)
        return
    drawn = _svg(advice, curves, marks)
    if path.suffix == ".html":
        table = html.escape("\n".join(lines(advice, 20)))
        title = html.escape(f"headrace plan: {advice.question.model}")
        drawn = f"<!doctype html><meta charset=utf-8><title>{title}</title>\n{drawn}\n<pre>{table}</pre>\n"
    path.write_text(drawn)


def curves_of(advice: Advice, catalog: Catalog) -> list[Line]:
    """Of the cheapest option that meets the objective; none without one."""
    best = advice.best
    if best is None:
        return []
    rates = _rates(advice, best)
    question = advice.question
    on_demand = _instance_price(advice, catalog, best, CapacityClass.ON_DEMAND)
    reserved = _instance_price(advice, catalog, best, CapacityClass.RESERVED)
    curves: list[Line] = []
    if on_demand is not None:
        serverless = tuple((rate, serverless_micros(rate, question, best.each, on_demand) / 1e6) for rate in rates)
        always = tuple((rate, reserved_micros(rate, best.each, on_demand) / 1e6) for rate in rates)
        curves += [Line("serverless, to zero when idle", serverless), Line("on demand, always on", always)]
    if reserved is not None:
        kept = tuple((rate, reserved_micros(rate, best.each, reserved) / 1e6) for rate in rates)
        curves.append(Line("reserved", kept))
    return curves


def _instance_price(advice: Advice, catalog: Catalog, best: Option, capacity_class: CapacityClass) -> int | None:
    shape = (catalog.shapes or {})[best.shape]
    price = shape.price(capacity_class)
    way = next(way for way in advice.question.ways if way.name == best.way)
    if price is None:
        return None
    return part_of(
        way.resources, Kind(shape.name, capacity_class, shape.capacity, price, shape.gpus, shape.architecture)
    )


def _rates(advice: Advice, best: Option) -> list[float]:
    """Log-spaced, from a request in an hour or so to twice the rate to be served and two instances' at least."""
    highest = 2.0 * max(advice.question.rate, best.each, 0.01)
    lowest = 1.0 / 7200
    step = (math.log(highest) - math.log(lowest)) / (_POINTS - 1)
    return [lowest * math.exp(step * number) for number in range(_POINTS)]


def _marks(advice: Advice) -> list[tuple[str, float]]:
    question, footing = advice.question, advice.footing
    marks = [("average", question.mean_rate), ("at the most", question.rate)]
    if footing is not None and footing.break_even_rate:
        marks.append(("break-even", footing.break_even_rate))
    return [(name, rate) for name, rate in marks if rate > 0]


def _title(advice: Advice) -> str:
    best = advice.best
    on = f" on a part of {best.shape} ({best.way})" if best else ""
    return f"{advice.question.model}{on}: {advice.currency} per hour by requests per second"


def _svg(advice: Advice, curves: Sequence[Line], marks: Sequence[tuple[str, float]]) -> str:
    points = [point for line in curves for point in line.points] or [(0.001, 0.0), (1.0, 1.0)]
    low, high = min(rate for rate, _ in points), max(rate for rate, _ in points)
    most = max(money for _, money in points) or 1.0

    def x(rate: float) -> float:
        share = (math.log(min(max(rate, low), high)) - math.log(low)) / (math.log(high) - math.log(low))
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def y(money: float) -> float:
        return _HEIGHT - _BOTTOM - money / most * (_HEIGHT - _TOP - _BOTTOM)

    bars = bars_of(advice)
    height = _HEIGHT + (HEAD + STEP * len(bars) if bars else 0)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" '
        f'font-size="12"><rect width="{_WIDTH}" height="{height}" fill="white"/>',
        f'<text x="{_LEFT}" y="22" font-size="14">{html.escape(_title(advice))}</text>',
    ]
    for tick in range(5):
        money = most * tick / 4
        parts.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(money):.1f}" y2="{y(money):.1f}" stroke="#ddd"/>'
            f'<text x="{_LEFT - 6}" y="{y(money) + 4:.1f}" text-anchor="end">{money:.3g}</text>'
        )
    for power in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1):
        at = x(10.0**power)
        parts.append(f'<text x="{at:.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{10.0**power:g}</text>')
    for number, (name, rate) in enumerate(marks):
        parts.append(
            f'<line x1="{x(rate):.1f}" x2="{x(rate):.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}" stroke="#888" '
            f'stroke-dasharray="4 3"/><text x="{x(rate) - 4:.1f}" y="{_TOP + 12 + 14 * number}" '
            f'text-anchor="end" fill="#555">{name} {rate:.3g}</text>'
        )
    for number, (line, colour) in enumerate(zip(curves, _COLOURS, strict=False)):
        path = " ".join(f"{x(rate):.1f},{y(money):.1f}" for rate, money in line.points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{_LEFT + 210 * number}" y="{_HEIGHT - 14}" fill="{colour}">{line.name}</text>')
    if bars:
        parts += svg_bars(advice, bars, _LEFT, _WIDTH - _RIGHT, _HEIGHT)
    return "\n".join([*parts, "</svg>"])


def _draw_png(advice: Advice, curves: Sequence[Line], marks: Sequence[tuple[str, float]], path: Path) -> None:
    matplotlib: Any = importlib.import_module("matplotlib")
    matplotlib.use("Agg")
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
    bars = bars_of(advice)
    figure, found = pyplot.subplots(
        nrows=2 if bars else 1, squeeze=False, figsize=(7.6, 4.2 + (0.4 + 0.4 * len(bars) if bars else 0)),
        height_ratios=[4.2, 0.4 + 0.4 * len(bars)] if bars else None,
    )  # fmt: skip
    axes = found[0][0]
    for line, colour in zip(curves, _COLOURS, strict=False):
        axes.plot(*zip(*line.points, strict=True), label=line.name, color=colour)
    for name, rate in marks:
        axes.axvline(rate, color="#888", linestyle="--", linewidth=1)
        axes.text(rate, axes.get_ylim()[1], f" {name}", rotation=90, va="top", fontsize=8)
    axes.set(xscale="log", xlabel="requests per second", ylabel=f"{advice.currency} per hour", title=_title(advice))
    axes.title.set_fontsize(9)
    axes.legend(fontsize=8)
    if bars:
        draw_bars(found[1][0], advice, bars)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
