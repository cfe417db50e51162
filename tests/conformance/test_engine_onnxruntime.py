"""What is ONNX Runtime's own: its options, its execution providers, its refusals."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import magika
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper

from headrace_common.errors import InvalidArgument
from headrace_runner.core.ort_options import OrtSettings, Provider, missing_provider, read_options
from headrace_runner.engines.base import EngineError, InputRefused, LoadedModel, ModelRefused, ModelSource
from headrace_runner.engines.ort import SMALLEST, OnnxRuntimeEngine
from headrace_runner.engines.ort_session import open_session, run_options
from headrace_runner.probe import probe_rows
from headrace_runner.process import resident_bytes
from tests.conformance.engines import onnx_models
from tests.conformance.engines.kits import Tensors, made_up
from tests.conformance.engines.registered import ONNXRUNTIME

MAGIKA = Path(magika.__file__).parent / "models" / "standard_v3_3" / "model.onnx"
HAS_CUDA = "CUDAExecutionProvider" in ort.get_available_providers()
X: Tensors = [("x", "FP32", ["N"])]
Y: Tensors = [("y", "FP32", ["N"])]


COPY = onnx_models.identity(X, Y)


def load(folder: Path, model: onnx.ModelProto | bytes = COPY, **options: str) -> LoadedModel:
    return ONNXRUNTIME.load(folder, model if isinstance(model, bytes) else model.SerializeToString(), **options)


def load_magika(**options: str) -> LoadedModel:
    return OnnxRuntimeEngine().load(ModelSource(MAGIKA, "model.onnx", options))


def test_magika_is_batchable_though_its_dimensions_have_different_names() -> None:
    model = load_magika()
    (into,), (out,) = model.inputs, model.outputs
    assert (into.name, into.datatype, into.dims[1:]) == ("bytes", "INT32", (2048,))
    assert (out.name, out.datatype, out.dims[1:]) == ("target_label", "FP32", (214,))
    assert isinstance(into.dims[0], str)
    assert into.dims[0] != out.dims[0]
    assert probe_rows(model).difference is None


def test_an_operator_is_refused_for_a_datatype_that_it_does_not_have_here(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match="Could not find an implementation for Add"):
        load(tmp_path, onnx_models.doubled("BF16"))


def test_a_string_that_is_not_utf8_is_the_inputs_fault(tmp_path: Path) -> None:
    model = load(tmp_path, onnx_models.identity([("x", "BYTES", ["N"])], [("y", "BYTES", ["N"])]))
    with pytest.raises(InputRefused, match="element 1 is not UTF-8"):
        model.run({"x": np.array([b"fine", b"\xff"], dtype=object)})


def test_an_index_out_of_bounds_fails_its_batch(tmp_path: Path) -> None:
    gather = helper.make_node("Gather", ["table", "ids"], ["y"])
    ids, y = ("ids", "INT64", ["N"]), ("y", "FP32", ["N", 2])
    model = load(tmp_path, onnx_models.model([gather], [ids], [y], {"table": np.ones((3, 2), np.float32)}))
    with pytest.raises(EngineError, match="out of data bounds"):
        model.run({"ids": np.array([9])})
    assert model.run({"ids": np.array([2])})["y"].tolist() == [[1, 1]]


def test_it_is_prepared_with_a_model_that_is_one() -> None:
    onnx.checker.check_model(onnx.load_from_string(SMALLEST))


class TestOptions:
    def test_an_instance_has_its_threads_and_spins_on_none(self) -> None:
        assert read_options({}, threads=3) == OrtSettings(intra_op_threads=3)

    def test_every_option_is_read(self) -> None:
        options = {
            "intra_op_threads": "2",
            "inter_op_threads": "4",
            "spinning": "on",
            "graph_optimization": "basic",
            "arena": "on",
            "arena_extend": "same_as_requested",
            "arena_shrink": "on",
            "memory_pattern": "off",
            "io_binding": "off",
            "providers": "tensorrt, cuda,cpu",
            "cuda.device_id": "1",
            "tensorrt.trt_fp16_enable": "1",
        }
        assert read_options(options, threads=1) == OrtSettings(
            intra_op_threads=2,
            inter_op_threads=4,
            spinning=True,
            graph_optimization="basic",
            arena_extend="same_as_requested",
            arena_shrink=True,
            memory_pattern=False,
            io_binding=False,
            providers=(
                Provider("tensorrt", {"trt_fp16_enable": "1"}),
                Provider("cuda", {"device_id": "1"}),
                Provider("cpu"),
            ),
        )

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ({"intra_op_threads": "0"}, "intra_op_threads: expected 1 to 256; got '0'"),
            ({"intra_op_threads": "257"}, "intra_op_threads: expected 1 to 256; got '257'"),
            ({"inter_op_threads": "many"}, "inter_op_threads: expected 1 to 256; got 'many'"),
            ({"inter_op_threads": "-1"}, "inter_op_threads: expected 1 to 256; got '-1'"),
            ({"spinning": "1"}, "spinning: expected one of off, on; got '1'"),
            ({"graph_optimization": "99"}, "expected one of all, none, basic, extended, layout; got '99'"),
            ({"arena": "off", "arena_shrink": "on"}, "arena_shrink: there is no arena to which it could apply"),
            ({"arena": "off", "arena_extend": "power_of_two"}, "arena_extend: there is no arena"),
            ({"intra_op_thread": "1"}, "'intra_op_thread' is not known to onnxruntime, did you mean 'intra_op_th"),
            ({"warp_speed": "9"}, "'warp_speed' is not known to onnxruntime; it knows: arena, arena_extend, "),
            ({"providers": "cudaa"}, "there is no execution provider 'cudaa', did you mean 'cuda'; expected"),
            ({"providers": ""}, "there is no execution provider ''; expected some of cpu, cuda"),
            ({"providers": "cpu,cpu"}, "providers: expected each once; got 'cpu,cpu'"),
            ({"cuda.device_id": "0"}, "'cuda.device_id' is for an execution provider that is not asked for; prov"),
            (
                {"providers": "cuda", "cuda.device": "0"},
                "'cuda.device' is not known to onnxruntime, did you mean 'cuda.device_id'",
            ),
            ({"providers": "cuda", "cuda.device_id": "../0"}, "cuda.device_id: expected the number of a device"),
            (
                {"providers": "tensorrt", "tensorrt.trt_engine_cache_path": "/etc"},
                "'tensorrt.trt_engine_cache_path' is not known",
            ),
            ({"intra_op_threads": "9" * 5000}, "intra_op_threads: expected 1 to 256"),
            ({"providers": "openvino", "openvino.device_type": "HETERO:/tmp/lib.so"}, "none that names a file"),
            ({"providers": "cuda", "cuda.gpu_mem_limit": "/etc/hostname"}, "none that names a file"),
            (
                {"providers": "tensorrt", "tensorrt.trt_profile_min_shapes": "/etc/hostname"},
                "expected the shapes of at most 64 inputs, such as x:1x3,y:1x4",
            ),
        ],
        ids=str,
    )  # fmt: skip
    def test_what_cannot_be_is_refused_by_its_name(self, options: Mapping[str, str], says: str) -> None:
        with pytest.raises(InvalidArgument) as caught:
            read_options(options, threads=1)
        assert says in caught.value.message

    @pytest.mark.parametrize(
        "option",
        [
            ("cuda", "cuda.gpu_mem_limit", "2147483648"),
            ("openvino", "openvino.device_type", "HETERO:GPU.1,CPU"),
            ("tensorrt", "tensorrt.trt_profile_max_shapes", "/model/x:8x3x224x224,y:8"),
        ],
    )
    def test_numbers_devices_and_shapes_reach_their_provider(self, option: tuple[str, str, str]) -> None:
        provider, name, value = option
        settings = read_options({"providers": provider, name: value}, threads=1).providers[0].settings
        assert settings == {name.partition(".")[2]: value}

    def test_the_engine_refuses_the_model_with_the_same_words(self, tmp_path: Path) -> None:
        with pytest.raises(ModelRefused, match="spinning: expected one of off, on; got 'yes'"):
            load(tmp_path, spinning="yes")

    @pytest.mark.parametrize(
        "options",
        [
            {"intra_op_threads": "2"},
            {"inter_op_threads": "2"},
            {"spinning": "on"},
            *({"graph_optimization": level} for level in ("none", "basic", "extended", "layout", "all")),
            {"arena": "off"},
            {"arena_extend": "same_as_requested"},
            {"arena_extend": "power_of_two", "arena_shrink": "on"},
            {"memory_pattern": "off"},
            {"io_binding": "on"},
        ],
        ids=str,
    )
    def test_answers_are_the_same_with_each(self, tmp_path: Path, options: dict[str, str]) -> None:
        random = np.random.default_rng(1)
        w, b = random.normal(size=(20, 6)).astype(np.float32), random.normal(size=6).astype(np.float32)
        x = random.normal(size=(9, 20)).astype(np.float32)
        model = load(tmp_path, onnx_models.dense(w, b), **options)
        for _ in range(3):
            np.testing.assert_allclose(model.run({"x": x})["y"], np.maximum(x @ w + b, 0), rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("options", [{"arena_shrink": "on"}, {"arena": "off"}], ids=str)
    def test_memory_of_a_large_batch_is_given_back(self, options: dict[str, str]) -> None:
        """By default magika's arena keeps 256 MiB after a batch of 64."""
        model = load_magika(**options)
        model.run({"bytes": np.zeros((1, 2048), np.int32)})
        before = resident_bytes()
        model.run({"bytes": np.zeros((64, 2048), np.int32)})
        gc.collect()
        assert resident_bytes() - before < 100 << 20


