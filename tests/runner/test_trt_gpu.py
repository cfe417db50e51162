"""TensorRT's execution on the GPU that is here: `pytest -m gpu`."""

from __future__ import annotations

import gc
import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import magika
import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from headrace_common.clock import SystemClock
from headrace_common.gpu_facts import target_name
from headrace_runner.compile.__main__ import main
from headrace_runner.compile.builder import rtx_targets
from headrace_runner.compile.plan_files import manifest_path
from headrace_runner.domain import LoadPlan, ModelFile
from headrace_runner.engines import trt_library
from headrace_runner.engines.base import (
    Engine,
    InputRefused,
    ModelRefused,
    ModelSource,
    OutOfMemory,
    Pipelined,
    WarmsUp,
)
from headrace_runner.engines.base import OnGpu as HasGpuMemory
from headrace_runner.engines.cuda import Cuda, CudaFailed
from headrace_runner.engines.registry import import_engines
from headrace_runner.engines.trt import machine_facts
from headrace_runner.loading import load

MAGIKA = Path(magika.__file__).parent / "models" / "standard_v3_3" / "model.onnx"
GPU = machine_facts().gpu
needs_gpu = pytest.mark.skipif(GPU is None, reason="needs an NVIDIA GPU and its driver")


def cnn() -> onnx.ModelProto:
    weights = numpy_helper.from_array(np.random.default_rng(0).normal(size=(8, 3, 3, 3)).astype("f4"), "w")
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("ReduceMean", ["b"], ["scores"], axes=[2, 3], keepdims=0),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 32, 32])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 8])
    graph = helper.make_graph(nodes, "cnn", [image], [scores], [weights])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@dataclass
class OnGpu:
    """A network compiled for the GPU that is here, and the engine for it."""

    engine: Engine
    source: ModelSource


