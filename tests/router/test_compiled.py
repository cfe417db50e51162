"""A router whose hot modules are compiled knows from what."""

from __future__ import annotations

import hashlib
import json
import sysconfig
from pathlib import Path

import pytest

from headrace_router import compiled

SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """In a checkout, with one compiled module, which imports another."""
    folder = tmp_path / "services/router/headrace_router"
    folder.mkdir(parents=True)
    sources = {f"services/router/headrace_router/{name}": f"{name} as it was" for name in ("lanes.py", "domain.py")}
    for name, content in sources.items():
        (tmp_path / name).write_text(content)
    digests = {name: hashlib.sha256(content.encode()).hexdigest() for name, content in sources.items()}
    manifest = {"compiled": ["headrace_router/lanes.py"], "sources": digests}
    (folder / f"compiled{Path(SUFFIX).with_suffix('.json')}").write_text(json.dumps(manifest))
    (folder / f"lanes{SUFFIX}").touch()
    return folder


def test_what_was_compiled_from_what_is_there_is_not_stale(package: Path) -> None:
    assert (compiled.count(package), compiled.stale(package)) == (1, [])


@pytest.mark.parametrize("name", ["lanes.py", "domain.py"])
def test_a_source_that_has_changed_since_is_named(package: Path, name: str) -> None:
    (package / name).write_text("as it is now")
    assert compiled.stale(package) == [f"services/router/headrace_router/{name}"]


@pytest.mark.parametrize("missing", ["manifest", "extension"])
def test_what_this_interpreter_cannot_load_is_interpreted(package: Path, missing: str) -> None:
    gone = {"manifest": f"compiled{Path(SUFFIX).with_suffix('.json')}", "extension": f"lanes{SUFFIX}"}[missing]
    (package / gone).unlink()
    (package / "lanes.py").write_text("as it is now")
    assert (compiled.count(package), compiled.stale(package)) == (0, [])
