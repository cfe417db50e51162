"""A router whose hot modules are compiled knows from what."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from headrace_router import compiled


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with one compiled module."""
    folder = tmp_path / "headrace_router"
    folder.mkdir()
    (folder / "lanes.py").write_text("as it was")
    digest = hashlib.sha256(b"as it was").hexdigest()
    (folder / "compiled.json").write_text(json.dumps({"headrace_router/lanes.py": digest}))
    monkeypatch.setattr(compiled, "MANIFEST", folder / "compiled.json")
    return folder


def test_what_was_compiled_from_what_is_there_is_not_stale(package: Path) -> None:
    assert (compiled.count(), compiled.stale()) == (1, [])


@pytest.mark.parametrize("change", ["edited", "gone"])
def test_a_source_that_has_changed_since_is_named(package: Path, change: str) -> None:
    source = package / "lanes.py"
    source.unlink() if change == "gone" else source.write_text("as it is now")
    assert compiled.stale() == ["headrace_router/lanes.py"]


def test_without_a_manifest_all_is_interpreted(package: Path) -> None:
    (package / "compiled.json").unlink()
    assert (compiled.count(), compiled.stale()) == (0, [])
