"""ONNX Runtime: its models, and its errors in our words. Options are `core.ort_options`."""

from __future__ import annotations

import ctypes
import mmap
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from headrace_common.errors import HeadraceError
from headrace_runner.core import onnx_files
from headrace_runner.core.ort_options import OrtSettings, read_options
from headrace_runner.core.signature import EngineTensor
from headrace_runner.engines.base import (
    EngineError,
    ExecutionFailed,
    InputRefused,
    LoadedModel,
    ModelClosed,
    ModelRefused,
    ModelSource,
    OutOfMemory,
)
from headrace_runner.engines.ort_binding import BoundSession
from headrace_runner.engines.ort_session import FATAL, open_session, run_options
from headrace_runner.engines.reasons import lacks_memory, reason_of

_DATATYPES = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(bfloat16)": "BF16",
    "tensor(string)": "BYTES",
}
_ONNX_BFLOAT16 = 16
"""TensorProto.DataType.BFLOAT16 of onnx.proto."""
_NOT_BOUND = {"BYTES", "BF16"}
"""Strings have no place on a device, and numpy no bfloat16."""
# Tensor content that ONNX Runtime takes from an address in memory: never from a file.
_IN_MEMORY = "_ORT_MEM_ADDR_"
_CODE_PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")
_SOURCE_PREFIX = re.compile(r"/\S+\.(?:h|hpp|cc|cpp):\d+ [^()]*\([^()]*\)(?: const)?\s*")

SMALLEST = (
    b'\x08\x08\x12\x00:@\n\x11\n\x01x\n\x01x\x12\x01y"\x06MatMul\x12\x01gZ\x13\n\x01x\x12\x0e\n\x0c\x08\x01'
    b"\x12\x08\n\x02\x08\x02\n\x02\x08\x02b\x13\n\x01y\x12\x0e\n\x0c\x08\x01\x12\x08\n\x02\x08\x02\n\x02\x08\x02"
    b"B\x04\n\x00\x10\r"
)
"""An ONNX model: y = x x for 2 x 2 floats, opset 13."""

_Options = Any
"""ort.RunOptions, which has no types, or None."""
_Execute = Callable[[list[str], Mapping[str, NDArray[Any]], _Options], Sequence[NDArray[Any]]]
"""The outputs named, in this order."""


class OnnxRuntimeEngine:
    """Options: docs/engines.md."""

    name = "onnxruntime"
    platform = "onnxruntime_onnx"

    def __init__(self) -> None:
        # What goes wrong comes as an exception; its own log lines would break ours, which are JSON.
        ort.set_default_logger_severity(FATAL)

    def prepare(self) -> None:
        open_session(SMALLEST, OrtSettings()).run(None, {"x": np.ones((2, 2), np.float32)})

    def external_files(self, source: ModelSource) -> frozenset[str]:
        locations = _external_locations(source)
        if any(_IN_MEMORY in location for location in locations):
            raise ModelRefused(f"{source.name}: refers to tensors in memory; only files can hold them")
        return locations

    def load(self, source: ModelSource) -> LoadedModel:
        try:
            settings = read_options(source.options, source.threads)
        except HeadraceError as error:
            raise ModelRefused(error.message) from error
        try:
            return OnnxRuntimeModel(open_session(source.path, settings), source.name, settings)
        except ModelRefused:
            raise
        except Exception as error:
            # The binding raises types of its own without a common base, RuntimeError, and what it meets in a model's
            # names, which need not be text.
            kind = OutOfMemory if lacks_memory(error) else ModelRefused
            raise kind(f"onnxruntime cannot load {source.name}: {_reason(error)}") from error


class OnnxRuntimeModel:
    """A session. Strings must be UTF-8: ONNX Runtime's Python interface takes no other bytes."""

    def __init__(self, session: ort.InferenceSession, name: str, settings: OrtSettings) -> None:
        self.inputs = tuple(_describe(name, "input", tensor) for tensor in session.get_inputs())
        self.outputs = tuple(_describe(name, "output", tensor) for tensor in session.get_outputs())
        self._names = [tensor.name for tensor in self.outputs]
        self._options = run_options(settings)
        # A batch of a small model takes microseconds: what there is to do is decided here, once.
        self._execute: _Execute | None = self._executing(session, settings)

    def run(self, inputs: Mapping[str, NDArray[Any]], outputs: tuple[str, ...] = ()) -> dict[str, NDArray[Any]]:
        execute = self._execute
        if execute is None:
            raise ModelClosed
        names = list(outputs) if outputs else self._names
        try:
            results = execute(names, inputs, self._options)
        except Exception as error:
            raise _translated(error) from error
        # A third of what dict(zip()) takes.
        return {name: results[index] for index, name in enumerate(names)}

    def close(self) -> None:
        self._execute = None

    def _executing(self, session: ort.InferenceSession, settings: OrtSettings) -> _Execute:
        kinds = {tensor.datatype for tensor in (*self.inputs, *self.outputs)}
        if settings.device is not None and kinds.isdisjoint(_NOT_BOUND):
            return BoundSession(session, self.inputs, settings.device).run
        execute: _Execute = session.run
        if "BF16" in kinds:
            execute = _by_values(session, frozenset(_named(self.inputs, "BF16")))
        if "BYTES" in kinds:
            execute = _with_strings(execute, _named(self.inputs, "BYTES"), frozenset(_named(self.outputs, "BYTES")))
        return execute


