import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from headrace.errors import FailedPrecondition
from headrace.mesh.process import ServiceProcess, describe_exit, tail
from headrace.mesh.state_directory import default_state_dir, lock_state_dir, prepare_state_dir


def test_it_is_made_with_its_logs(tmp_path: Path) -> None:
    prepare_state_dir(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b" / "logs").is_dir()
    assert list((tmp_path / "a" / "b").iterdir()) == [tmp_path / "a" / "b" / "logs"]


def test_one_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FailedPrecondition, match=r"file/state: cannot be written: .*choose another with --state"):
        prepare_state_dir(tmp_path / "file" / "state")


def test_the_second_to_lock_is_told_who_was_first(tmp_path: Path) -> None:
    with (
        closing(lock_state_dir(tmp_path)),
        pytest.raises(FailedPrecondition, match=rf"another mesh \(process {os.getpid()}\) uses it"),
    ):
        lock_state_dir(tmp_path)
    lock_state_dir(tmp_path).close()


def test_the_lock_of_someone_who_has_ended_is_waited_for(tmp_path: Path) -> None:
    code = (
        "import sys, os, pathlib, subprocess, fcntl\n"
        "from headrace.mesh.state_directory import lock_state_dir\n"
        "lock = lock_state_dir(pathlib.Path(sys.argv[1]))\n"
        "subprocess.Popen(['sleep', '0.5'], pass_fds=[lock.descriptor])\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=60)
    lock_state_dir(tmp_path).close()


def test_where_it_is_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/somewhere")
    assert default_state_dir() == Path("/somewhere/headrace")
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert default_state_dir() == Path("/home/someone/.local/state/headrace")


async def test_output_is_appended_to_the_log_and_its_end_can_be_read(tmp_path: Path) -> None:
    log = tmp_path / "p.log"
    for text in ("one", "two"):
        process = ServiceProcess([sys.executable, "-c", f"print({text!r})"], log, group=0)
        assert await process.wait() == 0
    assert tail(log) == ["one", "two"]
    assert tail(log, lines=1) == ["two"]
    assert tail(tmp_path / "gone.log") == []


@pytest.mark.parametrize(("code", "text"), [(0, "exit code 0"), (-9, "signal SIGKILL"), (-99, "signal 99")])
def test_exits_are_described(code: int, text: str) -> None:
    assert describe_exit(code) == text
