"""`python -m headrace_runner.compile` with TensorRT-RTX itself, which builds for GPUs that are not there."""

from __future__ import annotations

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import magika
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from headrace_common.errors import FailedPrecondition, InvalidArgument
from headrace_common.gpu_facts import Gpu
from headrace_common.gpus import Gpus, find_gpus, read_nvidia_smi
from headrace_runner.compile.__main__ import main
from headrace_runner.compile.builder import PlanBuilder, check_builds_here
from headrace_runner.compile.plan_files import Plan, PlanCache, manifest_path, plans_beside, read_plan, write_plan
from headrace_runner.core.plan_fitness import MachineFacts, choose_plan
from headrace_runner.core.plan_manifest import EngineBuild, Manifest, PlanRequest
from headrace_runner.core.shape_ranges import ShapeRange
from headrace_runner.engines import trt_library

MAGIKA = Path(magika.__file__).parent / "models" / "standard_v3_3" / "model.onnx"
needs_tensorrt_rtx = pytest.mark.skipif(
    trt_library.installed("tensorrt-rtx") is None, reason="needs TensorRT-RTX: pip install 'headrace[tensorrt-rtx]'"
)


def cnn(dtype: str = "f4") -> onnx.ModelProto:
    """A convolution, its activation and a mean: n x 3 x 32 x 32 to n x 8."""
    weights = numpy_helper.from_array(np.random.default_rng(0).normal(size=(8, 3, 3, 3)).astype(dtype), "w")
    element = TensorProto.FLOAT if dtype == "f4" else TensorProto.FLOAT16
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("ReduceMean", ["b"], ["scores"], axes=[2, 3], keepdims=0),
    ]
    image = helper.make_tensor_value_info("image", element, ["n", 3, 32, 32])
    scores = helper.make_tensor_value_info("scores", element, ["n", 8])
    graph = helper.make_graph(nodes, "cnn", [image], [scores], [weights])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


@dataclass
class Done:
    code: int
    plans: list[dict[str, Any]]
    err: str


@pytest.fixture
def compile_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Compiles in this process, to `out`, with a cache of the test's own."""

    def run(source: Path | onnx.ModelProto, *arguments: str) -> Done:
        if isinstance(source, onnx.ModelProto):
            path = tmp_path / "cnn.onnx"
            path.write_bytes(source.SerializeToString())
            source = path
        code = main([str(source), "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache"), *arguments])
        printed = capsys.readouterr()
        return Done(code, json.loads(printed.out) if printed.out else [], printed.err)

    return run


@needs_tensorrt_rtx
def test_each_target_gets_a_plan_and_a_manifest_that_says_what_it_is_for(compile_it: Any, tmp_path: Path) -> None:
    done = compile_it(cnn(), "--target", "sm_75,sm_86,sm_120", "--batch", "1:8:32")

    assert done.code == 0
    assert [plan["target"] for plan in done.plans] == ["sm_75", "sm_86", "sm_120"]
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == sorted(f"cnn.sm_{target}.plan{end}" for target in (75, 86, 120) for end in ("", ".json"))
    plan = read_plan(tmp_path / "out" / "cnn.sm_86.plan")
    manifest = plan.manifest
    assert hashlib.sha256(plan.content).hexdigest() == manifest.plan_sha256
    assert (manifest.request.target, manifest.request.precision) == (86, "fp32")
    assert manifest.request.build == trt_library.installed("tensorrt-rtx")
    assert manifest.request.profile == {"image": ShapeRange((1, 3, 32, 32), (8, 3, 32, 32), (32, 3, 32, 32))}
    assert [(tensor.name, tensor.datatype, tensor.shape) for tensor in (*manifest.inputs, *manifest.outputs)] == [
        ("image", "FP32", (-1, 3, 32, 32)),
        ("scores", "FP32", (-1, 8)),
    ]
    assert done.plans[1]["manifest"] == json.loads(manifest_path(Path(done.plans[1]["path"])).read_text())


@needs_tensorrt_rtx
def test_a_plan_keeps_the_precision_of_its_model(compile_it: Any) -> None:
    [plan] = compile_it(cnn("f2"), "--target", "sm_86").plans

    assert plan["manifest"]["precision"] == "fp16"
    assert plan["manifest"]["inputs"][0]["datatype"] == "FP16"


