"""Plans of TensorRT on a stand-in for CUDA that computes on the host: lanes, graphs, and what fails."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from headrace_runner.core.buffer_plan import ALIGNMENT, ITEM_BYTES, input_refusal, plan_buffers
from headrace_runner.core.plan_manifest import EngineBuild, Manifest, PlanRequest, PlanTensor
from headrace_runner.core.shape_ranges import ShapeRange
from headrace_runner.engines.base import (
    BatchLimited,
    Coarse,
    EngineLost,
    ExecutionFailed,
    InputRefused,
    ModelRefused,
    OutOfMemory,
    Pipelined,
)
from headrace_runner.engines.cuda import CudaFailed
from headrace_runner.engines.trt_model import Parts, TensorRTModel
from headrace_runner.engines.trt_words import Words
from headrace_runner.tensors import DTYPES


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
    """`Cuda` with the host's memory on both sides, which remembers what it gave out, and records as a stream does."""

    def __init__(self, fails: str = "", memory: int = 1 << 30) -> None:
        self.held: dict[Any, Any] = {}
        self.fails = fails
        self.memory = memory
        self.streams = 0
        self.recording: dict[int, list[Callable[[], None]]] = {}
        self.launched = 0
        self.calls: list[str] = []

    def allocate(self, size: int) -> int:
        if self.fails == "memory" or size > self.memory:
            raise CudaFailed("cudaMalloc: cudaErrorMemoryAllocation", out_of_memory=True)
        self.memory -= size
        # TensorRT may write anything where nothing was computed.
        block = (ctypes.c_byte * size)(*([85] * size))
        self.held[ctypes.addressof(block)] = block
        return ctypes.addressof(block)

    def free(self, address: int) -> None:
        self.calls.append("free")
        self.memory += ctypes.sizeof(self.held.pop(address))

    allocate_pinned, free_pinned = allocate, free

    def free_memory(self) -> int:
        if self.fails == "fault":
            raise CudaFailed("cudaMemGetInfo: cudaErrorIllegalAddress", lasting=True)
        return self.memory

    def create_stream(self) -> int:
        self.streams += 1
        self.held[-self.streams] = "stream"
        return -self.streams

    def destroy_stream(self, stream: int) -> None:
        del self.held[stream]

    def to_gpu(self, target: int, source: int, size: int, stream: int) -> None:
        assert stream in self.held
        ctypes.memmove(target, source, size)

    to_host = to_gpu

    def begin_capture(self, stream: int) -> None:
        self.recording[stream] = []

    def end_capture(self, stream: int) -> Any:
        recorded = self.recording.pop(stream)
        if self.fails == "capture":
            raise CudaFailed("cudaStreamEndCapture: cudaErrorStreamCaptureInvalidated", out_of_memory=False)
        self.held[id(recorded)] = recorded
        self.memory -= 1000
        return recorded

    def launch(self, graph: Any, stream: int) -> None:
        self.launched += 1
        for work in graph:
            work()

    def destroy_graph(self, graph: Any) -> None:
        del self.held[id(graph)]
        self.memory += 1000

    def synchronize(self, stream: int) -> None:
        self.calls.append("synchronize")
        if self.fails == "kernel":
            raise CudaFailed("cudaStreamSynchronize: cudaErrorUnknown")
        if self.fails == "fault":
            raise CudaFailed("cudaStreamSynchronize: cudaErrorIllegalAddress", lasting=True)


class Doubling:
    """A context: y = 2 x, for x of rows of 4."""

    def __init__(self, cuda: HostCuda, *, knows_sizes: bool = True, executes: bool = True) -> None:
        self.cuda, self.knows_sizes, self.executes = cuda, knows_sizes, executes
        self.shape: tuple[int, ...] = ()
        self.addresses: dict[str, int] = {}
        self.enqueued = 0
        self.recorded = False
        self.scratch = (0, 0)

    def set_device_memory(self, memory: int, size: int) -> None:
        self.scratch = (memory, size)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert not self.recorded, "what a graph was captured from has to stay as it is"
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

        def work() -> None:
            for index in range(count):
                y[index] = 2 * x[index]

        if stream in self.cuda.recording:
            assert self.enqueued, "a shape is enqueued once before it is captured"
            self.recorded = True
            self.cuda.recording[stream].append(work)
        else:
            self.enqueued += 1
            work()
        return self.executes


