"""When a failed call is sent again. Pure: no clock, no sleep, no randomness of its own.

Only `Unavailable` is worth another try: everything else would fail again, or (quota) must not be
fed by retries. Delays are exponential with jitter; a token bucket keeps retries a small share of
all requests, so that clients do not multiply the load of a mesh in trouble.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from headrace.errors import HeadraceError, InvalidArgument, Unavailable


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How a client retries.

    Attributes:
        max_attempts: sendings of one call, the first included; 1 turns retries off.
        first_delay_s: before the first retry; doubles with each further one.
        max_delay_s: longest delay.
        budget_ratio: retries that each request earns.
        budget_burst: retries that may be saved up, and that a new client starts with.
    """

    max_attempts: int = 4
    first_delay_s: float = 0.05
    max_delay_s: float = 1.0
    budget_ratio: float = 0.2
    budget_burst: float = 5.0

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise InvalidArgument(f"max_attempts: expected at least 1; got {self.max_attempts}")
        if min(self.first_delay_s, self.max_delay_s, self.budget_ratio, self.budget_burst) < 0:
            raise InvalidArgument("retry policy: delays and budget cannot be negative")


DEFAULT_RETRY = RetryPolicy()


class RetryBudget:
    """A token bucket that all calls of one client share. Thread-safe."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._tokens = policy.budget_burst
        self._lock = threading.Lock()

    def earn(self) -> None:
        """A request was made."""
        with self._lock:
            self._tokens = min(self._policy.budget_burst, self._tokens + self._policy.budget_ratio)

    def spend(self) -> bool:
        """Takes one retry; False: there is none left."""
        with self._lock:
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True


class Attempts:
    """One call's sendings.

    Args:
        policy: how to retry.
        budget: shared by the client's calls.
        deadline_s: on the caller's clock; None: no deadline.
    """

    def __init__(self, policy: RetryPolicy, budget: RetryBudget, deadline_s: float | None) -> None:
        self._policy = policy
        self._budget = budget
        self._deadline_s = deadline_s
        self._sent = 1
        budget.earn()

    def remaining_s(self, now: float) -> float | None:
        """Time left for a sending, never negative; None: no deadline."""
        return None if self._deadline_s is None else max(0.0, self._deadline_s - now)

    def delay_s(self, error: HeadraceError, now: float, jitter: float) -> float | None:
        """How long to wait before sending again; None: give up.

        Args:
            error: why the last sending failed.
            now: on the deadline's clock.
            jitter: uniform in [0, 1).
        """
        if not isinstance(error, Unavailable) or self._sent >= self._policy.max_attempts:
            return None
        doubled = self._policy.first_delay_s * 2.0 ** (self._sent - 1)
        delay_s = min(self._policy.max_delay_s, doubled) * (0.5 + jitter / 2)
        remaining_s = self.remaining_s(now)
        if remaining_s is not None and delay_s >= remaining_s:
            return None
        if not self._budget.spend():
            return None
        self._sent += 1
        return delay_s