@needs_tensorrt_rtx
def test_a_real_model_is_built_once_for_four_targets_and_then_comes_from_the_cache(
    compile_it: Any, tmp_path: Path
) -> None:
    targets = ("--target", "sm_80,sm_86,sm_89,sm_120")
    first = compile_it(MAGIKA, *targets, "--name", "magika")
    built = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}

    again = compile_it(MAGIKA, *targets, "--name", "magika")
    renamed = compile_it(MAGIKA, "--target", "sm_86", "--name", "files")

    assert (first.code, again.code, renamed.code) == (0, 0, 0)
    assert [plan["cached"] for plan in (*first.plans, *again.plans, *renamed.plans)] == [False] * 4 + [True] * 5
    assert built == {name: (tmp_path / "out" / name).read_bytes() for name in built}
    assert (tmp_path / "out" / "files.sm_86.plan").read_bytes() == built["magika.sm_86.plan"]
    assert read_plan(tmp_path / "out" / "files.sm_86.plan").manifest.request.model == "files"


@needs_tensorrt_rtx
def test_what_one_target_refuses_is_told_in_tensorrts_words_and_the_others_are_built(
    compile_it: Any, tmp_path: Path
) -> None:
    done = compile_it(MAGIKA, "--target", "sm_75,sm_86")

    assert done.code == 1
    assert "for Turing (SM75): FP32 GEMM is not supported" in done.plans[0]["error"]
    assert f"sm_75: TensorRT refuses:\n  {done.plans[0]['error']}\n" in done.err
    assert done.plans[1]["manifest"]["target"] == "sm_86"
    assert not (tmp_path / "out" / "model.sm_75.plan").exists()


@needs_tensorrt_rtx
def test_what_the_parser_refuses_is_told_once_in_its_own_words(compile_it: Any, tmp_path: Path) -> None:
    model = cnn()
    model.graph.node[1].op_type = "Reluctant"
    done = compile_it(model, "--target", "sm_75,sm_86")

    assert (done.code, done.plans) == (1, [])
    assert done.err.startswith(
        f"headrace: TensorRT cannot parse {tmp_path}/cnn.onnx:\n  In node 1 with name:  and oper"
    )
    assert done.err.count('creator && "Plugin not found') == 1


@needs_tensorrt_rtx
def test_another_profile_is_another_plan(compile_it: Any) -> None:
    compile_it(cnn(), "--target", "sm_86")
    other = compile_it(cnn(), "--target", "sm_86", "--batch", "1:16")
    same = compile_it(cnn(), "--target", "sm_86", "--shape", "image=1x3x32x32:16x3x32x32:16x3x32x32")

    assert [other.plans[0]["cached"], same.plans[0]["cached"]] == [False, True]


@needs_tensorrt_rtx
def test_a_damaged_cache_is_built_again(compile_it: Any, tmp_path: Path) -> None:
    first = compile_it(cnn(), "--target", "sm_86")
    [plan] = (tmp_path / "cache").rglob("plan")
    plan.write_bytes(plan.read_bytes()[:-1])

    again = compile_it(cnn(), "--target", "sm_86")
    third = compile_it(cnn(), "--target", "sm_86")

    assert [done.plans[0]["cached"] for done in (first, again, third)] == [False, False, True]
    read_plan(tmp_path / "out" / "cnn.sm_86.plan")


@needs_tensorrt_rtx
def test_without_a_cache_everything_is_built_and_nothing_kept(compile_it: Any, tmp_path: Path) -> None:
    for _ in range(2):
        assert not compile_it(cnn(), "--target", "sm_86", "--no-cache").plans[0]["cached"]
    assert not (tmp_path / "cache").exists()


@needs_tensorrt_rtx
def test_a_cache_that_is_full_lets_go_of_what_was_used_longest_ago(compile_it: Any, tmp_path: Path) -> None:
    batches = ("1:4", "1:5", "1:6")
    sizes = []
    for age, batch in enumerate(batches):
        sizes.append(compile_it(cnn(), "--target", "sm_86", "--batch", batch).plans[0]["manifest"]["plan"]["bytes"])
        for entry in (tmp_path / "cache").glob("??/*"):
            os.utime(entry, (entry.stat().st_atime, min(entry.stat().st_mtime, 1000 + age)))
    # The first is used again, so that the second is the one to go. Manifests take some room as well.
    assert compile_it(cnn(), "--target", "sm_86", "--batch", "1:4").plans[0]["cached"]
    room = str(3 * max(sizes) + 8000)
    compile_it(cnn(), "--target", "sm_86", "--batch", "1:7", "--cache-size", room)

    again = [compile_it(cnn(), "--target", "sm_86", "--batch", batch).plans[0]["cached"] for batch in ("1:4", "1:7")]
    assert again == [True, True]
    assert not compile_it(cnn(), "--target", "sm_86", "--batch", "1:5").plans[0]["cached"]


