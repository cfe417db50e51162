"""What the local machine's instance shapes are called and cost."""

from __future__ import annotations

from dataclasses import dataclass

from headrace_autoscaler.domain import Resources
from headrace_common.quantities import format_bytes, format_millis, parse_micros

ON_DEMAND = "on_demand"


@dataclass(frozen=True, slots=True)
class PricedShape:
    name: str
    resources: Resources
    micros_per_hour: int
    capacity_class: str = ON_DEMAND


@dataclass(frozen=True, slots=True)
class LocalPrices:
    """CPU time has a price; the rest of the machine comes with it."""

    micros_per_cpu_hour: int
    currency: str

    @classmethod
    def parse(cls, price_per_cpu_hour: str, currency: str) -> LocalPrices:
        return cls(parse_micros(price_per_cpu_hour, "autoscaler.price_per_cpu_hour"), currency)

    def shape(self, resources: Resources) -> PricedShape:
        name = f"local-{format_millis(resources.cpu_millicores)}cpu-{format_bytes(resources.memory_bytes)}"
        if resources.gpu_millis:
            name += f"-{format_millis(resources.gpu_millis)}gpu"
        return PricedShape(name, resources, self.micros_per_cpu_hour * resources.cpu_millicores // 1000)
