"""The few calls of the CUDA runtime that executing a plan takes (https://docs.nvidia.com/cuda/cuda-runtime-api/)."""

from __future__ import annotations

import ctypes
import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LASTING = frozenset(
    {
        "cudaErrorAssert",
        "cudaErrorContained",
        "cudaErrorECCUncorrectable",
        "cudaErrorExternalDevice",
        "cudaErrorHardwareStackError",
        "cudaErrorIllegalAddress",
        "cudaErrorIllegalInstruction",
        "cudaErrorInvalidAddressSpace",
        "cudaErrorInvalidPc",
        "cudaErrorLaunchFailure",
        "cudaErrorLaunchTimeout",
        "cudaErrorMisalignedAddress",
        "cudaErrorMpsClientTerminated",
        "cudaErrorNvlinkUncorrectable",
        "cudaErrorTensorMemoryLeak",
    }
)
"""Errors that leave "the process in an inconsistent state and any further CUDA work will return the same error. To
continue using CUDA, the process must be terminated and relaunched" (cudaError)."""


class CudaFailed(Exception):
    """A call failed; the text names it and CUDA's error.

    Attributes:
        out_of_memory: it was for want of memory.
        lasting: every further call of this process fails too.
    """

    def __init__(self, text: str, *, out_of_memory: bool = False, lasting: bool = False) -> None:
        super().__init__(text)
        self.out_of_memory, self.lasting = out_of_memory, lasting


class Cuda:
    """CUDA by NVIDIA's own bindings, which load without a driver: each call then says that there is none."""

    def __init__(self) -> None:
        self._runtime = importlib.import_module("cuda.bindings.runtime")

    def allocate(self, size: int) -> int:
        """Memory of the GPU: its address, aligned to 256 bytes at least (CUDA C++ Programming Guide, 5.3.2)."""
        return int(self._call("cudaMalloc", size))

    def free(self, address: int) -> None:
        self._call("cudaFree", address)

    def allocate_pinned(self, size: int) -> int:
        """Memory of the host that the GPU copies from and to by itself; only such copies are asynchronous."""
        return int(self._call("cudaMallocHost", size))

    def free_pinned(self, address: int) -> None:
        self._call("cudaFreeHost", address)

    def create_stream(self) -> int:
        # Non-blocking: nothing on the default stream, which libraries use, is waited for.
        return int(self._call("cudaStreamCreateWithFlags", self._runtime.cudaStreamNonBlocking))

    def destroy_stream(self, stream: int) -> None:
        self._call("cudaStreamDestroy", stream)

    def to_gpu(self, target: int, source: int, size: int, stream: int) -> None:
        """Returns before it is done; `source` must not change until then."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", target, source, size, kind, stream)

    def to_host(self, target: int, source: int, size: int, stream: int) -> None:
        """Returns before it is done."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", target, source, size, kind, stream)

    def begin_capture(self, stream: int) -> None:
        """What is asked of the stream from here on is recorded and not done (cudaStreamBeginCapture).

        Thread-local: other threads may go on copying and allocating, on streams of their own.
        """
        self._call(
            "cudaStreamBeginCapture", stream, self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        )

    def end_capture(self, stream: int) -> Any:
        """The recording, ready to be launched: a cudaGraphExec_t. The stream is usable again also where this fails."""
        graph = self._call("cudaStreamEndCapture", stream)
        try:
            return self._call("cudaGraphInstantiate", graph, 0)
        finally:
            # What is executable is a copy of it (cudaGraphInstantiate).
            self._call("cudaGraphDestroy", graph)

    def launch(self, graph: Any, stream: int) -> None:
        """Returns before it is done."""
        self._call("cudaGraphLaunch", graph, stream)

    def destroy_graph(self, graph: Any) -> None:
        self._call("cudaGraphExecDestroy", graph)

    def free_memory(self) -> int:
        """Bytes of the GPU that nobody has taken (cudaMemGetInfo)."""
        error, free, _total = self._runtime.cudaMemGetInfo()
        self._check("cudaMemGetInfo", error)
        return int(free)

    def synchronize(self, stream: int) -> None:
        """Waits; an error of anything that was asked of the stream before comes out here."""
        self._call("cudaStreamSynchronize", stream)

    def _call(self, name: str, *arguments: Any) -> Any:
        error, *results = getattr(self._runtime, name)(*arguments)
        self._check(name, error)
        return results[0] if results else None

    def _check(self, name: str, error: Any) -> None:
        errors = self._runtime.cudaError_t
        if error != errors.cudaSuccess:
            raise CudaFailed(
                f"{name}: {error.name}",
                out_of_memory=error == errors.cudaErrorMemoryAllocation,
                lasting=error.name in _LASTING,
            )


def view(address: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Memory of the host as an array."""
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    return np.frombuffer(memoryview((ctypes.c_byte * size).from_address(address)), dtype).reshape(shape)
