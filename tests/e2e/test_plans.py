"""A model's plans on a running mesh: with a GPU they answer, and without one the deploy says why they cannot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from headrace import Client
from headrace_common.gpus import find_gpus, own_gpu
from headrace_runner.engines import trt_library
from tests.e2e.conftest import Mesh

GPU = own_gpu(find_gpus())
needs_gpu = pytest.mark.skipif(GPU is None, reason="needs an NVIDIA GPU and its driver")
without_gpu = pytest.mark.skipif(GPU is not None, reason="is for machines without a GPU")
pytestmark = pytest.mark.skipif(
    trt_library.installed("tensorrt-rtx") is None, reason="needs TensorRT-RTX: pip install 'headrace[tensorrt-rtx]'"
)


def compiled(mesh: Mesh, models: Path, targets: str, out: Path) -> Path:
    source = models / "add.onnx"
    mesh.cli("compile", str(source), "--name", "planned", "--target", targets, "--batch", "1:8", "--out", str(out))
    return out


@without_gpu
def test_plans_on_a_machine_without_a_gpu_are_refused_with_what_they_are_for(
    mesh: Mesh, models: Path, tmp_path: Path
) -> None:
    plans = compiled(mesh, models, "sm_86,sm_89", tmp_path)
    for source in (plans, plans / "planned.sm_86.plan"):
        done = mesh.cli("deploy", str(source), "--name", "planned", "--wait", check=False)
        assert done.returncode == 1
        assert "was built for sm_86" in done.stderr
        assert "and this machine has no GPU: `headrace doctor` says what is missing" in done.stderr


@pytest.mark.gpu
@needs_gpu
def test_plans_on_a_machine_with_their_gpu_answer(mesh: Mesh, models: Path, tmp_path: Path) -> None:
    assert GPU is not None
    plans = compiled(mesh, models, GPU.target, tmp_path)
    mesh.cli("deploy", str(plans), "--name", "planned", "--wait")
    rows = np.arange(12, dtype=np.float32).reshape(3, 4)
    with Client(mesh.url) as client:
        answer = client.infer("planned", {"x": rows})
        expected = client.infer("add", {"x": rows})
    for name, array in expected.items():
        np.testing.assert_allclose(answer[name], array, rtol=1e-2, atol=1e-2)
    mesh.cli("delete", "planned")
