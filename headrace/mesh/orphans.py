"""Runners whose autoscaler died: the supervisor becomes their parent, and takes note of their end."""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Callable
from contextlib import suppress

from headrace.mesh.process_group import zombie_children

_PR_SET_CHILD_SUBREAPER = 36
_PERIOD_S = 1.0


def adopt_orphans() -> None:
    """Makes this process the parent of descendants that lose theirs (prctl(2)); without it, init is."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


async def reap_orphans(group: int, own_children: Callable[[], set[int]]) -> None:
    """Waits for adopted processes that have ended, for ever. Children of our own are left to who started them."""
    while True:
        for pid in zombie_children(group):
            if pid not in own_children():
                with suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)  # noqa: ASYNC222 - WNOHANG does not block
        await asyncio.sleep(_PERIOD_S)