def _reason(error: BaseException) -> str:
    return reason_of(error, _CODE_PREFIX, _SOURCE_PREFIX)


def _named(tensors: Sequence[EngineTensor], datatype: str) -> list[str]:
    return [tensor.name for tensor in tensors if tensor.datatype == datatype]


def _by_values(session: ort.InferenceSession, bf16: frozenset[str]) -> _Execute:
    """Execution by OrtValue, which alone can carry bfloat16."""

    def value_of(name: str, array: NDArray[Any]) -> ort.OrtValue:
        whole = np.ascontiguousarray(array)
        if name in bf16:
            return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(whole, _ONNX_BFLOAT16)
        return ort.OrtValue.ortvalue_from_numpy(whole)

    def execute(names: list[str], feed: Mapping[str, NDArray[Any]], options: _Options) -> list[NDArray[Any]]:
        values = {name: value_of(name, array) for name, array in feed.items()}
        return [_array_of(value) for value in session.run_with_ort_values(names, values, options)]

    return execute


def _with_strings(plain: _Execute, strings: Sequence[str], string_outputs: frozenset[str]) -> _Execute:
    """Execution with bytes where ONNX Runtime's interface has text."""

    def execute(names: list[str], feed: Mapping[str, NDArray[Any]], options: _Options) -> list[NDArray[Any]]:
        texts = {name: _as_text(name, feed[name]) for name in strings if name in feed}
        results = plain(names, {**feed, **texts}, options)
        return [
            _as_bytes(array) if name in string_outputs else array for name, array in zip(names, results, strict=True)
        ]

    return execute


def _translated(error: Exception) -> EngineError:
    if isinstance(error, EngineError):
        return error
    if lacks_memory(error):
        return OutOfMemory(_reason(error))
    if isinstance(error, (ort_errors.InvalidArgument, ValueError)):
        return InputRefused(_reason(error))
    return ExecutionFailed(_reason(error))


def _external_locations(source: ModelSource) -> frozenset[str]:
    if source.path.stat().st_size == 0:
        raise ModelRefused(f"{source.name}: the file is empty")
    with source.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        # External data is named by an entry with the key "location". Most models have neither.
        located, compiled = content.find(b"location") >= 0, content.find(onnx_files.COMPILED) >= 0
        if not located and not compiled:
            return frozenset()
        # Released before the map is closed, which a view of it would forbid.
        with memoryview(content) as view:
            try:
                if compiled and onnx_files.calls(view, onnx_files.COMPILED):
                    raise ModelRefused(
                        f"{source.name}: holds what an execution provider compiled (EPContext), which may name files "
                        "outside the model; deploy the model that it was compiled from"
                    )
                return onnx_files.external_locations(view)
            except onnx_files.Malformed as error:
                raise ModelRefused(f"{source.name} is not an ONNX model: {error}") from None


def _describe(model: str, kind: str, tensor: Any) -> EngineTensor:
    datatype = _DATATYPES.get(tensor.type)
    if datatype is None:
        raise ModelRefused(f"{model}: {kind} {tensor.name!r} is a {tensor.type}, which the protocol cannot carry")
    # A size, a name, or None for a dimension without either.
    dims = tuple(dim if isinstance(dim, (int, str)) else "" for dim in tensor.shape)
    return EngineTensor(tensor.name, datatype, dims)


def _as_text(name: str, array: NDArray[Any]) -> NDArray[Any]:
    text = np.empty(array.shape, dtype=object)
    flat = text.reshape(-1)
    for index, element in enumerate(array.reshape(-1)):
        try:
            flat[index] = element.decode()
        except UnicodeDecodeError:
            raise InputRefused(f"input {name!r}: element {index} is not UTF-8, which onnxruntime needs") from None
    return text


def _as_bytes(array: NDArray[Any]) -> NDArray[Any]:
    encoded = np.empty(array.shape, dtype=object)
    flat = encoded.reshape(-1)
    for index, element in enumerate(array.reshape(-1)):
        flat[index] = element.encode()
    return encoded


def _array_of(value: ort.OrtValue) -> NDArray[Any]:
    if value.data_type() != "tensor(bfloat16)":
        array: NDArray[Any] = value.numpy()
        return array
    raw = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
    return np.frombuffer(raw, np.uint16).reshape(value.shape())
