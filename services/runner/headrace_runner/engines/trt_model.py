"""A plan in TensorRT: as many lanes as pay, and what the runner asks of a model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace_common.logs import get_logger
from headrace_runner.core.buffer_plan import BufferPlan, input_refusal, plan_buffers
from headrace_runner.core.graph_policy import GraphPolicy, Shapes, planned_shapes
from headrace_runner.core.lanes import Roster, lane_count
from headrace_runner.core.plan_manifest import Manifest, PlanTensor
from headrace_runner.core.signature import EngineTensor, open_dims
from headrace_runner.engines.base import (
    GpuMemory,
    InputRefused,
    ModelClosed,
    ModelRefused,
    OutOfMemory,
)
from headrace_runner.engines.checks import check_datatypes, check_outputs
from headrace_runner.engines.cuda import Cuda, CudaFailed
from headrace_runner.engines.gpu_memory import GpuWatch
from headrace_runner.engines.trt_lane import Contexts, Lane, translated
from headrace_runner.engines.trt_words import Words
from headrace_runner.tensors import DTYPES


@dataclass(slots=True)
class Parts:
    """What a model is made of, besides its plan.

    Attributes:
        make_context: makes an IExecutionContext; None where TensorRT cannot.
        slots: bundles that may be in hand at once.
        records: CUDA graphs are ours to make; False: the library makes its own.
        scratch_bytes: of GPU memory for activations, that contexts are to be given; 0: they have their own.
        warmed: called once the warm-up is over, when the runner leaves, and when the model is closed.
        phases_s: of its load so far.
    """

    cuda: Cuda
    make_context: Callable[[], Any]
    slots: int = 1
    records: bool = True
    scratch_bytes: int = 0
    words: Words = field(default_factory=Words)
    warmed: Callable[[], None] = lambda: None
    phases_s: Mapping[str, float] = field(default_factory=dict)


class TensorRTModel:
    """Lanes over one engine. Memory for the largest shapes is taken once, when it is made.

    Several execution contexts may use one engine at once, each on a stream of its own (ICudaEngine), and share its only
    optimisation profile: since TensorRT 10 always (PreviewFeature.PROFILE_SHARING_0806).

    Raises:
        ModelRefused: the size of an output depends on what is in the inputs.
        OutOfMemory
    """

    tolerance = (1e-2, 1e-3)
    """Relative and absolute, of FP32: TensorRT may use TF32, which keeps ten bits of the mantissa."""

    def __init__(self, manifest: Manifest, parts: Parts) -> None:
        self._manifest, self._parts = manifest, parts
        self.inputs, self.outputs = _tensors(manifest.inputs), _tensors(manifest.outputs)
        self._datatypes = {tensor.name: tensor.datatype for tensor in manifest.inputs}
        self._output_names = tuple(tensor.name for tensor in manifest.outputs)
        self._kinds = {tensor.name: DTYPES[tensor.datatype] for tensor in (*manifest.inputs, *manifest.outputs)}
        self._planned: tuple[Shapes, ...] = planned_shapes(manifest.request.profile)
        self._lanes: list[Lane] = []
        self._watch: GpuWatch | None = None
        self._given_back = threading.Condition()
        try:
            self._make_lanes()
        except CudaFailed as error:
            self.close()
            raise translated(error) from error
        except BaseException:
            self.close()
            raise
        self._roster = Roster(len(self._lanes))

    @property
    def lanes(self) -> int:
        return len(self._lanes)

    @property
    def phases_s(self) -> Mapping[str, float]:
        return self._parts.phases_s

    @property
    def largest_batch(self) -> int | None:
        """Rows that the profile allows; None: the inputs have no dimension in common."""
        sizes = {each.largest[0] if each.largest else 0 for each in self._manifest.request.profile.values()}
        return min(sizes, default=0) or None

    def run(self, inputs: Mapping[str, NDArray[Any]], outputs: tuple[str, ...] = ()) -> dict[str, NDArray[Any]]:
        return self.begin(inputs, outputs).finish()

    def begin(self, inputs: Mapping[str, NDArray[Any]], outputs: tuple[str, ...] = ()) -> _Pending:
        """See `base.Pipelined`. With every lane taken it waits for one."""
        if not self._lanes:
            raise ModelClosed
        if reason := input_refusal(self._manifest, {name: array.shape for name, array in inputs.items()}):
            raise InputRefused(reason)
        check_datatypes(self._datatypes, inputs)
        check_outputs(outputs, self._output_names)
        number, names = self._take_lane(), outputs or self._output_names
        try:
            self._lanes[number].begin({tensor.name: inputs[tensor.name] for tensor in self.inputs}, names)
        except BaseException:
            self._give_back(number)
            raise
        return _Pending(self._lanes[number], lambda: self._give_back(number))

    def warm_up(self) -> None:
        """Runs every planned shape once on every lane: contexts are set up, kernels compiled, graphs recorded."""
        for lane in self._lanes:
            for shapes in self._planned:
                lane.begin({name: np.zeros(shape, self._kinds[name]) for name, shape in shapes}, ())
                lane.finish()
        self._parts.warmed()

    def keep(self) -> None:
        """What was compiled in the background since the warm-up."""
        self._parts.warmed()

    def watch(self, watch: GpuWatch | None) -> None:
        """What tells of GPU memory; it is closed with the model."""
        self._watch = watch

    def gpu_memory(self) -> GpuMemory | None:
        return self._watch.latest if self._watch is not None else None

    def close(self) -> None:
        if self._lanes:
            self._parts.warmed()
        while self._lanes:
            self._lanes.pop().close()
        # The engine is freed with the last that refers to it.
        self._parts.make_context = self._parts.warmed = _nothing
        if self._watch is not None:
            self._watch.close()

    def _make_lanes(self) -> None:
        """One, and as many more as the slots ask for and the memory allows."""
        cuda = self._parts.cuda
        before = cuda.free_memory()
        context = self._context()
        buffers = plan_buffers(self._manifest, self._output_bytes(context))
        self._lanes.append(self._lane(context, buffers))
        free = cuda.free_memory()
        wanted = lane_count(self._parts.slots, before - free, free)
        try:
            while len(self._lanes) < wanted:
                self._lanes.append(self._lane(self._context(), buffers))
        except OutOfMemory as error:
            # Whoever else is on the GPU was faster. One lane answers as well, only one batch after the other.
            get_logger().warning("fewer_lanes", lanes=len(self._lanes), wanted=wanted, reason=str(error))

    def _lane(self, context: Any, buffers: BufferPlan) -> Lane:
        policy = GraphPolicy(self._planned if self._parts.records else ())
        contexts = Contexts(self._context, self._parts.scratch_bytes)
        return Lane(
            self._parts.cuda, context, contexts, self._kinds, buffers, self._output_names, policy, self._parts.words
        )

    def _context(self) -> Any:
        self._parts.words.clear()
        context = self._parts.make_context()
        if context is None:
            # For want of memory: the plan is whole and for this GPU, which has been seen to.
            what = f"TensorRT cannot make an execution context for {self._manifest.request.file_name}"
            raise self._parts.words.after(what, OutOfMemory)
        return context

    def _output_bytes(self, context: Any) -> dict[str, int]:
        """At the largest inputs: outputs grow with them."""
        for tensor in self.inputs:
            largest = self._manifest.request.profile[tensor.name].largest
            if not context.set_input_shape(tensor.name, largest):
                raise self._parts.words.after(
                    f"input {tensor.name!r}: the plan refuses {list(largest)}, which its manifest allows", ModelRefused
                )
        sizes = {tensor.name: int(context.get_max_output_size(tensor.name)) for tensor in self.outputs}
        for name, size in sizes.items():
            if size < 0 or -1 in tuple(context.get_tensor_shape(name)):
                raise ModelRefused(f"the size of output {name!r} depends on what is in the inputs, not on their shapes")
        return sizes

    def _take_lane(self) -> int:
        with self._given_back:
            while (number := self._roster.take()) is None:
                self._given_back.wait()
            return number

    def _give_back(self, number: int) -> None:
        with self._given_back:
            self._roster.give_back(number)
            self._given_back.notify()


class _Pending:
    """A batch on a lane, which is free again once the answer has been taken."""

    def __init__(self, lane: Lane, give_back: Callable[[], None]) -> None:
        self._lane, self._give_back = lane, give_back

    def finish(self) -> dict[str, NDArray[Any]]:
        try:
            return self._lane.finish()
        finally:
            self._give_back()


def _nothing() -> None:
    """Of a model that has been closed."""


def _tensors(planned: Sequence[PlanTensor]) -> tuple[EngineTensor, ...]:
    return tuple(EngineTensor(tensor.name, tensor.datatype, open_dims(tensor.shape)) for tensor in planned)
