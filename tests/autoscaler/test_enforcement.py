"""Instances are held to their resources: what limits are set, where control groups are found, and the groups."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_autoscaler.core import enforcement
from headrace_autoscaler.domain import Resources
from headrace_autoscaler.providers.cgroups import Cgroups, NoCgroups, find_cgroups
from headrace_autoscaler.providers.local import LocalProvider, open_cgroups
from headrace_common.config import ProcessContext
from headrace_common.control_groups import mount_point, own_group

MIB = 1 << 20
MESH = 100
"""The supervisor's pid in the trees here."""
OURS = os.getpid()
"""The autoscaler's."""


@pytest.mark.parametrize(
    ("resources", "cpu_max", "memory_max"),
    [
        pytest.param(Resources(1500, 256 * MIB), "150000 100000", str(272 * MIB), id="one-and-a-half-cpus"),
        pytest.param(Resources(5, 256 * MIB), "1000 100000", str(272 * MIB), id="the-kernel-takes-no-less-than-a-ms"),
        pytest.param(Resources(0, 0), "max 100000", "max", id="nothing-asked-for-nothing-limited"),
    ],
)
def test_the_limits_of_a_group(resources: Resources, cpu_max: str, memory_max: str) -> None:
    limits = enforcement.cgroup_limits(resources, shared_bytes=16 * MIB)
    assert limits == {"cpu.max": cpu_max, "memory.max": memory_max, "memory.oom.group": "1"}


@given(st.integers(1, 10**6))
def test_a_quota_is_the_millicores_share_of_its_period(millicores: int) -> None:
    quota, period = map(int, enforcement.cgroup_limits(Resources(millicores), 0)["cpu.max"].split())
    assert quota == max(1000, period * millicores // 1000)


@pytest.mark.parametrize(
    ("events", "kills"),
    [
        ("low 0\nmax 3\noom 2\noom_kill 2\noom_group_kill 1\n", 2),
        ("low 0\noom_kill 0\n", 0),
        ("", 0),
        ("oom_kill x", 0),
    ],
)
def test_kills_for_want_of_memory(events: str, kills: int) -> None:
    assert enforcement.oom_kills(events) == kills


def test_a_family_is_whoever_descends() -> None:
    assert enforcement.family({2: 1, 100: 1, 101: 100, 102: 101, 7: 2}, MESH) == {100, 101, 102}


@dataclass
class Tree:
    """Directories that look like /proc and like a control group that holds these processes."""

    path: Path
    controllers: str = "cpuset cpu io memory pids"
    enabled: str = ""
    group: str = "/user.slice/mesh.scope"
    parents: dict[int, int] = field(default_factory=lambda: {1: 0, MESH: 1, 101: MESH, 102: 101})
    members: tuple[int, ...] = (MESH, 101, 102)

    @property
    def proc(self) -> Path:
        return self.path / "proc"

    @property
    def root(self) -> Path:
        return self.path / "cgroup" / self.group.removesuffix("/headrace-mesh").lstrip("/")

    def make(self) -> Tree:
        for pid, parent in self.parents.items():
            (self.proc / str(pid)).mkdir(parents=True)
            (self.proc / str(pid) / "stat").write_text(f"{pid} (a) name) S {parent} 1 1")
        (self.proc / "self").mkdir()
        (self.proc / "self" / "mountinfo").write_text(
            f"24 1 0:21 / /proc rw - proc proc rw\n30 24 0:26 / {self.path / 'cgroup'} rw,nosuid - cgroup2 cgroup2 rw\n"
        )
        (self.proc / "self" / "cgroup").write_text(f"4:memory:/old\n0::{self.group}\n")
        self.root.mkdir(parents=True)
        (self.root / "cgroup.controllers").write_text(self.controllers)
        (self.root / "cgroup.subtree_control").write_text(self.enabled)
        (self.root / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in self.members))
        return self

    def found(self, setting: str = "") -> Cgroups:
        return find_cgroups(setting, MESH, self.proc)

    def refusal(self, setting: str = "") -> str:
        with pytest.raises(NoCgroups) as caught:
            self.found(setting)
        return str(caught.value)


def test_a_group_of_our_own_is_divided_and_the_mesh_moves_aside(tmp_path: Path) -> None:
    tree = Tree(tmp_path).make()
    assert tree.found().root == tree.root
    assert (tree.root / "headrace-mesh" / "cgroup.procs").read_text() in ("100", "101", "102")
    assert (tree.root / "cgroup.subtree_control").read_text() == "+cpu +memory"


