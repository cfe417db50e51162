import subprocess
import sys

import pytest

import headrace


def test_importing_headrace_imports_neither_grpc_nor_numpy() -> None:
    code = "import headrace, sys; print([m for m in ('grpc', 'numpy', 'google.protobuf') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", headrace.__all__)
def test_everything_promised_is_there(name: str) -> None:
    assert getattr(headrace, name) is not None
    assert name in dir(headrace)


def test_what_is_not_promised_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        _ = headrace.nonsense
