"""When requests are due, and what came of them. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from benchmarks.figures import quantile


@dataclass(frozen=True, slots=True)
class Plan:
    """A fixed rate.

    Attributes:
        rate: requests per second.
        warm_up_s: requests due before this are sent and not counted.
        seconds: that are counted, after the warm-up.
    """

    rate: float
    warm_up_s: float
    seconds: float

    @property
    def count(self) -> int:
        return math.floor(self.rate * (self.warm_up_s + self.seconds))

    def due(self, number: int) -> float:
        """Seconds after the start; evenly spaced."""
        return number / self.rate

    @property
    def first_counted(self) -> int:
        return math.ceil(self.rate * self.warm_up_s)


@dataclass(frozen=True, slots=True)
class Done:
    """One request that was answered. Seconds after the start."""

    number: int
    at: float
    ok: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of the counted requests.

    Attributes:
        offered: were due.
        ok, failed: were answered, well or not.
        unanswered: were not, until the generator gave up.
        in_time: ok within the limit that was asked for, from when they were due.
        p50_ms, p99_ms: from due to answered, of ok ones; unanswered ones count as infinitely late, and an
            infinite quantile is -1, because JSON has no infinity.
        late_p99_ms: how much later than due the generator itself got to it.
    """

    offered: int
    ok: int
    failed: int
    unanswered: int
    in_time: int
    p50_ms: float
    p99_ms: float
    late_p99_ms: float

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def summarise(plan: Plan, done: Iterable[Done], sent_at: list[float], limit_s: float = math.inf) -> Outcome:
    """Latency is `done.at` minus when the request was due, never when it was sent.

    Args:
        sent_at: by number; what never left is missing at the end.
        limit_s: for `in_time`.
    """
    first, count = plan.first_counted, plan.count
    counted = [item for item in done if item.number >= first]
    latencies = sorted(item.at - plan.due(item.number) for item in counted if item.ok)
    failed = sum(not item.ok for item in counted)
    unanswered = count - first - len(counted)
    with_missing = latencies + [math.inf] * unanswered
    late = sorted(at - plan.due(number) for number, at in enumerate(sent_at) if number >= first)
    return Outcome(
        count - first,
        len(latencies),
        failed,
        unanswered,
        sum(latency <= limit_s for latency in latencies),
        _milliseconds(with_missing, 0.5),
        _milliseconds(with_missing, 0.99),
        _milliseconds(late, 0.99),
    )


def _milliseconds(ordered: list[float], share: float) -> float:
    value = quantile(ordered, share) if ordered else math.inf
    return -1.0 if math.isinf(value) else value * 1000
