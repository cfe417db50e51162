"""What routers report, in the fleet's own types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from headrace_autoscaler.core.demand import Counts, Level
from headrace_autoscaler.core.plans import Key
from headrace_autoscaler.core.replacement import Health


@dataclass(frozen=True, slots=True)
class DemandEntry:
    """One caller's demand on one revision since the router's last report.

    Counts and level are what instances are needed for; the rest is counted by limits too.

    Attributes:
        tenant: who called.
        refused: not answered with a result, for whatever reason.
        cache_hits: answered without an execution of their own; not in `counts`.
        held: wait for a budget; not in `level`.
        following: wait for the answer of an equal request; not in `level`.
        over_rate: of `refused`, those that a rate refused.
        refusals: of `refused`, how many by which reason.
        network_bytes: tensors of those that were answered, in and out.
    """

    tenant: str
    model: str
    revision: int
    counts: Counts = field(default_factory=Counts)
    level: Level = field(default_factory=Level)
    refused: int = 0
    cache_hits: int = 0
    following: int = 0
    held: int = 0
    over_rate: int = 0
    network_bytes: int = 0
    refusals: Mapping[str, int] = field(default_factory=dict)

    @property
    def answered(self) -> int:
        """By an engine or without one."""
        return self.counts.completed + self.cache_hits

    @property
    def key(self) -> Key:
        return (self.model, self.revision)


@dataclass(frozen=True, slots=True)
class ColdStartEntry:
    """The end of a cold start, as a router saw it. Seconds."""

    instance: str
    model: str
    revision: int
    load_s: float
    warm_s: float
    first_answer_s: float
    total_s: float


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """Memory that a model's cached answers took at a router since its last report."""

    model: str
    byte_seconds: int


@dataclass(frozen=True, slots=True)
class Report:
    """`urgent` ones speak only of what they name; others are complete.

    Attributes:
        period_s: what counts are of; 0: not said.
    """

    router: str
    entries: tuple[DemandEntry, ...] = ()
    cold_starts: tuple[ColdStartEntry, ...] = ()
    runners: tuple[Health, ...] = ()
    urgent: bool = False
    period_s: float = 0.0
    caches: tuple[CacheEntry, ...] = ()
