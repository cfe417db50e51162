"""`headrace optimize`, as people type it: the program of its own, and what is made of its answer."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from headrace.cli.main import main


@pytest.fixture
def model(tmp_path: Path) -> str:
    weights = np.random.default_rng(1).normal(size=(8, 4)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    path = tmp_path / "one.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    return str(path)


@pytest.fixture
def samples(tmp_path: Path) -> str:
    path = tmp_path / "samples.npz"
    np.savez(path, x=np.random.default_rng(2).normal(size=(600, 8)).astype(np.float32))
    return str(path)


def test_a_table_with_a_row_for_each_variant_and_the_reason(
    model: str, samples: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["optimize", model, "--samples", samples, "--agreement", "--time", "10ms", "--out", str(out)]
    assert main([*arguments, "--precisions", "fp32,int8", "--batches", "1,4"]) == 0
    printed = capfd.readouterr().out
    lines = printed.splitlines()
    assert " ".join(lines[0].split()) == (
        "VARIANT SIZE AGREEMENT 95% INTERVAL CPU/ROW P50 AT 1 P50 AT 4 ROWS/S AT 1 ROWS/S AT 4 VERDICT"
    )
    assert any("original" in line and "1.0000" in line for line in lines)
    assert "is the cheapest inside the floor 0.99" in printed
    assert "int8-edges: it has 1 layers with weights" in printed
    assert f"see {out / 'report.md'}" in printed


def test_json_is_one_document(model: str, samples: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["optimize", model, "--samples", samples, "--time", "10ms", "--precisions", "int8", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["variants"][0]["name"] == "original"
    assert found["chosen"]


def test_variants_made_elsewhere_are_rows_of_their_own(
    model: str, samples: str, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["optimize", model, "--samples", samples, "--time", "10ms", "--precisions", "fp16", "--json"]
    assert main([*arguments, "--variant", f"first={model}", "--variant", f"second={model}"]) == 0
    names = [each["name"] for each in json.loads(capfd.readouterr().out)["variants"]]
    assert names == ["original", "fp16", "first", "first+fp16", "second", "second+fp16"]


def test_what_is_wrong_is_one_line_and_exit_code_2(
    model: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["optimize", model, "--samples", str(tmp_path / "none.npz")]) == 2
    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("headrace: --samples")
    assert len(printed.err.splitlines()) == 1
