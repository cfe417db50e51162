"""Commands that `explain` proposes, carried out on tenants in memory."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import replace

from headrace_autoscaler.domain import Limits, Tenant
from headrace_common.quantities import parse_bytes, parse_millis

_FIELDS = {"cpu": "cpu_millicores", "memory": "memory_bytes", "rps": "requests_per_second"}
_PARSERS: dict[str, Callable[[str, str], float]] = {
    "cpu": parse_millis,
    "memory": parse_bytes,
    "queue-bytes": parse_bytes,
    "rps": lambda text, _: float(text),
}


def type_it(tenants: dict[str, Tenant], command: str) -> None:
    """As the mesh would: what is given of a group replaces that group."""
    _, _, _, name, *flags = shlex.split(command)
    groups: dict[str, dict[str, float]] = {"nominal": {}, "borrowing_limit": {}, "lending_limit": {}}
    for flag, value in zip(flags[::2], flags[1::2], strict=True):
        group = {"--borrow": "borrowing_limit", "--lend": "lending_limit"}.get(flag, "nominal")
        key, text = (flag.removeprefix("--"), value) if group == "nominal" else value.split("=")
        field = _FIELDS.get(key, key.replace("-", "_"))
        number = _PARSERS.get(key, lambda text, _: int(text))(text, flag)
        groups[group][field] = number
    given = {group: Limits(**limits) for group, limits in groups.items() if limits}
    tenants[name] = replace(tenants[name], **given)  # type: ignore[arg-type]
