"""What people type after a flag, checked and put into the API's form. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from headrace.errors import InvalidArgument
from headrace_common.quantities import check_rate, parse_bytes, parse_micros, parse_millis, parse_seconds

MOST = 2**63 - 1
"""Of what is counted: as much as the API has room for."""
_PERIODS = {"h": "per_hour", "hour": "per_hour", "month": "per_month"}
_ALIASES = {"rps": "requests_per_second", "gpu-memory": "gpu_memory"}
_TYPED = {field: typed for typed, field in _ALIASES.items()}
_NUMBERS: dict[str, Callable[[str], int | float]] = {"concurrency": int, "requests_per_second": float}
_LENDABLE = ("cpu", "memory", "gpu", "gpu_memory", "concurrency", "requests_per_second")


def _count(value: int, what: str) -> None:
    if not 0 <= value <= MOST:
        raise InvalidArgument(f"{what}: expected 0 to {MOST}; got {value}")


_CHECKS: dict[str, Callable[[Any, str], object]] = {
    "cpu": parse_millis,
    "gpu": parse_millis,
    "memory": parse_bytes,
    "gpu_memory": parse_bytes,
    "queue_bytes": parse_bytes,
    "concurrency": _count,
    "requests_per_second": check_rate,
}


def quantities(what: str, **given: Any) -> dict[str, Any]:
    """Fields of the API's Quantities; what was not given is left out.

    Args:
        what: in front of a field's name in an error: "--" makes "--memory".
        given: cpu, memory, gpu, gpu_memory, queue_bytes as text; the others as numbers.

    Raises:
        InvalidArgument: names the flag, what it expects, and what came.
    """
    found = {field: value for field, value in given.items() if value is not None}
    for field, value in found.items():
        if field in _CHECKS:
            _CHECKS[field](value, what + _TYPED.get(field, field.replace("_", "-")))
    return found


def quantity_pairs(pairs: Iterable[str], flag: str) -> dict[str, Any]:
    """`--borrow cpu=2 --borrow rps=100` to fields of the API's Quantities."""
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        field = _ALIASES.get(key, key)
        if not equals or field not in _LENDABLE:
            raise InvalidArgument(
                f"{flag}: expected KEY=VALUE with a key of cpu, memory, gpu, gpu-memory, concurrency, rps; got {pair!r}"
            )
        if field in found:
            raise InvalidArgument(f"{flag}: {key} is given twice")
        found[field] = _number(field, value, f"{flag} {key}") if field in _NUMBERS else value
    return quantities(f"{flag} ", **found)


def limits(pairs: Iterable[str], **given: Any) -> dict[str, Any]:
    """`--limit cpu=2`, and limits that have flags of their own, to fields of the API's Quantities.

    Args:
        given: as for `quantities`.
    """
    found = quantity_pairs(pairs, "--limit")
    own = quantities("--", **given)
    for field in found.keys() & own.keys():
        raise InvalidArgument(f"--limit: {field.replace('_', ' ')} is given twice, by a flag of its own as well")
    return {**found, **own}


def budget(amounts: Sequence[str]) -> dict[str, str]:
    """`--budget 1.50/h --budget 200/month` to fields of the API's Budget."""
    found: dict[str, str] = {}
    for text in amounts:
        amount, _, period = text.partition("/")
        field = _PERIODS.get(period)
        if field is None:
            raise InvalidArgument(f"--budget: expected an amount per time such as 1.50/h or 200/month; got {text!r}")
        if field in found:
            raise InvalidArgument(f"--budget: {field.replace('_', ' ')} is given twice")
        parse_micros(amount, "--budget")
        found[field] = amount
    return found


def budget_action(action: str) -> int | None:
    """`--at-budget` to the API's BudgetAction; None where it was not given."""
    from headrace.v1 import tenants_pb2

    actions = {"refuse": tenants_pb2.BUDGET_ACTION_REFUSE, "queue": tenants_pb2.BUDGET_ACTION_QUEUE}
    if action and action not in actions:
        raise InvalidArgument(f"--at-budget: expected refuse or queue; got {action!r}")
    return actions.get(action)


