"""What every engine must do. New engines are added to KITS."""

from __future__ import annotations

import gc
import json
import resource
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import magika
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from headrace_common.errors import InvalidArgument
from headrace_runner.core.signature import EngineTensor
from headrace_runner.engines.base import (
    EngineError,
    ExecutionFailed,
    InputRefused,
    LoadedModel,
    ModelRefused,
    ModelSource,
)
from headrace_runner.engines.fake import FakeEngine
from headrace_runner.engines.ort import SMALLEST
from headrace_runner.engines.registry import import_engines, pick, prepare
from headrace_runner.probe import probe_rows
from headrace_runner.process import resident_bytes
from headrace_runner.tensors import DTYPES

ENGINES = import_engines(allow_fake=True)

_ONNX = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BF16": TensorProto.BFLOAT16,
    "BYTES": TensorProto.STRING,
}

Tensors = list[tuple[str, str, list[Any]]]


@dataclass(frozen=True)
class Kit:
    """How to make models for one engine.

    `identity` writes a model whose output i is a copy of input i; `refuse` the bytes it must refuse.
    """

    engine: str
    suffix: str
    identity: Callable[[Tensors, Tensors], bytes]
    corrupt: bytes
    reason: str


def onnx_identity(inputs: Tensors, outputs: Tensors) -> bytes:
    def values(tensors: Tensors) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(name, _ONNX[datatype], shape) for name, datatype, shape in tensors]

    nodes = [helper.make_node("Identity", [into[0]], [out[0]]) for into, out in zip(inputs, outputs, strict=False)]
    graph = helper.make_graph(nodes, "g", values(inputs), values(outputs))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return model.SerializeToString()


def fake_identity(inputs: Tensors, outputs: Tensors) -> bytes:
    def specs(tensors: Tensors) -> list[dict[str, Any]]:
        return [
            {"name": name, "datatype": kind, "shape": [dim if isinstance(dim, int) else -1 for dim in shape]}
            for name, kind, shape in tensors
        ]

    return json.dumps({"inputs": specs(inputs), "outputs": specs(outputs)}).encode()


KITS = [
    Kit("onnxruntime", "model.onnx", onnx_identity, b"garbage", "onnxruntime cannot load model.onnx: "),
    Kit("fake", "model.fake.json", fake_identity, b"{", "fake cannot load model.fake.json: "),
]


@pytest.fixture(params=KITS, ids=lambda kit: kit.engine)
def kit(request: pytest.FixtureRequest) -> Kit:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def loader(kit: Kit, tmp_path: Path) -> Callable[..., LoadedModel]:
    """Loads bytes, or an identity on the given tensors."""

    def load(content: bytes | Tensors, outputs: Tensors | None = None, **options: str) -> LoadedModel:
        if not isinstance(content, bytes):
            made = outputs or [(f"{name}_out", datatype, shape) for name, datatype, shape in content]
            content = kit.identity(content, made)
        path = tmp_path / kit.suffix
        path.write_bytes(content)
        source = ModelSource(path, kit.suffix, options)
        assert ENGINES[kit.engine].external_files(source) == frozenset()
        return ENGINES[kit.engine].load(source)

    return load