def test_one_that_is_divided_already_is_taken_as_it_is(tmp_path: Path) -> None:
    """By an autoscaler that was here before, and has moved the mesh aside."""
    tree = Tree(tmp_path, enabled="cpu memory", group="/mesh.scope/headrace-mesh").make()
    assert tree.found().root == tree.root
    assert not (tree.root / "headrace-mesh").exists()


def test_one_that_the_configuration_names_is_taken(tmp_path: Path) -> None:
    tree = Tree(tmp_path, members=()).make()
    assert tree.found(str(tree.root)).root == tree.root


def test_strangers_are_not_moved(tmp_path: Path) -> None:
    tree = Tree(tmp_path, members=(1, MESH, 101)).make()
    assert "holds processes that are not of this mesh (1); give the mesh a group of its own" in tree.refusal()
    assert not (tree.root / "headrace-mesh").exists()
    assert (tree.root / "cgroup.subtree_control").read_text() == ""


@pytest.mark.parametrize(
    ("parents", "supervisor", "strangers"),
    [
        pytest.param({MESH: 1, OURS: MESH, 7: 1}, MESH, "7", id="the supervisor's, and one that is not"),
        pytest.param({MESH: 1, OURS: MESH, 102: OURS}, MESH, "", id="the supervisor's only"),
        pytest.param({OURS: 1, 102: OURS, 7: 1}, 1, "", id="a container whose init is the supervisor"),
        pytest.param({OURS: 1, 102: OURS, 7: 1}, None, "7", id="started by itself, its parent is init"),
        pytest.param({OURS: 1, 102: OURS}, None, "", id="started by itself, and alone"),
    ],
)
def test_only_what_is_of_this_mesh_is_moved(
    tmp_path: Path, parents: dict[int, int], supervisor: int | None, strangers: str
) -> None:
    """Everything descends from init: to be its child is not to be of its mesh."""
    tree = Tree(tmp_path, parents={1: 0, **parents}, members=tuple(parents)).make()
    context = ProcessContext(process="autoscaler", state_dir=tmp_path, runtime_dir=tmp_path, supervisor=supervisor)
    opened = open_cgroups(context, tree.proc)
    if strangers:
        assert isinstance(opened, NoCgroups)
        assert f"holds processes that are not of this mesh ({strangers}); " in str(opened)
    else:
        assert isinstance(opened, Cgroups)
    assert (tree.root / "headrace-mesh").exists() is not bool(strangers)


def test_why_there_are_none(tmp_path: Path) -> None:
    assert Tree(tmp_path / "a").make().refusal("off") == "control groups are switched off (autoscaler.cgroup)"
    assert "does not offer the controller memory of" in Tree(tmp_path / "b", controllers="cpu hugetlb").make().refusal()
    assert "cannot be used: No such file" in Tree(tmp_path / "c").make().refusal(str(tmp_path / "nothing"))
    without = Tree(tmp_path / "d").make()
    (without.proc / "self" / "mountinfo").write_text("24 1 0:21 / /proc rw - proc proc rw\n")
    assert without.refusal() == "there are no control groups v2"


def remove_tree(group: Path) -> None:
    """As rmdir does in the real file system: only where there is no process."""
    if (group / "cgroup.procs").read_text():
        raise OSError(16, "Device or resource busy")
    shutil.rmtree(group)


def test_a_runners_group_is_made_limited_read_and_removed(tmp_path: Path) -> None:
    groups = Cgroups(tmp_path, remove_tree)
    groups.place("runner-a", 4711)
    assert groups.holds("runner-a", 4711)
    assert not groups.holds("runner-a", 1)
    assert not groups.holds("runner-b", 4711)
    groups.limit("runner-a", Resources(500, 64 * MIB), 0)
    group = tmp_path / "headrace-runner-a"
    assert (group / "cpu.max").read_text() == "50000 100000"
    assert (group / "memory.max").read_text() == str(64 * MIB)
    assert not groups.ran_out("runner-a")
    (group / "memory.events").write_text("oom_kill 1\n")
    assert groups.ran_out("runner-a")
    groups.remove("runner-a")
    assert group.exists(), "its process is still there"
    (group / "cgroup.procs").write_text("")
    groups.remove("runner-a")
    assert not group.exists()
    groups.remove("runner-a")


