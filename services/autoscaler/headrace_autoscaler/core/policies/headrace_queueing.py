"""How many instances it takes so that requests which happen to come together begin in time, by queueing theory.

A reading says how many came, not when within it. Where a request may wait for less than a reading lasts, that is what
decides, and nobody sees it: so it is computed. Within a reading requests are taken to come independently of each other
(Poisson), to share one queue, and to take equally long (M/D/c). The tail of the waiting time is Erlang's C formula
times an exponential, which falls twice as fast as with exponential service times: the diffusion limit in heavy traffic,
where service times that do not vary leave half of the variability (Kingman, "On queues in heavy traffic", 1962).
"""

from __future__ import annotations

import math

from headrace_autoscaler.core.policies.headrace_supply import Supply

LATE_SHARE = 0.01
"""Requests that may be late because of others that come just then: an objective is on the 99th percentile."""
_MOST_SERVERS = 4096


def together(rate_per_s: float, supply: Supply, late_share: float, request_s: float | None) -> int:
    """Instances; 0 where one is enough: whether that is needed at all, a rate that fades does not tell.

    Args:
        late_share: of the requests, who may begin too late.
        request_s: instance seconds that a request in time is worth: one more instance has to earn itself. None: it
            has not.
    """
    slots = max(1, round(supply.at_once))
    load = rate_per_s * supply.latency_s
    count = math.floor(load / slots) + 1
    late = _late(count * slots, load, supply)
    while late > late_share and count * slots < _MOST_SERVERS:
        fewer = _late((count + 1) * slots, load, supply)
        if request_s is not None and rate_per_s * (late - fewer) * request_s < 1.0:
            break
        count, late = count + 1, fewer
    return count if count > 1 else 0


def _late(servers: int, load: float, supply: Supply) -> float:
    """Share of the requests that wait for longer than the slack, where `servers` of them execute at once. `load` is
    below that."""
    free = servers - load
    return erlang_c(servers, load) * math.exp(-2.0 * free * supply.slack_s / supply.latency_s)


def erlang_c(servers: int, load: float) -> float:
    """Chance that a request finds all servers busy; 1 where they cannot keep up. By the recursion of Erlang's B."""
    if load >= servers:
        return 1.0
    blocked = 1.0
    for number in range(1, servers + 1):
        blocked = load * blocked / (number + load * blocked)
    return servers * blocked / (servers - load * (1.0 - blocked))
