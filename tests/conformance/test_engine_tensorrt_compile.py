"""What of the suite can be asked of TensorRT without a GPU: what it compiles, and what it refuses and why.

Here it is TensorRT for RTX, which builds plans anywhere. What it computes is asked by the tests that are marked gpu.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from headrace_runner.compile.__main__ import main
from headrace_runner.engines import trt_library
from tests.conformance.engines import onnx_models
from tests.conformance.engines.kits import CRASH, DATATYPES, HANG, HOG, Tensors

pytestmark = pytest.mark.skipif(
    # In CI it must be there.
    trt_library.installed("tensorrt-rtx") is None and os.environ.get("CI") != "true",
    reason="needs TensorRT-RTX: pip install 'headrace[tensorrt-rtx]'",
)

COMPILED = {
    **{kind: kind for kind in ("BF16", "BOOL", "FP16", "FP32", "INT8", "INT32", "INT64", "UINT8")},
    # TensorRT has no 64-bit floats: it computes in 32, and the manifest says so.
    "FP64": "FP32",
}
"""Datatype of a model -> of its plan."""
X2: Tensors = [("x", "FP32", ["N", 2])]
Y2: Tensors = [("y", "FP32", ["N", 2])]
Compile = Callable[..., "Outcome"]


class Outcome:
    """Of one compilation for one target: the plan's manifest, or what was said."""

    def __init__(self, code: int, printed: str, said: str) -> None:
        self.code, self.said = code, said
        plans = json.loads(printed) if printed else []
        self.manifest: dict[str, Any] = plans[0].get("manifest", {}) if plans else {}

    def tensors(self, which: str) -> list[tuple[str, str, list[int]]]:
        return [(each["name"], each["datatype"], each["shape"]) for each in self.manifest[which]]


@pytest.fixture
def compile_it(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Compile:
    def run(model: bytes | onnx.ModelProto, *arguments: str) -> Outcome:
        path = tmp_path / "model.onnx"
        path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
        code = main([str(path), "--out", str(tmp_path / "out"), "--no-cache", "--target", "sm_86", *arguments])
        printed = capfd.readouterr()
        if code:
            assert not list((tmp_path / "out").glob("*.plan")), "what is refused leaves no plan"
        return Outcome(code, printed.out, printed.err)

    return run


@pytest.mark.parametrize("datatype", sorted(COMPILED))
def test_a_datatype_is_in_the_plan_as_in_the_model(compile_it: Compile, datatype: str) -> None:
    done = compile_it(onnx_models.identity([("x", datatype, ["N", 3])], [("y", datatype, ["N", 3])]))
    assert done.code == 0, done.said
    assert done.tensors("inputs") == [("x", COMPILED[datatype], [-1, 3])]
    assert done.tensors("outputs") == [("y", COMPILED[datatype], [-1, 3])]


@pytest.mark.parametrize("datatype", sorted(DATATYPES - set(COMPILED)))
def test_a_datatype_that_tensorrt_does_not_have_is_refused_in_its_words(compile_it: Compile, datatype: str) -> None:
    done = compile_it(onnx_models.identity([("x", datatype, ["N", 3])], [("y", datatype, ["N", 3])]))
    assert done.code == 1
    assert "TensorRT cannot parse" in done.said
    assert "Failed to convert ONNX date type to TensorRT data type" in done.said


@pytest.mark.parametrize("datatype", ["BF16", "FP16", "FP32", "FP64", "INT8", "INT32", "INT64"])
def test_sums_are_compiled(compile_it: Compile, datatype: str) -> None:
    done = compile_it(onnx_models.doubled(datatype))
    assert done.code == 0, done.said


def test_products_are_compiled(compile_it: Compile) -> None:
    done = compile_it(onnx_models.dense(np.ones((70, 30), np.float32), np.ones(30, np.float32)))
    assert done.tensors("outputs") == [("y", "FP32", [-1, 30])], done.said


def test_a_scalar_is_a_scalar(compile_it: Compile) -> None:
    done = compile_it(onnx_models.identity([("x", "FP32", [])], [("y", "FP32", [])]))
    assert done.tensors("inputs") == [("x", "FP32", [])], done.said


def test_dimensions_of_any_size_are_between_those_of_the_profile(compile_it: Compile) -> None:
    copy = onnx_models.identity([("x", "FP32", ["N", "T"])], [("y", "FP32", ["N", "T"])])
    done = compile_it(copy, "--shape", "x=1x1:4x16:8x64")
    assert done.tensors("inputs") == [("x", "FP32", [-1, -1])], done.said
    assert done.manifest["profile"]["x"] in (
        [[1, 1], [4, 16], [8, 64]],
        {"min": [1, 1], "opt": [4, 16], "max": [8, 64]},
    )


@pytest.mark.parametrize(
    ("dims", "arguments", "code", "says"),
    [
        pytest.param(["N", "T"], [], 2, "dimension 1 (T) may have any size, and nothing says which", id="no profile"),
        pytest.param(["N", 2], ["--batch", "0:4"], 2, "rows that grow from left to right, from 1", id="no rows"),
        pytest.param(["N", 0], [], 2, "from 1 to 2147483647; got 1x0", id="a dimension of size zero"),
        pytest.param(["N", 1 << 40], [], 2, "from 1 to 2147483647; got 1x1099511627776", id="over 31 bits"),
        pytest.param(["N", 1 << 20, 1 << 20], [], 1, "tensor volume exceeds", id="more elements than there can be"),
    ],
)  # fmt: skip
def test_sizes_that_no_plan_has_are_refused(
    compile_it: Compile, dims: list[Any], arguments: list[str], code: int, says: str
) -> None:
    done = compile_it(onnx_models.identity([("x", "FP32", dims)], [("y", "FP32", dims)]), *arguments)
    assert done.code == code
    assert says in done.said


@pytest.mark.parametrize(
    ("node", "outputs", "says"),
    [
        pytest.param(helper.make_node("Frobnicate", ["x"], ["y"]), Y2, "Plugin not found", id="an unknown operator"),
        pytest.param(
            helper.make_node("NonZero", ["x"], ["y"]),
            [("y", "INT64", [2, "K"])],
            "NonZero plugin creator version 1 was not found",
            id="an output whose size depends on values",
        ),
        pytest.param(
            helper.make_node("Frobnicate", ["x"], ["y"], domain="com.example"), Y2, "Plugin not", id="a custom operator"
        ),
    ],
)  # fmt: skip
def test_what_tensorrt_does_not_have_is_refused_in_its_words(
    compile_it: Compile, node: onnx.NodeProto, outputs: Tensors, says: str
) -> None:
    model = onnx_models.model([node], X2, outputs)
    if node.domain:
        model.opset_import.append(helper.make_opsetid(node.domain, 1))
    done = compile_it(model)
    assert done.code == 1
    assert "TensorRT cannot parse" in done.said
    assert node.op_type in done.said
    assert says in done.said


@pytest.mark.parametrize("trouble", [CRASH, HANG, HOG])
def test_models_that_bring_an_engine_into_trouble_do_not_bring_its_compiler_into_any(
    compile_it: Compile, trouble: float
) -> None:
    done = compile_it(onnx_models.TROUBLES[trouble]())
    assert done.code in (0, 1)
    assert done.code == 0 or "TensorRT" in done.said
