"""Logs that are being written to are set aside and emptied."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from headrace.mesh.log_rotation import rotate_logs


def test_a_log_that_grew_too_large_is_set_aside_and_its_writer_goes_on(tmp_path: Path) -> None:
    log, aside = tmp_path / "runners.log", tmp_path / "runners.log.1"
    with log.open("ab", buffering=0) as writer:
        for number in range(2):
            writer.write(b"x" * 100 + b"%d" % number)
            rotate_logs(tmp_path, limit=100)
        writer.write(b"next\n")
    assert aside.read_bytes() == b"x" * 100 + b"1"
    assert log.read_bytes() == b"next\n"


def test_a_log_that_is_small_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "router-0.log").write_bytes(b"x" * 100)
    rotate_logs(tmp_path, limit=100)
    assert [path.name for path in tmp_path.iterdir()] == ["router-0.log"]


def test_a_log_is_emptied_even_if_it_cannot_be_kept(tmp_path: Path) -> None:
    (tmp_path / "router-0.log").write_bytes(b"x" * 101)
    (tmp_path / "router-0.log.1").mkdir()
    rotate_logs(tmp_path, limit=100)
    assert (tmp_path / "router-0.log").read_bytes() == b""


def test_without_a_directory_there_is_nothing_to_do(tmp_path: Path) -> None:
    rotate_logs(tmp_path / "logs")
    assert list(tmp_path.iterdir()) == []


def test_what_was_left_by_an_earlier_mesh_is_set_aside(short_dir: Path, start_up: Callable[..., Any]) -> None:
    logs = short_dir / "state" / "logs"
    logs.mkdir(parents=True)
    (logs / "runners.log").write_bytes(b"x" * (17 << 20))
    mesh = start_up()
    mesh.until_ready()
    mesh.eventually(lambda: (logs / "runners.log").stat().st_size == 0, "the log to be emptied")
    assert (logs / "runners.log.1").stat().st_size == 17 << 20
