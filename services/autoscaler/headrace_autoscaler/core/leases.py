"""How a limit is divided among routers.

Every router process that is configured has its part, connected or not: what a router that we do not
hear may still be using is never lent to another, so that all together never exceed the limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headrace_autoscaler.domain import Limits


@dataclass(frozen=True, slots=True)
class Share:
    """One router's part. None: no limit.

    Attributes:
        floor_*: the part that holds even when the autoscaler is gone.
    """

    concurrency: int | None
    requests_per_second: float | None
    floor_concurrency: int | None
    floor_requests_per_second: float | None

    @property
    def limited(self) -> bool:
        return self.concurrency is not None or self.requests_per_second is not None


def divide(limits: Limits, routers: Sequence[str], processes: int) -> dict[str, Share]:
    """Shares by router. Whole requests that do not divide evenly go to the first routers by name.

    Args:
        routers: that are connected.
        processes: routers that are configured: "router-0" and on.
    """
    # Also of those that are away: what does not divide evenly must not move to whoever is left.
    known = sorted({*routers, *(f"router-{number}" for number in range(processes))})
    return {router: _share(limits, index, len(known)) for index, router in enumerate(known) if router in routers}


def _share(limits: Limits, index: int, parts: int) -> Share:
    concurrency = floor = None
    if limits.concurrency is not None:
        floor, left = divmod(limits.concurrency, parts)
        concurrency = floor + (1 if index < left else 0)
    rate = None if limits.requests_per_second is None else limits.requests_per_second / parts
    return Share(concurrency, rate, floor, rate)
