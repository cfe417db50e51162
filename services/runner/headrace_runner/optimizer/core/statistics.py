"""How much a share that was counted on samples says about the share to expect.

The interval is Wilson's (E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA
22, 1927): it inverts the score test, so it stays inside 0 to 1 and holds for shares near 1, where the normal
approximation's interval has no width at all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

CONFIDENCE = 0.95
_Z = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)


@dataclass(frozen=True, slots=True)
class Interval:
    """Where the share lies with the confidence `CONFIDENCE`: 0 <= lower <= share <= upper <= 1."""

    share: float
    lower: float
    upper: float


def wilson(share: float, count: int) -> Interval:
    """Args:
    share: of successes, 0..1.
    count: samples, at least 1.
    """
    if not 0.0 <= share <= 1.0 or count < 1:
        raise ValueError(f"expected a share of 0 to 1 and at least one sample; got {share} of {count}")
    spread = _Z * _Z / count
    centre = (share + spread / 2) / (1 + spread)
    half = math.sqrt(share * (1 - share) * spread + spread * spread / 4) / (1 + spread)
    # Rounding must not put the share outside of its own interval.
    return Interval(share, min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half)))


def samples_needed(share: float, floor: float) -> int | None:
    """Least count at which the interval's lower bound reaches the floor, if the share stays what it is.

    The score test that Wilson's interval inverts gives it in closed form: (share - floor)^2 n >= z^2 floor (1 - floor).

    Args:
        floor: 0 < floor < 1.

    Returns:
        None where the share isn't above the floor: then no number of samples shows that it is.
    """
    if share <= floor:
        return None
    return max(1, math.ceil(_Z * _Z * floor * (1 - floor) / (share - floor) ** 2 - 1e-9))
