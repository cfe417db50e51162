"""Where an instance costs more than it earns.

Everything is in instance seconds, so that neither a currency nor a price is needed where none is declared.
"""

from __future__ import annotations

from dataclasses import dataclass

from headrace_autoscaler.core.policies.base import Profile
from headrace_autoscaler.core.policies.headrace_supply import Supply

SHORT_CHANCE = 0.05
"""Chance that the standing need outgrows what stands within a blind time: where no credit binds earlier. One in twenty
is about where the real trace bends: with 4 % a quarter of a point of SLO share costs 8 % of the excess."""
ANY_ABSENT_S = 3.0
FIRST_ABSENT_S = 120.0
"""What it is taken to cost, in instance seconds, that an instance is missing that a burst needs. Both, and that it
falls with the square of the rank, come from sweeps (docs/autoscaling.md); for scale, Knative's last pod stays 60 s."""
UNDECLARED_S = 60.0
"""What a request inside its objective is taken to be worth at most, in instance seconds. Not swept."""


@dataclass(frozen=True, slots=True)
class Worth:
    """What instances and requests are worth to one another.

    Attributes:
        request_s: instance seconds that a request inside its objective is worth; None: nothing is declared.
        thrift: times that being short may happen as often, and its cost is that much less.
        served: requests that one instance serves before another could be there.
    """

    supply: Supply
    thrift: float
    request_s: float | None
    served: float

    @classmethod
    def of(cls, profile: Profile, supply: Supply, thrift: float) -> Worth:
        declared = profile.credit_micros > 0 and profile.instance_micros_per_hour > 0
        request_s = profile.credit_micros * 3600 / profile.instance_micros_per_hour if declared else None
        return cls(supply, thrift, request_s, max(1.0, supply.blind_s / supply.service_s))

    @property
    def break_even(self) -> float:
        """Chance of being needed below which an instance costs more than the credit that it earns."""
        if self.request_s is None:
            return 0.0
        return min(1.0, self.supply.blind_s / (self.request_s * self.served))

    @property
    def chance(self) -> float:
        """Of needing more than what stands that is accepted."""
        return max(SHORT_CHANCE * self.thrift, self.break_even)

    def absence_s(self, rank: int) -> float:
        """What it costs that the instance of this rank, from 1, is not there when it is needed."""
        cost = (ANY_ABSENT_S + FIRST_ABSENT_S / (rank * rank)) / self.thrift
        if self.request_s is not None:
            cost = min(cost, self.request_s * self.served)
        return self.supply.cold_start_s + cost

    def cold_burst_s(self, share: float) -> float:
        """What it costs that a burst finds nothing at all.

        Args:
            share: of the bursts that needed standing instances.
        """
        request_s = UNDECLARED_S if self.request_s is None else min(UNDECLARED_S, self.request_s)
        span = (self.supply.blind_s + self.supply.slack_s) / self.supply.latency_s
        return self.supply.cold_start_s + share * request_s * max(1.0, span)
