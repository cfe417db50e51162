"""Named scenarios: each with its own seed, service time, objective and cold start, so that results can be compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from headrace_autoscaler.sim.workload import (
    DEFAULT_TENANT,
    Conditions,
    Seconds,
    Workload,
    zipf_models,
)
from headrace_common.errors import InvalidArgument

_TENANTS = 10
_GRAIN_S = 1.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """Attributes:
    about: one line for people.
    arrivals: makes the arrival times, ascending, before `horizon_s`.
    models: over which the arrivals are spread by Zipf's law.
    """

    name: str
    about: str
    seed: int
    horizon_s: float
    service_s: float
    conditions: Conditions
    arrivals: Callable[[np.random.Generator, float], Seconds]
    models: int = 1

    def workload(self, models: int | None = None, service_s: float | None = None) -> Workload:
        """The same every time.

        Args:
            models, service_s: other than the scenario's own.
        """
        count = self.models if models is None else models
        arrival_s = self.arrivals(np.random.default_rng(self.seed), self.horizon_s)
        tenants = [DEFAULT_TENANT] if count == 1 else [f"tenant{k % _TENANTS}" for k in range(count)]
        return Workload(
            name=self.name,
            arrival_s=arrival_s,
            model=zipf_models(len(arrival_s), count, self.seed),
            service_s=np.full(len(arrival_s), self.service_s if service_s is None else service_s),
            models=tuple(f"m{k}" for k in range(count)),
            tenants=tuple(tenants),
            horizon_s=self.horizon_s,
        )


def scenario(name: str) -> Scenario:
    """Raises InvalidArgument with the names there are."""
    found = SCENARIOS.get(name)
    if found is None:
        raise InvalidArgument(f"scenario {name!r} is not known; there are {', '.join(SCENARIOS)}")
    return found


def _by_rate(rate_of: Callable[[Seconds], Seconds]) -> Callable[[np.random.Generator, float], Seconds]:
    """A Poisson process whose rate (per second, as a function of seconds) is constant within each second."""

    def arrivals(random: np.random.Generator, horizon_s: float) -> Seconds:
        begins = np.arange(0.0, horizon_s, _GRAIN_S)
        counts = random.poisson(rate_of(begins) * _GRAIN_S)
        times: Seconds = np.repeat(begins, counts) + random.uniform(0.0, _GRAIN_S, int(counts.sum()))
        return np.sort(times)

    return arrivals


def _sparse(random: np.random.Generator, horizon_s: float) -> Seconds:
    """Gaps of about three minutes, as people and half-regular jobs make them: log-normal, sigma 0.6."""
    gaps = random.lognormal(np.log(180.0), 0.6, int(horizon_s / 30.0))
    times: Seconds = np.cumsum(gaps)
    return times[times < horizon_s]


def _diurnal(at: Seconds) -> Seconds:
    """A day of an hour, twice: 2 to 40 per second."""
    return 21.0 - 19.0 * np.cos(2 * np.pi * at / 3600.0)


def _flash_crowd(at: Seconds) -> Seconds:
    """5 per second; from second 600 to 900 twenty times that; then it decays with a time constant of 60 s."""
    after = 5.0 + 95.0 * np.exp(-np.maximum(at - 900.0, 0.0) / 60.0)
    return np.where(at < 600.0, 5.0, after)


def _on_off(at: Seconds) -> Seconds:
    """30 per second for 20 s, then nothing for 100 s: longer than a scaler's idle window, and again."""
    return np.where(at % 120.0 < 20.0, 30.0, 0.0)


SCENARIOS = {
    each.name: each
    for each in (
        Scenario(
            "steady",
            "20 requests per second",
            11,
            1800.0,
            0.1,
            Conditions(slo_s=0.5),
            _by_rate(lambda at: 20.0 + 0 * at),
        ),
        Scenario(
            "diurnal", "two days of an hour, 2 to 40 per second", 12, 7200.0, 0.1, Conditions(0.5), _by_rate(_diurnal)
        ),
        Scenario(
            "flash-crowd",
            "5 per second, and for five minutes 100",
            13,
            1800.0,
            0.1,
            Conditions(0.5),
            _by_rate(_flash_crowd),
        ),
        Scenario(
            "sparse", "a request every three minutes", 14, 43_200.0, 0.2, Conditions(1.0, cold_start_s=0.06), _sparse
        ),
        Scenario(
            "zipf-1000",
            "40 per second over 1,000 models of ten tenants on 40 nodes",
            15,
            1800.0,
            0.05,
            Conditions(0.5, cold_start_s=0.06, standby=40, nodes=40, instances_per_node=32, tenant_instances=110),
            _by_rate(lambda at: 40.0 + 0 * at),
            models=1000,
        ),
        Scenario(
            "on-off", "30 per second for 20 s of every 120 s", 16, 3600.0, 0.1, Conditions(0.5), _by_rate(_on_off)
        ),
        Scenario(
            "tight",
            "300 per second of 5 ms each, which may wait 5 ms",
            17,
            600.0,
            0.005,
            Conditions(0.01, cold_start_s=0.06),
            _by_rate(lambda at: 300.0 + 0 * at),
        ),
    )
}
