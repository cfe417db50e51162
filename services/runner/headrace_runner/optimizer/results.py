"""What a run found, as objects and as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from headrace_runner.optimizer.core.choice import Choice, Demand, Judgement

FORMAT = 1
"""Of the manifest."""


@dataclass(frozen=True, slots=True)
class File:
    """A variant's file, relative to the output folder."""

    name: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Making:
    """How a variant was made."""

    precision: str
    what: str
    engines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """Attributes:
    source: path as given; with the digest of its file.
    samples: how many calibrated, how many measured, how many were repetitions.
    machine: where it was measured, and on what engine.
    notes: what else a reader should know.
    files: by variant; empty where nothing is kept.
    """

    source: str
    source_sha256: str
    demand: Demand
    choice: Choice
    makings: Mapping[str, Making]
    samples: Mapping[str, int]
    machine: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    files: Mapping[str, File] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """JSON's types only. Seconds are `_s`, bytes `_bytes`."""
        demand = self.demand
        return {
            "format": FORMAT,
            "source": {"path": self.source, "sha256": self.source_sha256},
            "quality": demand.quality,
            "floor": demand.floor,
            "latency_s": demand.latency_s,
            "samples": dict(self.samples),
            "machine": dict(self.machine),
            "chosen": self.choice.chosen,
            "reason": self.choice.reason,
            "notes": list(self.notes),
            "variants": [self._variant(each) for each in self.choice.judgements],
        }

    def _variant(self, judgement: Judgement) -> dict[str, Any]:
        candidate, interval = judgement.candidate, judgement.candidate.interval
        making, file = self.makings[candidate.name], self.files.get(candidate.name)
        return {
            "name": candidate.name,
            "precision": making.precision,
            "what": making.what,
            "engines": list(making.engines),
            "verdict": judgement.verdict.value,
            "reason": judgement.reason,
            "on_front": judgement.on_front,
            "size_bytes": candidate.size_bytes,
            "quality": None
            if interval is None
            else {
                "share": interval.share,
                "lower": interval.lower,
                "upper": interval.upper,
                "samples": candidate.total,
            },
            "cpu_s_per_row": judgement.cost_s,
            "timings": [
                {
                    "rows": each.rows,
                    "latency_s": each.latency_s,
                    "cpu_s": each.cpu_s,
                    "rows_per_s": each.rows_per_s,
                }
                for each in candidate.timings
            ],
            "file": None if file is None else {"name": file.name, "sha256": file.sha256},
        }
