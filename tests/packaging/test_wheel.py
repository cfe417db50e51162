"""What users install: the wheel holds all that the services read at run time."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = {
    "headrace": ROOT / "headrace",
    "headrace_common": ROOT / "services/common/headrace_common",
    "headrace_router": ROOT / "services/router/headrace_router",
    "headrace_autoscaler": ROOT / "services/autoscaler/headrace_autoscaler",
    "headrace_runner": ROOT / "services/runner/headrace_runner",
}


def test_the_wheel_holds_every_file_of_every_package(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path),
    ]
    done = subprocess.run([*command, str(ROOT)], capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    [wheel] = tmp_path.glob("headrace-*.whl")
    inside = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        str(Path(package, path.relative_to(source)))
        for package, source in SOURCES.items()
        for path in source.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert "headrace_router/envoy/router.yaml" in expected
    assert expected - inside == set()
    assert "headrace_autoscaler/catalog.toml" in inside
    assert not {name for name in inside if name.startswith(("tests/", "benchmarks/"))}
