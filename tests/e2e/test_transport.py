"""Slots and large tensors through a whole mesh, read from its metrics."""

from __future__ import annotations

import re
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

import headrace

SIDE = 224


def metric(mesh: Any, name: str, **labels: str) -> float:
    """Sum over the samples of `name` that carry the labels."""
    line = next(line for line in mesh.log if "metrics" in line and "http" in line)
    url = re.search(r"http://[0-9.]+:[0-9]+/metrics", line)
    assert url
    with urllib.request.urlopen(url[0], timeout=30) as response:
        samples = response.read().decode().splitlines()
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    return sum(
        float(sample.rsplit(" ", 1)[1])
        for sample in samples
        if sample.startswith(f"{name}{{") and all(label in sample for label in wanted)
    )


def mean_of_image() -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3, 1, 1])
    graph = helper.make_graph([helper.make_node("GlobalAveragePool", ["x"], ["y"])], "graph", [x], [y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def test_an_instance_group_of_five_is_five_slots(mesh: Any, models: Path, tmp_path: Path, eventually: Any) -> None:
    repository = tmp_path / "repo"
    (repository / "1").mkdir(parents=True)
    (repository / "1" / "model.onnx").write_bytes((models / "add.onnx").read_bytes())
    (repository / "config.pbtxt").write_text(
        'platform: "onnxruntime_onnx"\nmax_batch_size: 8\n'
        'input [{ name: "x" data_type: TYPE_FP32 dims: [4] }]\noutput [{ name: "y" data_type: TYPE_FP32 dims: [4] }]\n'
        "instance_group [{ count: 5 kind: KIND_CPU }]\n"
    )
    mesh.cli("deploy", str(repository), "--name", "five", "--min-instances", "1", "--max-instances", "1", "--wait")
    slots = "headrace_runner_slots"
    eventually(lambda: metric(mesh, slots, model="five", state="free") == 5, "five slots are free")


def test_images_pass_by_shared_memory(mesh: Any, tmp_path: Path) -> None:
    onnx.save(mean_of_image(), tmp_path / "image.onnx")
    mesh.cli("deploy", str(tmp_path / "image.onnx"), "--name", "image", "--min-instances", "1", "--wait")
    before = metric(mesh, "headrace_bundle_transports_total", direction="bundle", transport="shared")
    with headrace.Client(mesh.url) as client:
        for value in range(3):
            answer = client.infer("image", {"x": np.full((1, 3, SIDE, SIDE), value, np.float32)})["y"]
            np.testing.assert_allclose(answer, np.full((1, 3, 1, 1), value))
    after = metric(mesh, "headrace_bundle_transports_total", direction="bundle", transport="shared")
    assert after - before == 3