@needs_tensorrt_rtx
def test_a_cache_too_small_for_one_plan_keeps_the_last(compile_it: Any, tmp_path: Path) -> None:
    for batch in ("1:4", "1:5"):
        assert compile_it(cnn(), "--target", "sm_86", "--batch", batch, "--cache-size", "1").code == 0
    assert len(list((tmp_path / "cache").rglob("plan"))) == 1
    assert compile_it(cnn(), "--target", "sm_86", "--batch", "1:5").plans[0]["cached"]
    read_plan(tmp_path / "out" / "cnn.sm_86.plan")


def test_processes_may_fill_one_cache_at_once(tmp_path: Path) -> None:
    request = PlanRequest("m", "ab" * 32, EngineBuild("tensorrt-rtx", "1", 12, "linux-x86_64"), 86, "fp32", {})

    def fill(number: int) -> list[Path]:
        cache, written = PlanCache(tmp_path / "cache", most_bytes=3000), []
        for size in range(500, 560):
            content = bytes([number]) * size
            other = replace(request, model_sha256=f"{number}{size}")
            digest = hashlib.sha256(content).hexdigest()
            plan = cache.store(Plan(Manifest(other, (), (), digest, size, 0.1), content))
            written.append(write_plan(plan, tmp_path / f"out{number}"))
            cache.find(replace(request, model_sha256=f"{1 - number}{size}"))
        return written

    with ThreadPoolExecutor(2) as pool:
        for written in pool.map(fill, (0, 1)):
            assert written
            read_plan(written[-1])


def test_what_is_no_size_of_a_cache_is_refused(compile_it: Any) -> None:
    done = compile_it(cnn(), "--target", "sm_86", "--cache-size", "much")
    assert done.code == 2
    assert "--cache-size" in done.err


@needs_tensorrt_rtx
def test_tensorrt_rtx_keeps_no_timing_cache(compile_it: Any, tmp_path: Path) -> None:
    compile_it(cnn(), "--target", "sm_86")
    assert not (tmp_path / "cache" / "timing").exists()


@needs_tensorrt_rtx
def test_tensors_in_another_file_are_part_of_what_identifies_a_model(compile_it: Any, tmp_path: Path) -> None:
    path = tmp_path / "cnn.onnx"
    onnx.save(cnn(), path, save_as_external_data=True, location="weights", size_threshold=0)
    first = compile_it(path, "--target", "sm_86")
    weights = bytearray((tmp_path / "weights").read_bytes())
    weights[0] ^= 1
    (tmp_path / "weights").write_bytes(weights)
    second = compile_it(path, "--target", "sm_86")

    assert [first.code, second.code, second.plans[0]["cached"]] == [0, 0, False]


@needs_tensorrt_rtx
def test_inputs_that_hold_the_sizes_of_others_are_refused(compile_it: Any) -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])
    sizes = helper.make_tensor_value_info("sizes", TensorProto.INT64, [2])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node("Reshape", ["x", "sizes"], ["y"])], "g", [x, sizes], [y])
    done = compile_it(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), "--target", "sm_86")

    assert done.code == 2
    assert "input 'sizes' holds the sizes of other tensors (a shape tensor), which is not supported" in done.err


@needs_tensorrt_rtx
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--target", "sm_90"], "does not build for sm_90; it builds for: sm_75, sm_80, sm_86"),
        (["--target", "rtx4090"], "--target: expected compute capabilities"),
        (["--target", "sm_86", "--batch", "0"], "--batch: expected rows"),
        (["--target", "sm_86", "--shape", "image=1x3x32"], "expected 4 dimensions"),
        (["--target", "sm_86", "--name", "../x"], "--name: expected letters, digits"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_what_was_expected(
    compile_it: Any, arguments: list[str], says: str, tmp_path: Path
) -> None:
    done = compile_it(cnn(), *arguments)

    assert (done.code, done.plans) == (2, [])
    assert done.err.startswith("headrace: ")
    assert says in done.err
    assert not (tmp_path / "out").exists()


@needs_tensorrt_rtx
@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "cannot be read: No such file"), (b"", "the file is empty"), (b"text", "is not an ONNX model")],
)
def test_what_is_no_model_is_refused(compile_it: Any, tmp_path: Path, content: bytes | None, says: str) -> None:
    path = tmp_path / "x.onnx"
    if content is not None:
        path.write_bytes(content)
    done = compile_it(path, "--target", "sm_86")

    assert done.code == 2
    assert says in done.err


