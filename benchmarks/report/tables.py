"""Markdown tables out of a run. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from benchmarks.figures import Spread, median, ratio, spread
from benchmarks.plan import REST
from benchmarks.records import Closed, Run
from benchmarks.report.targets import targets

HEADRACE = "headrace"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells must not hold a "|"."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def target_table(run: Run) -> str:
    """One row per target."""
    rows = [
        (
            target.what,
            target.against,
            target.bound,
            "; ".join(figure.text() for figure in target.figures),
            target.verdict,
        )
        for target in targets(run)
    ]
    return table(("what", "against", "target", "figure", "verdict"), rows)


def throughput_table(run: Run, workload: str, titles: dict[str, str]) -> str:
    """Requests per second: medians, and (lowest to highest) of the rounds."""
    return _by_load(run, workload, titles, lambda items: _with_range(spread([item.rate for item in items])))


def latency_table(run: Run, workload: str, titles: dict[str, str]) -> str:
    """Milliseconds: p50 / p99, medians of the rounds."""

    def cell(items: list[Closed]) -> str:
        return f"{median([item.p50_ms for item in items]):.2f} / {median([item.p99_ms for item in items]):.2f}"

    return _by_load(run, workload, titles, cell)


def ratio_table(run: Run, workload: str, titles: dict[str, str]) -> str:
    """Throughput of headrace over each peer's."""

    def cell_of(system: str, load: int) -> str:
        ours, theirs = (run.closed_rates(name, workload, load) for name in (HEADRACE, system))
        return f"{ratio(spread(ours), spread(theirs)):.2f}" if ours and theirs else ""

    loads = loads_of(run, workload)
    peers = [system for system in systems_of(run, workload) if system != HEADRACE]
    if HEADRACE not in systems_of(run, workload) or not peers:
        return ""
    rows = [(titles.get(system, system), *(cell_of(system, load) for load in loads)) for system in peers]
    return table(("headrace over", *(f"at {load}" for load in loads)), rows)


def open_table(run: Run, titles: dict[str, str]) -> str:
    """One row per system and offered rate."""
    keys = list(
        dict.fromkeys((item.system, item.fraction, item.rate if not item.fraction else 0.0) for item in run.open)
    )
    rows = []
    for system, fraction, fixed in keys:
        items = [
            item
            for item in run.open
            if (item.system, item.fraction) == (system, fraction) and (fraction or item.rate == fixed)
        ]
        rate = median([item.rate for item in items])
        failed = sum(item.failed for item in items)
        rows.append(
            (
                titles.get(system, system),
                f"{rate:,.0f}" + (f" ({fraction:.0%} of its own)" if fraction else ""),
                _milliseconds([item.p50_ms for item in items]),
                _milliseconds([item.p99_ms for item in items]),
                f"{failed:,}",
                f"{median([item.late_p99_ms for item in items]):.2f}",
            )
        )
    return table(("system", "req/s offered", "p50 ms", "p99 ms", "failed", "generator late, p99 ms"), rows)


def special_table(run: Run, kind: str) -> str:
    """Every figure of one kind: median and range."""
    names = list(dict.fromkeys(name for item in run.special if item.kind == kind for name in item.values))
    rows = [(name, _with_range(spread(run.values_of(kind, name)))) for name in names]
    return table(("figure", "median (range)"), rows)


def refused_table(run: Run, titles: dict[str, str]) -> str:
    """Cells where answers were no success; "" where there were none."""
    rows = [
        (
            titles.get(item.system, item.system),
            item.workload,
            str(item.in_flight),
            f"{item.refused:,}",
            f"{item.rate:,.0f}",
        )
        for item in run.closed
        if item.refused
    ]
    return table(("system", "workload", "in flight", "refused or failed", "served req/s"), rows) if rows else ""


def loads_of(run: Run, workload: str) -> list[int]:
    return sorted({item.in_flight for item in run.closed if item.workload == workload})


def systems_of(run: Run, workload: str) -> list[str]:
    """In the order they were first measured. Those over REST are compared with each other alone."""
    found = dict.fromkeys(item.system for item in run.closed if item.workload == workload)
    return [system for system in found if system not in REST]


def rest_table(run: Run, titles: dict[str, str]) -> str:
    """REST JSON, mlp at 64 in flight; "" where it was not measured."""
    rows = []
    for system in REST:
        items = run.closed_of(system, "mlp", 64)
        if items:
            latency = f"{median([item.p50_ms for item in items]):.2f} / {median([item.p99_ms for item in items]):.2f}"
            rows.append((titles.get(system, system), _with_range(spread([item.rate for item in items])), latency))
    return table(("system", "req/s", "p50 / p99 ms"), rows) if rows else ""


def _by_load(run: Run, workload: str, titles: dict[str, str], cell: Callable[[list[Closed]], str]) -> str:
    loads = loads_of(run, workload)
    rows = []
    for system in systems_of(run, workload):
        by_load = [run.closed_of(system, workload, load) for load in loads]
        rows.append((titles.get(system, system), *(cell(items) if items else "" for items in by_load)))
    for failure in run.failures:
        if failure.workload == workload and failure.system not in REST:
            rows.append(
                (titles.get(failure.system, failure.system), f"NOT MEASURED: {failure.reason}".replace("|", "/"))
            )
    width = len(loads) + 1
    return table(
        ("system", *(f"{load} in flight" for load in loads)), [(*row, *[""] * (width - len(row))) for row in rows]
    )


def _with_range(found: Spread) -> str:
    if found.rounds == 1:
        return _number(found.median)
    return f"{_number(found.median)} ({_number(found.low)} to {_number(found.high)})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"


def _milliseconds(values: list[float]) -> str:
    """-1 is infinity."""
    middle = median([float("inf") if value < 0 else value for value in values])
    return "never" if middle == float("inf") else f"{middle:.2f}"
