"""What counts against a runner's memory, what it may map, and when it has outgrown its share. Readings and `now` come
in, verdicts go out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from headrace_common.quantities import format_bytes

PERIOD_S = 0.1
"""Between two readings."""
READINGS = 2
"""So many in a row over the limit, and a runner has outgrown its memory: one may have caught a batch on its way."""
GRACE_S = 5.0
"""What a runner over its memory gets to answer what it holds."""
HARD_SHARE = 1.5
"""Over so many times its memory it ends at once: the machine was promised to others as well."""
USED_UP = 0.8
"""From this share on, an allocation that fails does so for want of memory."""
_KIB = 1024


@dataclass(frozen=True, slots=True)
class Usage:
    """One reading.

    Attributes:
        private_bytes: anonymous memory, resident or swapped out. Neither what is mapped from files, which the kernel
            takes back when it likes and keeps once for all runners, nor shared memory: bundle rings are the routers'.
        mapped_bytes: private writable memory, touched or not: what RLIMIT_DATA bounds (getrlimit(2)).
    """

    private_bytes: int
    mapped_bytes: int


def usage_of(status: str) -> Usage:
    """Reads /proc/PID/status (proc(5)); what it does not say counts as nothing."""
    sizes = {name: rest for name, _, rest in (line.partition(":") for line in status.splitlines())}

    def kib(name: str) -> int:
        words = sizes.get(name, "").split()
        return int(words[0]) * _KIB if words else 0

    return Usage(kib("RssAnon") + kib("VmSwap"), kib("VmData"))


def mapping_limit(limit_bytes: int, usage: Usage) -> int:
    """RLIMIT_DATA for a runner that is about to load.

    Twice what is left of its memory, on top of what it has mapped: thread stacks and arenas are mapped and never
    touched, and the watchdog counts exactly. This one is there for what grows faster than a watchdog looks.
    """
    return usage.mapped_bytes + 2 * max(0, limit_bytes - usage.private_bytes)


def too_small(limit_bytes: int, usage: Usage) -> str:
    """Why no model can be loaded within the limit; "": one may fit."""
    if usage.private_bytes < limit_bytes:
        return ""
    return (
        f"its memory of {format_bytes(limit_bytes)} is less than the {format_bytes(usage.private_bytes)} that a runner "
        "holds before it loads anything; deploy it with more memory"
    )


class Verdict(StrEnum):
    STAY = "stay"
    LEAVE = "leave"
    """Drain, so that another one can take its place."""
    END = "end"
    """At once."""


class MemoryWatch:
    """Judges one runner's readings."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._over = 0
        self._leave_by: float | None = None

    def observe(self, private_bytes: int, now: float) -> Verdict:
        """LEAVE is said once. `now`: monotonic seconds."""
        if private_bytes > self.limit_bytes * HARD_SHARE:
            return Verdict.END
        if self._leave_by is not None:
            return Verdict.END if now >= self._leave_by else Verdict.STAY
        self._over = self._over + 1 if private_bytes > self.limit_bytes else 0
        if self._over < READINGS:
            return Verdict.STAY
        self._leave_by = now + GRACE_S
        return Verdict.LEAVE

    def reason(self, private_bytes: int) -> str:
        """For people, with both numbers."""
        held, limit = format_bytes(private_bytes), format_bytes(self.limit_bytes)
        return f"over its memory: it holds {held}, and {limit} is its share; deploy the model with more memory"
