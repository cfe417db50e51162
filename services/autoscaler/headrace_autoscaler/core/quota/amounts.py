"""Quantities that quotas are made of: exact integers that know what they count.

After Kueue's `Amount` (pkg/cache, `resources.Amount`): sums saturate at the largest amount and differences at nothing,
so that no sequence of operations overflows or goes below zero.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from functools import lru_cache

from headrace_autoscaler.domain import Limits, Resources
from headrace_common.quantities import MAX, format_bytes, format_millis


class Dimension(IntEnum):
    """What is counted. The value is its place in `Amounts` and `Bounds`, and the order in which limits are named."""

    CPU = 0
    MEMORY = 1
    GPU = 2
    GPU_MEMORY = 3
    CONCURRENCY = 4
    REQUEST_RATE = 5
    MONEY_PER_HOUR = 6
    MONEY_PER_MONTH = 7

    @property
    def field(self) -> str:
        """Its name in `domain.Limits`."""
        return _FIELDS[self]

    @property
    def key(self) -> str:
        """As people write it: `--cpu 2`, `--borrow gpu-memory=8Gi`; money is `--budget`."""
        return _KEYS[self]

    @property
    def lendable(self) -> bool:
        """Money is not borrowed."""
        return self < Dimension.MONEY_PER_HOUR


_FIELDS = (
    "cpu_millicores",
    "memory_bytes",
    "gpu_millis",
    "gpu_memory_bytes",
    "concurrency",
    "requests_per_second",
    "budget_micros_per_hour",
    "budget_micros_per_month",
)
_KEYS = ("cpu", "memory", "gpu", "gpu-memory", "concurrency", "rps", "budget", "budget")
_MILLIS = frozenset({Dimension.CPU, Dimension.GPU, Dimension.REQUEST_RATE})
_BYTES = frozenset({Dimension.MEMORY, Dimension.GPU_MEMORY})
_BINARY_UNITS = ("", "Ki", "Mi", "Gi", "Ti")
_PERIODS = {Dimension.MONEY_PER_HOUR: "h", Dimension.MONEY_PER_MONTH: "month"}
_ZEROS = (0,) * len(Dimension)


@dataclass(frozen=True, slots=True)
class Amount:
    """So much of one dimension.

    Attributes:
        units: its smallest unit: millicores, bytes, milli-GPUs, requests, thousandths of a request per second,
            millionths of the currency. From 0 to MAX.
    """

    dimension: Dimension
    units: int

    def __post_init__(self) -> None:
        if not 0 <= self.units <= MAX:
            raise ValueError(f"{self.dimension.name}: expected from 0 to {MAX} units; got {self.units}")

    def __add__(self, other: Amount) -> Amount:
        self._check(other)
        return saturated(self.dimension, self.units + other.units)

    def __sub__(self, other: Amount) -> Amount:
        self._check(other)
        return saturated(self.dimension, self.units - other.units)

    def __lt__(self, other: Amount) -> bool:
        self._check(other)
        return self.units < other.units

    def __le__(self, other: Amount) -> bool:
        self._check(other)
        return self.units <= other.units

    def __str__(self) -> str:
        """As it is typed: "2", "4Gi", "1.5/h". Bytes are rounded unless a binary unit holds them exactly."""
        if self.dimension in _MILLIS:
            return format_millis(self.units)
        if self.dimension in _BYTES:
            return format_bytes(self.units)
        if period := _PERIODS.get(self.dimension):
            return f"{format_micros(self.units)}/{period}"
        return str(self.units)

    @property
    def typed(self) -> str:
        """Exact, as a flag takes it: bytes in the largest binary unit that holds them."""
        if self.dimension in _BYTES:
            return exact_bytes(self.units)
        return str(self)

    def _check(self, other: Amount) -> None:
        if self.dimension is not other.dimension:
            raise ValueError(f"{self.dimension.name} and {other.dimension.name} cannot be put together or compared")


def saturated(dimension: Dimension, units: int) -> Amount:
    """The nearest amount to this number of units."""
    return Amount(dimension, min(max(0, units), MAX))


def exact_bytes(count: int) -> str:
    """1536 to "1536", 2048 to "2Ki"."""
    power = 0
    while count and count % 1024 == 0 and power < len(_BINARY_UNITS) - 1:
        count, power = count // 1024, power + 1
    return f"{count}{_BINARY_UNITS[power]}"


def format_micros(micros: int) -> str:
    """Money with no zeros at its end: 1500000 to "1.5"."""
    whole, part = divmod(micros, 10**6)
    return f"{whole}.{part:06}".rstrip("0").rstrip(".")


@dataclass(frozen=True, slots=True)
class Amounts:
    """So much of every dimension; what is not mentioned is nothing.

    Attributes:
        units: by `Dimension`.
        present: place and units of those that are more than nothing.
    """

    units: tuple[int, ...] = _ZEROS
    present: tuple[tuple[int, int], ...] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if len(self.units) != len(_ZEROS) or min(self.units) < 0 or max(self.units) > MAX:
            raise ValueError(f"expected {len(_ZEROS)} amounts from 0 to {MAX}; got {self.units}")
        present = tuple([(place, units) for place, units in enumerate(self.units) if units])
        object.__setattr__(self, "present", present)

    @classmethod
    def of(cls, *amounts: Amount) -> Amounts:
        units = list(_ZEROS)
        for amount in amounts:
            units[amount.dimension] = min(MAX, units[amount.dimension] + amount.units)
        return cls(tuple(units))

    def __getitem__(self, dimension: Dimension) -> Amount:
        return Amount(dimension, self.units[dimension])

    def __add__(self, other: Amounts) -> Amounts:
        return Amounts(tuple(min(MAX, a + b) for a, b in zip(self.units, other.units, strict=True)))

    def __sub__(self, other: Amounts) -> Amounts:
        return Amounts(tuple(max(0, a - b) for a, b in zip(self.units, other.units, strict=True)))


@lru_cache(maxsize=4096)
def amounts_of(resources: Resources) -> Amounts:
    """What one instance holds."""
    held = (resources.cpu_millicores, resources.memory_bytes, resources.gpu_millis, resources.gpu_memory_bytes)
    return Amounts((*held, *_ZEROS[len(held) :]))


@dataclass(frozen=True, slots=True)
class Bounds:
    """A limit for every dimension. None: no limit there."""

    units: tuple[int | None, ...] = (None,) * len(Dimension)

    def __post_init__(self) -> None:
        if len(self.units) != len(Dimension) or not all(each is None or 0 <= each <= MAX for each in self.units):
            raise ValueError(f"expected {len(Dimension)} limits, each None or from 0 to {MAX}; got {self.units}")

    @classmethod
    def of(cls, *amounts: Amount) -> Bounds:
        units: list[int | None] = [None] * len(Dimension)
        for amount in amounts:
            units[amount.dimension] = amount.units
        return cls(tuple(units))

    def __getitem__(self, dimension: Dimension) -> Amount | None:
        units = self.units[dimension]
        return None if units is None else Amount(dimension, units)

    def with_limit(self, amount: Amount) -> Bounds:
        return Bounds((*self.units[: amount.dimension], amount.units, *self.units[amount.dimension + 1 :]))

    @property
    def present(self) -> bool:
        """Something is limited."""
        return any(units is not None for units in self.units)


@lru_cache(maxsize=4096)
def bounds_of(limits: Limits) -> Bounds:
    """A tenant's or a model's limits as the catalogue has them. A rate is cut to thousandths."""
    rate = limits.requests_per_second
    return Bounds(
        (
            limits.cpu_millicores,
            limits.memory_bytes,
            limits.gpu_millis,
            limits.gpu_memory_bytes,
            limits.concurrency,
            None if rate is None else min(MAX, int(rate * 1000 + 1e-6)),
            limits.budget_micros_per_hour,
            limits.budget_micros_per_month,
        )
    )
