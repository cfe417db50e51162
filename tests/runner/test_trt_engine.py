"""TensorRT's execution: what can be known without a GPU, and, marked gpu, the rest."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from headrace_common.errors import InvalidArgument
from headrace_runner.compile.__main__ import main
from headrace_runner.core.buffer_plan import ALIGNMENT, ITEM_BYTES, input_refusal, plan_buffers
from headrace_runner.core.gpu_targets import target_name
from headrace_runner.core.plan_manifest import EngineBuild, Manifest, PlanRequest, PlanTensor
from headrace_runner.core.shape_ranges import ShapeRange
from headrace_runner.engines.base import ExecutionFailed, InputRefused, ModelRefused, ModelSource, OutOfMemory
from headrace_runner.engines.cuda import Cuda, CudaFailed
from headrace_runner.engines.registry import import_engines, pick
from headrace_runner.engines.trt import TensorRTModel, machine_facts
from headrace_runner.tensors import DTYPES

GPU = machine_facts().gpu
needs_gpu = pytest.mark.skipif(GPU is None, reason="needs an NVIDIA GPU and its driver")
without_gpu = pytest.mark.skipif(GPU is not None, reason="is for machines without a GPU")


def manifest_of(inputs: dict[str, tuple[str, ShapeRange]], outputs: dict[str, str]) -> Manifest:
    profile = {name: shapes for name, (_, shapes) in inputs.items()}
    build = EngineBuild("tensorrt-rtx", "1.7", 12, "linux-x86_64")
    return Manifest(
        PlanRequest("m", "ab" * 32, build, 86, "fp32", profile),
        tuple(PlanTensor(name, kind, shapes.shape) for name, (kind, shapes) in inputs.items()),
        tuple(PlanTensor(name, kind, (-1, 4)) for name, kind in outputs.items()),
        plan_sha256="cd" * 32,
        plan_bytes=1,
        build_s=1.0,
    )


ROWS = ShapeRange((1, 4), (8, 4), (8, 4))
DOUBLER = manifest_of({"x": ("FP32", ROWS)}, {"y": "FP32"})


@given(
    st.lists(st.tuples(st.sampled_from(sorted(ITEM_BYTES)), st.integers(1, 300)), min_size=1, max_size=5),
    st.lists(st.integers(0, 2000), max_size=4),
)
def test_tensors_lie_aligned_inside_the_block_and_none_over_another(
    inputs: list[tuple[str, int]], outputs: list[int]
) -> None:
    ranges = {f"i{n}": (kind, ShapeRange((1,), (1,), (size,))) for n, (kind, size) in enumerate(inputs)}
    names = {f"o{n}": size for n, size in enumerate(outputs)}

    plan = plan_buffers(manifest_of(ranges, dict.fromkeys(names, "FP32")), names)

    assert set(plan.places) == {*ranges, *names}
    end = 0
    for place in sorted(plan.places.values(), key=lambda place: place.offset):
        assert place.offset % ALIGNMENT == 0
        assert place.offset >= end
        end = place.offset + max(1, place.size)
    assert end <= plan.total_bytes
    for name, (kind, shapes) in ranges.items():
        assert plan.places[name].size == shapes.largest[0] * DTYPES[kind].itemsize


@pytest.mark.parametrize(
    ("shapes", "says"),
    [
        ({"x": (8, 4)}, ""),
        ({}, "input 'x' is missing"),
        ({"x": (9, 4)}, "input 'x': dimension 0 is 9; the plan was built for 1 to 8"),
        ({"x": (0, 4)}, "input 'x': dimension 0 is 0; the plan was built for 1 to 8"),
        ({"x": (1, 5)}, "input 'x': dimension 1 is 5; the plan was built for 4"),
        ({"x": (4,)}, "input 'x': it has 1 dimensions; the plan was built for 2"),
    ],
)
def test_shapes_that_the_plan_was_not_built_for_are_refused(shapes: dict[str, tuple[int, ...]], says: str) -> None:
    assert input_refusal(DOUBLER, shapes) == says


class HostCuda:
    """`Cuda` with the host's memory on both sides, which remembers what it gave out."""

    def __init__(self, fails: str = "") -> None:
        self.held: dict[int, Any] = {}
        self.fails = fails

    def allocate(self, size: int) -> int:
        if self.fails == "memory":
            raise CudaFailed("cudaMalloc: cudaErrorMemoryAllocation", out_of_memory=True)
        # TensorRT may write anything where nothing was computed.
        block = (ctypes.c_byte * size)(*([85] * size))
        self.held[ctypes.addressof(block)] = block
        return ctypes.addressof(block)

    def free(self, address: int) -> None:
        del self.held[address]

    allocate_pinned, free_pinned = allocate, free

    def create_stream(self) -> int:
        self.held[7] = "stream"
        return 7

    destroy_stream = free

    def to_gpu(self, target: int, source: int, size: int, stream: int) -> None:
        assert stream == 7
        ctypes.memmove(target, source, size)

    to_host = to_gpu

    def synchronize(self, stream: int) -> None:
        if self.fails == "kernel":
            raise CudaFailed("cudaStreamSynchronize: cudaErrorIllegalAddress", out_of_memory=False)


