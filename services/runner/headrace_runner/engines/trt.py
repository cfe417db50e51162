"""TensorRT, and TensorRT for RTX: executes plans that `headrace compile` made, on the GPU that they were made for.

API clauses are those of https://docs.nvidia.com/deeplearning/tensorrt/latest/_static/python-api/.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from headrace_common.errors import HeadraceError
from headrace_common.gpus import find_gpus, own_gpu
from headrace_runner.cache_directory import cache_root
from headrace_runner.compile.plan_files import Plan, manifest_path, plans_beside, read_plan
from headrace_runner.core.options import unknown_option
from headrace_runner.core.plan_fitness import MachineFacts, check_fits, choose_plan
from headrace_runner.core.runtime_cache import runtime_cache_name
from headrace_runner.engines import trt_library
from headrace_runner.engines.base import LoadedModel, ModelRefused, ModelSource
from headrace_runner.engines.cuda import Cuda, CudaFailed
from headrace_runner.engines.gpu_memory import watch_gpu
from headrace_runner.engines.rtx_runtime import RtxRuntime
from headrace_runner.engines.trt_lane import translated
from headrace_runner.engines.trt_model import Parts, TensorRTModel
from headrace_runner.engines.trt_words import Words


class TensorRTEngine:
    """Takes no options. Uses the first GPU that the process sees (CUDA_VISIBLE_DEVICES).

    Raises:
        ImportError: the library is not installed, or cannot be loaded.
    """

    name = trt_library.TENSORRT
    platform = "tensorrt_plan"
    _making = "contexts"
    """The phase in which execution contexts are made."""

    def __init__(self) -> None:
        try:
            self._trt = trt_library.load(self.name)
        except HeadraceError as error:
            raise ImportError(error.message) from error
        self._cuda = Cuda()
        self._words = Words()
        # Kept, because the library's objects refer to it.
        self._logger = self._words.logger(self._trt)
        self._runtime = self._trt.Runtime(self._logger)

    def prepare(self) -> None:
        """The first call makes CUDA's context, which takes tenths of a second."""
        self._cuda.free(self._cuda.allocate(1))

    def external_files(self, source: ModelSource) -> frozenset[str]:
        return frozenset({manifest_path(source.path).name})

    def load(self, source: ModelSource) -> LoadedModel:
        if source.options:
            raise ModelRefused(unknown_option(self.name, min(source.options), ()))
        phases: dict[str, float] = {}
        with _timed(phases, "read"):
            facts = machine_facts()
            plan = _fitting_plan(source.path, facts)
        try:
            before = self._cuda.free_memory()
            model = self._make(plan, facts, source.slots, phases)
            taken = before - self._cuda.free_memory()
        except CudaFailed as error:
            raise translated(error) from error
        model.watch(watch_gpu(facts.gpu, lambda: taken))
        return model

    def _make(self, plan: Plan, facts: MachineFacts, slots: int, phases: dict[str, float]) -> TensorRTModel:
        self._words.clear()
        with _timed(phases, "deserialize"):
            # Also the weights go to the GPU now (IRuntime::deserializeCudaEngine).
            engine = self._runtime.deserialize_cuda_engine(plan.content)
        if engine is None:
            raise self._words.after(f"{self.name} cannot read {plan.manifest.request.file_name}", ModelRefused)
        parts = self._parts(engine, plan, facts)
        parts.slots, parts.phases_s = slots, phases
        with _timed(phases, self._making):
            return TensorRTModel(plan.manifest, parts)

    def _parts(self, engine: Any, plan: Plan, facts: MachineFacts) -> Parts:
        del plan, facts
        # Without memory for activations: the contexts of a lane share the lane's (`trt_lane`).
        strategy = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        return Parts(
            self._cuda,
            lambda: engine.create_execution_context(strategy),
            words=self._words,
            scratch_bytes=int(engine.device_memory_size_v2),
        )


class TensorRTRtxEngine(TensorRTEngine):
    """The same for plans of `tensorrt-rtx`: a part of them is compiled for the GPU when a context is made, and more in
    the background once batches of a size have come. It is kept for the next process.
    """

    name = trt_library.TENSORRT_RTX
    _making = "jit"

    def _parts(self, engine: Any, plan: Plan, facts: MachineFacts) -> Parts:
        kept = cache_root() / "jit" / runtime_cache_name(plan.manifest, facts)
        runtime = RtxRuntime(self._trt, engine, kept)
        return Parts(self._cuda, runtime.make_context, records=False, words=self._words, warmed=runtime.keep)


def machine_facts() -> MachineFacts:
    """Of this runner, for `plan_fitness`."""
    found = find_gpus()
    return MachineFacts(trt_library.versions(), own_gpu(found), found.driver, trt_library.this_platform())


def _fitting_plan(path: Path, facts: MachineFacts) -> Plan:
    """The one of the plans in the folder that is for this machine. Raises ModelRefused with what does not fit."""
    try:
        chosen = choose_plan(plans_beside(path), facts)
        plan = read_plan(chosen)
        check_fits(plan.manifest, facts)
    except HeadraceError as error:
        raise ModelRefused(error.message) from error
    return plan


@contextmanager
def _timed(phases: dict[str, float], name: str) -> Iterator[None]:
    start = time.monotonic()
    try:
        yield
    finally:
        phases[name] = time.monotonic() - start
