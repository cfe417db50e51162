"""What was measured, as JSON: one file per run, written anew after every measurement so that a break loses nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.paths import RESULTS


@dataclass(frozen=True, slots=True)
class Closed:
    """One closed-loop measurement.

    Attributes:
        rate: served per second; the smaller of what h2load and, where it counts, the server say.
        seen_rate: what h2load alone would have said.
        refused: answers that were not a success.
    """

    system: str
    workload: str
    in_flight: int
    round: int
    seconds: float
    rate: float
    seen_rate: float
    refused: int
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Open:
    """One open-loop measurement.

    Attributes:
        fraction: of the system's own capacity; 0: the rate was fixed for all.
        failed: answered badly, or not at all.
        p50_ms, p99_ms: -1 where so many were not answered that there is none.
        late_p99_ms: of the generator.
    """

    system: str
    workload: str
    rate: float
    fraction: float
    round: int
    ok: int
    failed: int
    p50_ms: float
    p99_ms: float
    late_p99_ms: float


@dataclass(frozen=True, slots=True)
class Special:
    """One measurement of a kind of its own: `kind` says which, `values` are its figures by name."""

    kind: str
    round: int
    values: dict[str, float]


@dataclass(frozen=True, slots=True)
class Failure:
    """A system that could not be measured, and why."""

    system: str
    workload: str
    reason: str


@dataclass
class Run:
    """All of one run.

    Attributes:
        machine: as `report.machine` reads it.
        versions: by system.
        settings: what the run was asked for.
    """

    started: str
    machine: dict[str, str]
    versions: dict[str, str]
    settings: dict[str, Any]
    closed: list[Closed] = field(default_factory=list)
    open: list[Open] = field(default_factory=list)
    special: list[Special] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    minutes: float = 0.0

    def closed_rates(self, system: str, workload: str, in_flight: int) -> list[float]:
        return [item.rate for item in self.closed_of(system, workload, in_flight)]

    def closed_of(self, system: str, workload: str, in_flight: int) -> list[Closed]:
        key = (system, workload, in_flight)
        return [item for item in self.closed if (item.system, item.workload, item.in_flight) == key]

    def values_of(self, kind: str, name: str) -> list[float]:
        return [item.values[name] for item in self.special if item.kind == kind and name in item.values]


def new_path() -> Path:
    """Named by the time, so that names sort by age."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    return RESULTS / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"


def save(run: Run, path: Path) -> None:
    """Whole or not at all."""
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(asdict(run), indent=1))
    draft.replace(path)


def load(path: Path) -> Run:
    """What `save` wrote."""
    data = json.loads(path.read_text())
    kinds: dict[str, Any] = {"closed": Closed, "open": Open, "special": Special, "failures": Failure}
    return Run(**{key: _many(kinds[key], value) if key in kinds else value for key, value in data.items()})


def newest() -> Path:
    """Raises FileNotFoundError where nothing has been run yet."""
    found = sorted(RESULTS.glob("*.json"))
    if not found:
        raise FileNotFoundError(f"no results in {RESULTS}: run `python -m benchmarks run`")
    return found[-1]


def merged(runs: Iterable[Run]) -> Run:
    """Several runs as one, described as the last. For cells that were measured again."""
    *others, last = runs
    for other in reversed(others):
        for name in ("closed", "open", "special", "failures"):
            getattr(last, name)[:0] = getattr(other, name)
        last.minutes += other.minutes
        last.versions = {**other.versions, **last.versions}
    return last


def _many(kind: Any, items: list[dict[str, Any]]) -> list[Any]:
    return [kind(**item) for item in items]
