"""One control group (v2) per runner, below a group that this process may divide."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

from headrace_autoscaler.core import enforcement
from headrace_autoscaler.domain import Resources
from headrace_common.control_groups import (
    CONTROLLERS,
    HOW_TO_DELEGATE,
    missing_controllers,
    own_directory,
    why_not_divisible,
)
from headrace_common.logs import get_logger

OFF = "off"
_PREFIX = "headrace-"
_OURS = f"{_PREFIX}mesh"
"""Where the mesh's own processes go, so that their group can be divided."""
_MOVES = 5
"""Processes may be born while others are moved; so often it is looked again."""


class NoCgroups(Exception):
    """Runners cannot have control groups here; the message says why."""


class Cgroups:
    """Groups of runners below `root`, which has the controllers enabled for its children.

    Args:
        remove: removes an empty group; refuses, with OSError, one that has processes.
    """

    def __init__(self, root: Path, remove: Callable[[Path], None] = Path.rmdir) -> None:
        self.root = root
        self._remove = remove

    def place(self, runner_id: str, pid: int) -> None:
        """Gives a process a group of its own, without limits yet. Raises OSError."""
        group = self._group(runner_id)
        group.mkdir(exist_ok=True)
        (group / "cgroup.procs").write_text(str(pid))

    def holds(self, runner_id: str, pid: int) -> bool:
        """Whether the process is in its group: one that an earlier autoscaler started may not be."""
        try:
            return str(pid) in (self._group(runner_id) / "cgroup.procs").read_text().split()
        except OSError:
            return False

    def limit(self, runner_id: str, resources: Resources, shared_bytes: int) -> None:
        """Raises OSError."""
        group = self._group(runner_id)
        for name, value in enforcement.cgroup_limits(resources, shared_bytes).items():
            (group / name).write_text(value)

    def ran_out(self, runner_id: str) -> bool:
        """Whether the kernel has killed in this group for want of memory."""
        try:
            return enforcement.oom_kills((self._group(runner_id) / "memory.events").read_text()) > 0
        except OSError:
            return False

    def remove(self, runner_id: str) -> None:
        """Of a runner that is gone."""
        self._try_remove(self._group(runner_id))

    def sweep(self) -> None:
        """Removes groups whose runners are gone: an autoscaler that was killed leaves them."""
        for group in self.root.glob(f"{_PREFIX}runner-*"):
            self._try_remove(group)

    def _group(self, runner_id: str) -> Path:
        return self.root / f"{_PREFIX}{runner_id}"

    def _try_remove(self, group: Path) -> None:
        try:
            self._remove(group)
        except OSError as error:
            # Still somebody in it, or gone already: whoever sweeps next looks again.
            if error.errno not in (errno.EBUSY, errno.ENOENT):
                get_logger().warning("control group not removed", group=str(group), error=str(error))


def find_cgroups(setting: str, mesh: int, proc: Path = Path("/proc")) -> Cgroups:
    """Opens the group that runners' groups can be made in.

    Args:
        setting: a group's directory; "": this process's own group; "off": none.
        mesh: the process whose descendants may be moved to make room.

    Raises:
        NoCgroups
    """
    if setting == OFF:
        raise NoCgroups("control groups are switched off (autoscaler.cgroup)")
    root = Path(setting) if setting else _own_group(proc)
    try:
        _check(root)
        if missing_controllers((root / "cgroup.subtree_control").read_text()):
            _divide(root, mesh, proc)
    except OSError as error:
        raise NoCgroups(f"{root} cannot be used: {error.strerror or error}") from None
    return Cgroups(root)


def _own_group(proc: Path) -> Path:
    try:
        root = own_directory(proc)
    except OSError as error:
        raise NoCgroups(f"/proc does not tell this process's control group: {error.strerror or error}") from None
    if root is None:
        raise NoCgroups("there are no control groups v2")
    # An autoscaler before this one has moved the mesh into a child.
    return root.parent if root.name == _OURS else root


def _check(root: Path) -> None:
    if reason := why_not_divisible(root):
        raise NoCgroups(reason)


def _divide(root: Path, mesh: int, proc: Path) -> None:
    for _ in range(_MOVES):
        members = [int(pid) for pid in (root / "cgroup.procs").read_text().split()]
        if not members:
            break
        occupied = enforcement.judge_members(members, enforcement.family(_parents(proc), mesh))
        if occupied is not None:
            shown = ", ".join(map(str, occupied.strangers[:3]))
            raise NoCgroups(f"{root} holds processes that are not of this mesh ({shown}); {HOW_TO_DELEGATE}")
        (root / _OURS).mkdir(exist_ok=True)
        for pid in members:
            _move(pid, root / _OURS)
    (root / "cgroup.subtree_control").write_text(" ".join(f"+{each}" for each in CONTROLLERS))


def _move(pid: int, group: Path) -> None:
    try:
        (group / "cgroup.procs").write_text(str(pid))
    except ProcessLookupError:
        return


def _parents(proc: Path) -> dict[int, int]:
    found = {}
    for entry in proc.iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            # The name before is in parentheses and may itself hold any character (proc(5)).
            found[int(entry.name)] = int((entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[1])
        except (OSError, IndexError, ValueError):
            continue
    return found
