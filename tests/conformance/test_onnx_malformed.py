"""Malformed ONNX files are refused by a sentence, and never end the runner."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from headrace_common.clock import SystemClock
from headrace_common.errors import InvalidArgument
from headrace_runner.domain import LoadPlan, ModelFile
from headrace_runner.engines.base import ModelRefused, ModelSource
from headrace_runner.loading import load
from tests.conformance.engines import onnx_models
from tests.conformance.engines.kits import ENGINES, Tensors
from tests.conformance.engines.registered import ONNXRUNTIME
from tests.runner.harness import model_files

X: Tensors = [("x", "FP32", ["N", 3])]
Y: Tensors = [("y", "FP32", ["N", 3])]
DENSE = onnx_models.dense(np.ones((3, 3), np.float32), np.ones(3, np.float32))
SEEDS = [DENSE, onnx_models.doubled("FP16"), onnx_models.identity([("x", "BYTES", ["N"])], [("y", "BYTES", ["N"])])]


def plus_w(change: Callable[[onnx.TensorProto], None]) -> onnx.ModelProto:
    """y = x + w, with something wrong about w [3]."""
    model = onnx_models.model([helper.make_node("Add", ["x", "w"], ["y"])], X, Y, {"w": np.ones(3, np.float32)})
    change(model.graph.initializer[0])
    return model


def with_node(op: str, *inputs: str, domain: str = "", imports: tuple[str, ...] = ()) -> onnx.ModelProto:
    model = onnx_models.model([helper.make_node(op, inputs, ["y"], domain=domain)], X, Y)
    model.opset_import.extend(helper.make_opsetid(domain, 1) for domain in imports)
    return model


def with_opset(version: int) -> onnx.ModelProto:
    model = with_node("Relu", "x")
    model.opset_import[0].version = version
    return model


def external(location: str, **entries: str) -> onnx.ModelProto:
    def change(tensor: onnx.TensorProto) -> None:
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {"location": location, **entries}.items():
            tensor.external_data.add(key=key, value=value)

    return plus_w(change)


def calling_itself(*chain: str) -> onnx.ModelProto:
    """Functions that call the next one, and the last one the first."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    model = with_node(chain[0], "x", domain="own", imports=("own",))
    for name, called in zip(chain, (*chain[1:], chain[0]), strict=True):
        node = helper.make_node(called, ["a"], ["b"], domain="own")
        model.functions.append(helper.make_function("own", name, ["a"], ["b"], [node], opsets))
    return model


MALFORMED = {
    "an operator that nobody has": (with_node("Frobnicate", "x"), "Frobnicate"),
    "a custom operator": (with_node("Frobnicate", "x", domain="com.example", imports=("com.example",)), "com.example"),
    "a domain that is not imported": (with_node("Relu", "x", domain="com.example"), "com.example"),
    "an opset of the future": (with_opset(9999), "9999"),
    "an opset below zero": (with_opset(-1), "domain_version of -1"),
    "an input that nothing makes": (with_node("Relu", "z"), "z"),
    "a node that takes its own output": (with_node("Add", "x", "y"), ""),
    "weights shorter than their shape": (plus_w(lambda w: w.dims.__setitem__(0, 4)), ""),
    "weights longer than their shape": (plus_w(lambda w: w.dims.__setitem__(0, 2)), ""),
    "weights of a size below zero": (plus_w(lambda w: w.dims.__setitem__(0, -3)), ""),
    "weights of 2**62 elements": (plus_w(lambda w: w.dims.__setitem__(0, 2**62)), ""),
    "weights whose elements overflow 64 bits": (plus_w(lambda w: w.dims.extend([2**40, 2**40])), ""),
    "weights of a datatype that does not exist": (plus_w(lambda w: setattr(w, "data_type", 77)), ""),
    "a function that calls itself": (calling_itself("F"), ""),
    "functions that call each other": (calling_itself("F", "G", "H"), ""),
    "no graph": (onnx.ModelProto(ir_version=9), ""),
}  # fmt: skip


@pytest.mark.parametrize(("model", "says"), MALFORMED.values(), ids=list(MALFORMED))
def test_what_is_wrong_inside_is_told(tmp_path: Path, model: onnx.ModelProto, says: str) -> None:
    with pytest.raises(ModelRefused) as caught:
        ONNXRUNTIME.load(tmp_path, model.SerializeToString())
    reason = str(caught.value)
    assert reason.startswith("onnxruntime cannot load model.onnx: ")
    assert says in reason
    assert "onnxruntime_src" not in reason
    assert "\n" not in reason
    assert str(tmp_path) not in reason


def test_names_that_are_no_text_are_refused(tmp_path: Path) -> None:
    content = DENSE.replace(b"\x01x", b"\x01\xff")
    with pytest.raises(ModelRefused, match=r"^onnxruntime cannot load model\.onnx: "):
        ONNXRUNTIME.load(tmp_path, content)


@pytest.mark.parametrize("end", range(0, len(DENSE), 7))
def test_a_file_that_ends_too_early_is_refused(tmp_path: Path, end: int) -> None:
    with pytest.raises(ModelRefused):
        ONNXRUNTIME.load(tmp_path, DENSE[:end])


@settings(
    max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.sampled_from(SEEDS), at=st.integers(0, 10_000), cut=st.integers(0, 6), put=st.binary(max_size=6))
def test_bytes_that_were_changed_load_or_are_refused(
    tmp_path: Path, seed: bytes, at: int, cut: int, put: bytes
) -> None:
    """Always the same changes: ONNX Runtime has assertions that would take the test's own process along."""
    place = at % len(seed)
    path = tmp_path / "model.onnx"
    path.write_bytes(seed[:place] + put + seed[place + cut :])
    with suppress(ModelRefused):
        ENGINES["onnxruntime"].load(ModelSource(path, path.name)).close()


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (external("../outside.bin"), "external data '../outside.bin' is outside the model's folder"),
        (external("/etc/hostname"), "external data '/etc/hostname' is outside the model's folder"),
        (external("nowhere.bin"), "external data 'nowhere.bin' is missing"),
        (external("*/_ORT_MEM_ADDR_/*", offset="4096", length="12"), "refers to tensors in memory"),
        (external("w.bin", offset="-8", length="12"), "onnxruntime cannot load"),
        (external("w.bin", offset="1000000000000", length="12"), "onnxruntime cannot load"),
        (external("w.bin", offset="0", length="1000000000000"), "onnxruntime cannot load"),
        (external("w.bin", offset="zero"), "onnxruntime cannot load"),
        (external("link.bin"), "leads out of the model's directory"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_external_data_that_cannot_be_is_refused(tmp_path: Path, model: onnx.ModelProto, says: str) -> None:
    (tmp_path / "w.bin").write_bytes(np.ones(3, np.float32).tobytes())
    (tmp_path / "link.bin").symlink_to("/etc/hostname")
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    paths = ["model.onnx", "w.bin", *(["link.bin"] if "link" in str(model) else [])]
    files = tuple(ModelFile(each.path, each.sha256, each.size_bytes) for each in model_files(tmp_path, *paths))
    with pytest.raises(InvalidArgument) as caught:
        load(LoadPlan(tmp_path, files, "model.onnx", "onnxruntime"), ENGINES, SystemClock())
    assert says in caught.value.message
