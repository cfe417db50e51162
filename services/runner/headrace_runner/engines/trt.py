"""TensorRT, and TensorRT for RTX: executes plans that `headrace compile` made, on the GPU that they were made for.

API clauses are those of https://docs.nvidia.com/deeplearning/tensorrt/latest/_static/python-api/.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace_common.errors import HeadraceError
from headrace_runner.compile.plan_files import manifest_path, read_plan
from headrace_runner.core.buffer_plan import input_refusal, plan_buffers
from headrace_runner.core.plan_fitness import MachineFacts, check_fits
from headrace_runner.core.plan_manifest import Manifest, PlanTensor
from headrace_runner.core.signature import EngineTensor
from headrace_runner.engines import trt_library
from headrace_runner.engines.base import (
    ExecutionFailed,
    InputRefused,
    LoadedModel,
    ModelRefused,
    ModelSource,
    OutOfMemory,
)
from headrace_runner.engines.cuda import Cuda, CudaFailed, view
from headrace_runner.gpus import find_gpus
from headrace_runner.tensors import DTYPES


class TensorRTEngine:
    """Takes no options. Uses the first GPU that the process sees (CUDA_VISIBLE_DEVICES).

    Raises:
        ImportError: the library is not installed, or cannot be loaded.
    """

    name = trt_library.TENSORRT
    platform = "tensorrt_plan"

    def __init__(self) -> None:
        try:
            self._trt = trt_library.load(self.name)
        except HeadraceError as error:
            raise ImportError(error.message) from error
        self._cuda = Cuda()
        # Kept, because the library's objects refer to it.
        self._logger = self._trt.Logger(self._trt.Logger.ERROR)
        self._runtime = self._trt.Runtime(self._logger)

    def prepare(self) -> None:
        """The first call makes CUDA's context, which takes tenths of a second."""
        self._cuda.free(self._cuda.allocate(1))

    def external_files(self, source: ModelSource) -> frozenset[str]:
        return frozenset({manifest_path(source.path).name})

    def load(self, source: ModelSource) -> LoadedModel:
        if source.options:
            raise ModelRefused(f"engine option {min(source.options)!r} is not known to {self.name}; it knows none")
        try:
            plan = read_plan(source.path)
            check_fits(plan.manifest, machine_facts())
        except HeadraceError as error:
            raise ModelRefused(error.message) from error
        engine = self._runtime.deserialize_cuda_engine(plan.content)
        if engine is None:
            raise ModelRefused(f"{self.name} cannot read {source.name}; its lines in the log say why")
        return TensorRTModel(self._cuda, engine, plan.manifest)


class TensorRTRtxEngine(TensorRTEngine):
    """The same for plans of `tensorrt-rtx`: a part of them is compiled for the GPU when their context is made."""

    name = trt_library.TENSORRT_RTX