@needs_tensorrt_rtx
def test_external_data_outside_the_models_folder_is_refused(compile_it: Any, tmp_path: Path) -> None:
    path = tmp_path / "model" / "cnn.onnx"
    path.parent.mkdir()
    onnx.save(cnn(), path, save_as_external_data=True, location="weights", size_threshold=0)
    (tmp_path / "secret").write_bytes((path.parent / "weights").read_bytes())
    (path.parent / "weights").unlink()
    (path.parent / "weights").symlink_to(tmp_path / "secret")
    done = compile_it(path, "--target", "sm_86")

    assert done.code == 2
    assert "its external data 'weights' is outside the model's folder" in done.err


@needs_tensorrt_rtx
def test_a_place_that_cannot_be_written_is_named(compile_it: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = compile_it(cnn(), "--target", "sm_86", "--out", str(tmp_path / "file" / "out"))

    assert done.code == 2
    assert done.err.startswith(f"headrace: {tmp_path}/file")


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "x.plan: x.plan.json cannot be read (No such file or directory); a plan is kept with its manifest"),
        ({"x.plan": b"p", "x.plan.json": b"{}"}, "x.plan.json: it is not the manifest of a plan"),
    ],
    ids=["nothing", "no manifest"],
)
def test_a_plan_without_its_manifest_is_refused(tmp_path: Path, files: dict[str, bytes], says: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidArgument) as refused:
        read_plan(tmp_path / "x.plan")
    assert says in refused.value.message


@needs_tensorrt_rtx
def test_of_a_folder_of_plans_the_one_for_the_gpu_is_picked(compile_it: Any, tmp_path: Path) -> None:
    compile_it(cnn(), "--target", "sm_86,sm_89,sm_120")
    compile_it(cnn(), "--target", "sm_80", "--name", "other")
    plans = plans_beside(tmp_path / "out" / "cnn.sm_120.plan")
    assert sorted(path.name for path in plans) == ["cnn.sm_120.plan", "cnn.sm_86.plan", "cnn.sm_89.plan"]

    build = trt_library.require("tensorrt-rtx")
    facts = MachineFacts({build.engine: build.version}, Gpu("NVIDIA L4", 89), "570.86.15", build.platform)
    assert choose_plan(plans, facts).name == "cnn.sm_89.plan"
    with pytest.raises(InvalidArgument) as refused:
        choose_plan(plans, replace(facts, gpu=Gpu("NVIDIA A100", 80)))
    assert refused.value.message == (
        "cnn was built for sm_86, sm_89, sm_120, and this runner's GPU, NVIDIA A100, is sm_80: headrace compile "
        "--target sm_80 builds a plan for it"
    )


@needs_tensorrt_rtx
def test_a_plan_that_is_not_its_manifests_is_refused(compile_it: Any, tmp_path: Path) -> None:
    compile_it(cnn(), "--target", "sm_75,sm_86")
    (tmp_path / "out" / "cnn.sm_75.plan").replace(tmp_path / "out" / "cnn.sm_86.plan")
    with pytest.raises(InvalidArgument, match=r"cnn.sm_86.plan: its manifest is for sha256 .* compile it again"):
        read_plan(tmp_path / "out" / "cnn.sm_86.plan")


def test_an_engine_is_found_by_its_files_and_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tensorrt_bindings").mkdir()
    (tmp_path / "tensorrt_bindings" / "__init__.py").write_text(
        'raise SystemError("imported")\n__version__ = "11.4.0.1"\n'
    )
    (tmp_path / "tensorrt_cu12_bindings-11.4.0.1.dist-info").mkdir()
    monkeypatch.syspath_prepend(tmp_path)

    assert trt_library.installed("tensorrt") == EngineBuild("tensorrt", "11.4.0.1", 12, trt_library.this_platform())
    assert trt_library.versions()["tensorrt"] == "11.4.0.1"


def test_an_engine_that_cannot_be_loaded_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tensorrt_bindings.py").write_text('raise ImportError("libnvinfer.so.11: cannot open")\n')
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        FailedPrecondition, match=r"tensorrt is installed and cannot be loaded: libnvinfer.so.11: cannot"
    ):
        trt_library.load("tensorrt")


@pytest.mark.skipif(trt_library.installed("tensorrt") is not None, reason="is for machines without tensorrt")
def test_an_engine_that_is_not_installed_is_refused_with_the_command(compile_it: Any) -> None:
    done = compile_it(cnn(), "--target", "sm_86", "--engine", "tensorrt")
    assert (done.code, done.err) == (2, "headrace: tensorrt is not installed; pip install 'headrace[tensorrt]'\n")


