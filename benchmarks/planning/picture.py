"""The curves as SVG, by hand: seconds of a tick by models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.planning.tick import Tick

_COLOURS = ("#0b6e4f", "#2e4057", "#d1495b", "#edae49", "#7768ae")
_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 760, 476, 60, 40, 20, 126


def draw(ticks: Sequence[Tick], path: Path) -> None:
    """Cold plans solid, steady ones dashed, and the second that a tick may take."""
    widest = max(each.models for each in ticks)
    highest = max(1.1, *(max(each.cold_s, each.steady_s) * 1.05 for each in ticks))

    def x(models: float) -> float:
        return _LEFT + models / widest * (_WIDTH - _LEFT - _RIGHT)

    def y(seconds: float) -> float:
        return _HEIGHT - _BOTTOM - seconds / highest * (_HEIGHT - _TOP - _BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
        f'font-size="12"><rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        f'<text x="{_LEFT}" y="22" font-size="14">A planning tick by models: seconds of one core</text>',
        f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(0):.1f}" y2="{y(0):.1f}" stroke="#444"/>',
        f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(1):.1f}" y2="{y(1):.1f}" stroke="#999" '
        'stroke-dasharray="2 4"/>',
    ]
    parts += [
        f'<text x="{_LEFT - 6}" y="{y(tick / 4) + 4:.1f}" text-anchor="end">{tick / 4:g}</text>'
        for tick in range(int(highest * 4) + 1)
    ]
    parts += [
        f'<text x="{x(models):.1f}" y="{y(0) + 18:.1f}" text-anchor="middle">{models:,}</text>'
        for models in sorted({each.models for each in ticks})
    ]
    cases = list(dict.fromkeys(each.case for each in ticks))
    for number, case in enumerate(cases):
        colour = _COLOURS[number % len(_COLOURS)]
        found = [each for each in ticks if each.case == case]
        for name, dash in (("cold_s", ""), ("steady_s", ' stroke-dasharray="6 4"')):
            points = " ".join(f"{x(each.models):.1f},{y(getattr(each, name)):.1f}" for each in found)
            parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
        label = f"{case} (dashed: nothing changed)" if number == 0 else case
        parts.append(f'<text x="{_LEFT}" y="{_HEIGHT - _BOTTOM + 42 + 18 * number}" fill="{colour}">{label}</text>')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*parts, "</svg>"]))
