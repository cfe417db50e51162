"""The page as a whole."""

from __future__ import annotations

from pathlib import Path

from benchmarks.paths import IMAGES, PAGE
from benchmarks.records import Run
from benchmarks.report import plots
from benchmarks.report.tables import (
    latency_table,
    open_table,
    ratio_table,
    refused_table,
    rest_table,
    special_table,
    systems_of,
    table,
    target_table,
    throughput_table,
)
from benchmarks.systems import SYSTEMS

METHOD = Path(__file__).with_name("method.md")
REMARKS = Path(__file__).with_name("remarks.md")
_WORKLOADS = {
    "mlp": "64 -> 256 -> 10, fp32: 256 bytes a request, a few microseconds of work",
    "image": "3x224x224 fp32 to its three means: 602 KB a request, little work",
    "magika": "a real model, features of real files: 8 KB a request, milliseconds of work",
}
_OPEN_LOOP = (
    "Requests leave at fixed times, whatever the server does; latency counts from when a request was due. Failed and "
    "unanswered requests are counted, and unanswered ones are infinitely late."
)
_SPECIALS = {
    "bare": "Bare ONNX Runtime: magika in a loop at batch 8 (rows per second)",
    "goodput": "Overload: an engine of 5 ms per batch of 8, twice its capacity offered, a deadline of 50 ms",
    "tenants": "Two tenants of weights 3 and 1, 128 requests in flight each, one shared model (what was served)",
    "memory": "Resident MiB of router (with Envoy) and runner after so many mlp requests",
}


def write(run: Run, page: Path = PAGE, images: Path = IMAGES) -> Path:
    """Writes page and plots; where the page is."""
    titles = {name: system.title for name, system in SYSTEMS.items()}
    drawn = _draw(run, titles, images)
    links = {name: f"![{name}]({path.relative_to(page.parent)})" for name, path in drawn.items()}
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(render(run, titles, links))
    return page


def render(run: Run, titles: dict[str, str], images: dict[str, str]) -> str:
    """Markdown. `images` has links by "throughput-WORKLOAD" and "latency"."""
    parts = [
        "# Benchmarks",
        "This page is written by `make bench`; do not edit it.",
        _head(run, titles),
        "## Targets",
        "Ratios are of medians within this run, headrace over the peer.",
        target_table(run),
        REMARKS.read_text().strip(),
        _failures(run, titles),
    ]
    for workload, words in _WORKLOADS.items():
        if systems_of(run, workload):
            parts += _workload(run, workload, words, titles, images)
    if rest := rest_table(run, titles):
        parts += ["## mlp over REST with JSON, 64 in flight", rest]
    if run.open:
        parts += ["## mlp, open loop", _OPEN_LOOP, images.get("latency", ""), open_table(run, titles)]
    for kind, words in _SPECIALS.items():
        if any(item.kind == kind for item in run.special):
            parts += [f"## {words}", special_table(run, kind)]
    refused = refused_table(run, titles)
    parts += ["## Refused or failed", refused or "No closed-loop request was refused or failed."]
    parts += ["## Method", METHOD.read_text().strip()]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(run: Run, titles: dict[str, str]) -> str:
    machine = [("measured", run.started), *run.machine.items()]
    settings = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in run.settings.items())
    machine.append(("run", f"{settings}; {run.minutes:.0f} minutes"))
    versions = [
        (titles.get(name, name), version.replace("|", "/"), getattr(SYSTEMS.get(name), "protocol", ""))
        for name, version in run.versions.items()
    ]
    return "\n\n".join((table(("", ""), machine), table(("system", "version", "asked over"), versions)))


def _workload(run: Run, name: str, words: str, titles: dict[str, str], images: dict[str, str]) -> list[str]:
    ratios = ratio_table(run, name, titles)
    return [
        f"## {name}, closed loop",
        f"{words}. Requests served per second, median (lowest to highest round):",
        throughput_table(run, name, titles),
        images.get(f"throughput-{name}", ""),
        "Ratios of medians:" if ratios else "",
        ratios,
        "Latency in milliseconds, p50 / p99:",
        latency_table(run, name, titles),
    ]


def _failures(run: Run, titles: dict[str, str]) -> str:
    if not run.failures:
        return ""
    lines = [f"- {titles.get(item.system, item.system)}, {item.workload}: {item.reason}" for item in run.failures]
    return "\n".join(["**Not measured in this run:**", "", *lines])


def _draw(run: Run, titles: dict[str, str], folder: Path) -> dict[str, Path]:
    drawn = {}
    for workload in _WORKLOADS:
        if systems_of(run, workload):
            path = folder / f"throughput-{workload}.svg"
            plots.throughput(run, workload, titles, path)
            drawn[f"throughput-{workload}"] = path
    if run.open:
        drawn["latency"] = folder / "latency-mlp.svg"
        plots.latency(run, titles, drawn["latency"])
    return drawn
