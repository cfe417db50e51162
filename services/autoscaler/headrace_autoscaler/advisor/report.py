"""An advice as a table for people and as plain data for programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from headrace_autoscaler.core.allocator.advice import Advice
from headrace_autoscaler.core.allocator.catalog import format_price
from headrace_autoscaler.core.allocator.options import Option
from headrace_autoscaler.core.allocator.variants import Priced

_COLUMNS = (
    "",
    "SHAPE",
    "CLASS",
    "WAY",
    "INSTANCES",
    "PER NODE",
    "NODES",
    "RPS EACH",
    "BATCH",
    "PER HOUR",
    "PER MILLION",
)
_VARIANT_COLUMNS = (
    "",
    "VARIANT",
    "SHAPE",
    "CLASS",
    "INSTANCES",
    "NODES",
    "RPS EACH",
    "BATCH",
    "PER MONTH",
    "SAVES",
    "PER REQUEST",
    "KEEPS",
)


def plain(advice: Advice) -> dict[str, Any]:
    """Everything, money as decimal text."""
    question, footing = advice.question, advice.footing
    return {
        "model": question.model,
        "rate": question.rate,
        "mean_rate": question.mean_rate,
        "slo_s": question.slo_s,
        "utilisation": question.utilisation,
        "currency": advice.currency,
        "options": [_plain_option(option, option is advice.best) for option in advice.options],
        "excluded": [{"shape": each.shape, "way": each.way, "reason": each.reason} for each in advice.excluded],
        "payment": None
        if footing is None
        else {
            "better": footing.better,
            "serverless_per_hour": format_price(footing.serverless_micros_per_hour),
            "reserved_per_hour": _price(footing.reserved_micros_per_hour),
            "break_even_rate": footing.break_even_rate,
        },
        "savings": [
            {
                "name": each.name,
                "per_hour": _price(each.micros_per_hour),
                "share_of_work": None if each.share is None else round(each.share, 4),
                "why": each.why,
            }
            for each in advice.savings
        ],
        "variants": [_plain_variant(each, each is advice.variants.cheapest) for each in advice.variants.priced],
        "variants_not_priced": [
            {"variant": each.variant, "shapes": list(each.shapes), "reason": each.reason}
            for each in advice.variants.unpriced
        ],
    }


def lines(advice: Advice, top: int) -> Iterator[str]:
    """Args:
    top: options to show.
    """
    question = advice.question
    slo = "no objective" if question.slo_s is None else f"an objective of {question.slo_s * 1000:g} ms"
    yield (
        f"{question.model}: {question.rate:.4g} requests per second at the most, {question.mean_rate:.4g} on average, "
        f"{slo}, instances {question.utilisation:.0%} busy"
    )
    if question.caches and question.hit_rate:
        yield f"the response cache answers {question.hit_rate:.0%} of them"
    yield ""
    shown = advice.options[:top]
    yield from _table(_COLUMNS, [_row(each, each is advice.best) for each in shown])
    if len(advice.options) > len(shown):
        yield f"and {len(advice.options) - len(shown)} dearer ones (--top N shows more)"
    if advice.best is None:
        yield "nothing measured meets the objective on any shape"
    yield from _footing(advice)
    yield from _savings(advice)
    yield from _variants(advice, top)
    if advice.excluded:
        yield ""
        yield "not considered"
        yield from _table((), [("", each.shape, each.way, each.reason) for each in advice.excluded])


def _row(option: Option, best: bool) -> tuple[str, ...]:
    return (
        "*" if best else "" if option.meets_objective else "too slow",
        option.shape,
        option.capacity_class.replace("_", "-"),
        option.way,
        str(option.instances),
        str(option.per_node),
        str(option.nodes),
        f"{option.each:,.1f}",
        str(option.rows),
        format_price(option.micros_per_hour),
        format_price(option.micros_per_million) if option.micros_per_million else "-",
    )


def _footing(advice: Advice) -> Iterator[str]:
    footing, best = advice.footing, advice.best
    if footing is None or best is None:
        return
    yield ""
    yield f"serverless or reserved, on parts of a {best.shape} that other models share"
    rows = [("", "serverless", f"{format_price(footing.serverless_micros_per_hour)} per hour at the average rate")]
    if footing.reserved_micros_per_hour is None:
        rows.append(("", "reserved", "the catalogue has no price for it"))
    else:
        rows.append(
            ("", "reserved", f"{format_price(footing.reserved_micros_per_hour)} per hour for the most, used or not")
        )
    if footing.break_even_rate:
        rate = footing.break_even_rate
        words = (
            f"{rate:.3g} requests per second ({rate * 3600:,.0f} per hour): from there one reserved instance is cheaper"
        )
        rows.append(("", "break-even", words))
    rows.append(("", "cheaper now", footing.better))
    yield from _table((), rows)


def _savings(advice: Advice) -> Iterator[str]:
    if not advice.savings:
        return
    yield ""
    yield "what saves"
    rows = []
    for each in advice.savings:
        work = "-" if each.share is None else f"{each.share:.0%} of the work"
        money = "-" if each.micros_per_hour is None else f"{_signed(each.micros_per_hour)} per hour"
        rows.append(("", each.name, work, money, each.why))
    yield from _table((), rows)


def _variants(advice: Advice, top: int) -> Iterator[str]:
    found = advice.variants
    if not found.priced and not found.unpriced:
        return
    firsts = found.firsts()
    shown = [each for place, each in enumerate(found.priced) if place < top or any(each is first for first in firsts)]
    yield ""
    yield f"variants, in {advice.currency} per month of 30 days, against the cheapest that the original can do"
    yield from _table(_VARIANT_COLUMNS, [_variant_row(each, each is found.cheapest) for each in shown])
    if len(found.priced) > len(shown):
        yield f"and {len(found.priced) - len(shown)} more (--top N shows them)"
    if found.unpriced:
        yield ""
        yield "variants that are not considered"
        yield from _table(
            (), [("", each.variant, ", ".join(each.shapes) or "every shape", each.reason) for each in found.unpriced]
        )


def _variant_row(priced: Priced, best: bool) -> tuple[str, ...]:
    option, saved = priced.option, priced.saved_micros_per_month
    return (
        "*" if best else "" if option.meets_objective else "too slow",
        priced.variant,
        option.shape,
        option.capacity_class.replace("_", "-"),
        str(option.instances),
        str(option.nodes),
        f"{option.each:,.1f}",
        str(option.rows),
        _whole(priced.micros_per_month),
        "-" if saved is None else _whole(saved),
        "-" if priced.share is None else f"{-priced.share:+.0%}",
        "-" if priced.quality is None else str(priced.quality),
    )


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    cells = [list(columns), *map(list, rows)] if columns else [list(row) for row in rows]
    if not cells:
        return
    widths = [max(len(row[place]) for row in cells) for place in range(len(cells[0]))]
    for row in cells:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _plain_option(option: Option, best: bool) -> dict[str, Any]:
    return {
        "best": best,
        "shape": option.shape,
        "class": option.capacity_class.value,
        "way": option.way,
        "instances": option.instances,
        "instances_per_node": option.per_node,
        "nodes": option.nodes,
        "rate_each": round(option.each, 3),
        "batch": option.rows,
        "per_hour": format_price(option.micros_per_hour),
        "per_million": format_price(option.micros_per_million),
        "instance_per_hour": format_price(option.instance_micros_per_hour),
        "meets_slo": option.meets_objective,
    }


def _plain_variant(priced: Priced, best: bool) -> dict[str, Any]:
    quality = priced.quality
    return {
        **_plain_option(priced.option, best),
        "variant": priced.variant,
        "per_month": format_price(priced.micros_per_month),
        "saves_per_month": _price(priced.saved_micros_per_month),
        "saves_share": None if priced.share is None else round(priced.share, 4),
        "quality": None
        if quality is None
        else {"kind": quality.kind, "share": quality.share, "lower": quality.lower, "floor": quality.floor},
    }


def _price(micros: int | None) -> str | None:
    return None if micros is None else _signed(micros)


def _signed(micros: int) -> str:
    return f"-{format_price(-micros)}" if micros < 0 else format_price(micros)


def _whole(micros: int) -> str:
    """To the hundredth: what a month costs is read, not added up."""
    return f"{micros / 1e6:,.2f}"
