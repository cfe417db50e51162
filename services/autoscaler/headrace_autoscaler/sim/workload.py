"""What a simulation is run on: when requests arrive, for which model, and how long each takes."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from headrace_autoscaler.domain import Limits, Resources, Tenant

Seconds = NDArray[np.float64]
Indices = NDArray[np.int32]
DEFAULT_TENANT = "default"
_DEFAULT_RESOURCES = Resources()
ZIPF_EXPONENT = 1.1
REPLACEMENT_CPU_S = 0.24
"""Measured: CPU time of a process that imports what a runner imports, 2.4 s for ten."""
STARTS_PER_S = 6.0
"""Measured on two busy cores: ten such processes at once were up in 1.76 s."""


@dataclass(frozen=True, slots=True, eq=False)
class Workload:
    """Requests in order of arrival. Seconds count from the run's begin.

    Attributes:
        name: of the trace or scenario.
        arrival_s: [requests], ascending.
        model: [requests], index into `models`.
        service_s: [requests], what each takes in an instance.
        models: names.
        tenants: [models], who owns each.
        horizon_s: end of the run, the same for every policy.
        service_known: every request takes the same, so a deploy's own measurement knows it beforehand.
    """

    name: str
    arrival_s: Seconds
    model: Indices
    service_s: Seconds
    models: tuple[str, ...]
    tenants: tuple[str, ...]
    horizon_s: float
    service_known: bool = True

    @property
    def requests(self) -> int:
        return len(self.arrival_s)


@dataclass(frozen=True, slots=True)
class Conditions:
    """What holds for a run beside its requests. Seconds; money in micro-units.

    Attributes:
        concurrency: requests that an instance executes at once.
        cold_start_s: from the moment a start begins until the instance answers.
        starts_per_s: starts that can begin per second, over all machines; the rest wait their turn.
        standby: runners that are kept started; this many starts may begin at once.
        replacement_cpu_s: CPU seconds that starting a standby anew costs.
        queue_length: requests of one model that may wait; None: any number.
        nodes, instances_per_node: capacity; nodes None: unlimited.
        resources: what every instance holds of its tenant's quota.
        tenants: their limits; one that is not named has none.
        tenant_instances: instances that each tenant may have, instead of `tenants`; None: unlimited.
        price_micros_per_hour: of an instance, and of a standby.
        credit_micros: what a request inside the objective is worth.
        began: moment of the run's second 0, seconds since the epoch; None: no date is known.
        schedules: of every model, as `core.policies.schedules` reads them; they need `began`.
        targets: of every model, metric and value, as `core.policies.targets` reads them.
        min_instances, max_instances, idle_timeout_s: of every model, as a deploy has them; None: not given.
    """

    slo_s: float
    concurrency: int = 1
    cold_start_s: float = 2.0
    starts_per_s: float = STARTS_PER_S
    standby: int = 0
    replacement_cpu_s: float = REPLACEMENT_CPU_S
    queue_length: int | None = None
    nodes: int | None = None
    instances_per_node: int = 8
    resources: Resources = _DEFAULT_RESOURCES
    tenants: tuple[Tenant, ...] = ()
    tenant_instances: int | None = None
    price_micros_per_hour: int = 42_500
    credit_micros: int = 1_000
    began: float | None = None
    schedules: tuple[str, ...] = ()
    targets: tuple[tuple[str, float], ...] = ()
    min_instances: int = 0
    max_instances: int | None = None
    idle_timeout_s: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """A workload and the conditions it is run under."""

    workload: Workload
    conditions: Conditions
    notes: tuple[str, ...] = field(default=())

    @property
    def tenants(self) -> tuple[Tenant, ...]:
        """With their limits. A number of instances is their CPU."""
        conditions = self.conditions
        if conditions.tenant_instances is None:
            return conditions.tenants
        limits = Limits(cpu_millicores=conditions.tenant_instances * conditions.resources.cpu_millicores)
        return tuple(Tenant(name, limits) for name in dict.fromkeys(self.workload.tenants))


def zipf_models(requests: int, models: int, seed: int) -> Indices:
    """[requests] model of each, by Zipf's law: the k-th most popular gets a share proportional to 1 / k^1.1."""
    weights = 1.0 / np.arange(1, models + 1, dtype=np.float64) ** ZIPF_EXPONENT
    random = np.random.default_rng(seed)
    return random.choice(models, size=requests, p=weights / weights.sum()).astype(np.int32)