class Doubling:
    """An engine and its context: y = 2 x, for x of rows of 4."""

    def __init__(self, *, knows_sizes: bool = True, executes: bool = True) -> None:
        self.knows_sizes, self.executes = knows_sizes, executes
        self.shape: tuple[int, ...] = ()
        self.addresses: dict[str, int] = {}

    def create_execution_context(self) -> Doubling:
        return self

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shape = tuple(shape)
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shape if self.knows_sizes else (-1, 4)

    def get_max_output_size(self, name: str) -> int:
        return 4 * int(np.prod(self.shape))

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        count = int(np.prod(self.shape))
        x, y = ((ctypes.c_float * count).from_address(self.addresses[name]) for name in ("x", "y"))
        for index in range(count):
            y[index] = 2 * x[index]
        return self.executes


def test_a_batch_goes_to_the_gpu_and_back_in_memory_that_is_taken_once() -> None:
    cuda = HostCuda()
    model = TensorRTModel(cuda, Doubling(), DOUBLER)  # type: ignore[arg-type] # host memory in place of CUDA's
    held = dict(cuda.held)
    batches = [np.random.default_rng(rows).normal(size=(rows, 4)).astype(np.float32) for rows in (8, 1, 3)]

    answers = [model.run({"x": batch})["y"] for batch in batches]

    for batch, answer in zip(batches, answers, strict=True):
        np.testing.assert_array_equal(answer, 2 * batch)
    assert cuda.held == held
    model.close()
    assert cuda.held == {}
    with pytest.raises(ExecutionFailed, match="has been closed"):
        model.run({"x": batches[0]})


def test_a_batch_of_another_layout_or_type_in_memory_is_sent_as_the_plan_wants_it() -> None:
    model = TensorRTModel(HostCuda(), Doubling(), DOUBLER)  # type: ignore[arg-type] # as above
    columns = np.arange(8, dtype=np.float32).reshape(4, 2).T
    np.testing.assert_array_equal(model.run({"x": columns})["y"], 2 * columns)


def test_what_the_plan_was_not_built_for_reaches_no_gpu() -> None:
    model = TensorRTModel(HostCuda("kernel"), Doubling(), DOUBLER)  # type: ignore[arg-type] # as above
    with pytest.raises(InputRefused, match="dimension 0 is 9; the plan was built for 1 to 8"):
        model.run({"x": np.zeros((9, 4), np.float32)})


