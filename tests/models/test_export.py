"""headrace.models.export: what it writes, what it leaves as it was, and what it says where it cannot."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from headrace.errors import FailedPrecondition, HeadraceError, InvalidArgument
from headrace.models import export
from headrace_runner.engines.base import ModelSource
from headrace_runner.engines.torch_engine import TorchEngine


class Tagger(torch.nn.Module):
    """Scores for every token, in training as in serving but for the dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(100, 8)
        self.dropout = torch.nn.Dropout(0.5)
        self.head = torch.nn.Linear(8, 3)

    def forward(self, tokens: torch.Tensor, weight: torch.Tensor) -> dict[str, torch.Tensor]:
        scores = self.head(self.dropout(self.embedding(tokens))) * weight.unsqueeze(1).unsqueeze(2)
        return {"scores": scores, "best": scores.argmax(2)}


EXAMPLE = (torch.zeros(1, 5, dtype=torch.int64), torch.ones(1))
LENGTH = {"dynamic": {"tokens": {1: "length"}}}


def test_an_exported_program_holds_no_pickle_no_example_and_no_path(tmp_path: Path) -> None:
    done = export(Tagger(), EXAMPLE, path=tmp_path / "tagger.pt2", **LENGTH)  # type: ignore[arg-type]
    assert (done.path, done.format) == (tmp_path / "tagger.pt2", "pt2")
    assert (done.inputs, done.outputs) == (("tokens", "weight"), ("scores", "best"))
    assert done.size_bytes == done.path.stat().st_size
    with zipfile.ZipFile(done.path) as file:
        assert file.read("tagger/data/sample_inputs/model.pt") == b""
        program = file.read("tagger/models/model.json")
    assert b"stack_trace" not in program
    assert Path(__file__).name.encode() not in program
    assert [path.name for path in tmp_path.iterdir()] == ["tagger.pt2"]


def test_the_module_is_left_as_it_was_part_by_part(tmp_path: Path) -> None:
    module = Tagger().train()
    module.embedding.eval()
    export(module, EXAMPLE, path=tmp_path / "tagger.pt2")
    assert [module.training, module.embedding.training, module.dropout.training] == [True, False, True]
    assert all(parameter.requires_grad for parameter in module.parameters())


@pytest.mark.parametrize("format", ["pt2", "onnx"])
def test_both_formats_answer_as_the_module_in_eval_mode_for_any_sizes(tmp_path: Path, format: str) -> None:
    module = Tagger()
    names = {"inputs": ["ids", "scale"], "outputs": ["raw", "tag"]}
    done = export(module, EXAMPLE, path=tmp_path / f"tagger.{format}", **LENGTH, **names)  # type: ignore[arg-type]
    tokens = np.random.default_rng(2).integers(0, 100, (3, 9))
    given = {"ids": tokens, "scale": np.array([1, 2, 3], np.float32)}
    if format == "onnx":
        session = onnxruntime.InferenceSession(done.path.read_bytes(), providers=["CPUExecutionProvider"])
        raw, tag = session.run(["raw", "tag"], given)
    else:
        answers = TorchEngine().load(ModelSource(done.path, "tagger.pt2")).run(given)
        raw, tag = answers["raw"], answers["tag"]
    with torch.no_grad():
        expected = module.eval()(torch.from_numpy(tokens), torch.from_numpy(given["scale"]))
    np.testing.assert_allclose(raw, expected["scores"], rtol=1e-5, atol=1e-6)
    assert tag.tolist() == expected["best"].tolist()


def test_a_file_that_is_there_is_replaced_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "m.pt2"
    export(torch.nn.Linear(2, 2), torch.ones(2, 2), path=path)
    before = path.read_bytes()
    with pytest.raises(HeadraceError):
        export(_Random(), torch.ones(2, 2), path=path)
    assert path.read_bytes() == before
    export(torch.nn.Linear(2, 3), torch.ones(2, 2), path=path)
    assert path.read_bytes() != before


def test_without_a_batch_every_size_is_the_examples(tmp_path: Path) -> None:
    done = export(torch.nn.Linear(2, 2), torch.ones(1, 2), path=tmp_path / "m.pt2", batch=False)
    model = TorchEngine().load(ModelSource(done.path, "m.pt2"))
    assert (model.inputs[0].dims, model.outputs[0].dims) == ((1, 2), (1, 2))


class _Random(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.rand_like(x)


class _Reshaped(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(2, -1)


class _Branch(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1 if x.sum() > 0 else x


LINEAR = torch.nn.Linear(2, 2)
ONES = torch.ones(2, 2)


@pytest.mark.parametrize(
    ("module", "example", "how", "kind", "reason"),
    [
        pytest.param(
            LINEAR, ONES, {"path": "m.pt"}, InvalidArgument, "path: expected .* .pt2 or .onnx.*'m.pt'", id="kind"
        ),
        pytest.param(LINEAR, ONES, {"path": "m.pt2", "format": "onnx"}, InvalidArgument, "as its format", id="format"),
        pytest.param(LINEAR, ONES, {"path": "no/m.pt2"}, InvalidArgument, "there is no directory", id="directory"),
        pytest.param(
            print, ONES, {}, InvalidArgument, "expected a torch.nn.Module .*builtin_function", id="a function"
        ),
        pytest.param(
            LINEAR, torch.ones(2, 3), {}, InvalidArgument, "example_inputs: the module cannot run", id="example"
        ),
        pytest.param(
            LINEAR, ONES, {"inputs": ["a", "b"]}, InvalidArgument, "inputs: expected 1 names, for input", id="name"
        ),
        pytest.param(
            LINEAR, ONES, {"outputs": "y"}, InvalidArgument, "outputs: expected 1 names", id="a text for names"
        ),
        pytest.param(
            LINEAR,
            ONES,
            {"dynamic": {"x": {1: "n"}}},
            InvalidArgument,
            "have no argument 'x'; expected input",
            id="unknown",
        ),
        pytest.param(
            LINEAR,
            ONES,
            {"dynamic": {"input": {7: "n"}}},
            InvalidArgument,
            r"has the shape \[2, 2\] in the",
            id="no axis",
        ),
        pytest.param(
            LINEAR, ONES, {"bounds": {"n": (1, 2)}}, InvalidArgument, "no dimension is named 'n'", id="bounds"
        ),
        pytest.param(
            _Random(), ONES, {}, FailedPrecondition, "does not answer as the module does.*random", id="random"
        ),
        pytest.param(
            _Reshaped(), ONES, {}, FailedPrecondition, r"cannot export the module: .*constant.*see batch", id="fix"
        ),
        pytest.param(_Branch(), ONES, {}, FailedPrecondition, "torch cannot export the module: ", id="control flow"),
    ],
)
def test_what_cannot_be_exported_is_refused_with_the_reason(
    tmp_path: Path, module: Any, example: Any, how: dict[str, Any], kind: type[Exception], reason: str
) -> None:
    with pytest.raises(kind, match=reason):
        export(module, example, **{**how, "path": tmp_path / how.get("path", "m.pt2")})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("use", ["import headrace.models", "from headrace.models import export"])
def test_torch_is_imported_when_it_is_needed_and_missed_with_what_to_install(use: str) -> None:
    code = f"import sys; {use}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_without_torch_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("headrace.models.exporting.find_spec", lambda _name: None)
    with pytest.raises(FailedPrecondition, match=r"needs torch, .*; pip install 'headrace\[torch\]'"):
        export(LINEAR, ONES, path=tmp_path / "m.pt2")
