"""What each router needs of the limits, from its demand reports."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from math import exp

from headrace_autoscaler.core.leases import Want

MEMORY_S = 2.0
"""Needs rise at once and are forgotten over this."""
NEGLIGIBLE = 0.01
_SHORTEST_S = 0.05
_SURE_S = 0.2
"""Of less than this a few arrivals look like a high rate."""


@dataclass(frozen=True, slots=True)
class Use:
    """One caller's use of one model since the router's last report.

    Attributes:
        arrivals: all that came, whatever became of them.
        in_hand: queued, at runners or waiting for an equal one now.
        hits: of the arrivals, those that were answered without an execution of their own.
        over_rate: of the refused, those that a rate refused.
    """

    tenant: str
    model: str
    arrivals: int
    refused: int
    in_hand: int
    hits: int = 0
    over_rate: int = 0


class WantMeter:
    """Of one router. All times are monotonic seconds."""

    def __init__(self, now: float) -> None:
        self._at = now
        self._wants: dict[str, Want] = {}

    def report(
        self,
        uses: Iterable[Use],
        now: float,
        *,
        complete: bool,
        period_s: float = 0.0,
        own: Callable[[str], float] = lambda _: 0.0,
    ) -> dict[str, Want]:
        """The needs by key, "tenant" and "tenant/model".

        Args:
            complete: what the report does not name is not used; otherwise it says nothing of that.
            period_s: what arrivals are of, by the router; 0: since the report before this one was handled.
            own: of a key, the rate up to which a need rises at once, as it is in hand: what lies above comes to be
                known over `MEMORY_S`, so that a burst borrows little.
        """
        period_s = max(_SHORTEST_S, period_s or now - self._at)
        self._at = now
        fresh: dict[str, Want] = {}
        for use in uses:
            for key in (use.tenant, f"{use.tenant}/{use.model}"):
                old = fresh.get(key, Want())
                fresh[key] = Want(old.rate + use.arrivals / period_s, old.in_hand + needed(use))
        keep = exp(-period_s / MEMORY_S)
        self._wants = {
            key: want
            for key in self._wants.keys() | fresh.keys()
            if (want := self._blend(key, fresh, keep, complete)) != Want()
        }
        if period_s >= _SURE_S:
            for key, want in fresh.items():
                rate = max(self._wants.get(key, Want()).rate, min(want.rate, own(key)))
                if rate > NEGLIGIBLE:
                    self._wants[key] = replace(self._wants.get(key, Want()), rate=rate)
        return self._wants

    def _blend(self, key: str, fresh: Mapping[str, Want], keep: float, complete: bool) -> Want:
        old = self._wants.get(key, Want())
        if key not in fresh and not complete:
            return old
        return _blend(old, fresh.get(key, Want()), keep)


def needed(use: Use) -> float:
    """What would be in hand, had nobody been refused: in proportion, but no more than the refused ones.

    Hits hold nothing. Nobody is refused for what is in hand who would have been one; of those over a rate as
    many would as of those admitted.
    """
    if use.refused <= 0:
        return use.in_hand
    admitted = max(use.arrivals - use.refused, use.hits)
    executed = admitted - use.hits
    missed = use.refused - use.over_rate * use.hits / (admitted or 1)
    missing = use.in_hand * missed / executed if executed > 0 else missed
    return use.in_hand + min(missing, missed)


def _blend(old: Want, fresh: Want, keep: float) -> Want:
    rate = old.rate * keep + fresh.rate * (1.0 - keep)
    in_hand = max(fresh.in_hand, old.in_hand * keep)
    return Want(rate if rate > NEGLIGIBLE else 0.0, in_hand if in_hand > NEGLIGIBLE else 0.0)