def padding(pairs: Sequence[str]) -> dict[str, float]:
    """`--pad INPUT=VALUE` to the field of the API's ModelSpec."""
    found: dict[str, float] = {}
    for text in pairs:
        name, separator, value = text.rpartition("=")
        try:
            number = float(value)
        except ValueError:
            separator = ""
        if not separator or not name:
            raise InvalidArgument(f"--pad: expected an input and a number such as tokens=0; got {text!r}")
        if name in found:
            raise InvalidArgument(f"--pad: input {name!r} is given twice")
        found[name] = number
    return found


def engine_options(pairs: Sequence[str]) -> dict[str, str]:
    """`--engine-option NAME=VALUE` to the field of the API's ModelSpec. Which there are is the engine's to say."""
    found: dict[str, str] = {}
    for text in pairs:
        name, separator, value = text.partition("=")
        if not separator or not name:
            raise InvalidArgument(f"--engine-option: expected an option such as arena_shrink=on; got {text!r}")
        if name in found:
            raise InvalidArgument(f"--engine-option: {name!r} is given twice")
        found[name] = value
    return found


def states(pairs: Sequence[str]) -> dict[str, str]:
    """`--state OUTPUT=INPUT` to the field of the API's ModelSpec."""
    found: dict[str, str] = {}
    for text in pairs:
        output, _, into = text.partition("=")
        if not output or not into:
            raise InvalidArgument(f"--state: expected an output and an input such as state_out=state; got {text!r}")
        if output in found or into in found.values():
            raise InvalidArgument(f"--state: {text!r} names a tensor that another --state names")
        found[output] = into
    return found


_TARGETS: dict[str, str] = {
    "concurrency": "a number of requests",
    "queue-wait": "a duration",
    "latency": "a duration",
    "rate": "requests per second",
    "cpu": "a share such as 70% or 0.7",
    "gpu-memory": "a share such as 70% or 0.7",
}


def targets(pairs: Sequence[str]) -> dict[str, float]:
    """`--target concurrency=4 --target queue-wait=50ms --target cpu=70%` to the field of the API's ModelSpec.

    Shares are 0 to 1 and durations seconds there.
    """
    found: dict[str, float] = {}
    for text in pairs:
        name, equals, value = text.partition("=")
        key = name.replace("_", "-")
        if not equals or key not in _TARGETS:
            raise InvalidArgument(
                f"--target: expected METRIC=VALUE with a metric of {', '.join(_TARGETS)}; got {text!r}"
            )
        if key.replace("-", "_") in found:
            raise InvalidArgument(f"--target: {key} is given twice")
        found[key.replace("-", "_")] = _target(key, value)
    return found


def _target(metric: str, value: str) -> float:
    if metric in ("queue-wait", "latency"):
        return parse_seconds(value, f"--target {metric}")
    percent = value.endswith("%")
    try:
        return float(value.removesuffix("%")) / (100.0 if percent else 1.0)
    except ValueError:
        raise InvalidArgument(f"--target {metric}: expected {_TARGETS[metric]}; got {value!r}") from None


def money(text: str | None, flag: str) -> str | None:
    """An amount such as 0.001 that stays text, once it is known to be one."""
    if text is not None:
        parse_micros(text, flag)
    return text


def cpus(text: str | None, flag: str) -> str | None:
    """CPUs such as 2, 0.5 or 500m that stay text, once they are known to be that."""
    if text is not None:
        parse_millis(text, flag)
    return text


def seconds(text: str | None, flag: str) -> float | None:
    """A duration such as 100ms, 60s or 24h; None stays None."""
    return None if text is None else parse_seconds(text, flag)


def deadline(text: str | None, flag: str) -> float | None:
    """`seconds`, and more than none of them."""
    found = seconds(text, flag)
    if found is not None and found <= 0:
        raise InvalidArgument(f"{flag}: expected more than no time at all; got {text!r}")
    return found


def duration(text: str | None, flag: str) -> str | None:
    """A duration that stays text, once it is known to be one."""
    seconds(text, flag)
    return text


def _number(field: str, value: str, what: str) -> int | float:
    try:
        return _NUMBERS[field](value)
    except ValueError:
        raise InvalidArgument(f"{what}: expected a number; got {value!r}") from None
