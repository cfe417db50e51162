"""The targets, and whether a run met them. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from benchmarks.figures import median
from benchmarks.records import Run

NOT_MEASURED = "not measured"
_TITLES = {
    "triton": "Triton",
    "mosec": "mosec",
    "mlserver": "MLServer",
    "ray": "Ray Serve",
    "litserve": "LitServe",
    "bentoml": "BentoML",
}
_EVERY_PEER = tuple(_TITLES)
_HEAVY_OVER_LIGHT = 3.0


@dataclass(frozen=True, slots=True)
class Figure:
    """One number and its bounds.

    Attributes:
        value: None where it was not measured.
    """

    label: str
    value: float | None
    at_least: float = -math.inf
    at_most: float = math.inf
    unit: str = ""

    @property
    def met(self) -> bool:
        return self.value is not None and self.at_least <= self.value <= self.at_most

    def text(self) -> str:
        shown = NOT_MEASURED if self.value is None else f"{_shown(self.value)}{self.unit}"
        return f"{self.label}: {shown}" if self.label else shown


@dataclass(frozen=True, slots=True)
class Target:
    """A row of the table. It is met if each of its figures is."""

    what: str
    against: str
    bound: str
    figures: tuple[Figure, ...]

    @property
    def verdict(self) -> str:
        if any(figure.value is None for figure in self.figures):
            return NOT_MEASURED if not any(_missed(figure) for figure in self.figures) else "missed"
        return "met" if all(figure.met for figure in self.figures) else "missed"


def targets(run: Run) -> list[Target]:
    """Every target with what this run says of it."""

    def throughput(workload: str, in_flight: int, peer: str, bound: float, label: str = "") -> Figure:
        ours, theirs = (run.closed_rates(system, workload, in_flight) for system in ("headrace", peer))
        return Figure(label, _ratio(ours, theirs), at_least=bound)

    return [
        Target("mlp throughput at 64 in flight", "Triton", ">= 1.8", (throughput("mlp", 64, "triton", 1.8),)),
        Target("mlp throughput at 512 in flight", "Triton", ">= 3.0", (throughput("mlp", 512, "triton", 3.0),)),
        Target(
            "mlp throughput at 64 and 512 in flight",
            "mosec",
            ">= 1.0",
            tuple(throughput("mlp", load, "mosec", 1.0, str(load)) for load in (64, 512)),
        ),
        Target("mlp latency (p50) at 1 in flight", "Triton", "<= 1.0", (_latency_at_one(run),)),
        Target(
            "mlp p99 at 4,000 and 8,000 req/s, open loop",
            "Triton",
            "<= 1.0",
            tuple(_open_p99(run, rate) for rate in (4000.0, 8000.0)),
        ),
        Target("image throughput at 16 in flight", "Triton", ">= 1.5", (throughput("image", 16, "triton", 1.5),)),
        Target(
            "magika throughput at 64 in flight",
            "every peer; bare ONNX Runtime at batch 8",
            ">= 1.0; >= 0.9",
            (
                *(throughput("magika", 64, peer, 1.0, _TITLES[peer]) for peer in _EVERY_PEER),
                Figure("bare", _ratio(run.closed_rates("headrace", "magika", 64), run.values_of("bare", "rate")), 0.9),
            ),
        ),
        Target(
            "mlp throughput at 64 in flight",
            "MLServer, LitServe, BentoML, Ray Serve",
            ">= 8",
            tuple(
                throughput("mlp", 64, peer, 8.0, _TITLES[peer]) for peer in ("mlserver", "litserve", "bentoml", "ray")
            ),
        ),
        Target(
            "goodput at 2x capacity, 50 ms deadline; p99 of what was admitted",
            "own peak",
            ">= 0.9; <= 50 ms",
            (
                Figure("goodput", _middle(run.values_of("goodput", "share")), at_least=0.9),
                Figure("p99", _finite(run.values_of("goodput", "p99_ms")), at_most=50.0, unit=" ms"),
            ),
        ),
        Target(
            "two tenants, weights 3:1, both flooding",
            "their weights",
            "3 within 5 %",
            (
                Figure(
                    "",
                    _finite(run.values_of("tenants", "ratio")),
                    at_least=_HEAVY_OVER_LIGHT * 0.95,
                    at_most=_HEAVY_OVER_LIGHT * 1.05,
                ),
            ),
        ),
        Target("REST JSON throughput, mlp at 64 in flight", "MLServer REST", ">= 5", (_rest(run),)),
        Target(
            "resident size after 1,000,000 requests",
            "that after 100,000",
            "<= 1.05",
            tuple(
                Figure(name, _middle(run.values_of("memory", f"{name} growth")), at_most=1.05)
                for name in ("router", "runner")
            ),
        ),
    ]


def _latency_at_one(run: Run) -> Figure:
    ours, theirs = ([item.p50_ms for item in run.closed_of(system, "mlp", 1)] for system in ("headrace", "triton"))
    return Figure("", _ratio(ours, theirs), at_most=1.0)


def _open_p99(run: Run, rate: float) -> Figure:
    ours, theirs = (
        [
            math.inf if item.p99_ms < 0 or item.failed else item.p99_ms
            for item in run.open
            if (item.system, item.rate, item.fraction) == (system, rate, 0.0)
        ]
        for system in ("headrace", "triton")
    )
    return Figure(f"{rate:,.0f}", _ratio(ours, theirs), at_most=1.0)


def _rest(run: Run) -> Figure:
    ours, theirs = (run.closed_rates(system, "mlp", 64) for system in ("headrace-rest", "mlserver-rest"))
    return Figure("", _ratio(ours, theirs), at_least=5.0)


def _ratio(ours: list[float], theirs: list[float]) -> float | None:
    """Of medians. A peer that served nothing is infinitely far behind; one that is infinitely late likewise."""
    if not ours or not theirs:
        return None
    above, below = median(ours), median(theirs)
    if math.isinf(above):
        return math.inf
    return above / below if below else math.inf


def _middle(values: list[float]) -> float | None:
    return median(values) if values else None


def _finite(values: list[float]) -> float | None:
    """The median, where -1 stands for infinity."""
    return _middle([math.inf if value < 0 else value for value in values])


def _missed(figure: Figure) -> bool:
    return figure.value is not None and not figure.met


def _shown(value: float) -> str:
    return "infinite" if math.isinf(value) else f"{value:.2f}" if value < 100 else f"{value:.0f}"
