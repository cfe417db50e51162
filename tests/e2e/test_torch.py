"""A torch module goes into the mesh as an exported program, and its clients get the module's own answers."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headrace import Client
from headrace.models import export

LABELS = 10


class Digits(torch.nn.Module):
    """A small convolutional network over images of 8 x 8."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(1, 16, 3),
            torch.nn.BatchNorm2d(16),
            torch.nn.ReLU(),
            torch.nn.Dropout(0.5),
            torch.nn.Flatten(),
        )
        self.head = torch.nn.Linear(16 * 36, LABELS)

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        scores = self.head(self.layers(image))
        return {"scores": scores, "label": scores.argmax(1)}


def test_a_module_is_exported_deployed_and_answers_as_it_does_itself(mesh: Any, tmp_path: Path) -> None:
    module = Digits()
    export(module, torch.rand(1, 1, 8, 8), path=tmp_path / "digits.pt2")
    mesh.cli("deploy", str(tmp_path / "digits.pt2"), "--name", "digits", "--memory", "1Gi", "--wait")
    images = np.random.default_rng(3).random((6, 1, 8, 8), np.float32)
    with torch.no_grad():
        expected = module.eval()(torch.from_numpy(images))
    with Client(mesh.url) as client:
        got = client.infer("digits", {"image": images})
        alone = client.infer("digits", {"image": images[:1]})
    np.testing.assert_allclose(got["scores"], expected["scores"], rtol=1e-4, atol=1e-5)
    assert got["label"].tolist() == expected["label"].tolist()
    np.testing.assert_allclose(alone["scores"], got["scores"][:1], rtol=1e-4, atol=1e-5)
    [version] = mesh.describe("digits")["versions"]
    assert (version["engine"], version["max_batch_size"] > 1) == ("torch", True)
    assert version["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 1, 8, 8], "optional": False}]
    assert mesh.get("/v2/models/digits")[1]["platform"] == "torch_export"


def test_a_file_that_would_run_code_is_refused_by_the_deploy_and_runs_none(mesh: Any, tmp_path: Path) -> None:
    marker = tmp_path / "executed"

    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return open, (str(marker), "w")

    program = torch.export.export(Digits().eval(), (torch.rand(2, 1, 8, 8),))
    torch.export.save(program, tmp_path / "evil.pt2")
    content = (tmp_path / "evil.pt2").read_bytes()
    # Over the example inputs, of which only the first bytes matter: the archive's directory stays as it is.
    at = content.index(b"evil/data/sample_inputs/model.pt") + len(b"evil/data/sample_inputs/model.pt")
    at = content.index(b"PK\x03\x04", at)
    bomb = pickle.dumps(Bomb())
    (tmp_path / "evil.pt2").write_bytes(content[:at] + bomb + content[at + len(bomb) :])
    done = mesh.cli("deploy", str(tmp_path / "evil.pt2"), "--name", "evil", "--wait", check=False)
    assert done.returncode != 0
    assert "its example inputs are not what torch writes" in done.stderr
    assert "headrace.models.export(module, example_inputs" in done.stderr
    assert not marker.exists()
    done = mesh.cli("deploy", str(tmp_path / "weights.pth"), "--name", "evil", check=False)
    assert done.returncode != 0
