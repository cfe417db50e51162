"""Facts about this process from the operating system."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from headrace_runner.core.memory import Usage, usage_of

_STATM = Path("/proc/self/statm")
_STATUS = Path("/proc/self/status")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_HEAP_BYTES = 24 << 20


def fill_heap() -> None:
    """Has the calling thread's heap hold memory that it can give out without asking the system for pages, which
    takes up half of the time of a small model's load.

    glibc keeps freed memory up to twice the largest block that it has mapped for itself and been given back
    (mallopt(3), M_MMAP_THRESHOLD): the first block raises that mark, the second one comes from the heap. With
    another allocator nothing is gained and nothing is lost.
    """
    for _ in range(2):
        np.empty(_HEAP_BYTES, np.uint8).fill(1)


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
