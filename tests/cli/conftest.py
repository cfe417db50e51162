import importlib.util
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


def _load(path: Path) -> Any:
    """Test files are no packages; a module that two folders share is loaded by its path."""
    if path.stem not in sys.modules:
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module
        spec.loader.exec_module(module)
    return sys.modules[path.stem]


@pytest.fixture
def mesh() -> Iterator[Any]:
    with _load(Path(__file__).parents[1] / "client" / "scripted_mesh.py").scripted_mesh() as running:
        yield running


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


@pytest.fixture
def run(mesh: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Runs the command line in this process, against the scripted mesh."""
    from headrace.cli.main import main

    monkeypatch.setenv("HEADRACE_URL", mesh.url)

    def run_it(*arguments: str) -> Done:
        code = main(arguments)
        printed = capsys.readouterr()
        return Done(code, printed.out, printed.err)

    return run_it
