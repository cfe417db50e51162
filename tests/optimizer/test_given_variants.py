"""Variants made elsewhere: measured with the others, and made cheaper like the model itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

FEATURES, KINDS = 16, 3
Optimize = Callable[..., Any]
SavesSamples = Callable[..., str]


@pytest.fixture
def narrow(trained: Any, tmp_path: Path) -> Path:
    """Without the half of the second layer's units that weigh least in the third."""
    model = onnx.load(str(trained.path))
    first, second, third = (numpy_helper.to_array(each) for each in model.graph.initializer)
    left = np.sort(np.argsort(np.abs(third).sum(axis=1) * np.abs(second).sum(axis=0))[len(third) // 2 :])
    for tensor, array in zip(model.graph.initializer, (first, second[:, left], third[left]), strict=True):
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), tensor.name))
    path = tmp_path / "narrow.onnx"
    onnx.save(model, str(path))
    return path


def _linear(path: Path, *, features: int = FEATURES, output: str = "y", rows: Any = "n", kind: int = 1) -> Path:
    weights = np.ones((features, KINDS), helper.tensor_dtype_to_np_dtype(kind))
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], [output])],
        "linear",
        [helper.make_tensor_value_info("x", kind, [rows, features])],
        [helper.make_tensor_value_info(output, kind, [rows, KINDS])],
        [numpy_helper.from_array(weights, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    return path


def names(ran: Any) -> list[str]:
    return [each["name"] for each in ran.found["variants"]]


def test_a_given_variant_competes_by_itself_and_in_the_precisions_asked_for(
    trained: Any, narrow: Path, samples: SavesSamples, optimize: Optimize, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = (trained.path, "--samples", samples(x=trained.x), "--floor=0.9", "--precisions=fp16,int4", "--out", out)
    ran = optimize(*arguments, f"--variant=narrow={narrow}")
    assert ran.code == 0, ran.err
    assert names(ran) == ["original", "fp16", "int4", "narrow", "narrow+fp16", "narrow+int4"]
    given = ran.variant("narrow")
    assert given["what"] == "made elsewhere: narrow.onnx"
    assert given["size_bytes"] < 0.7 * ran.variant("original")["size_bytes"]
    assert given["quality"]["samples"] == ran.variant("fp16")["quality"]["samples"]
    assert [each["rows"] for each in given["timings"]] == [1, 8, 32]
    assert ran.variant("narrow+fp16")["size_bytes"] < 0.7 * given["size_bytes"]
    assert ran.variant("narrow+int4")["what"] == "narrow, weights of MatMul in blocks of 32, computed in fp32"
    assert all((out / each["file"]["name"]).is_file() for each in ran.found["variants"][1:])
    kept = onnxruntime.InferenceSession(str(out / "narrow.onnx"), providers=["CPUExecutionProvider"])
    expected = onnxruntime.InferenceSession(str(narrow), providers=["CPUExecutionProvider"])
    feed = {"x": trained.x[:9]}
    np.testing.assert_array_equal(kept.run(None, feed)[0], expected.run(None, feed)[0])


def test_without_precisions_only_what_was_given_is_compared(
    trained: Any, narrow: Path, samples: SavesSamples, optimize: Optimize, tmp_path: Path
) -> None:
    wrong = _linear(tmp_path / "wrong.onnx")
    ran = optimize(
        trained.path, "--samples", samples(x=trained.x), "--floor=0.9", "--precisions=",
        f"--variant=narrow={narrow}", f"--variant=wrong={wrong}",
    )  # fmt: skip
    assert names(ran) == ["original", "narrow", "wrong"]
    assert ran.variant("wrong")["verdict"] == "below floor"
    assert ran.found["chosen"] != "wrong"


def test_weights_beside_the_file_are_counted_and_kept(
    trained: Any, narrow: Path, samples: SavesSamples, optimize: Optimize, tmp_path: Path
) -> None:
    beside, out = tmp_path / "beside.onnx", tmp_path / "out"
    onnx.save(onnx.load(str(narrow)), str(beside), save_as_external_data=True, size_threshold=0, location="weights")
    ran = optimize(
        trained.path, "--samples", samples(x=trained.x), "--floor=0.9", "--precisions=", "--out", out,
        f"--variant=one={narrow}", f"--variant=two={beside}",
    )  # fmt: skip
    assert ran.variant("two")["size_bytes"] == pytest.approx(ran.variant("one")["size_bytes"], abs=200)
    assert (out / "two.onnx").stat().st_size == ran.variant("two")["size_bytes"]


def test_nothing_more_is_made_of_what_is_quantised_already(
    trained: Any, samples: SavesSamples, optimize: Optimize, tmp_path: Path
) -> None:
    path, out = samples(x=trained.x), tmp_path / "out"
    optimize(trained.path, "--samples", path, "--floor=0.9", "--precisions=int8", "--out", out)
    ran = optimize(
        trained.path, "--samples", path, "--floor=0.9", "--precisions=fp16", f"--variant=q={out / 'int8-static.onnx'}"
    )
    assert names(ran) == ["original", "fp16", "q"]
    assert ran.found["notes"] == ["q is quantised already, so nothing more is made of it"]


@pytest.mark.parametrize(
    ("differing", "message"),
    [
        pytest.param({"features": 8}, "input 'x' is FP32 [-1, 8], expected FP32 [-1, 16]", id="features"),
        pytest.param({"output": "z"}, "outputs are 'z', expected 'y'", id="names"),
        pytest.param({"rows": 4}, "input 'x' is FP32 [4, 16], expected FP32 [-1, 16]", id="one batch size"),
        pytest.param({"kind": TensorProto.DOUBLE}, "input 'x' is FP64 [-1, 16], expected FP32 [-1, 16]", id="types"),
    ],
)
def test_a_variant_for_other_callers_is_refused_and_the_difference_named(
    trained: Any, samples: SavesSamples, optimize: Optimize, tmp_path: Path, differing: Any, message: str
) -> None:
    other = _linear(tmp_path / "other.onnx", **differing)
    ran = optimize(trained.path, "--samples", samples(x=trained.x), f"--variant=mine={other}")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == f"headrace: --variant mine: {other} is another model to its callers: {message}\n"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--variant=narrow"], "--variant: expected NAME=FILE with a name of letters, digits, '.', '_' and '-'; got"),
        (["--variant=a/b=narrow.onnx"], "--variant: expected NAME=FILE"),
        (["--variant=../a=narrow.onnx"], "--variant: expected NAME=FILE"),
        (["--variant=a+fp16=narrow.onnx"], "--variant: expected NAME=FILE"),
        (["--variant=narrow="], "--variant: expected NAME=FILE"),
        (["--variant=original=narrow.onnx"], "--variant original: is the model as it came; give it another name"),
        (["--variant=fp16=narrow.onnx"], "--variant fp16: is a variant that is made here; give it another name"),
        (["--variant=pruned-50=narrow.onnx", "--prune=0.5"], "--variant pruned-50: is a variant that is made here"),
        (["--variant=a=narrow.onnx", "--variant=a=narrow.onnx"], "--variant a: is there already; give it another name"),
        (["--variant=a=nowhere.onnx"], "nowhere.onnx: cannot be read: No such file or directory"),
        (["--precisions="], "--precisions: expected one at least, or a --variant"),
    ],
)
def test_flags_that_make_no_sense(
    trained: Any, samples: SavesSamples, optimize: Optimize, flags: list[str], message: str
) -> None:
    ran = optimize(trained.path, "--samples", samples(x=trained.x), *flags)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err
    assert len(ran.err.splitlines()) == 1
