"""One lane: an execution context, its stream, and the memory of one batch on both sides, for one batch at a time.

API clauses: IExecutionContext of https://docs.nvidia.com/deeplearning/tensorrt/latest/_static/python-api/ and
https://docs.nvidia.com/cuda/cuda-runtime-api/.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace_common.logs import get_logger
from headrace_runner.core.buffer_plan import BufferPlan
from headrace_runner.core.graph_policy import GraphPolicy, Shapes, shapes_of
from headrace_runner.engines.base import EngineLost, ExecutionFailed, InputRefused, OutOfMemory
from headrace_runner.engines.cuda import Cuda, CudaFailed, view
from headrace_runner.engines.trt_words import Words


@dataclass(frozen=True, slots=True)
class _Graph:
    """A recorded batch.

    Attributes:
        handle: a cudaGraphExec_t.
        shapes: of its outputs.
    """

    handle: Any
    shapes: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Contexts:
    """Where a lane's execution contexts come from.

    Attributes:
        make: makes an IExecutionContext; raises OutOfMemory.
        scratch_bytes: of GPU memory for activations, that contexts are to be given; 0: they have their own.
    """

    make: Callable[[], Any]
    scratch_bytes: int = 0


class Lane:
    """
    A recorded batch has a context of its own, whose shapes never change again: "use one execution context per captured
    graph, and share memory across the contexts" (TensorRT, "CUDA Graphs"). All contexts of a lane share its memory for
    activations, which they may because they never execute at once: they have one stream.

    Args:
        context: for batches that are not recorded; it goes with the lane.
        contexts: where those of recorded batches come from.
        kinds: how each tensor lies in memory.
        buffers: where in the blocks.
        outputs: all names.
        policy: which shapes are recorded.

    Raises:
        OutOfMemory, ExecutionFailed
    """

    def __init__(
        self,
        cuda: Cuda,
        context: Any,
        contexts: Contexts,
        kinds: Mapping[str, np.dtype[Any]],
        buffers: BufferPlan,
        outputs: tuple[str, ...],
        policy: GraphPolicy,
        words: Words,
    ) -> None:
        self._cuda, self._contexts, self._kinds, self._buffers = cuda, contexts, kinds, buffers
        self._output_names, self._policy, self._words = outputs, policy, words
        # The first is for what is not recorded. All stay until the lane is closed: the GPU may be busy with them.
        self._made: list[Any] = []
        self._closers: list[tuple[Callable[[Any], None], Any]] = []
        self._graphs: dict[Shapes, _Graph] = {}
        self._asked: dict[str, NDArray[Any]] = {}
        self._stream = 0
        try:
            self._device = self._take(cuda.allocate(buffers.total_bytes + contexts.scratch_bytes), cuda.free)
            self._host = self._take(cuda.allocate_pinned(buffers.total_bytes), cuda.free_pinned)
            self._stream = self._take(cuda.create_stream(), cuda.destroy_stream)
            self._adopt(context)
        except CudaFailed as error:
            self.close()
            raise translated(error) from error
        except (ExecutionFailed, OutOfMemory):
            self.close()
            raise

    def begin(self, inputs: Mapping[str, NDArray[Any]], names: tuple[str, ...]) -> None:
        """Asks for a batch; the order on the stream is: copies in, kernels, copies out.

        Raises:
            InputRefused, OutOfMemory, ExecutionFailed
        """
        self._words.clear()
        try:
            for name, array in inputs.items():
                self._send(name, array)
            shapes = self._compute(inputs)
            self._asked = {name: self._fetch(name, shapes[name]) for name in names}
        except CudaFailed as error:
            raise translated(error) from error

    def finish(self) -> dict[str, NDArray[Any]]:
        """Waits for what was asked. Raises OutOfMemory or ExecutionFailed."""
        asked, self._asked = self._asked, {}
        try:
            self._cuda.synchronize(self._stream)
        except CudaFailed as error:
            raise translated(error) from error
        # Copies, because the next batch overwrites the pinned memory.
        return {name: array.copy() for name, array in asked.items()}

    def close(self) -> None:
        """Frees all: graphs and contexts go before the memory that they refer to."""
        # What cannot be freed, because an earlier kernel failed, goes with the process.
        if self._stream:
            # A batch that failed half-way may be on the GPU still, and its context must outlive it.
            with contextlib.suppress(CudaFailed):
                self._cuda.synchronize(self._stream)
            self._stream = 0
        while self._graphs:
            with contextlib.suppress(CudaFailed):
                self._cuda.destroy_graph(self._graphs.popitem()[1].handle)
        self._made.clear()
        while self._closers:
            release, handle = self._closers.pop()
            with contextlib.suppress(CudaFailed):
                release(handle)

    def _take(self, handle: int, release: Callable[[Any], None]) -> int:
        self._closers.append((release, handle))
        return handle

    def _send(self, name: str, array: NDArray[Any]) -> None:
        offset = self._buffers.places[name].offset
        np.copyto(view(self._host + offset, self._kinds[name], array.shape), array)
        self._cuda.to_gpu(self._device + offset, self._host + offset, array.nbytes, self._stream)

    def _adopt(self, context: Any) -> None:
        """Gives a context the lane's memory, for its life: a graph relies on addresses that never change."""
        self._made.append(context)
        for name, place in self._buffers.places.items():
            if not context.set_tensor_address(name, self._device + place.offset):
                raise self._words.after(f"TensorRT refuses the memory for {name!r}")
        if self._contexts.scratch_bytes:
            context.set_device_memory(self._device + self._buffers.total_bytes, self._contexts.scratch_bytes)

    def _compute(self, inputs: Mapping[str, NDArray[Any]]) -> Mapping[str, tuple[int, ...]]:
        """Asks for the kernels; answers the shapes of the outputs."""
        shapes = shapes_of({name: array.shape for name, array in inputs.items()})
        if graph := self._graphs.get(shapes):
            self._cuda.launch(graph.handle, self._stream)
            return graph.shapes
        if self._policy.captures(shapes):
            return self._record(shapes)
        return self._execute(self._made[0], shapes)

    def _execute(self, context: Any, shapes: Shapes) -> Mapping[str, tuple[int, ...]]:
        for name, shape in shapes:
            # Returns whether the shape is within the profile, which has been seen to.
            if not context.set_input_shape(name, shape):
                raise InputRefused(f"input {name!r}: TensorRT refuses the shape {list(shape)}")
        self._enqueue(context)
        return {name: tuple(context.get_tensor_shape(name)) for name in self._output_names}

    def _enqueue(self, context: Any) -> None:
        if not context.execute_async_v3(self._stream):
            # Where an earlier kernel has ended CUDA, every call says so, and this batch is not at fault.
            self._cuda.free_memory()
            raise self._words.after("TensorRT refuses to execute")

    def _record(self, shapes: Shapes) -> Mapping[str, tuple[int, ...]]:
        """Asks for a batch, and makes a graph of it while the GPU is busy with it.

        Before a capture, enqueueV3() must have been called once for the present input shapes (TensorRT Developer Guide,
        "CUDA Graphs"): it has been. Nothing of the recording is executed. If it fails, batches are enqueued as before.
        """
        before = self._cuda.free_memory()
        try:
            context = self._contexts.make()
        except OutOfMemory as error:
            self._record_no_more(error)
            return self._execute(self._made[0], shapes)
        self._adopt(context)
        found = self._execute(context, shapes)
        try:
            self._cuda.begin_capture(self._stream)
            handle = self._captured(context)
        except (CudaFailed, ExecutionFailed, OutOfMemory) as error:
            self._record_no_more(error)
        else:
            self._graphs[shapes] = _Graph(handle, found)
            self._policy.captured(before - self._cuda.free_memory())
        return found

    def _record_no_more(self, error: Exception) -> None:
        get_logger().warning("no_cuda_graphs", reason=str(error))
        self._policy.refuse()

    def _captured(self, context: Any) -> Any:
        try:
            self._enqueue(context)
        except BaseException:
            # This takes the stream out of its capture, and tells of the same failure once more.
            with contextlib.suppress(CudaFailed):
                self._cuda.destroy_graph(self._cuda.end_capture(self._stream))
            raise
        return self._cuda.end_capture(self._stream)

    def _fetch(self, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
        """Asks for an output; it is there once the stream has been waited for."""
        place = self._buffers.places[name]
        array = view(self._host + place.offset, self._kinds[name], shape)
        if array.nbytes > place.size:
            raise ExecutionFailed(f"output {name!r} of shape {list(shape)} is larger than TensorRT said it could be")
        self._cuda.to_host(self._host + place.offset, self._device + place.offset, array.nbytes, self._stream)
        return array


def translated(error: CudaFailed) -> OutOfMemory | ExecutionFailed:
    if error.out_of_memory:
        return OutOfMemory(str(error))
    return EngineLost(str(error)) if error.lasting else ExecutionFailed(str(error))
