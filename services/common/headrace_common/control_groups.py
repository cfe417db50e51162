"""Control groups (v2): where this process's is, and whether it may be divided among others (cgroups(7))."""

from __future__ import annotations

import os
from pathlib import Path

CONTROLLERS = ("cpu", "memory")
"""What a group must offer to be divided."""
HOW_TO_DELEGATE = "give the mesh a group of its own: systemd-run --user --scope -p Delegate=yes headrace up"


def mount_point(mountinfo: str) -> str:
    """Where cgroup v2 is mounted, out of /proc/self/mountinfo (proc(5)); "": nowhere."""
    for line in mountinfo.splitlines():
        before, separator, after = line.partition(" - ")
        if separator and after.split(" ", 1)[0] == "cgroup2":
            return before.split(" ")[4]
    return ""


def own_group(proc_cgroup: str) -> str:
    """This process's group in v2's hierarchy, out of /proc/self/cgroup; "": none."""
    return next((line[3:] for line in proc_cgroup.splitlines() if line.startswith("0::")), "")


def missing_controllers(text: str) -> tuple[str, ...]:
    """Those of ours that cgroup.controllers or cgroup.subtree_control does not name."""
    named = set(text.split())
    return tuple(each for each in CONTROLLERS if each not in named)


def own_directory(proc: Path = Path("/proc")) -> Path | None:
    """The directory of this process's group; None: there are no control groups v2. Raises OSError."""
    mounted = mount_point((proc / "self" / "mountinfo").read_text())
    group = own_group((proc / "self" / "cgroup").read_text())
    return Path(mounted) / group.lstrip("/") if mounted and group else None


def why_not_divisible(group: Path) -> str:
    """Why a group cannot be divided, with what helps; "" if nothing speaks against it. Raises OSError."""
    missing = missing_controllers((group / "cgroup.controllers").read_text())
    if missing:
        return f"{group} does not offer the controller {' and '.join(missing)} of control groups v2"
    for path in (group, group / "cgroup.procs", group / "cgroup.subtree_control"):
        if not os.access(path, os.W_OK):
            return f"{path} is not writable; {HOW_TO_DELEGATE}"
    return ""