class TensorRTModel:
    """One execution context with its stream, and memory for the largest shapes on both sides, taken once.

    Args:
        engine: an ICudaEngine.

    Raises:
        ModelRefused: the size of an output depends on what is in the inputs.
        OutOfMemory
    """

    def __init__(self, cuda: Cuda, engine: Any, manifest: Manifest) -> None:
        self._cuda = cuda
        self._manifest = manifest
        self._closers: list[tuple[Any, int]] = []
        self._inputs = tuple(_engine_tensor(tensor) for tensor in manifest.inputs)
        self._outputs = tuple(_engine_tensor(tensor) for tensor in manifest.outputs)
        self._kinds = {tensor.name: DTYPES[tensor.datatype] for tensor in (*manifest.inputs, *manifest.outputs)}
        self._context = engine.create_execution_context()
        if self._context is None:
            raise OutOfMemory(f"TensorRT cannot make an execution context for {manifest.request.file_name}")
        self._buffers = plan_buffers(manifest, self._output_bytes())
        try:
            self._device = self._take(cuda.allocate, cuda.free, self._buffers.total_bytes)
            self._host = self._take(cuda.allocate_pinned, cuda.free_pinned, self._buffers.total_bytes)
            self._stream = cuda.create_stream()
            self._closers.append((cuda.destroy_stream, self._stream))
        except CudaFailed as error:
            self.close()
            raise _translated(error) from error
        for name, place in self._buffers.places.items():
            # Stays for the life of the context: the addresses never change.
            self._context.set_tensor_address(name, self._device + place.offset)

    @property
    def inputs(self) -> tuple[EngineTensor, ...]:
        return self._inputs

    @property
    def outputs(self) -> tuple[EngineTensor, ...]:
        return self._outputs

    def run(self, inputs: Mapping[str, NDArray[Any]], outputs: tuple[str, ...] = ()) -> dict[str, NDArray[Any]]:
        if self._context is None:
            raise ExecutionFailed("the model has been closed")
        if reason := input_refusal(self._manifest, {name: array.shape for name, array in inputs.items()}):
            raise InputRefused(reason)
        names = outputs or tuple(tensor.name for tensor in self._outputs)
        try:
            for tensor in self._inputs:
                self._send(tensor.name, inputs[tensor.name])
            # Enqueues; the order on the stream is: copies in, kernels, copies out.
            if not self._context.execute_async_v3(self._stream):
                raise ExecutionFailed("TensorRT refuses to execute; its lines in the log say why")
            arrays = {name: self._fetch(name) for name in names}
            self._cuda.synchronize(self._stream)
        except CudaFailed as error:
            raise _translated(error) from error
        # Copies, because the next batch overwrites the pinned memory.
        return {name: array.copy() for name, array in arrays.items()}

    def close(self) -> None:
        """The context goes before the memory that it refers to."""
        self._context = None
        while self._closers:
            release, handle = self._closers.pop()
            release(handle)

    def _take(self, allocate: Any, release: Any, size: int) -> int:
        address: int = allocate(size)
        self._closers.append((release, address))
        return address

    def _output_bytes(self) -> dict[str, int]:
        """At the largest inputs: outputs grow with them."""
        for tensor in self._inputs:
            self._context.set_input_shape(tensor.name, self._manifest.request.profile[tensor.name].largest)
        sizes = {tensor.name: int(self._context.get_max_output_size(tensor.name)) for tensor in self._outputs}
        for name, size in sizes.items():
            if size < 0 or -1 in tuple(self._context.get_tensor_shape(name)):
                raise ModelRefused(f"the size of output {name!r} depends on what is in the inputs, not on their shapes")
        return sizes

    def _send(self, name: str, array: NDArray[Any]) -> None:
        offset, dtype = self._buffers.places[name].offset, self._kinds[name]
        np.copyto(view(self._host + offset, dtype, array.shape), array)
        # Returns whether the shape is within the profile, which has been seen to.
        if not self._context.set_input_shape(name, array.shape):
            raise InputRefused(f"input {name!r}: TensorRT refuses the shape {list(array.shape)}")
        self._cuda.to_gpu(self._device + offset, self._host + offset, array.nbytes, self._stream)

    def _fetch(self, name: str) -> NDArray[Any]:
        """Asks for an output; it is there once the stream has been waited for."""
        shape, place = tuple(self._context.get_tensor_shape(name)), self._buffers.places[name]
        array = view(self._host + place.offset, self._kinds[name], shape)
        if array.nbytes > place.size:
            raise ExecutionFailed(f"output {name!r} of shape {list(shape)} is larger than TensorRT said it could be")
        self._cuda.to_host(self._host + place.offset, self._device + place.offset, array.nbytes, self._stream)
        return array


def machine_facts() -> MachineFacts:
    """Of this runner, for `plan_fitness`."""
    found = find_gpus()
    gpu = found.gpus[0] if found.gpus else None
    return MachineFacts(trt_library.versions(), gpu, found.driver, trt_library.this_platform())


def _engine_tensor(tensor: PlanTensor) -> EngineTensor:
    return EngineTensor(tensor.name, tensor.datatype, tuple("" if size < 0 else size for size in tensor.shape))


def _translated(error: CudaFailed) -> OutOfMemory | ExecutionFailed:
    return OutOfMemory(str(error)) if error.out_of_memory else ExecutionFailed(str(error))
