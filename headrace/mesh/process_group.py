"""Which processes are in a process group, out of /proc. Nothing but the standard library: the guard runs on it."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc")
_POLL_S = 0.02


def group_members(group: int) -> list[int]:
    """Ids of the living processes in a group. Zombies hold nothing any more and do not count."""
    return [pid for pid in _pids() if _is_living_member(pid, group)]


def zombie_children(group: int) -> list[int]:
    """Ids of this process's own children in a group that have ended and were not waited for."""
    own = os.getpid()
    found: list[int] = []
    for pid in _pids():
        stat = _stat(pid)
        if stat is not None and stat[0] == "Z" and int(stat[1]) == own and int(stat[2]) == group:
            found.append(pid)
    return found


def end_group(group: int, grace_s: float) -> None:
    """Asks every process of a group but this one to end, and kills what has not ended after the grace."""
    if _others(group):
        with suppress(ProcessLookupError):  # The last one may end just now.
            os.killpg(group, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while _others(group) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    while others := _others(group):
        # One by one: a signal to the whole group would end its leader, the guard, before its work is done.
        for pid in others:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_POLL_S)


def _others(group: int) -> list[int]:
    return [pid for pid in group_members(group) if pid != os.getpid()]


def _is_living_member(pid: int, group: int) -> bool:
    stat = _stat(pid)
    return stat is not None and stat[0] not in ("Z", "X") and int(stat[2]) == group


def _pids() -> list[int]:
    return [int(entry) for entry in os.listdir(_PROC) if entry.isdecimal()]


def _stat(pid: int) -> list[str] | None:
    """State, parent, group and so on (proc(5)); None: there is no such process any more."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    # The name before is in parentheses and may itself hold any character.
    return text.rpartition(")")[2].split()