def test_what_a_killed_autoscaler_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    groups = Cgroups(tmp_path, remove_tree)
    for name in ("runner-gone", "runner-lives"):
        groups.place(name, 1)
    (tmp_path / "headrace-runner-gone" / "cgroup.procs").write_text("")
    (tmp_path / "headrace-mesh").mkdir()
    (tmp_path / "somebody-else").mkdir()
    groups.sweep()
    left = sorted(each.name for each in tmp_path.iterdir())
    assert left == ["headrace-mesh", "headrace-runner-lives", "somebody-else"]


async def test_a_provider_gives_each_runner_a_group_and_takes_it_away(runtime_dir: Path, tmp_path: Path) -> None:
    context = ProcessContext(process="autoscaler", state_dir=runtime_dir, runtime_dir=runtime_dir)
    removed: list[str] = []
    provider = LocalProvider(
        context, (sys.executable, "-c", "import time; time.sleep(60)"),
        Cgroups(tmp_path, lambda group: removed.append(group.name)),
    )  # fmt: skip
    started = await provider.start("runner-a")
    group = tmp_path / "headrace-runner-a"
    assert (group / "cgroup.procs").read_text() == str(started.pid)
    held = await provider.hold("runner-a", Resources(2000, 64 * MIB))
    assert (held.cpu, held.memory, held.cpu_in_cgroup, held.memory_in_cgroup) == (
        "cgroup", "cgroup and watchdog", True, True,
    )  # fmt: skip
    ring = context.mesh.router.shared_memory_bytes
    assert (group / "memory.max").read_text() == str(64 * MIB + ring), "the rings are the routers'"
    (group / "memory.events").write_text("oom_kill 1\n")
    os.kill(started.pid, signal.SIGKILL)
    exited = await provider.wait_exit("runner-a")
    assert (exited.how, exited.over_memory) == ("killed by SIGKILL", True)
    assert removed == ["headrace-runner-a"]


async def test_a_group_that_refuses_is_said_and_the_runner_runs(runtime_dir: Path, tmp_path: Path) -> None:
    context = ProcessContext(process="autoscaler", state_dir=runtime_dir, runtime_dir=runtime_dir)
    provider = LocalProvider(
        context, (sys.executable, "-c", "import time; time.sleep(60)"), Cgroups(tmp_path / "gone", lambda _: None)
    )
    await provider.start("runner-a")
    held = await provider.hold("runner-a", Resources())
    assert held.cpu.startswith("threads only, millicores are not enforced on this machine: its control group refused")
    assert not held.memory_in_cgroup
    await provider.kill("runner-a")


def test_in_the_real_file_system_a_process_is_placed_and_its_group_outlives_it_by_nothing() -> None:
    """Needs no controller, only a hierarchy that can be written to."""
    root = Path(mount_point(Path("/proc/self/mountinfo").read_text()) or "/nowhere")
    root /= own_group(Path("/proc/self/cgroup").read_text()).lstrip("/")
    if not os.access(root, os.W_OK) or not os.access(root / "cgroup.procs", os.W_OK):
        pytest.skip(f"needs a control group v2 that can be written to; {root} cannot")
    groups = Cgroups(root)
    name = f"runner-test-{os.getpid()}"
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        groups.place(name, process.pid)
        assert groups.holds(name, process.pid)
        groups.sweep()
        assert groups.holds(name, process.pid), "a group with a process in it stays"
        process.kill()
        process.communicate()
    groups.remove(name)
    assert not (root / f"headrace-{name}").exists()


@pytest.fixture
def real_groups() -> Iterator[Cgroups]:
    """Below the group that the tests run in, where that can be divided."""
    try:
        groups = find_cgroups(os.environ.get("HEADRACE_TEST_CGROUP", ""), os.getpid())
    except NoCgroups as reason:
        pytest.skip(f"needs a delegated control group v2: {reason}")
    yield groups
    groups.sweep()


def test_the_kernel_holds_a_process_to_its_memory(real_groups: Cgroups) -> None:
    hungry = "import sys; sys.stdin.read(1); held = [b'1' * (16 << 20) for _ in range(32)]; print('too much')"
    with subprocess.Popen([sys.executable, "-c", hungry], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        real_groups.place("runner-test", process.pid)
        assert real_groups.holds("runner-test", process.pid)
        real_groups.limit("runner-test", Resources(500, 64 * MIB), 0)
        group = real_groups.root / "headrace-runner-test"
        assert (group / "cpu.max").read_text().split() == ["50000", "100000"]
        output, _ = process.communicate(b"x")
    assert (process.returncode, output) == (-signal.SIGKILL, b"")
    assert real_groups.ran_out("runner-test")
    real_groups.remove("runner-test")
    assert not group.exists()
