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


class Lane:
    """
    Args:
        context: an IExecutionContext of its own; it goes with the lane.
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
        kinds: Mapping[str, np.dtype[Any]],
        buffers: BufferPlan,
        outputs: tuple[str, ...],
        policy: GraphPolicy,
        words: Words,
    ) -> None:
        self._cuda, self._context, self._kinds, self._buffers = cuda, context, kinds, buffers
        self._output_names, self._policy, self._words = outputs, policy, words
        self._closers: list[tuple[Callable[[Any], None], Any]] = []
        self._graphs: dict[Shapes, _Graph] = {}
        self._asked: dict[str, NDArray[Any]] = {}
        try:
            self._device = self._take(cuda.allocate(buffers.total_bytes), cuda.free)
            self._host = self._take(cuda.allocate_pinned(buffers.total_bytes), cuda.free_pinned)
            self._stream = self._take(cuda.create_stream(), cuda.destroy_stream)
        except CudaFailed as error:
            self.close()
            raise translated(error) from error
        for name, place in buffers.places.items():
            # Stays for the life of the context, which a graph relies on: the addresses never change.
            context.set_tensor_address(name, self._device + place.offset)

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
        """Frees all: graphs and the context go before the memory that they refer to."""
        # What cannot be freed, because an earlier kernel failed, goes with the process.
        while self._graphs:
            with contextlib.suppress(CudaFailed):
                self._cuda.destroy_graph(self._graphs.popitem()[1].handle)
        self._context = None
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

    def _compute(self, inputs: Mapping[str, NDArray[Any]]) -> Mapping[str, tuple[int, ...]]:
        """Asks for the kernels; answers the shapes of the outputs."""
        shapes = shapes_of({name: array.shape for name, array in inputs.items()})
        if graph := self._graphs.get(shapes):
            self._cuda.launch(graph.handle, self._stream)
            return graph.shapes
        for name, shape in shapes:
            # Returns whether the shape is within the profile, which has been seen to.
            if not self._context.set_input_shape(name, shape):
                raise InputRefused(f"input {name!r}: TensorRT refuses the shape {list(shape)}")
        self._enqueue()
        found = {name: tuple(self._context.get_tensor_shape(name)) for name in self._output_names}
        if self._policy.captures(shapes):
            self._record(shapes, found)
        return found

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(self._stream):
            raise self._words.after("TensorRT refuses to execute")

    def _record(self, shapes: Shapes, found: Mapping[str, tuple[int, ...]]) -> None:
        """Makes a graph of the batch that has just been asked for, while the GPU is busy with it.

        Before a capture, enqueueV3() must have been called once for the present input shapes (TensorRT Developer Guide,
        "CUDA Graphs"): it has been. Nothing of the recording is executed. If it fails, batches are enqueued as before.
        """
        try:
            before = self._cuda.free_memory()
            self._cuda.begin_capture(self._stream)
            handle = self._captured()
            self._policy.captured(before - self._cuda.free_memory())
        except (CudaFailed, ExecutionFailed, OutOfMemory) as error:
            get_logger().warning("no_cuda_graphs", reason=str(error))
            self._policy.refuse()
        else:
            self._graphs[shapes] = _Graph(handle, found)

    def _captured(self) -> Any:
        try:
            self._enqueue()
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