@pytest.fixture(params=["tensorrt-rtx", "tensorrt"])
def on_gpu(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OnGpu:
    """By each library that is installed and builds for this GPU."""
    if GPU is None:
        pytest.skip("needs an NVIDIA GPU and its driver")
    engine = import_engines(allow_fake=False).get(request.param)
    if engine is None:
        pytest.skip(f"needs {request.param}: pip install 'headrace[{request.param}]'")
    if request.param == "tensorrt-rtx" and GPU.capability not in rtx_targets(trt_library.load("tensorrt-rtx")):
        pytest.skip(f"tensorrt-rtx does not build for {target_name(GPU.capability)}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return OnGpu(engine, compiled(tmp_path, request.param, "1:16"))


def compiled(directory: Path, engine: str, batch: str) -> ModelSource:
    """The network, for this machine's GPU."""
    assert GPU is not None
    (directory / "cnn.onnx").write_bytes(cnn().SerializeToString())
    target = target_name(GPU.capability)
    arguments = ["--target", target, "--engine", engine, "--out", str(directory), "--batch", batch, "--no-cache"]
    assert main([str(directory / "cnn.onnx"), *arguments]) == 0
    return ModelSource(directory / f"cnn.{target}.plan", f"cnn.{target}.plan", slots=2)


def images(rows: int) -> NDArray[Any]:
    return np.random.default_rng(rows).normal(size=(rows, 3, 32, 32)).astype(np.float32)


def check_answer(batch: NDArray[Any], scores: NDArray[Any]) -> None:
    reference = onnxruntime.InferenceSession(cnn().SerializeToString()).run(None, {"image": batch})[0]
    # TF32 keeps ten bits of the mantissa.
    np.testing.assert_allclose(scores, reference, rtol=1e-2, atol=1e-2)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("warm", [False, True], ids=["as it comes", "warmed up"])
def test_a_plan_answers_as_onnx_runtime_does(on_gpu: OnGpu, warm: bool) -> None:
    model = on_gpu.engine.load(on_gpu.source)
    assert isinstance(model, WarmsUp)
    if warm:
        model.warm_up()
    # Each size again, so that what was recorded is replayed with other contents.
    for rows in (1, 16, 5, 16, 1, 5, 8, 8):
        check_answer(images(rows), model.run({"image": images(rows)})["scores"])
    with pytest.raises(InputRefused, match="the plan was built for 1 to 16"):
        model.run({"image": np.zeros((17, 3, 32, 32), np.float32)})
    model.close()


@pytest.mark.gpu
@needs_gpu
def test_magika_answers_as_on_onnx_runtime(on_gpu: OnGpu, tmp_path: Path) -> None:
    assert GPU is not None
    target = target_name(GPU.capability)
    arguments = ["--target", target, "--engine", on_gpu.engine.name, "--out", str(tmp_path), "--no-cache"]
    code = main([str(MAGIKA), "--name", "magika", *arguments])
    if target == "sm_75":
        pytest.skip("TensorRT has no FP32 products for Turing")
    assert code == 0
    model = on_gpu.engine.load(ModelSource(tmp_path / f"magika.{target}.plan", "magika", slots=2))
    reference = onnxruntime.InferenceSession(str(MAGIKA))
    for rows in (1, 3, 64):
        texts = np.random.default_rng(rows).integers(0, 256, (rows, 2048)).astype(np.int32)
        np.testing.assert_allclose(
            model.run({"bytes": texts})["target_label"], reference.run(None, {"bytes": texts})[0], atol=2e-2
        )
    model.close()


@pytest.mark.gpu
@needs_gpu
def test_batches_in_hand_at_once_have_their_own_answers(on_gpu: OnGpu) -> None:
    model = on_gpu.engine.load(on_gpu.source)
    assert isinstance(model, Pipelined)
    assert model.lanes == 2
    for _ in range(20):
        pending = [model.begin({"image": images(rows)}) for rows in (16, 3)]
        for rows, each in zip((16, 3), pending, strict=True):
            check_answer(images(rows), each.finish()["scores"])
    with ThreadPoolExecutor(4) as pool:
        sizes = [1, 16, 7, 8] * 10
        for rows, answer in zip(sizes, pool.map(lambda rows: model.run({"image": images(rows)}), sizes), strict=True):
            check_answer(images(rows), answer["scores"])
    model.close()


@pytest.mark.gpu
@needs_gpu
def test_unloading_gives_the_gpus_memory_back(on_gpu: OnGpu) -> None:
    large = compiled(on_gpu.source.path.parent, on_gpu.engine.name, "1:4096")

    def load_and_close() -> None:
        model = on_gpu.engine.load(large)
        assert isinstance(model, WarmsUp)
        model.warm_up()
        model.close()

    load_and_close()
    gc.collect()
    before = Cuda().free_memory()
    for _ in range(5):
        load_and_close()
        gc.collect()
    # CUDA keeps what it may need again; a lane that stayed is 48 MiB of input alone, five times.
    assert before - Cuda().free_memory() < 32 << 20


@pytest.mark.gpu
@needs_gpu
def test_a_load_tells_its_phases_and_its_memory(on_gpu: OnGpu) -> None:
    directory = on_gpu.source.path.parent
    paths = [on_gpu.source.path, manifest_path(on_gpu.source.path)]
    files = tuple(
        ModelFile(each.name, hashlib.sha256(each.read_bytes()).hexdigest(), each.stat().st_size) for each in paths
    )
    plan = LoadPlan(directory, files, on_gpu.source.name, on_gpu.engine.name, slots=2)
    loaded = load(plan, {on_gpu.engine.name: on_gpu.engine}, SystemClock())

    assert loaded.signature.batchable
    assert loaded.max_batch_size == 16
    making = "jit" if on_gpu.engine.name == "tensorrt-rtx" else "contexts"
    assert {"read", "deserialize", making, "session", "warm"} <= set(loaded.phases_s)
    assert isinstance(loaded.model, HasGpuMemory)
    memory = loaded.model.gpu_memory()
    assert memory is not None
    assert 0 <= memory.used_bytes < memory.total_bytes
    loaded.model.close()


@pytest.mark.gpu
@needs_gpu
def test_a_model_for_which_the_gpu_has_no_memory_is_out_of_memory(on_gpu: OnGpu) -> None:
    large = compiled(on_gpu.source.path.parent, on_gpu.engine.name, "1:4096")
    cuda, hoard, size = Cuda(), list[int](), 1 << 40
    while size >= 1 << 20:
        try:
            hoard.append(cuda.allocate(size))
        except CudaFailed:
            size //= 2
    try:
        with pytest.raises(OutOfMemory):
            on_gpu.engine.load(large)
    finally:
        for address in hoard:
            cuda.free(address)
    on_gpu.engine.load(large).close()


@pytest.mark.gpu
@needs_gpu
def test_what_tensorrt_rtx_compiled_is_there_for_the_next_load(on_gpu: OnGpu, tmp_path: Path) -> None:
    if on_gpu.engine.name != "tensorrt-rtx":
        pytest.skip("only tensorrt-rtx compiles on the device")
    for _ in range(2):
        model = on_gpu.engine.load(on_gpu.source)
        assert isinstance(model, WarmsUp)
        model.warm_up()
        check_answer(images(4), model.run({"image": images(4)})["scores"])
        model.close()
        assert len(list((tmp_path / "cache" / "headrace" / "jit").iterdir())) == 1


@pytest.mark.gpu
@needs_gpu
def test_a_plan_that_is_damaged_or_alone_is_refused(on_gpu: OnGpu) -> None:
    path = on_gpu.source.path
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ModelRefused, match="its manifest is for sha256"):
        on_gpu.engine.load(on_gpu.source)
    manifest_path(path).unlink()
    with pytest.raises(ModelRefused, match="a plan is kept with its manifest"):
        on_gpu.engine.load(on_gpu.source)
    with pytest.raises(ModelRefused, match="knows none"):
        on_gpu.engine.load(replace(on_gpu.source, options={"streams": "2"}))
