"""A result as Markdown, for people who weren't there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from headrace_runner.optimizer.core.choice import Judgement, Verdict
from headrace_runner.optimizer.results import Result


def markdown(result: Result, picture: str | None) -> str:
    """Args:
    picture: file name of the plot; None where there is none.
    """
    return "\n".join(_lines(result, picture)) + "\n"


def _lines(result: Result, picture: str | None) -> Iterator[str]:
    machine, samples, demand = result.machine, result.samples, result.demand
    latency = "" if demand.latency_s is None else f", latency {demand.latency_s * 1e3:g} ms"
    yield f"# {result.source}, optimised"
    yield ""
    yield result.choice.reason
    yield ""
    yield f"- Asked for: {demand.quality} of {demand.floor:g} or more{latency}."
    yield (
        f"- Samples: {samples['calibrating']:,} calibrated, {samples['measuring']:,} others measured; "
        f"{samples['repeated']:,} repetitions were left out. Intervals are Wilson's, 95 %."
    )
    yield f"- Measured on {machine['date']}: {machine['cpu']}, {machine['engine']}, {machine['threads']} thread(s)."
    yield f"- The model as it came: sha256 {result.source_sha256}."
    for note in result.notes:
        yield f"- Note: {note}."
    yield ""
    yield from _table(result)
    out = [each for each in result.choice.judgements if each.verdict is Verdict.DISQUALIFIED]
    if out:
        yield ""
        yield "## Disqualified"
        yield ""
        for each in out:
            yield f"- `{each.candidate.name}`: {each.reason}"
    yield ""
    if picture:
        yield f"![{demand.quality} by processor time]({picture})"
    else:
        yield "There is no plot: matplotlib is not installed (`pip install matplotlib`)."


def _table(result: Result) -> Iterator[str]:
    judged = [each for each in result.choice.judgements if each.verdict is not Verdict.DISQUALIFIED]
    sizes = [timing.rows for timing in judged[0].candidate.timings] if judged else []
    columns = ["", "variant", "how", "size", result.demand.quality, "95 % interval", "CPU per row"]
    columns += [f"p50 at {rows}" for rows in sizes] + [f"rows/s at {rows}" for rows in sizes] + ["verdict"]
    yield _row(columns)
    yield _row(["---"] * len(columns))
    base = judged[0].candidate.size_bytes if judged else 1
    for each in judged:
        yield _row(_cells(each, result, base))
    yield ""
    yield "`*` is chosen; `+` is on the front: nothing is at least as good, small and cheap, and better in one of them."


def _cells(each: Judgement, result: Result, base: int) -> list[str]:
    candidate, interval = each.candidate, each.candidate.interval
    mark = "*" if candidate.name == result.choice.chosen else "+" if each.on_front else ""
    return [
        mark,
        f"`{candidate.name}`",
        result.makings[candidate.name].what,
        f"{candidate.size_bytes:,} B ({candidate.size_bytes / base:.2f})",
        "-" if interval is None else f"{interval.share:.4f}",
        "-" if interval is None else f"{interval.lower:.4f} to {interval.upper:.4f}",
        "-" if each.cost_s is None else f"{each.cost_s * 1e3:.3g} ms",
        *(f"{timing.latency_s * 1e3:.3g} ms" for timing in candidate.timings),
        *(f"{timing.rows_per_s:,.0f}" for timing in candidate.timings),
        each.verdict.value,
    ]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