class TestProviders:
    @pytest.mark.skipif(HAS_CUDA, reason="is for an onnxruntime without CUDA")
    @pytest.mark.parametrize("asked", ["cuda", "cuda,cpu", "openvino", "tensorrt,cpu"])
    def test_one_that_is_missing_is_refused_with_those_there_are(
        self, tmp_path: Path, asked: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        missing = asked.split(",")[0]
        with pytest.raises(ModelRefused, match=rf"'{missing}' is not in this runner's onnxruntime; it has: cpu"):
            load(tmp_path, providers=asked)
        assert capsys.readouterr().out == ""

    def test_of_several_the_first_that_is_missing_is_named(self) -> None:
        settings = read_options({"providers": "cuda,tensorrt,cpu"}, threads=1)
        assert "'tensorrt' is not" in missing_provider(settings, ["CPUExecutionProvider", "CUDAExecutionProvider"])
        assert missing_provider(read_options({}, 1), ["CPUExecutionProvider"]) == ""

    @pytest.mark.filterwarnings("ignore:Specified provider")
    def test_one_that_is_there_and_does_not_start_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As onnxruntime-gpu without CUDA's libraries: ONNX Runtime says yes, and computes on the CPU."""
        present = ["CUDAExecutionProvider", "CPUExecutionProvider"]
        monkeypatch.setattr(ort, "get_available_providers", lambda: present)
        with pytest.raises(ModelRefused, match="has execution provider 'cuda' and cannot start it: its libraries"):
            load(tmp_path, providers="cuda,cpu")

    def test_a_gpu_alone_takes_no_help_of_the_cpu(self) -> None:
        settings = read_options({"providers": "cuda", "cuda.device_id": "2", "arena_shrink": "on"}, threads=1)
        assert settings.device == ("cuda", 2)
        options = run_options(settings)
        assert options is not None
        assert options.get_run_config_entry("memory.enable_memory_arena_shrinkage") == "cpu:0;gpu:2"

    def test_the_cpu_needs_no_binding(self) -> None:
        assert read_options({}, threads=1).device is None
        assert read_options({"io_binding": "on"}, threads=1).device == ("cpu", 0)
        assert read_options({"io_binding": "off", "providers": "cuda"}, threads=1).device is None

    def test_a_session_is_of_the_cpu_alone(self) -> None:
        assert open_session(SMALLEST, OrtSettings()).get_providers() == ["CPUExecutionProvider"]


class TestBinding:
    """IO binding, to the CPU's memory: the calls are those that are made for a GPU."""

    def test_shapes_come_and_go_and_come_again(self, tmp_path: Path) -> None:
        into, out = ("x", "FP32", ["N", "T"]), ("y", "FP32", ["N", "T"])
        model = load(tmp_path, onnx_models.identity([into], [out]), io_binding="on")
        for turn in range(3):
            for rows in (0, *range(1, 12)):
                given = made_up("FP32", (rows, 4)) + turn
                assert model.run({"x": given})["y"].tolist() == given.tolist()

    def test_an_output_may_have_another_size_each_time(self, tmp_path: Path) -> None:
        nonzero = helper.make_node("NonZero", ["x"], ["y"])
        model = load(tmp_path, onnx_models.model([nonzero], X, [("y", "INT64", [1, "K"])]), io_binding="on")
        for given, expected in (([1, 0, 2], [[0, 2]]), ([0, 0, 0], [[]]), ([1, 1, 1], [[0, 1, 2]])):
            assert model.run({"x": np.array(given, np.float32)})["y"].tolist() == expected

    def test_a_batch_that_is_refused_leaves_nothing_bound(self, tmp_path: Path) -> None:
        into, out = ("x", "FP32", ["N", 3]), ("y", "FP32", ["N", 3])
        model = load(tmp_path, onnx_models.identity([into], [out]), io_binding="on")
        for _ in range(2):
            with pytest.raises(InputRefused):
                model.run({"x": np.zeros((2, 4), np.float32)})
            with pytest.raises(InputRefused):
                model.run({"x": np.zeros((2, 3), np.float64)})
            with pytest.raises(InputRefused):
                model.run({})
            assert model.run({"x": np.ones((2, 3), np.float32)})["y"].tolist() == [[1] * 3] * 2

    @pytest.mark.parametrize("datatype", ["BYTES", "BF16"])
    def test_what_has_no_place_on_a_device_runs_unbound(self, tmp_path: Path, datatype: str) -> None:
        content = onnx_models.identity([("x", datatype, ["N"])], [("y", datatype, ["N"])])
        given = made_up(datatype, (3,))
        assert load(tmp_path, content, io_binding="on").run({"x": given})["y"].tolist() == given.tolist()

    @pytest.mark.gpu
    @pytest.mark.skipif(not HAS_CUDA, reason="needs onnxruntime-gpu and an NVIDIA GPU")
    @pytest.mark.parametrize("binding", ["on", "off"])
    def test_a_gpu_computes_what_the_cpu_does(self, binding: str) -> None:
        bytes_ = np.random.default_rng(0).integers(0, 256, (33, 2048)).astype(np.int32)
        on_gpu = load_magika(providers="cuda,cpu", io_binding=binding)
        expected: Any = load_magika().run({"bytes": bytes_})["target_label"]
        for _ in range(3):
            found = on_gpu.run({"bytes": bytes_})["target_label"]
            np.testing.assert_allclose(found, expected, rtol=1e-2, atol=1e-3)
