"""When a process that died is started again. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """How a process is restarted.

    Attributes:
        first_delay_s: before the first restart; doubles with each further death.
        max_delay_s: longest delay.
        stable_after_s: a process that ran this long starts over with the first delay.
    """

    first_delay_s: float = 0.1
    max_delay_s: float = 30.0
    stable_after_s: float = 30.0


@dataclass(frozen=True, slots=True)
class RestartPlan:
    """What to do about a death.

    Attributes:
        delay_s: until the process is started again.
        deaths: in a row, this one included, without a stable run between.
        reason: why this delay, for the log.
    """

    delay_s: float
    deaths: int
    reason: str


def plan_restart(policy: RestartPolicy, deaths_before: int, ran_s: float) -> RestartPlan:
    """Decides on a restart.

    Args:
        policy: the delays.
        deaths_before: `RestartPlan.deaths` of the last death of this process; 0: it is the first.
        ran_s: how long it ran this time.
    """
    if ran_s >= policy.stable_after_s:
        return RestartPlan(policy.first_delay_s, 1, f"ran for {ran_s:.0f} s, which is stable")
    deaths = deaths_before + 1
    # The exponent is bounded so that a process which dies for days does not overflow a float.
    delay_s = min(policy.max_delay_s, policy.first_delay_s * 2.0 ** min(deaths - 1, 32))
    return RestartPlan(delay_s, deaths, f"death {deaths} in a row without {policy.stable_after_s:.0f} s of running")