class Plan:
    """A model of `DOUBLER`, with the stand-ins that it was made of."""

    def __init__(
        self, cuda: HostCuda | None = None, *, slots: int = 1, records: bool = True, scratch: int = 0, **context: Any
    ) -> None:
        self.cuda = cuda or HostCuda()
        self.contexts: list[Doubling] = []
        self.words = Words()

        def make_context() -> Doubling:
            self.contexts.append(Doubling(self.cuda, **context))
            return self.contexts[-1]

        cuda_: Any = self.cuda
        parts = Parts(cuda_, make_context, slots=slots, records=records, words=self.words, scratch_bytes=scratch)
        self.model = TensorRTModel(DOUBLER, parts)

    @property
    def enqueued(self) -> int:
        return sum(context.enqueued for context in self.contexts)


def batch_of(rows: int) -> NDArray[Any]:
    return np.random.default_rng(rows).normal(size=(rows, 4)).astype(np.float32)


def test_a_batch_goes_to_the_gpu_and_back_in_memory_that_is_taken_once() -> None:
    plan = Plan(records=False)
    held = dict(plan.cuda.held)

    for rows in (8, 1, 3):
        np.testing.assert_array_equal(plan.model.run({"x": batch_of(rows)})["y"], 2 * batch_of(rows))

    assert plan.cuda.held == held
    plan.model.close()
    assert plan.cuda.held == {}
    with pytest.raises(ExecutionFailed, match="has been closed"):
        plan.model.run({"x": batch_of(8)})


def test_batches_in_hand_at_once_share_neither_memory_nor_stream() -> None:
    plan = Plan(slots=2)
    assert plan.model.lanes == 2

    first = plan.model.begin({"x": batch_of(8)})
    second = plan.model.begin({"x": batch_of(3)})

    np.testing.assert_array_equal(second.finish()["y"], 2 * batch_of(3))
    np.testing.assert_array_equal(first.finish()["y"], 2 * batch_of(8))
    addresses = [address for context in plan.contexts for address in context.addresses.values()]
    assert len(set(addresses)) == 4
    assert plan.cuda.streams == 2


def test_a_batch_without_a_free_lane_waits_for_one() -> None:
    plan = Plan()
    first = plan.model.begin({"x": batch_of(8)})
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(plan.model.run, {"x": batch_of(2)})
        np.testing.assert_array_equal(first.finish()["y"], 2 * batch_of(8))
        np.testing.assert_array_equal(second.result(20)["y"], 2 * batch_of(2))


def test_a_batch_that_is_refused_leaves_its_lane_to_the_next() -> None:
    plan = Plan()
    for _ in range(3):
        with pytest.raises(InputRefused):
            plan.model.run({"x": np.zeros((9, 4), np.float32)})
    plan.cuda.fails = "kernel"
    for _ in range(3):
        with pytest.raises(ExecutionFailed):
            plan.model.run({"x": batch_of(2)})
    plan.cuda.fails = ""
    np.testing.assert_array_equal(plan.model.run({"x": batch_of(2)})["y"], 2 * batch_of(2))


def test_where_memory_is_short_there_are_fewer_lanes() -> None:
    lane_bytes = 2 * 2 * ALIGNMENT
    assert Plan(HostCuda(memory=lane_bytes), slots=3).model.lanes == 1
    assert Plan(HostCuda(memory=4 * lane_bytes), slots=3).model.lanes == 2


def test_a_further_lane_that_the_gpu_has_no_room_for_is_done_without() -> None:
    class Taken(HostCuda):
        """Somebody else takes the rest in between."""

        def create_stream(self) -> int:
            stream = super().create_stream()
            self.fails = "memory"
            return stream

    plan = Plan(Taken(), slots=2)
    assert plan.model.lanes == 1
    np.testing.assert_array_equal(plan.model.run({"x": batch_of(2)})["y"], 2 * batch_of(2))
    plan.model.close()
    assert plan.cuda.held == {}


