"""Which requests are admitted: concurrency, rate and budget of a tenant, as a router has them."""

from __future__ import annotations

import math

from headrace_autoscaler.domain import Tenant

BURST_S = 1.0
"""A bucket holds this many seconds of its rate, as a router's does."""
ROUNDING_S = 1e-9
OVER_CONCURRENCY = "over concurrency"
OVER_RATE = "over rps"
BUDGET_SPENT = "budget spent"


class Door:
    """One tenant's. Rates are kept as GCRA (the virtual scheduling form of the token bucket, ITU-T I.371).

    One router has all of both: the tenant's nominal quantities, or what it is lent of its cohort's (see `leasing`).

    Attributes:
        spent: a budget is: new requests are refused or wait, as the tenant chose.
    """

    __slots__ = ("_concurrency", "_full_at", "_in_hand", "_interval_s", "_queues", "_slack_s", "spent")

    def __init__(self, tenant: Tenant) -> None:
        limits = tenant.nominal
        self._concurrency = math.inf if limits.concurrency is None else limits.concurrency
        self._interval_s, self._slack_s = pace(limits.requests_per_second)
        self._full_at = -math.inf
        self._in_hand = 0
        self._queues = not tenant.refuse_at_budget
        self.spent = False

    @property
    def holds(self) -> bool:
        """What is admitted waits unsent until the budget is whole again."""
        return self.spent and self._queues

    def refusal(self, now: float) -> str:
        """Why one more request may not come now; empty: it may. Takes nothing."""
        if self.spent and not self._queues:
            return BUDGET_SPENT
        if self._in_hand >= self._concurrency:
            return OVER_CONCURRENCY
        return OVER_RATE if self._full_at > now + self._slack_s or math.isinf(self._interval_s) else ""

    def enter(self, now: float) -> None:
        self._in_hand += 1
        if self._interval_s:
            self._full_at = max(self._full_at, now) + self._interval_s

    def leave(self) -> None:
        self._in_hand -= 1

    def obey(self, concurrency: int | None, rate: float | None, now: float) -> None:
        """Limits from now on; None: there is none, as before. What is in hand stays. The bucket keeps what it holds, as
        far as its new size lets it: a rate that moves takes no tokens along."""
        self._concurrency = math.inf if concurrency is None else concurrency
        interval_s, slack_s = pace(rate)
        if rate is None or interval_s == self._interval_s:
            return
        held = self._held(now)
        self._interval_s, self._slack_s = interval_s, slack_s
        if rate:
            size = slack_s / interval_s + 1.0
            self._full_at = now + (size - min(held, size)) * interval_s

    def _held(self, now: float) -> float:
        if math.isinf(self._interval_s):
            return 0.0
        return (self._slack_s - max(0.0, self._full_at - now)) / self._interval_s + 1.0


def pace(rate: float | None) -> tuple[float, float]:
    """Seconds between requests, and how much earlier than that the last of a burst may come. Of no limit: 0 and 0;
    of a rate of 0: infinity."""
    if rate is None:
        return 0.0, 0.0
    if not rate:
        return math.inf, 0.0
    return 1.0 / rate, max(0.0, BURST_S - 1.0 / rate) + ROUNDING_S


def door_of(tenant: Tenant) -> Door | None:
    """None: nothing of the tenant's requests is limited."""
    limits = tenant.nominal
    known = (
        limits.concurrency, limits.requests_per_second, limits.budget_micros_per_hour, limits.budget_micros_per_month,
    )  # fmt: skip
    return None if all(each is None for each in known) else Door(tenant)
