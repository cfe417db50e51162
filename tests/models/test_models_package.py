from __future__ import annotations

import subprocess
import sys

import pytest

from headrace import models


def test_importing_the_package_imports_no_torch() -> None:
    code = "import headrace.models, sys; print(sorted({'torch', 'torch_pruning', 'onnx'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", models.__all__)
def test_everything_promised_is_there(name: str) -> None:
    assert getattr(models, name) is not None
    assert name in dir(models)


def test_what_is_not_promised_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        _ = models.nonsense
