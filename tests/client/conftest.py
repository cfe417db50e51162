import importlib.util
import sys
from collections.abc import Iterator
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
    with _load(Path(__file__).parent / "scripted_mesh.py").scripted_mesh() as running:
        yield running