@pytest.mark.parametrize(
    ("capability", "says"),
    [(None, "this machine has no GPU: run this for sm_80, sm_86"), (80, "is sm_80: run this for sm_86")],
)
def test_tensorrt_builds_only_for_the_gpu_that_is_there(capability: int | None, says: str) -> None:
    with pytest.raises(FailedPrecondition) as refused:
        check_builds_here("tensorrt", (80, 86), capability)
    assert says in refused.value.message
    check_builds_here("tensorrt", (80,), 80)
    check_builds_here("tensorrt-rtx", (80, 86), None)


class RecordedTensorRT:
    """The part of TensorRT's interface that `PlanBuilder` uses, which writes down what it is asked."""

    ILogger = type("ILogger", (), {})
    NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)
    HardwareCompatibilityLevel = SimpleNamespace(SAME_COMPUTE_CAPABILITY="same capability")

    def __init__(self) -> None:
        self.timing_caches: list[bytes] = []
        self.config = SimpleNamespace(
            create_timing_cache=self._create_timing_cache, set_timing_cache=self._set_timing_cache
        )

    def _set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        return ignore_mismatch or not cache.serialize().startswith(b"of another GPU")

    def _create_timing_cache(self, content: bytes) -> Any:
        self.timing_caches.append(content)
        return SimpleNamespace(serialize=lambda: content + b"+")

    def Builder(self, _logger: Any) -> Any:
        network = SimpleNamespace(num_inputs=0, num_outputs=0)
        return SimpleNamespace(
            create_network=lambda flags: network,
            create_builder_config=lambda: self.config,
            create_optimization_profile=lambda: None,
            build_serialized_network=lambda network, config: b"plan",
        )

    def OnnxParser(self, _network: Any, _logger: Any) -> Any:
        return SimpleNamespace(parse_from_file=lambda path: True)


def test_tensorrt_is_given_its_timing_cache_back_and_builds_for_every_gpu_of_the_capability(tmp_path: Path) -> None:
    recorded = RecordedTensorRT()
    builder = PlanBuilder("tensorrt", recorded, tmp_path / "x.onnx", lambda severity, text: None)
    for _ in range(2):
        assert bytes(builder.build(86, {}, tmp_path / "timing" / "x").plan) == b"plan"

    assert recorded.timing_caches == [b"", b"+"]
    assert (tmp_path / "timing" / "x").read_bytes() == b"++"
    assert recorded.config.hardware_compatibility_level == "same capability"


def test_a_timing_cache_of_another_gpu_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / "timing").write_bytes(b"of another GPU")
    builder = PlanBuilder("tensorrt", RecordedTensorRT(), tmp_path / "x.onnx", lambda severity, text: None)
    builder.build(86, {}, tmp_path / "timing")
    assert (tmp_path / "timing").read_bytes() == b"+"


def test_gpus_are_counted_by_the_library_as_by_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """By speed, as CUDA does by itself, the first of two unlike GPUs may be another than the driver's."""
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    trt_library.load("tensorrt-rtx")
    assert os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


def test_gpus_are_read_from_nvidia_smi() -> None:
    found = read_nvidia_smi("NVIDIA L4, 8.9, 23034, 570.86.15, GPU-aa\nTesla T4, 7.5, 15360, 570.86.15, GPU-bb\n")

    assert found.driver == "570.86.15"
    assert [(gpu.name, gpu.capability, gpu.memory_bytes, gpu.uuid) for gpu in found.gpus] == [
        ("NVIDIA L4", 89, 23034 << 20, "GPU-aa"),
        ("Tesla T4", 75, 15360 << 20, "GPU-bb"),
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [("", "the driver sees no GPU"), ("NVIDIA L4, [N/A], 1, 570, GPU-aa\n", "nvidia-smi answers what cannot be")],
)
def test_what_nvidia_smi_does_not_tell_is_no_gpu(text: str, says: str) -> None:
    assert says in read_nvidia_smi(text).missing


def test_without_nvml_nvidia_smi_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA L4, 8.9, 23034, 570.86.15, GPU-aa'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr("headrace_common.gpus.find_spec", lambda name: None)
    assert [gpu.name for gpu in find_gpus().gpus] == ["NVIDIA L4"]

    program.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed' >&2; exit 9\n")
    assert find_gpus() == Gpus(missing="nvidia-smi: NVIDIA-SMI has failed")
