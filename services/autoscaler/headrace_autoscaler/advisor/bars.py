"""What each variant costs at the least, drawn as bars below the curves."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from headrace_autoscaler.core.allocator.advice import Advice

HEAD, STEP = 34, 40
"""Of a drawing: what the heading takes, and each bar."""
_COLOUR, _ORIGINAL = "#0b6e4f", "#888"
_THICK = 12


@dataclass(frozen=True, slots=True)
class Bar:
    """Attributes:
    name: of the variant.
    note: where that is, and what it keeps.
    money: per month.
    """

    name: str
    note: str
    money: float
    is_original: bool


def bars_of(advice: Advice) -> list[Bar]:
    """Of each variant that meets the objective, on the shape where it costs least; the cheapest first."""
    found: list[Bar] = []
    for each in advice.variants.firsts():
        option = each.option
        if option.meets_objective:
            note = f"{option.instances} on {option.nodes} {option.shape}, {option.capacity_class.replace('_', '-')}"
            note += "" if each.quality is None else f"; {each.quality}"
            found.append(Bar(each.variant, note, each.micros_per_month / 1e6, each.is_original))
    return found


def heading(advice: Advice) -> str:
    return f"variants: {advice.currency} per month at {advice.question.rate:.4g} requests per second"


def svg_bars(advice: Advice, bars: Sequence[Bar], left: int, right: int, top: int) -> Iterator[str]:
    """Args:
    left, right, top: where there is room, in the drawing's units; it takes `HEAD` and a `STEP` for each bar.
    """
    most = max(bar.money for bar in bars) or 1.0
    yield f'<text x="{left}" y="{top + 16}" font-size="14">{html.escape(heading(advice))}</text>'
    for number, bar in enumerate(bars):
        y = top + HEAD + STEP * number
        width = (right - left) * bar.money / most
        words = f"{bar.name}: {bar.money:,.2f} ({bar.note})"
        yield (
            f'<text x="{left}" y="{y + 10}" fill="#333">{html.escape(words)}</text>'
            f'<rect x="{left}" y="{y + 14}" width="{width:.1f}" height="{_THICK}" fill="{_fill(bar)}"/>'
        )


def draw_bars(axes: Any, advice: Advice, bars: Sequence[Bar]) -> None:
    """On matplotlib's axes."""
    places = range(len(bars))
    axes.barh(places, [bar.money for bar in bars], color=[_fill(bar) for bar in bars], height=0.35)
    for place, bar in zip(places, bars, strict=True):
        axes.text(0, place - 0.25, f"{bar.name}: {bar.money:,.2f} ({bar.note})", fontsize=8, va="bottom")
    axes.set_ylim(len(bars) - 0.5, -0.9)  # The first at the top, with room for its words.
    axes.set_yticks([])
    axes.set_title(heading(advice), fontsize=9)


def _fill(bar: Bar) -> str:
    return _ORIGINAL if bar.is_original else _COLOUR
