"""A `.pt2` where ONNX is wanted: it is converted, under the names that it is served with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from headrace.models import export
from headrace_common.errors import InvalidArgument
from headrace_runner.compile.source import read_source
from headrace_runner.importing.programs import onnx_of
from headrace_runner.optimizer.__main__ import main as optimize


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.layers = torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.ReLU(), torch.nn.Linear(64, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)  # type: ignore[no-any-return]


@pytest.fixture
def program(tmp_path: Path) -> Path:
    return export(Net(), torch.randn(2, 16), path=tmp_path / "net.pt2", inputs=["features"], outputs=["scores"]).path


def test_the_onnx_made_of_a_program_answers_as_the_module_does(program: Path) -> None:
    made = onnx_of(program)
    session = onnxruntime.InferenceSession(made.read_bytes(), providers=["CPUExecutionProvider"])
    features = np.random.default_rng(1).random((5, 16), np.float32)
    [scores] = session.run(["scores"], {"features": features})
    with torch.no_grad():
        np.testing.assert_allclose(scores, Net()(torch.from_numpy(features)), rtol=1e-5, atol=1e-5)
    assert made.name == "net.onnx"
    assert not made.is_relative_to(program.parent)


def test_an_onnx_file_is_taken_as_it_is(tmp_path: Path) -> None:
    assert onnx_of(tmp_path / "m.onnx") == tmp_path / "m.onnx"


def test_a_file_that_is_no_program_is_refused_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "m.pt2").write_bytes(b"garbage")
    with pytest.raises(InvalidArgument, match=r"m\.pt2: it is not a \.pt2 archive"):
        onnx_of(tmp_path / "m.pt2")
    with pytest.raises(InvalidArgument, match=r"gone\.pt2: cannot be read: No such file"):
        onnx_of(tmp_path / "gone.pt2")


def test_the_same_program_is_the_same_source_to_the_compiler(program: Path) -> None:
    """Or plans would never be found in the cache."""
    one, other = read_source(program), read_source(program)
    assert one.sha256 == other.sha256
    assert [tensor.name for tensor in one.graph.inputs] == ["features"]


def test_a_program_is_optimised(program: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples = np.random.default_rng(3).normal(size=(600, 16)).astype(np.float32)
    np.savez(tmp_path / "samples.npz", features=samples)
    arguments: list[Any] = [
        program,
        "--samples",
        tmp_path / "samples.npz",
        "--precisions=fp32",
        "--floor=0.9",
        "--time=1s",
    ]
    assert optimize([str(each) for each in [*arguments, "--batches=1", "--out", tmp_path / "out"]]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["verdict"] for each in found["variants"]].count("disqualified") == 0
    assert onnx.load(next((tmp_path / "out").glob("*.onnx"))).graph.input[0].name == "features"
