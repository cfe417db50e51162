"""What CUDA and its driver tell, with a GPU, without one, and without a driver."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from headrace_common.errors import InvalidArgument
from headrace_runner.engines import trt_library
from headrace_runner.engines.base import (
    GpuMemory,
)
from headrace_runner.engines.cuda import Cuda, CudaFailed
from headrace_runner.engines.gpu_memory import GpuWatch, read_memory
from headrace_runner.engines.registry import import_engines, pick
from headrace_runner.engines.trt import machine_facts

GPU = machine_facts().gpu


without_gpu = pytest.mark.skipif(GPU is not None, reason="is for machines without a GPU")


class Nvml:
    NVMLError = RuntimeError

    def __init__(self, processes: list[tuple[int, int | None]], *, fails: bool = False) -> None:
        self.processes, self.fails = processes, fails
        self.open = 0

    def nvmlInit(self) -> None:
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        if self.fails:
            raise RuntimeError("GPU is lost")
        return uuid

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> Any:
        return SimpleNamespace(total=1000)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> Any:
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in self.processes]


@pytest.mark.parametrize(
    ("nvml", "says"),
    [
        (Nvml([(3, 1), (7, 400)]), GpuMemory(400, 1000)),
        (Nvml([(3, 1)]), GpuMemory(50, 1000)),
        (Nvml([(7, None)]), GpuMemory(50, 1000)),
        (Nvml([], fails=True), None),
    ],
    ids=["told by process", "numbers of another namespace", "sizes unknown", "the driver does not answer"],
)
def test_gpu_memory_is_what_the_driver_tells_of_this_process(nvml: Nvml, says: GpuMemory | None) -> None:
    assert read_memory(nvml, "GPU-1", 7, taken=50) == says
    assert nvml.open == 0


def test_gpu_memory_is_read_by_a_thread_until_it_is_closed() -> None:
    readings = iter(range(1, 1000))
    seen = threading.Event()

    def read() -> GpuMemory:
        used = next(readings)
        if used == 3:
            seen.set()
        return GpuMemory(used, 1000)

    watch = GpuWatch(read, period_s=0.001)
    assert watch.latest is not None
    assert seen.wait(20)
    watch.close()


@pytest.mark.parametrize(
    "name",
    ["IllegalAddress", "LaunchFailure", "Contained", "TensorMemoryLeak", "MpsClientTerminated", "ExternalDevice"],
)
def test_what_cuda_does_not_recover_from_is_told_as_lasting(name: str) -> None:
    """Those of cudaError's documentation with which "the process must be terminated and relaunched"."""
    runtime = pytest.importorskip("cuda.bindings.runtime", reason="needs cuda-bindings")
    with pytest.raises(CudaFailed) as failed:
        Cuda()._check("cudaStreamSynchronize", getattr(runtime.cudaError_t, f"cudaError{name}"))
    assert failed.value.lasting


@without_gpu
def test_without_a_driver_cuda_says_so_by_name() -> None:
    pytest.importorskip("cuda.bindings.runtime", reason="needs cuda-bindings: pip install 'headrace[tensorrt-rtx]'")
    with pytest.raises(CudaFailed, match=r"cudaMalloc: cuda\w+") as failed:
        Cuda().allocate(1)
    assert not failed.value.out_of_memory


@without_gpu
@pytest.mark.parametrize(
    "call",
    [
        lambda cuda, runtime: cuda.free_memory(),
        lambda cuda, runtime: cuda.allocate_pinned(8),
        lambda cuda, runtime: cuda.create_stream(),
        lambda cuda, runtime: cuda.to_gpu(0, 0, 1, 0),
        lambda cuda, runtime: cuda.to_host(0, 0, 1, 0),
        lambda cuda, runtime: cuda.synchronize(0),
        lambda cuda, runtime: cuda.begin_capture(0),
        lambda cuda, runtime: cuda.end_capture(0),
        lambda cuda, runtime: cuda.launch(runtime.cudaGraphExec_t(), 0),
        lambda cuda, runtime: cuda.destroy_graph(runtime.cudaGraphExec_t()),
    ],
)
def test_each_call_of_cuda_is_one_that_the_bindings_take(call: Callable[[Any, Any], Any]) -> None:
    """They refuse wrong arguments before they look for a driver."""
    runtime = pytest.importorskip("cuda.bindings.runtime", reason="needs cuda-bindings")
    with pytest.raises(CudaFailed, match=r"^cuda\w+: cudaError\w+$"):
        call(Cuda(), runtime)


@pytest.mark.skipif(trt_library.installed("tensorrt-rtx") is None, reason="needs TensorRT-RTX")
def test_what_execution_asks_of_tensorrt_rtx_is_there() -> None:
    """Where nothing can be executed, that no name has changed is what can be known."""
    trt = trt_library.load("tensorrt-rtx")
    asked = {
        "Runtime": ("deserialize_cuda_engine",),
        "ICudaEngine": ("create_runtime_config", "create_execution_context"),
        "IRuntimeConfig": (
            "create_runtime_cache",
            "set_runtime_cache",
            "dynamic_shapes_kernel_specialization_strategy",
            "cuda_graph_strategy",
        ),
        "IRuntimeCache": ("serialize", "deserialize"),
        "IExecutionContext": (
            "set_input_shape",
            "get_tensor_shape",
            "get_max_output_size",
            "set_tensor_address",
            "execute_async_v3",
        ),
        "DynamicShapesKernelSpecializationStrategy": ("LAZY",),
        "CudaGraphStrategy": ("WHOLE_GRAPH_CAPTURE",),
    }
    assert [
        f"{kind}.{name}" for kind, names in asked.items() for name in names if not hasattr(getattr(trt, kind), name)
    ] == []
    assert "runtime_config" in trt.ICudaEngine.create_execution_context.__doc__


@without_gpu
def test_a_runner_without_a_gpu_has_no_tensorrt_and_says_where_to_look() -> None:
    engines = import_engines(allow_fake=False)
    assert "onnxruntime" in engines
    for name in ("tensorrt", "tensorrt-rtx"):
        with pytest.raises(InvalidArgument, match=r"it has: [\w, ]+; `headrace doctor` says what is missing"):
            pick(engines, name)
