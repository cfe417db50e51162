"""An engine for tests and benchmarks: a JSON file says what it takes, how long it takes and how it fails.

    {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
     "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 4]}],
     "latency_ms": 2.0, "per_row_ms": 0.1, "parallel": 0.0,
     "behaviour": "echo", "fail_on": 7, "crash_on": 8, "hang_on": 9, "leak_bytes": 0, "leak_on": 10,
     "gpu_memory": {"used_bytes": 6, "total_bytes": 8}}

Output i is a copy of input i. `parallel` is the share of a run's time that the instance's threads divide among them
(Amdahl's law). A run keeps `leak_bytes` more of memory, and touches them, until the model is closed. `behaviour`
"fail", "crash" and "hang" act on every run, those of a load's probe and warm-up included, and so does `leak_bytes`
without `leak_on`; `fail_on`, `crash_on`, `hang_on` and `leak_on` only where an element of the first input equals the
value. `gpu_memory` is reported as measured; none by default.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from typing import Any, Literal

from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from headrace_runner.core.options import unknown_option
from headrace_runner.core.signature import EngineTensor, open_dims
from headrace_runner.engines.base import (
    ExecutionFailed,
    GpuMemory,
    LoadedModel,
    ModelClosed,
    ModelRefused,
    ModelSource,
    OutOfMemory,
)
from headrace_runner.engines.checks import check_inputs, check_outputs
from headrace_runner.tensors import DTYPES

CRASH_STATUS = 139
"""What a shell shows for a process that died of SIGSEGV."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FakeTensor(_Strict):
    name: str = Field(min_length=1)
    datatype: str
    shape: tuple[int, ...]


class FakeGpuMemory(_Strict):
    used_bytes: int = Field(ge=0)
    total_bytes: int = Field(gt=0)


class FakeSpec(_Strict):
    inputs: tuple[FakeTensor, ...] = Field(min_length=1)
    outputs: tuple[FakeTensor, ...] = Field(min_length=1)
    latency_ms: float = Field(0.0, ge=0)
    per_row_ms: float = Field(0.0, ge=0)
    parallel: float = Field(0.0, ge=0, le=1)
    behaviour: Literal["echo", "fail", "crash", "hang"] = "echo"
    fail_on: float | str | None = None
    crash_on: float | str | None = None
    hang_on: float | str | None = None
    leak_bytes: int = Field(0, ge=0)
    leak_on: float | str | None = None
    gpu_memory: FakeGpuMemory | None = None


class FakeEngine:
    """Takes no options."""

    name = "fake"
    platform = "fake"

    def prepare(self) -> None:
        """There is nothing to do."""

    def external_files(self, source: ModelSource) -> frozenset[str]:
        return frozenset()

    def load(self, source: ModelSource) -> LoadedModel:
        if source.options:
            raise ModelRefused(unknown_option(self.name, min(source.options), ()))
        try:
            spec = FakeSpec.model_validate_json(source.path.read_bytes())
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the file"
            raise ModelRefused(f"fake cannot load {source.name}: {where}: {first['msg']}") from error
        _check(spec, source.name)
        return FakeModel(spec, source.threads)


class FakeModel:
    def __init__(self, spec: FakeSpec, threads: int = 1) -> None:
        self._spec = spec
        self._slowness = 1 - spec.parallel + spec.parallel / threads
        self.inputs, self.outputs = _tensors(spec.inputs), _tensors(spec.outputs)
        self._closed = False
        self._leaked: list[bytes] = []

    def run(self, inputs: Mapping[str, NDArray[Any]], outputs: tuple[str, ...] = ()) -> dict[str, NDArray[Any]]:
        if self._closed:
            raise ModelClosed
        check_inputs(self.inputs, inputs)
        check_outputs(outputs, [tensor.name for tensor in self.outputs])
        first = inputs[self.inputs[0].name]
        rows = first.shape[0] if first.ndim else 1
        time.sleep((self._spec.latency_ms + self._spec.per_row_ms * rows) * self._slowness / 1000)
        self._misbehave(first)
        if self._spec.leak_bytes and (self._spec.leak_on is None or _holds(first, self._spec.leak_on)):
            self._leak(self._spec.leak_bytes)
        pairs = zip(self.outputs, self.inputs, strict=False)
        return {out.name: inputs[into.name] for out, into in pairs if not outputs or out.name in outputs}

    def gpu_memory(self) -> GpuMemory | None:
        said = self._spec.gpu_memory
        return None if said is None else GpuMemory(said.used_bytes, said.total_bytes)

    def close(self) -> None:
        self._closed = True
        self._leaked.clear()

    def _leak(self, size: int) -> None:
        try:
            self._leaked.append(b"\1" * size)
        except MemoryError as error:
            raise OutOfMemory(f"there is no memory for {size} bytes more") from error

    def _misbehave(self, first: NDArray[Any]) -> None:
        spec = self._spec
        if spec.behaviour == "crash" or _holds(first, spec.crash_on):
            os._exit(CRASH_STATUS)
        if spec.behaviour == "hang" or _holds(first, spec.hang_on):
            threading.Event().wait()
        if spec.behaviour == "fail" or _holds(first, spec.fail_on):
            raise ExecutionFailed("the fake engine was told to fail")


def _holds(array: NDArray[Any], value: float | str | None) -> bool:
    if value is None:
        return False
    if array.dtype.hasobject:
        return any(element == str(value).encode() for element in array.reshape(-1))
    return not isinstance(value, str) and bool((array == value).any())


def _check(spec: FakeSpec, name: str) -> None:
    for tensor in (*spec.inputs, *spec.outputs):
        if tensor.datatype not in DTYPES:
            raise ModelRefused(f"fake cannot load {name}: there is no datatype {tensor.datatype!r}")
    if len(spec.outputs) > len(spec.inputs):
        raise ModelRefused(f"fake cannot load {name}: it echoes, so it cannot have more outputs than inputs")
    for out, into in zip(spec.outputs, spec.inputs, strict=False):
        if out.datatype != into.datatype:
            raise ModelRefused(f"fake cannot load {name}: output {out.name!r} must be {into.datatype}, as its input")


def _tensors(specs: tuple[FakeTensor, ...]) -> tuple[EngineTensor, ...]:
    return tuple(EngineTensor(spec.name, spec.datatype, open_dims(spec.shape)) for spec in specs)
