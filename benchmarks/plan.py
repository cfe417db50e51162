"""Which cells a run has. Pure."""

from __future__ import annotations

from dataclasses import dataclass

FAST = ("headrace", "triton", "mosec")
SLOW = ("mlserver", "ray", "litserve", "bentoml")
CONTEXT = ("mosec",)
"""Fast, but no target of the open loop names it: one round."""
REST = ("headrace-rest", "mlserver-rest")
LOADS = (1, 16, 64, 512)
FIXED_RATES = (1000.0, 4000.0, 8000.0)
FRACTIONS = (0.25, 0.5, 0.75, 0.9)
SPECIALS = ("bare", "goodput", "tenants", "memory")
# 512 images in flight are 308 MB, and a model that does 100 rows a second has nothing to do with 512 of them.
_FAST_LOADS = {"mlp": (1, 16, 64, 512), "image": (1, 16, 64), "magika": (1, 16, 64)}
# Peers that serve a few hundred requests per second are asked where a target names them.
_SLOW_LOADS = {"mlp": (64,), "image": (), "magika": (64,)}


@dataclass(frozen=True, slots=True)
class Settings:
    """What to run.

    Attributes:
        seconds: each measurement's length; its warm-up is before.
        slow_rounds: of peers in SLOW and of REST; they take minutes to say little.
    """

    systems: tuple[str, ...] = (*FAST, *SLOW, *REST)
    workloads: tuple[str, ...] = ("mlp", "image", "magika")
    loads: tuple[int, ...] = LOADS
    specials: tuple[str, ...] = SPECIALS
    open_loop: bool = True
    rounds: int = 3
    slow_rounds: int = 2
    seconds: float = 8.0
    warm_up_s: float = 1.5
    memory_requests: tuple[int, int] = (100_000, 1_000_000)


@dataclass(frozen=True, slots=True)
class Turn:
    """One system is started with one workload, and asked for these loads."""

    round: int
    workload: str
    system: str
    loads: tuple[int, ...]


def closed_turns(settings: Settings) -> list[Turn]:
    """Round by round, and in a round every system in turn: what the machine does meanwhile falls on all."""
    turns = []
    for workload in settings.workloads:
        for round_ in range(max(settings.rounds, settings.slow_rounds)):
            for system in settings.systems:
                loads = tuple(load for load in _loads(system, workload) if load in settings.loads)
                if loads and round_ < _rounds(system, settings):
                    turns.append(Turn(round_, workload, system, loads))
    return turns


@dataclass(frozen=True, slots=True)
class OpenTurn:
    """One system is started with mlp and offered fixed rates; with `fractions`, of its own capacity too."""

    round: int
    system: str
    fractions: bool


def open_turns(settings: Settings) -> list[OpenTurn]:
    """Round by round, every fast system in turn."""
    return [
        OpenTurn(round_, system, round_ < settings.slow_rounds)
        for round_ in range(settings.rounds)
        for system in settings.systems
        if system in FAST and (round_ == 0 or system not in CONTEXT)
    ]


def open_rates(capacity: float, fractions: bool) -> list[tuple[float, float]]:
    """(rate, fraction of capacity or 0): the fixed rates, and the fractions of what this system can do."""
    shares = FRACTIONS if fractions else ()
    return [(rate, 0.0) for rate in FIXED_RATES] + [(round(capacity * share), share) for share in shares]


def _loads(system: str, workload: str) -> tuple[int, ...]:
    if system in REST:
        return (64,) if workload == "mlp" else ()
    return (_FAST_LOADS if system in FAST else _SLOW_LOADS)[workload]


def _rounds(system: str, settings: Settings) -> int:
    return settings.rounds if system in FAST else min(settings.rounds, settings.slow_rounds)
