"""Reads the tenants of a simulation: TOML, one table for each, with the names that `headrace tenant set` has.

[ann]
cpu = 2
memory = "4Gi"
rps = 500
budget = ["1.50/h", "300/month"]
cohort = "team"
borrow = {cpu = 1}
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from headrace_autoscaler.domain import Limits, Tenant
from headrace_common.errors import InvalidArgument
from headrace_common.quantities import MAX, check_rate, parse_bytes, parse_micros, parse_millis

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")
_MOST_WEIGHT = 1_000_000
_PERIODS = {"h": "budget_micros_per_hour", "hour": "budget_micros_per_hour", "month": "budget_micros_per_month"}
_NOT_SIMULATED = ("queue-length", "queue-bytes")


def read_tenants(path: Path) -> tuple[Tenant, ...]:
    """In the file's order.

    Raises:
        InvalidArgument: names file, tenant, key, what was expected and what came.
    """
    try:
        with path.open("rb") as file:
            tables = tomllib.load(file)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidArgument(f"tenants {path}: cannot be read: {' '.join(str(error).split())}") from None
    if not tables:
        raise InvalidArgument(f"tenants {path}: names no tenant; expected a table [NAME] for each")
    return tuple(_tenant(name, table, f"tenants {path}: {name}") for name, table in tables.items())


def _tenant(name: str, table: Any, where: str) -> Tenant:
    if not _NAME.fullmatch(name):
        raise InvalidArgument(f"{where}: expected a name of letters, digits, '.', '_' and '-', at most 64 characters")
    if not isinstance(table, dict):
        raise InvalidArgument(f"{where}: expected a table [{name}] of limits; got {table!r}")
    tenant = Tenant(name)
    for key, value in table.items():
        read = _KEYS.get(key.replace("_", "-"))
        if read is None:
            hint = "is not simulated" if key.replace("_", "-") in _NOT_SIMULATED else "is not known"
            raise InvalidArgument(f"{where}: {key} {hint}; expected {', '.join(_KEYS)}")
        tenant = read(tenant, value, f"{where}: {key}")
    return tenant


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= MAX:
        raise InvalidArgument(f"{where}: expected a number, 0 or more; got {value!r}")
    return float(value)


def _count(value: Any, where: str) -> int:
    if _number(value, where) != int(value):
        raise InvalidArgument(f"{where}: expected a whole number; got {value!r}")
    return int(value)


def _rate(value: Any, where: str) -> float:
    per_s = _number(value, where)
    check_rate(per_s, where)
    return per_s


_QUANTITIES: dict[str, tuple[str, Callable[[Any, str], float]]] = {
    "cpu": ("cpu_millicores", lambda value, where: parse_millis(str(value), where)),
    "memory": ("memory_bytes", lambda value, where: parse_bytes(str(value), where)),
    "gpu": ("gpu_millis", lambda value, where: parse_millis(str(value), where)),
    "gpu-memory": ("gpu_memory_bytes", lambda value, where: parse_bytes(str(value), where)),
    "concurrency": ("concurrency", _count),
    "rps": ("requests_per_second", _rate),
}
"""Key -> its field in `Limits`, and what reads it."""


def _limits(limits: Limits, given: Mapping[str, Any], where: str) -> Limits:
    for key, value in given.items():
        found = _QUANTITIES.get(key.replace("_", "-"))
        if found is None:
            raise InvalidArgument(f"{where}: {key} is not known; expected {', '.join(_QUANTITIES)}")
        field, read = found
        limits = replace(limits, **{field: read(value, f"{where} {key}")})  # type: ignore[arg-type]
    return limits


def _nominal(key: str) -> Callable[[Tenant, Any, str], Tenant]:
    def read(tenant: Tenant, value: Any, where: str) -> Tenant:
        field, parse = _QUANTITIES[key]
        return replace(tenant, nominal=replace(tenant.nominal, **{field: parse(value, where)}))  # type: ignore[arg-type]

    return read


def _lent(field: str) -> Callable[[Tenant, Any, str], Tenant]:
    """A borrowing or a lending limit."""

    def read(tenant: Tenant, value: Any, where: str) -> Tenant:
        if not isinstance(value, dict):
            raise InvalidArgument(f"{where}: expected quantities such as {{cpu = 1}}; got {value!r}")
        return replace(tenant, **{field: _limits(Limits(), value, where)})  # type: ignore[arg-type]

    return read


def _budget(tenant: Tenant, value: Any, where: str) -> Tenant:
    for text in value if isinstance(value, list) else [value]:
        amount, _, period = str(text).partition("/")
        if period not in _PERIODS:
            raise InvalidArgument(f"{where}: expected an amount per time such as 1.50/h or 200/month; got {text!r}")
        field = _PERIODS[period]
        if getattr(tenant.nominal, field) is not None:
            raise InvalidArgument(f"{where}: a budget per {period} is given twice")
        micros = parse_micros(amount, where)
        tenant = replace(tenant, nominal=replace(tenant.nominal, **{field: micros}))
    return tenant


def _at_budget(tenant: Tenant, value: Any, where: str) -> Tenant:
    if value not in ("refuse", "queue"):
        raise InvalidArgument(f"{where}: expected refuse or queue; got {value!r}")
    return replace(tenant, refuse_at_budget=value == "refuse")


def _cohort(tenant: Tenant, value: Any, where: str) -> Tenant:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise InvalidArgument(f"{where}: expected a name; got {value!r}")
    return replace(tenant, cohort=value)


def _weight(tenant: Tenant, value: Any, where: str) -> Tenant:
    weight = _number(value, where)
    if not 0 < weight <= _MOST_WEIGHT:
        raise InvalidArgument(f"{where}: expected more than 0 and at most {_MOST_WEIGHT}; got {value!r}")
    return replace(tenant, weight=weight)


_KEYS: dict[str, Callable[[Tenant, Any, str], Tenant]] = {
    **{key: _nominal(key) for key in _QUANTITIES},
    "budget": _budget,
    "at-budget": _at_budget,
    "cohort": _cohort,
    "borrow": _lent("borrowing_limit"),
    "lend": _lent("lending_limit"),
    "weight": _weight,
}
