"""How many instances it takes so that requests which happen to come together begin in time, by queueing theory.

A reading says how many came, not when within it. Where a request may wait for less than a reading lasts, that is what
decides, and nobody sees it: so it is computed. Within a reading requests are taken to come independently of each other
(Poisson), to share one queue, and to take equally long (M/D/c). The tail of the waiting time is Erlang's C formula
times an exponential, which falls twice as fast as with exponential service times: the diffusion limit in heavy traffic,
where service times that do not vary leave half of the variability (Kingman, "On queues in heavy traffic", 1962).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

LATE_SHARE = 0.01
"""Requests that may be late because of others that come just then: an objective is on the 99th percentile."""
_MOST_SERVERS = 4096


@dataclass(frozen=True, slots=True)
class Service:
    """Seconds.

    Attributes:
        service_s: instance seconds per request.
        latency_s: of one request in an instance; so many times `service_s` are executed at once.
        slack_s: how long a request may wait; over 0.
    """

    service_s: float
    latency_s: float
    slack_s: float

    @property
    def at_once(self) -> int:
        return max(1, round(self.latency_s / self.service_s))


def together(
    rate_per_s: float, service: Service, late_share: float = LATE_SHARE, request_s: float | None = None
) -> int:
    """Instances; 0 where one is enough: whether that is needed at all, a rate that fades does not tell.

    Args:
        late_share: of the requests, who may begin too late.
        request_s: instance seconds that a request in time is worth: one more instance has to earn itself. None: it
            has not.
    """
    count = math.floor(rate_per_s * service.service_s) + 1
    late = _late(count, rate_per_s, service)
    while late > late_share and count * service.at_once < _MOST_SERVERS:
        fewer = _late(count + 1, rate_per_s, service)
        if request_s is not None and rate_per_s * (late - fewer) * request_s < 1.0:
            break
        count, late = count + 1, fewer
    return count if count > 1 else 0


def _late(instances: int, rate_per_s: float, service: Service) -> float:
    """Share of the requests that wait for longer than the slack, where the instances keep up."""
    servers, each_s = instances * service.at_once, service.service_s * service.at_once
    load = rate_per_s * each_s
    return erlang_c(servers, load) * math.exp(-2.0 * (servers - load) * service.slack_s / each_s)


def erlang_c(servers: int, load: float) -> float:
    """Chance that a request finds all servers busy; 1 where they cannot keep up. By the recursion of Erlang's B."""
    if load >= servers:
        return 1.0
    blocked = 1.0
    for number in range(1, servers + 1):
        blocked = load * blocked / (number + load * blocked)
    return servers * blocked / (servers - load * (1.0 - blocked))