@pytest.mark.parametrize(
    ("cuda", "engine", "error", "says"),
    [
        (HostCuda("memory"), Doubling(), OutOfMemory, "cudaMalloc: cudaErrorMemoryAllocation"),
        (HostCuda("kernel"), Doubling(), ExecutionFailed, "cudaErrorIllegalAddress"),
        (HostCuda(), Doubling(executes=False), ExecutionFailed, "TensorRT refuses to execute"),
        (HostCuda(), Doubling(knows_sizes=False), ModelRefused, "output 'y' depends on what is in the inputs"),
    ],
    ids=["no memory", "a kernel fails", "not enqueued", "sizes that depend on data"],
)
def test_what_fails_is_told_as_what_it_is(cuda: Any, engine: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        TensorRTModel(cuda, engine, DOUBLER).run({"x": np.zeros((1, 4), np.float32)})


def test_an_output_larger_than_it_could_be_is_not_copied() -> None:
    engine = Doubling()
    model = TensorRTModel(HostCuda(), engine, DOUBLER)  # type: ignore[arg-type] # as above
    engine.get_tensor_shape = lambda name: (400, 4)  # type: ignore[method-assign] # an engine that breaks its word
    with pytest.raises(ExecutionFailed, match="larger than TensorRT said it could be"):
        model.run({"x": np.zeros((1, 4), np.float32)})


@without_gpu
def test_without_a_driver_cuda_says_so_by_name() -> None:
    pytest.importorskip("cuda.bindings.runtime", reason="needs cuda-bindings: pip install 'headrace[tensorrt-rtx]'")
    with pytest.raises(CudaFailed, match=r"cudaMalloc: cuda\w+") as failed:
        Cuda().allocate(1)
    assert not failed.value.out_of_memory


@without_gpu
def test_a_runner_without_a_gpu_has_no_tensorrt_and_says_where_to_look() -> None:
    engines = import_engines(allow_fake=False)
    assert "onnxruntime" in engines
    for name in ("tensorrt", "tensorrt-rtx"):
        with pytest.raises(InvalidArgument, match=r"it has: \w+; `headrace doctor` says what is missing"):
            pick(engines, name)


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


@pytest.fixture
def plan(tmp_path: Path) -> Callable[[], ModelSource]:
    """Compiles the network for the GPU that is here."""

    def compiled() -> ModelSource:
        assert GPU is not None
        (tmp_path / "cnn.onnx").write_bytes(cnn().SerializeToString())
        target = target_name(GPU.capability)
        name = "tensorrt-rtx" if "tensorrt-rtx" in import_engines(allow_fake=False) else "tensorrt"
        arguments = ["--target", target, "--engine", name, "--out", str(tmp_path), "--batch", "1:16", "--no-cache"]
        assert main([str(tmp_path / "cnn.onnx"), *arguments]) == 0
        return ModelSource(tmp_path / f"cnn.{target}.plan", f"cnn.{target}.plan")

    return compiled


@pytest.mark.gpu
@needs_gpu
def test_a_plan_answers_as_onnx_runtime_does(plan: Callable[[], ModelSource]) -> None:
    source = plan()
    engines = import_engines(allow_fake=False)
    engine = engines.get("tensorrt-rtx") or engines["tensorrt"]
    model = engine.load(source)
    reference = onnxruntime.InferenceSession(cnn().SerializeToString())
    for rows in (1, 16, 5, 16):
        batch = np.random.default_rng(rows).normal(size=(rows, 3, 32, 32)).astype(np.float32)
        # TF32 keeps ten bits of the mantissa.
        np.testing.assert_allclose(
            model.run({"image": batch})["scores"], reference.run(None, {"image": batch})[0], rtol=1e-2, atol=1e-2
        )
    with pytest.raises(InputRefused, match="the plan was built for 1 to 16"):
        model.run({"image": np.zeros((17, 3, 32, 32), np.float32)})
    model.close()


@pytest.mark.gpu
@needs_gpu
def test_a_plan_that_is_damaged_or_alone_is_refused(plan: Callable[[], ModelSource]) -> None:
    source = plan()
    engines = import_engines(allow_fake=False)
    engine = engines.get("tensorrt-rtx") or engines["tensorrt"]
    source.path.write_bytes(source.path.read_bytes()[:-1])
    with pytest.raises(ModelRefused, match="its manifest is for sha256"):
        engine.load(source)
    with pytest.raises(ModelRefused, match="knows none"):
        engine.load(replace(source, options={"streams": "2"}))