def values(datatype: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    count = int(np.prod(shape))
    if datatype == "BYTES":
        return np.array([f"text {index} \u00e9".encode() for index in range(count)] + [None], dtype=object)[
            :-1
        ].reshape(shape)
    return (np.arange(count) % 2 if datatype == "BOOL" else np.arange(count)).astype(DTYPES[datatype]).reshape(shape)


@pytest.mark.parametrize("datatype", sorted(_ONNX))
def test_every_datatype_passes_as_it_is(loader: Callable[..., LoadedModel], datatype: str) -> None:
    model = loader([("x", datatype, ["N", 3])])
    given = values(datatype, (4, 3))
    result = model.run({"x": given})["x_out"]
    assert (result.dtype, result.shape) == (given.dtype, given.shape)
    assert result.tolist() == given.tolist()
    assert model.inputs[0].datatype == model.outputs[0].datatype == datatype


@pytest.mark.parametrize("shape", [(1, 1, 3), (5, 7, 3), (0, 2, 3), (2, 0, 3)], ids=str)
def test_dimensions_of_any_size_have_any_size(loader: Callable[..., LoadedModel], shape: tuple[int, ...]) -> None:
    model = loader([("x", "FP32", ["N", "T", 3])])
    assert model.run({"x": values("FP32", shape)})["x_out"].shape == shape


def test_symbolic_and_fixed_dimensions_are_told_apart(loader: Callable[..., LoadedModel]) -> None:
    dims = loader([("x", "FP32", ["N", 4])]).inputs[0].dims
    assert [isinstance(dim, str) for dim in dims] == [True, False]
    assert dims[1] == 4


def test_a_scalar_is_a_scalar(loader: Callable[..., LoadedModel]) -> None:
    model = loader([("x", "FP32", [])])
    assert model.inputs == (EngineTensor("x", "FP32", ()),)
    assert model.run({"x": np.array(2.5, np.float32)})["x_out"].tolist() == 2.5


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64"])
def test_what_is_not_a_number_passes(loader: Callable[..., LoadedModel], datatype: str) -> None:
    model = loader([("x", datatype, ["N"])])
    given = np.array([np.nan, np.inf, -np.inf, -0.0], DTYPES[datatype])
    assert model.run({"x": given})["x_out"].tobytes() == given.tobytes()


def test_read_only_input_is_taken(loader: Callable[..., LoadedModel]) -> None:
    model = loader([("x", "FP32", ["N"])])
    given = np.frombuffer(np.ones(3, np.float32).tobytes(), np.float32)
    assert model.run({"x": given})["x_out"].tolist() == [1, 1, 1]


def test_only_wanted_outputs_are_given(loader: Callable[..., LoadedModel]) -> None:
    model = loader([("a", "FP32", ["N"]), ("b", "INT64", ["N"])])
    given = {"a": values("FP32", (2,)), "b": values("INT64", (2,))}
    assert list(model.run(given)) == ["a_out", "b_out"]
    assert list(model.run(given, ("b_out",))) == ["b_out"]
    with pytest.raises(InputRefused, match="none"):
        model.run(given, ("none",))


@pytest.mark.parametrize(
    "inputs",
    [
        pytest.param({"x": np.zeros((2, 4), np.float32)}, id="a wrong size"),
        pytest.param({"x": np.zeros(3, np.float32)}, id="a wrong rank"),
        pytest.param({"x": np.zeros((2, 3), np.float64)}, id="a wrong datatype"),
        pytest.param({}, id="nothing"),
    ],
)
def test_input_that_does_not_fit_is_refused_and_the_next_runs(
    loader: Callable[..., LoadedModel], inputs: dict[str, Any]
) -> None:
    model = loader([("x", "FP32", ["N", 3])])
    with pytest.raises(InputRefused) as caught:
        model.run(inputs)
    assert str(caught.value)
    assert "\n" not in str(caught.value)
    assert model.run({"x": np.ones((1, 3), np.float32)})["x_out"].tolist() == [[1, 1, 1]]


def test_a_corrupt_file_is_refused_with_the_engines_reason(
    loader: Callable[..., LoadedModel], kit: Kit, tmp_path: Path
) -> None:
    with pytest.raises(ModelRefused) as caught:
        loader(kit.corrupt)
    reason = str(caught.value)
    assert reason.startswith(kit.reason)
    assert str(tmp_path) not in reason
    assert "\n" not in reason


def test_an_unknown_option_is_refused_by_name(loader: Callable[..., LoadedModel]) -> None:
    with pytest.raises(ModelRefused, match="'warp_speed' is not known"):
        loader([("x", "FP32", ["N"])], warp_speed="9")


def test_models_load_and_run_beside_each_other(loader: Callable[..., LoadedModel], kit: Kit, tmp_path: Path) -> None:
    width = 4
    barrier = threading.Barrier(width)

    def one(number: int) -> list[float]:
        folder = tmp_path / str(number)
        folder.mkdir()
        tensors: Tensors = [("x", "FP32", ["N"])]
        (folder / kit.suffix).write_bytes(kit.identity(tensors, [("y", "FP32", ["N"])]))
        barrier.wait(20)
        model = ENGINES[kit.engine].load(ModelSource(folder / kit.suffix, kit.suffix))
        return model.run({"x": np.full(2, number, np.float32)})["y"].tolist()  # type: ignore[no-any-return]

    with ThreadPoolExecutor(width) as pool:
        assert list(pool.map(one, range(width))) == [[n, n] for n in range(width)]


def test_a_closed_model_does_not_run(loader: Callable[..., LoadedModel]) -> None:
    model = loader([("x", "FP32", ["N"])])
    model.close()
    model.close()
    with pytest.raises(ExecutionFailed, match="closed"):
        model.run({"x": np.zeros(1, np.float32)})


def test_independent_rows_are_found_so(loader: Callable[..., LoadedModel]) -> None:
    assert probe_rows(loader([("x", "FP32", ["N", "T"]), ("s", "BYTES", ["N", 1])])).difference is None


class TestOnnxRuntime:
    def load(self, model: onnx.ModelProto, folder: Path, **options: str) -> LoadedModel:
        (folder / "model.onnx").write_bytes(model.SerializeToString())
        return ENGINES["onnxruntime"].load(ModelSource(folder / "model.onnx", "model.onnx", options))

    def test_magika_is_batchable_though_its_dimensions_have_different_names(self) -> None:
        path = Path(magika.__file__).parent / "models" / "standard_v3_3" / "model.onnx"
        model = ENGINES["onnxruntime"].load(ModelSource(path, "model.onnx"))
        (into,), (out,) = model.inputs, model.outputs
        assert (into.name, into.datatype, into.dims[1:]) == ("bytes", "INT32", (2048,))
        assert (out.name, out.datatype, out.dims[1:]) == ("target_label", "FP32", (214,))
        assert isinstance(into.dims[0], str)
        assert into.dims[0] != out.dims[0]
        assert probe_rows(model).difference is None

    def test_an_unknown_operator_is_named(self, tmp_path: Path) -> None:
        x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N"]) for name in "xy")
        graph = helper.make_graph([helper.make_node("Frobnicate", ["x"], ["y"])], "g", [x], [y])
        with pytest.raises(ModelRefused, match="Frobnicate"):
            self.load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), tmp_path)

    def test_an_opset_of_the_future_is_refused_without_source_lines(self, tmp_path: Path) -> None:
        content = onnx_identity([("x", "FP32", ["N"])], [("y", "FP32", ["N"])])
        model = onnx.load_from_string(content)
        model.opset_import[0].version = 9999
        with pytest.raises(ModelRefused) as caught:
            self.load(model, tmp_path)
        assert str(caught.value).startswith("onnxruntime cannot load model.onnx: ")
        assert "9999" in str(caught.value)
        assert "onnxruntime_src" not in str(caught.value)

    @pytest.mark.parametrize("threads", ["0", "257", "many", "-1"])
    def test_threads_have_bounds(self, tmp_path: Path, threads: str) -> None:
        model = onnx.load_from_string(onnx_identity([("x", "FP32", ["N"])], [("y", "FP32", ["N"])]))
        with pytest.raises(ModelRefused, match=r"intra_op_threads: expected 1 to 256"):
            self.load(model, tmp_path, intra_op_threads=threads)
        assert self.load(model, tmp_path, intra_op_threads="2").outputs[0].name == "y"

    def test_a_string_that_is_not_utf8_is_the_inputs_fault(self, tmp_path: Path) -> None:
        model = self.load(
            onnx.load_from_string(onnx_identity([("x", "BYTES", ["N"])], [("y", "BYTES", ["N"])])), tmp_path
        )
        with pytest.raises(InputRefused, match="element 1 is not UTF-8"):
            model.run({"x": np.array([b"fine", b"\xff"], dtype=object)})

    def test_an_index_out_of_bounds_is_the_inputs_fault(self, tmp_path: Path) -> None:
        ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["N"])
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2])
        table = onnx.numpy_helper.from_array(np.ones((3, 2), np.float32), "table")
        graph = helper.make_graph([helper.make_node("Gather", ["table", "ids"], ["y"])], "g", [ids], [y], [table])
        opset = [helper.make_opsetid("", 17)]
        model = self.load(helper.make_model(graph, opset_imports=opset, ir_version=9), tmp_path)
        with pytest.raises(EngineError, match="out of data bounds"):
            model.run({"ids": np.array([9])})

    def test_closing_frees_the_weights(self, tmp_path: Path) -> None:
        size = 64 << 20
        table = onnx.numpy_helper.from_array(np.ones(size // 4, np.float32), "table")
        x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
        graph = helper.make_graph([helper.make_node("Add", ["x", "table"], ["y"])], "g", [x], [y], [table])
        model_proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        model_proto.graph.output[0].type.tensor_type.shape.dim[0].dim_value = size // 4
        path = tmp_path / "model.onnx"
        path.write_bytes(model_proto.SerializeToString())
        del graph, model_proto, table
        gc.collect()
        model = ENGINES["onnxruntime"].load(ModelSource(path, "model.onnx"))
        held = resident_bytes()
        model.close()
        gc.collect()
        assert held - resident_bytes() > size // 2


class TestFake:
    def load(self, folder: Path, **spec: Any) -> LoadedModel:
        tensors = [{"name": "x", "datatype": "FP32", "shape": [-1]}]
        path = folder / "model.fake.json"
        path.write_text(json.dumps({"inputs": tensors, "outputs": [{**tensors[0], "name": "y"}], **spec}))
        return ENGINES["fake"].load(ModelSource(path, "model.fake.json"))

    @pytest.mark.parametrize("spec", [{"behaviour": "fail"}, {"fail_on": 7}], ids=["always", "on a value"])
    def test_fails_when_told_to(self, tmp_path: Path, spec: dict[str, Any]) -> None:
        model = self.load(tmp_path, **spec)
        with pytest.raises(ExecutionFailed, match="told to fail"):
            model.run({"x": np.array([1, 7], np.float32)})

    def test_passes_other_values(self, tmp_path: Path) -> None:
        model = self.load(tmp_path, fail_on=7, crash_on=8, hang_on=9)
        assert model.run({"x": np.array([1, 6], np.float32)})["y"].tolist() == [1, 6]

    @pytest.mark.parametrize(
        ("spec", "reason"),
        [
            pytest.param({"latency_ms": -1}, "latency_ms", id="a negative latency"),
            pytest.param({"speed": 1}, "speed", id="an unknown key"),
            pytest.param(
                {"outputs": [{"name": "y", "datatype": "INT8", "shape": [-1]}]}, "must be FP32", id="another datatype"
            ),
            pytest.param({"inputs": [{"name": "x", "datatype": "FP8", "shape": []}]}, "'FP8'", id="no such datatype"),
        ],
    )
    def test_a_bad_file_is_refused_by_key(self, tmp_path: Path, spec: dict[str, Any], reason: str) -> None:
        with pytest.raises(ModelRefused, match=reason):
            self.load(tmp_path, **spec)


def test_an_unknown_engine_names_those_there_are() -> None:
    with pytest.raises(InvalidArgument, match="engine 'tensorrt' is not available on this runner; it has: fake, onnx"):
        pick(ENGINES, "tensorrt")


def test_a_prepared_engine_holds_heap_for_the_load_that_comes() -> None:
    with ThreadPoolExecutor(1) as thread:
        thread.submit(prepare, ENGINES).result()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        thread.submit(lambda: np.ones(8 << 20, np.uint8)).result()
        pages = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    assert pages < (8 << 20) // resource.getpagesize() // 2


def test_an_engine_that_cannot_be_prepared_does_not_keep_the_runner_from_starting() -> None:
    class Broken(FakeEngine):
        def prepare(self) -> None:
            raise RuntimeError("no device")

    prepare({"broken": Broken()})


def test_onnxruntime_is_prepared_with_a_model_that_is_one() -> None:
    onnx.checker.check_model(onnx.load_from_string(SMALLEST))
