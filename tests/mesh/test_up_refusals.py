"""What `headrace up` refuses before it starts anything: one line on standard error, exit code 2."""

import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headrace.mesh.plan import make_runtime_dir


def up(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "headrace.cli.main", "up", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def refused(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 2, done
    assert done.stdout == ""
    [line] = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    return line


def test_a_second_up_on_the_same_state(start_up: Callable[..., Any]) -> None:
    mesh = start_up()
    mesh.until_ready()
    line = refused(up("--state", str(mesh.state), "--listen", "127.0.0.1:0"))
    assert f"another mesh (process {mesh.process.pid}) uses it" in line


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        line = refused(up("--state", str(tmp_path / "state"), "--listen", f"127.0.0.1:{port}"))
    assert f"--listen: port {port} of 127.0.0.1 is in use" in line
    assert not (tmp_path / "state").exists()


def test_a_metrics_port_in_use_that_was_asked_for(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        config = tmp_path / "mesh.yaml"
        config.write_text(f"telemetry: {{metrics_listen: '127.0.0.1:{port}'}}")
        line = refused(up("--state", str(tmp_path / "state"), "--listen", "127.0.0.1:0", "--config", str(config)))
    assert not (tmp_path / "state").exists()
    assert f"telemetry.metrics_listen: port {port} of 127.0.0.1 is in use" in line


def test_a_redis_without_its_package(tmp_path: Path) -> None:
    config = tmp_path / "mesh.yaml"
    config.write_text("router: {cache_url: 'redis://localhost'}")
    without = "import sys; sys.modules['redis'] = None; from headrace.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", without, "up", "--state", str(tmp_path / "state"), "--config", str(config)]
    line = refused(subprocess.run(command, capture_output=True, text=True, timeout=60, check=False))
    assert "router.cache_url names a Redis" in line
    assert "pip install 'headrace[redis]'" in line
    assert not (tmp_path / "state").exists()


def test_an_unwritable_state_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "file/state: cannot be written" in refused(up("--state", str(tmp_path / "file" / "state")))


def test_a_state_directory_that_takes_no_bytes(tmp_path: Path) -> None:
    limited = ["bash", "-c", 'ulimit -f 0; exec "$@"', "bash"]
    command = [*limited, sys.executable, "-m", "headrace.cli.main", "up", "--state", str(tmp_path)]
    done = subprocess.run(
        [*command, "--listen", "127.0.0.1:0"], capture_output=True, text=True, timeout=60, check=False
    )
    assert f"{tmp_path}: cannot be written: File too large" in refused(done)


def test_an_address_that_is_not_loopback(tmp_path: Path) -> None:
    assert "0.0.0.0 is not loopback" in refused(up("--state", str(tmp_path), "--listen", "0.0.0.0:8080"))
    assert not (tmp_path / "lock").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("router: {processes: 99}", ["router.processes", "99", "64"]),
        ("router: {procesess: 1}", ["router.procesess", "there is no such key"]),
        ("{", ["cannot be read", 'mesh.yaml", line 1']),
        ("- 1", ["the file"]),
    ],
    ids=["out of bounds", "unknown key", "no YAML", "no mapping"],
)
def test_a_wrong_configuration_names_key_value_and_bound(tmp_path: Path, text: str, expected: list[str]) -> None:
    config = tmp_path / "mesh.yaml"
    config.write_text(text)
    line = refused(up("--state", str(tmp_path), "--config", str(config)))
    assert all(part in line for part in (str(config), *expected)), line


def test_the_runtime_directory_is_short_whatever_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    long = tmp_path / ("x" * 120)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    made = make_runtime_dir()
    try:
        assert made.parent == Path("/tmp")
        assert made.stat().st_mode & 0o777 == 0o700
        assert list(long.iterdir()) == []
    finally:
        made.rmdir()


def test_a_database_that_is_none_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "headrace.db").write_bytes(b"this is no database" * 500)
    line = refused(up("--state", str(tmp_path), "--listen", "127.0.0.1:0"))
    assert line.startswith("headrace: the mesh cannot start: autoscaler: database ")
    assert "file is not a database" in line
