"""One bundle on the engine: bytes to arrays, one engine call, arrays to bytes. One at a time: see `worker`; where the
model is `Pipelined`, others are taken up while it waits for the GPU.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from headrace.runner.v1 import runner_pb2 as pb
from headrace_common.chunks import MOST_BUNDLE_BYTES
from headrace_common.clock import Clock
from headrace_common.logs import get_logger
from headrace_runner.domain import Loaded
from headrace_runner.engines.base import EngineError, EngineLost, ExecutionFailed, InputRefused, OutOfMemory, Pipelined
from headrace_runner.engines.lost import end_process
from headrace_runner.measures import Measures
from headrace_runner.tensors import Array, decode, encode
from headrace_runner.transport import Answer, AnswerWriter, Contents

INVALID_INPUT = pb.BUNDLE_ERROR_CODE_INVALID_INPUT
ENGINE_FAILED = pb.BUNDLE_ERROR_CODE_ENGINE_FAILED
OUT_OF_MEMORY = pb.BUNDLE_ERROR_CODE_OUT_OF_MEMORY
DROPPED = pb.BUNDLE_ERROR_CODE_DROPPED
WRONG_MODEL = pb.BUNDLE_ERROR_CODE_WRONG_MODEL

_MAX_RESULT_BYTES = MOST_BUNDLE_BYTES - (1 << 20)


@dataclass(slots=True)
class Job:
    """A bundle in the runner's hand.

    Attributes:
        stream: which router's stream it came on.
        received: monotonic seconds.
        deliver: takes the answer; called on the event loop.
        contents: of inputs that are not inside the bundle's message.
        rows: of all its requests.
    """

    stream: int
    bundle: pb.Bundle
    received: float
    deliver: Callable[[Job, Answer], None]
    contents: Contents = field(default_factory=Contents)
    rows: int = field(init=False)

    def __post_init__(self) -> None:
        self.rows = sum(self.bundle.rows)

    @property
    def expired_at(self) -> float | None:
        left_us = self.bundle.time_left_us
        return self.received + left_us / 1e6 if left_us else None


def refusal(bundle_id: int, code: pb.BundleErrorCode, detail: str) -> Answer:
    return Answer(pb.BundleResult(bundle_id=bundle_id, error=pb.BundleError(code=code, detail=detail)))


class Executor:
    """Executes bundles on a loaded model."""

    def __init__(self, loaded: Loaded, clock: Clock, measures: Measures, out_of_memory: Callable[[], None]) -> None:
        """
        Args:
            out_of_memory: called before the answer to a bundle for which there was no memory.
        """
        self._loaded = loaded
        self._out_of_memory = out_of_memory
        self._clock = clock
        self._measures = measures
        self._inputs = {spec.name: spec for spec in loaded.signature.inputs}
        self._required = [spec.name for spec in loaded.signature.inputs if not spec.optional]
        self._outputs = {spec.name: spec for spec in loaded.signature.outputs}
        self._pipelined = loaded.model if isinstance(loaded.model, Pipelined) and loaded.model.lanes > 1 else None
        # Held for all but the wait for a GPU: counters and shared memory take one thread at a time.
        self._turn = threading.Lock()

    @property
    def lanes(self) -> int:
        """Threads that may be in `execute` at once."""
        return self._pipelined.lanes if self._pipelined is not None else 1

    def execute(self, job: Job) -> Answer:
        """Answers a bundle, whatever happens: errors are part of the answer."""
        with self._turn:
            return self._execute(job)

    def _execute(self, job: Job) -> Answer:
        begun = self._clock.monotonic()
        expired_at = job.expired_at
        if expired_at is not None and begun >= expired_at:
            return refusal(job.bundle.bundle_id, DROPPED, "its deadlines passed before it could begin")
        wait_us = round((begun - job.received) * 1e6)
        answer, compute_s = self._run(job)
        result = answer.result
        result.wait_us = wait_us
        result.compute_us = round(compute_s * 1e6)
        self._measures.executed(job.bundle, job.rows, result, begun)
        return answer

    def _run(self, job: Job) -> tuple[Answer, float]:
        bundle, contents = job.bundle, job.contents
        start = end = self._clock.monotonic()
        try:
            rows = self._rows(job)
            inputs = self._decode(bundle.inputs, rows, contents)
            wanted = self._wanted(bundle.outputs)
            start = self._clock.monotonic()
            try:
                outputs = self._compute(inputs, wanted)
            finally:
                end = self._clock.monotonic()
            writer = AnswerWriter(pb.BundleResult(bundle_id=bundle.bundle_id), contents.memory)
            try:
                answer = self._encode(outputs, rows, writer)
            except BaseException:
                writer.abandon()
                raise
        except MemoryError:
            self._out_of_memory()
            answer = refusal(bundle.bundle_id, OUT_OF_MEMORY, "no memory for its tensors")
        except EngineError as error:
            if isinstance(error, OutOfMemory):
                self._out_of_memory()
            if isinstance(error, EngineLost):
                end_process(error)
            answer = refusal(bundle.bundle_id, _code(error), str(error))
        except Exception as error:  # noqa: BLE001 - whatever an engine raises, only this bundle fails
            get_logger().error("bundle_failed", error=repr(error), exc_info=error)
            answer = refusal(bundle.bundle_id, ENGINE_FAILED, type(error).__name__)
        return answer, end - start

    def _compute(self, inputs: Mapping[str, Array], wanted: tuple[str, ...]) -> Mapping[str, Array]:
        if self._pipelined is None:
            return self._loaded.model.run(inputs, wanted)
        pending = self._pipelined.begin(inputs, wanted)
        self._turn.release()
        try:
            return pending.finish()
        finally:
            self._turn.acquire()

    def _rows(self, job: Job) -> int | None:
        """Rows of the batch; None for a model that is not batchable."""
        if not self._loaded.signature.batchable:
            requests = len(job.bundle.rows)
            if requests > 1:
                raise InputRefused(f"the bundle holds {requests} requests; this model takes one at a time")
            return None
        rows = job.rows
        if rows > self._loaded.max_batch_size:
            raise InputRefused(f"the bundle holds {rows} rows; the maximum batch is {self._loaded.max_batch_size}")
        return rows

    def _decode(self, tensors: Sequence[pb.Tensor], rows: int | None, contents: Contents) -> dict[str, Array]:
        arrays: dict[str, Array] = {}
        for index, tensor in enumerate(tensors):
            name, datatype, shape = tensor.name, tensor.datatype, tuple(tensor.shape)
            spec = self._inputs.get(name)
            if spec is None or name in arrays:
                raise InputRefused(f"input {name!r} is {'unknown' if spec is None else 'given twice'}")
            if datatype != spec.datatype or not spec.accepts(shape):
                raise InputRefused(
                    f"input {name!r}: expected {spec.datatype} {list(spec.shape)}; {datatype} {list(shape)} came"
                )
            if rows is not None and shape[0] != rows:
                raise InputRefused(f"input {name!r}: has {shape[0]} rows; the bundle's requests have {rows}")
            arrays[name] = decode(name, datatype, shape, contents.read(index, tensor))
        missing = [name for name in self._required if name not in arrays]
        if missing:
            raise InputRefused(f"input {missing[0]!r} is missing")
        return arrays

    def _wanted(self, names: Sequence[str]) -> tuple[str, ...]:
        unknown = [name for name in names if name not in self._outputs]
        if unknown:
            raise InputRefused(f"there is no output {unknown[0]!r}")
        return tuple(dict.fromkeys(names))

    def _encode(self, outputs: Mapping[str, Array], rows: int | None, writer: AnswerWriter) -> Answer:
        size = sum(array.nbytes for array in outputs.values())
        if size > _MAX_RESULT_BYTES:
            raise ExecutionFailed(f"the outputs hold {size} bytes; an answer can carry {_MAX_RESULT_BYTES}")
        for name, array in outputs.items():
            if rows is not None and (array.ndim == 0 or array.shape[0] != rows):
                raise ExecutionFailed(f"output {name!r} has shape {list(array.shape)} for {rows} rows")
            datatype = self._outputs[name].datatype
            content, row_ends = encode(array, datatype, with_row_ends=rows is not None)
            tensor = pb.Tensor(name=name, datatype=datatype, shape=array.shape, row_ends=row_ends)
            writer.add(tensor, content)
        return writer.answer()


def _code(error: EngineError) -> pb.BundleErrorCode:
    if isinstance(error, InputRefused):
        return INVALID_INPUT
    return OUT_OF_MEMORY if isinstance(error, OutOfMemory) else ENGINE_FAILED