def test_batches_of_planned_sizes_are_recorded_once_and_replayed_with_what_is_new_in_them() -> None:
    plan = Plan()
    for _ in range(3):
        np.testing.assert_array_equal(plan.model.run({"x": batch_of(8)})["y"], 2 * batch_of(8))
    assert (plan.enqueued, plan.cuda.launched) == (1, 2)

    np.testing.assert_array_equal(plan.model.run({"x": -batch_of(8)})["y"], -2 * batch_of(8))
    for _ in range(2):
        np.testing.assert_array_equal(plan.model.run({"x": batch_of(3)})["y"], 2 * batch_of(3))
    # Three rows are no size that the policy plans for.
    assert (plan.enqueued, plan.cuda.launched) == (3, 3)
    plan.model.close()
    assert plan.cuda.held == {}


def test_warming_up_records_every_planned_size_on_every_lane() -> None:
    plan = Plan(slots=2)
    plan.model.warm_up()
    # One context for each lane, for what is not recorded, and one for each of four graphs.
    assert [context.enqueued for context in plan.contexts] == [0] * 2 + [1] * 8

    for rows in (1, 2, 4, 8):
        np.testing.assert_array_equal(plan.model.run({"x": batch_of(rows)})["y"], 2 * batch_of(rows))
    assert (plan.enqueued, plan.cuda.launched) == (8, 4)


def test_each_graph_has_a_context_of_its_own_and_those_of_a_lane_share_its_scratch_memory() -> None:
    plan = Plan(slots=2, scratch=512)
    plan.model.warm_up()
    for rows in (1, 3, 8, 3, 1, 4, 7, 2):
        np.testing.assert_array_equal(plan.model.run({"x": batch_of(rows)})["y"], 2 * batch_of(rows))

    assert len({context.shape for context in plan.contexts if context.recorded}) == 4
    [first, second] = plan.contexts[:2]
    assert first.scratch[0] != second.scratch[0]
    for lane in (first, second):
        assert len([each for each in plan.contexts if each.scratch == lane.scratch]) == 5
        assert lane.scratch[1] == 512
        assert lane.scratch[0] % ALIGNMENT == lane.addresses["x"] % ALIGNMENT
        assert lane.scratch[0] >= max(lane.addresses.values()) + 8 * 4 * 4
    plan.model.close()
    assert plan.cuda.held == {}


def test_where_there_is_no_memory_for_the_context_of_a_graph_none_is_made() -> None:
    plan = Plan()

    def make_context() -> None:
        plan.words.hear("ERROR", "Requested size was 12 bytes: out of memory")

    plan.model._parts.make_context = make_context
    for rows in (8, 8, 1):
        np.testing.assert_array_equal(plan.model.run({"x": batch_of(rows)})["y"], 2 * batch_of(rows))
    assert (plan.enqueued, plan.cuda.launched) == (3, 0)


def test_a_model_is_closed_once_the_gpu_has_done_what_a_failed_batch_had_asked_of_it() -> None:
    plan = Plan(records=False)
    plan.contexts[0].get_tensor_shape = lambda name: (400, 4)  # type: ignore[method-assign] # fails after kernels
    with pytest.raises(ExecutionFailed):
        plan.model.run({"x": batch_of(1)})
    plan.model.close()
    assert plan.cuda.calls[:2] == ["synchronize", "free"]


def test_a_batch_that_finds_the_gpu_lost_is_not_itself_at_fault() -> None:
    plan = Plan(records=False, executes=False)
    plan.cuda.fails = "fault"
    with pytest.raises(EngineLost, match="cudaErrorIllegalAddress"):
        plan.model.begin({"x": batch_of(1)})


def test_a_context_that_refuses_its_memory_is_no_lane() -> None:
    cuda: Any = HostCuda()
    context = Doubling(cuda)
    context.set_tensor_address = lambda name, address: False  # type: ignore[method-assign] # as for an unknown name
    with pytest.raises(ExecutionFailed, match="TensorRT refuses the memory for 'x'"):
        TensorRTModel(DOUBLER, Parts(cuda, lambda: context))
    assert cuda.held == {}


def test_what_cannot_be_recorded_is_executed_as_before_and_not_tried_again() -> None:
    plan = Plan(HostCuda("capture"))
    for rows in (8, 8, 1, 1):
        np.testing.assert_array_equal(plan.model.run({"x": batch_of(rows)})["y"], 2 * batch_of(rows))
    assert (plan.enqueued, plan.cuda.launched, plan.cuda.recording) == (4, 0, {})


