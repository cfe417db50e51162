"""Which variants are good enough, which are worth a look, and which one to take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from headrace_runner.optimizer.core.statistics import Interval, samples_needed, wilson

SAME_COST = 0.05
"""Variants whose cost differs by less count as equally dear, and the smaller one is taken: medians of interleaved
rounds repeat about as well.
"""


@dataclass(frozen=True, slots=True)
class Timing:
    """One batch of `rows`: seconds of waiting and of all processors, medians."""

    rows: int
    latency_s: float
    cpu_s: float

    @property
    def rows_per_s(self) -> float:
        return self.rows / self.latency_s


@dataclass(frozen=True, slots=True)
class Candidate:
    """A variant and what was measured of it.

    Attributes:
        right: held-out samples with the right answer.
        total: held-out samples; 0 where there was no answer.
        timings: one per batch size.
        problem: why it is out of the question; empty where it is not.
    """

    name: str
    size_bytes: int
    right: int
    total: int
    timings: tuple[Timing, ...]
    problem: str = ""

    @property
    def interval(self) -> Interval | None:
        return wilson(self.right / self.total, self.total) if self.total else None


@dataclass(frozen=True, slots=True)
class Demand:
    """What a variant must keep: a share of right answers, and a latency where one is given.

    Attributes:
        quality: "agreement" or "accuracy", for messages.
    """

    floor: float
    latency_s: float | None
    quality: str


class Verdict(StrEnum):
    FITS = "fits"
    BELOW_FLOOR = "below floor"
    UNDECIDED = "undecided"
    TOO_SLOW = "too slow"
    DISQUALIFIED = "disqualified"


@dataclass(frozen=True, slots=True)
class Judgement:
    """Attributes:
    cost_s: processor seconds per row at the best batch size within the latency; None where none is.
    on_front: nothing else is at least as good, as small and as cheap, and better in one of them.
    """

    candidate: Candidate
    verdict: Verdict
    reason: str
    cost_s: float | None
    on_front: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """Attributes:
    chosen: name; None where nothing fits.
    reason: one sentence or more, for people.
    """

    judgements: tuple[Judgement, ...]
    chosen: str | None
    reason: str


def choose(candidates: Sequence[Candidate], demand: Demand) -> Choice:
    """The cheapest candidate whose interval lies above the floor, and what could not be told."""
    judged = [_judge(each, demand) for each in candidates]
    front = _front(judged)
    judgements = tuple(
        Judgement(each.candidate, each.verdict, each.reason, each.cost_s, each.candidate.name in front)
        for each in judged
    )
    best = _cheapest([each for each in judgements if each.verdict is Verdict.FITS])
    open_questions = [each for each in judgements if each.verdict is Verdict.UNDECIDED and _cheaper(each, best)]
    sentences = [_praise(best, demand) if best else _nothing(judgements, demand)]
    sentences += [f"{each.candidate.name} might be cheaper: {each.reason}." for each in open_questions]
    return Choice(judgements, best.candidate.name if best else None, " ".join(sentences))


def cost_s(timings: Sequence[Timing], latency_s: float | None) -> float | None:
    within = [each.cpu_s / each.rows for each in timings if latency_s is None or each.latency_s <= latency_s]
    return min(within, default=None)


def _judge(candidate: Candidate, demand: Demand) -> Judgement:
    interval = candidate.interval
    if candidate.problem or interval is None:
        return Judgement(candidate, Verdict.DISQUALIFIED, candidate.problem or "it gave no answer", None)
    cost = cost_s(candidate.timings, demand.latency_s)
    seen = f"{demand.quality} {interval.share:.4f} ({interval.lower:.4f} to {interval.upper:.4f})"
    if interval.share <= demand.floor and interval.lower < demand.floor:
        return Judgement(candidate, Verdict.BELOW_FLOOR, f"{seen} is not above the floor {demand.floor:g}", cost)
    if cost is None:
        fastest = min((each.latency_s for each in candidate.timings), default=float("inf"))
        return Judgement(candidate, Verdict.TOO_SLOW, f"{fastest * 1e3:.3g} ms at the least", None)
    if interval.lower < demand.floor:
        return Judgement(candidate, Verdict.UNDECIDED, _too_few(candidate.total, interval, seen, demand.floor), cost)
    return Judgement(candidate, Verdict.FITS, seen, cost)


def _too_few(total: int, interval: Interval, seen: str, floor: float) -> str:
    enough = samples_needed(interval.share, floor)
    return (
        f"{total:,} held-out samples are too few to tell {seen} from the floor {floor:g}; "
        f"{enough:,} would be enough if the share stays"
    )


def _cheapest(judgements: Sequence[Judgement]) -> Judgement | None:
    costs = [each.cost_s for each in judgements if each.cost_s is not None]
    if not costs:
        return None
    limit = min(costs) * (1 + SAME_COST)
    equal = [each for each in judgements if each.cost_s is not None and each.cost_s <= limit]
    return min(equal, key=lambda each: (each.candidate.size_bytes, each.cost_s))


def _cheaper(judgement: Judgement, best: Judgement | None) -> bool:
    return best is None or _cheapest([judgement, best]) is not best


def _front(judgements: Sequence[Judgement]) -> set[str]:
    """Pareto's front of quality, size and cost, among what is not disqualified and not too slow."""
    points = {
        each.candidate.name: (-each.candidate.right / each.candidate.total, each.candidate.size_bytes, each.cost_s)
        for each in judgements
        if each.cost_s is not None and each.verdict is not Verdict.DISQUALIFIED
    }
    return {
        name
        for name, point in points.items()
        if not any(
            other != point and all(theirs <= ours for theirs, ours in zip(other, point, strict=True))
            for other in points.values()
        )
    }


def _praise(best: Judgement, demand: Demand) -> str:
    within = "" if demand.latency_s is None else f" and a latency of {demand.latency_s * 1e3:g} ms"
    return f"{best.candidate.name} is the cheapest inside the floor {demand.floor:g}{within}: {best.reason}."


def _nothing(judgements: Sequence[Judgement], demand: Demand) -> str:
    found = {each.verdict for each in judgements}
    if Verdict.UNDECIDED in found:
        return "Nothing is shown to be inside the floor."
    if Verdict.TOO_SLOW in found:
        return "What is inside the floor is too slow, the original included: ask for a longer --latency."
    return f"Nothing is inside the floor {demand.floor:g}, the original included: ask for a lower --floor."
