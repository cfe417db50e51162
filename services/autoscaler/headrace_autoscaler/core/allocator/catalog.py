"""Instance shapes that can be had, what each costs by class, and the rates of what is charged beside compute.

A catalogue is read from TOML (see deploy/catalog.toml for the form) by `headrace_autoscaler.shape_catalog`; this
module knows what may stand in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum
from typing import Any

from headrace_autoscaler.core.rates import DEFAULT_RATES, Rates
from headrace_autoscaler.domain import Resources
from headrace_common.errors import InvalidArgument
from headrace_common.quantities import parse_bytes, parse_micros, parse_millis

PPM = 10**6
_ARCHITECTURE = re.compile(r"sm_[0-9]{2,3}")


class CapacityClass(StrEnum):
    """How a node is paid for. The values are those of the books."""

    ON_DEMAND = "on_demand"
    SPOT = "spot"
    """Cheaper, and taken away after a short notice."""
    RESERVED = "reserved"
    """Cheaper, and paid for whether or not it is used."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A machine of the catalogue.

    Attributes:
        capacity: of the whole machine; GPU memory is that of all its GPUs.
        gpus: devices; they are alike.
        architecture: their compute capability, "sm_75"; empty without one.
        prices: micro-units of money per hour, by class.
    """

    name: str
    capacity: Resources
    gpus: int = 0
    architecture: str = ""
    prices: tuple[tuple[CapacityClass, int], ...] = ()

    def price(self, capacity_class: CapacityClass) -> int | None:
        """Micro-units per hour; None: not offered in this class."""
        return dict(self.prices).get(capacity_class)


@dataclass(frozen=True, slots=True)
class Catalog:
    """Attributes:
    shapes: by name.
    class_ppm: millionths of the on-demand price, for shapes that name no price of their own.
    """

    currency: str = "USD"
    shapes: Mapping[str, Shape] | None = None
    class_ppm: tuple[tuple[CapacityClass, int], ...] = ()
    rates: Rates = DEFAULT_RATES

    def __iter__(self) -> Iterator[Shape]:
        return iter((self.shapes or {}).values())


_RATES = {
    "network_per_gib": "network_micros_per_gib",
    "storage_per_gib_month": "storage_micros_per_gib_month",
    "cache_per_gib_hour": "cache_micros_per_gib_hour",
    "management_share": "management_ppm",
}
_SHAPE_KEYS = ("name", "cpu", "memory", "gpus", "gpu_memory", "gpu_architecture", *CapacityClass, "available")


def parse_catalog(document: Mapping[str, Any], what: str, base: Catalog | None = None) -> Catalog:
    """A catalogue file's content over another catalogue.

    Args:
        document: what TOML gave.
        what: the file, for errors.
        base: what stands where the document says nothing.

    Raises:
        InvalidArgument: names file, entry, what was expected and what came.
    """
    base = base or Catalog()
    _known(document, ("currency", "classes", "rates", "shape"), what)
    class_ppm = dict(base.class_ppm) | _factors(document.get("classes", {}), f"{what}: classes")
    shapes = dict(base.shapes or {})
    entries = document.get("shape", [])
    if not isinstance(entries, list):
        raise InvalidArgument(f"{what}: shape: expected tables that begin with [[shape]]; got {entries!r}")
    seen: set[str] = set()
    for number, entry in enumerate(entries, start=1):
        where = f"{what}: shape {number}"
        name = _name(entry, where)
        where = f"{what}: shape {number} ({name!r})"
        if name in seen:
            raise InvalidArgument(f"{where}: the name is given twice; expected each shape once")
        seen.add(name)
        _known(entry, _SHAPE_KEYS, where)
        shapes.pop(name, None)
        if _available(entry, where):
            shapes[name] = _shape(entry, name, class_ppm, where)
    return Catalog(
        currency=_text(document, "currency", what, base.currency),
        shapes=shapes,
        class_ppm=tuple(sorted(class_ppm.items())),
        rates=_rates(document.get("rates", {}), base.rates, f"{what}: rates"),
    )


def _factors(table: Any, where: str) -> dict[CapacityClass, int]:
    _table(table, where)
    names = (CapacityClass.SPOT, CapacityClass.RESERVED)
    _known(table, names, where)
    return {CapacityClass(key): _share(value, f"{where}.{key}") for key, value in table.items()}


def _rates(table: Any, base: Rates, where: str) -> Rates:
    _table(table, where)
    _known(table, tuple(_RATES), where)
    read = {
        _RATES[key]: _share(value, f"{where}.{key}") if key == "management_share" else _money(value, f"{where}.{key}")
        for key, value in table.items()
    }
    return replace(base, **read)


def _shape(entry: Mapping[str, Any], name: str, class_ppm: Mapping[CapacityClass, int], where: str) -> Shape:
    gpus = entry.get("gpus", 0)
    if not isinstance(gpus, int) or isinstance(gpus, bool) or not 0 <= gpus <= 64:
        raise InvalidArgument(f"{where}: gpus: expected a whole number from 0 to 64; got {gpus!r}")
    architecture = _text(entry, "gpu_architecture", where, "")
    if bool(gpus) != bool(architecture):
        raise InvalidArgument(
            f"{where}: expected gpus, gpu_memory and gpu_architecture together, or none of them; "
            f"got gpus = {gpus} and gpu_architecture = {architecture!r}"
        )
    if architecture and not _ARCHITECTURE.fullmatch(architecture):
        raise InvalidArgument(
            f"{where}: gpu_architecture: expected a compute capability like sm_75; got {architecture!r}"
        )
    memory = parse_bytes(_quantity(entry, "gpu_memory", where), f"{where}: gpu_memory") * gpus if gpus else 0
    if not gpus and "gpu_memory" in entry:
        raise InvalidArgument(f"{where}: gpu_memory: expected none without gpus; got {entry['gpu_memory']!r}")
    capacity = Resources(
        _positive(parse_millis(_quantity(entry, "cpu", where), f"{where}: cpu"), f"{where}: cpu"),
        _positive(parse_bytes(_quantity(entry, "memory", where), f"{where}: memory"), f"{where}: memory"),
        1000 * gpus,
        memory,
    )
    return Shape(name, capacity, gpus, architecture, _prices(entry, class_ppm, where))


def _prices(
    entry: Mapping[str, Any], class_ppm: Mapping[CapacityClass, int], where: str
) -> tuple[tuple[CapacityClass, int], ...]:
    if "on_demand" not in entry:
        raise InvalidArgument(f'{where}: on_demand: expected its price per hour such as "0.085"; it is missing')
    on_demand = _money(entry["on_demand"], f"{where}: on_demand")
    found = {CapacityClass.ON_DEMAND: on_demand}
    for capacity_class in (CapacityClass.SPOT, CapacityClass.RESERVED):
        if capacity_class in entry:
            found[capacity_class] = _money(entry[capacity_class], f"{where}: {capacity_class}")
        elif capacity_class in class_ppm:
            found[capacity_class] = on_demand * class_ppm[capacity_class] // PPM
    return tuple(found.items())


def _known(table: Mapping[str, Any], keys: tuple[str, ...], where: str) -> None:
    for key in table:
        if key not in keys:
            raise InvalidArgument(f"{where}: {key}: there is no such key; expected {', '.join(keys)}")


def _table(value: Any, where: str) -> None:
    if not isinstance(value, Mapping):
        raise InvalidArgument(f"{where}: expected a table; got {value!r}")


def _name(entry: Any, where: str) -> str:
    _table(entry, where)
    name = entry.get("name")
    if not isinstance(name, str) or not name:
        raise InvalidArgument(f"{where}: name: expected text; got {name!r}")
    return name


def _available(entry: Mapping[str, Any], where: str) -> bool:
    available = entry.get("available", True)
    if not isinstance(available, bool):
        raise InvalidArgument(f"{where}: available: expected true or false; got {available!r}")
    return available


def _text(table: Mapping[str, Any], key: str, where: str, default: str) -> str:
    value = table.get(key, default)
    if not isinstance(value, str):
        raise InvalidArgument(f"{where}: {key}: expected text; got {value!r}")
    return value


def _quantity(entry: Mapping[str, Any], key: str, where: str) -> str:
    """TOML invites a bare number where we have text."""
    value = entry.get(key)
    if value is None:
        raise InvalidArgument(f"{where}: {key}: expected an amount; it is missing")
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise InvalidArgument(f'{where}: {key}: expected an amount as text such as "4Gi" or "2"; got {value!r}')
    return str(value)


def _money(value: Any, where: str) -> int:
    if not isinstance(value, str):
        raise InvalidArgument(f'{where}: expected an amount as text such as "0.085"; got {value!r}')
    return parse_micros(value, where)


def _share(value: Any, where: str) -> int:
    """Text such as "0.35" to millionths."""
    ppm = _money(value, where)
    if ppm > PPM:
        raise InvalidArgument(f'{where}: expected a share from "0" to "1"; got {value!r}')
    return ppm


def _positive(value: int, where: str) -> int:
    if value <= 0:
        raise InvalidArgument(f"{where}: expected more than 0")
    return value


def format_price(micros: int) -> str:
    """Micro-units to the shortest decimal text with two places at least."""
    text = f"{Decimal(micros) / PPM:.6f}".rstrip("0")
    whole, _, part = text.partition(".")
    return f"{whole}.{part:0<2}"