def test_a_batch_of_another_layout_or_type_in_memory_is_sent_as_the_plan_wants_it() -> None:
    columns = np.arange(8, dtype=np.float32).reshape(4, 2).T
    np.testing.assert_array_equal(Plan().model.run({"x": columns})["y"], 2 * columns)


@pytest.mark.parametrize(
    ("inputs", "outputs", "says"),
    [
        ({"x": batch_of(2).astype(np.float64)}, (), "input 'x': expected FP32; float64 came"),
        ({"x": batch_of(2), "z": batch_of(2)}, (), "there is no input 'z'; expected 'x'"),
        ({"x": batch_of(2)}, ("z",), "there is no output 'z'; expected 'y'"),
    ],
    ids=["another datatype", "an input too many", "an output that is none"],
)
def test_what_does_not_fit_the_plan_is_the_inputs_fault(
    inputs: dict[str, NDArray[Any]], outputs: tuple[str, ...], says: str
) -> None:
    plan = Plan()
    with pytest.raises(InputRefused, match=says):
        plan.model.run(inputs, outputs)
    np.testing.assert_array_equal(plan.model.run({"x": batch_of(3)})["y"], 2 * batch_of(3))
    assert plan.enqueued == 1


def test_what_the_plan_was_not_built_for_reaches_no_gpu() -> None:
    plan = Plan(HostCuda("kernel"))
    with pytest.raises(InputRefused, match="dimension 0 is 9; the plan was built for 1 to 8"):
        plan.model.run({"x": np.zeros((9, 4), np.float32)})
    assert plan.enqueued == 0


@pytest.mark.parametrize(
    ("cuda", "context", "error", "says"),
    [
        (HostCuda("memory"), {}, OutOfMemory, "cudaMalloc: cudaErrorMemoryAllocation"),
        (HostCuda("kernel"), {}, ExecutionFailed, "cudaErrorUnknown"),
        (HostCuda("fault"), {}, EngineLost, "cudaErrorIllegalAddress"),
        (HostCuda(), {"executes": False}, ExecutionFailed, "TensorRT refuses to execute"),
        (HostCuda(), {"knows_sizes": False}, ModelRefused, "output 'y' depends on what is in the inputs"),
    ],
    ids=["no memory", "a kernel fails", "a kernel ends CUDA", "not enqueued", "sizes that depend on data"],
)
def test_what_fails_is_told_as_what_it_is(cuda: Any, context: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        Plan(cuda, **context).model.run({"x": np.zeros((1, 4), np.float32)})


def test_without_an_execution_context_there_was_no_memory_for_it_in_tensorrts_words() -> None:
    words = Words()

    def make_context() -> None:
        words.hear("ERROR", "Error Code 2: Requested size was 12 bytes.")

    with pytest.raises(
        OutOfMemory, match=r"cannot make an execution context for m.sm_86.plan: .* Requested size was 12"
    ):
        TensorRTModel(DOUBLER, Parts(HostCuda(), make_context, words=words))  # type: ignore[arg-type] # as in Plan


def test_a_batch_for_which_tensorrt_has_no_memory_is_refused_as_that() -> None:
    plan = Plan(records=False)

    def refuse(stream: int) -> bool:
        plan.words.hear("ERROR", "Cuda Runtime (out of memory)")
        return False

    plan.contexts[0].execute_async_v3 = refuse  # type: ignore[method-assign] # as the library answers then
    with pytest.raises(OutOfMemory, match="refuses to execute: Cuda Runtime"):
        plan.model.run({"x": batch_of(1)})


def test_an_output_larger_than_it_could_be_is_not_copied() -> None:
    plan = Plan(records=False)
    plan.contexts[0].get_tensor_shape = lambda name: (400, 4)  # type: ignore[method-assign] # it breaks its word
    with pytest.raises(ExecutionFailed, match="larger than TensorRT said it could be"):
        plan.model.run({"x": np.zeros((1, 4), np.float32)})


def test_a_load_takes_the_largest_batch_and_the_tolerance_of_a_plan() -> None:
    model = Plan().model
    assert isinstance(model, Pipelined)
    assert isinstance(model, Coarse)
    assert isinstance(model, BatchLimited)
    assert model.largest_batch == 8
