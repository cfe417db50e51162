"""Facts about this process from the operating system."""

from __future__ import annotations

import os
from pathlib import Path

from headrace_runner.core.memory import Usage, usage_of

_STATM = Path("/proc/self/statm")
_STATUS = Path("/proc/self/status")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def resident_bytes() -> int:
    """Memory that this process keeps in RAM; 0 where the system does not tell."""
    try:
        return int(_STATM.read_bytes().split()[1]) * _PAGE_BYTES
    except OSError:
        return 0


def memory_usage() -> Usage:
    """What counts against its memory, and what it has mapped; nothing where the system does not tell."""
    try:
        return usage_of(_STATUS.read_text())
    except OSError:
        return Usage(0, 0)
