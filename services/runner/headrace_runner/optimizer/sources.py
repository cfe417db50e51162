"""The model to optimise: found, read, and described."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx.checker import ValidationError

from headrace_common.errors import FailedPrecondition, InvalidArgument
from headrace_runner.core.signature import Signature, make_signature, mismatch
from headrace_runner.engines.base import EngineError, LoadedModel, ModelSource
from headrace_runner.engines.ort import OnnxRuntimeEngine
from headrace_runner.importing.programs import onnx_of

_NAMES = ("model.onnx", "model.pt2")
_PROTOBUF_LIMIT = 2**31 - 1
# In the names of operators that work on integers in place of floats, ONNX's and ONNX Runtime's own.
_QUANTIZED = ("Quantize", "QLinear", "Integer", "NBits")


@dataclass(frozen=True, slots=True)
class Source:
    """Attributes:
    sha256: of the file at `path`.
    size_bytes: of the model with all its weights, wherever they are kept.
    """

    path: Path
    model: onnx.ModelProto
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Variant:
    """A model that was made of the original elsewhere, for the same callers.

    Attributes:
        path: as given.
    """

    name: str
    path: Path
    source: Source
    loaded: LoadedModel

    @property
    def is_quantized(self) -> bool:
        """So nothing more can be made of it."""
        return any(mark in node.op_type for node in self.source.model.graph.node for mark in _QUANTIZED)


def read_source(given: Path) -> Source:
    """Reads an ONNX file or an exported program, or the newest version in a Triton model directory.

    Raises:
        InvalidArgument: there is no such model, or it isn't one.
        FailedPrecondition: it is too large for what transforms it, or cannot be made into ONNX.
    """
    path = onnx_of(_newest_version(given) if given.is_dir() else given)
    try:
        content = path.read_bytes()
        model = onnx.load(str(path))
    except OSError as error:
        raise InvalidArgument(f"{path}: cannot be read: {error.strerror or error}") from None
    except (DecodeError, ValidationError, ValueError) as error:
        raise InvalidArgument(f"{path}: expected an ONNX model: {error}") from None
    if not model.graph.node:
        raise InvalidArgument(f"{path}: expected an ONNX model; found no graph in it")
    size = model.ByteSize()
    if size > _PROTOBUF_LIMIT:
        raise FailedPrecondition(f"{path}: has {size:,} bytes of weights; expected less than 2 GB, protobuf's limit")
    return Source(path, model, hashlib.sha256(content).hexdigest(), size)


def read_variant(name: str, given: Path, original: LoadedModel, threads: int) -> Variant:
    """Raises InvalidArgument or FailedPrecondition where it cannot take the original's place."""
    source = read_source(given)
    loaded = load_given(source, threads)
    difference = mismatch(signature_of(original), signature_of(loaded))
    if difference:
        raise InvalidArgument(f"--variant {name}: {given} is another model to its callers: {difference}")
    return Variant(name, given, source, loaded)


def load(path: Path, name: str, threads: int) -> LoadedModel:
    """On the engine that serves it. Raises EngineError with the engine's own reason."""
    return OnnxRuntimeEngine().load(ModelSource(path.absolute(), name, threads=threads))


def load_given(source: Source, threads: int) -> LoadedModel:
    """As `load`; raises InvalidArgument where the engine refuses what was given."""
    try:
        return load(source.path, source.path.name, threads)
    except EngineError as error:
        raise InvalidArgument(f"{source.path}: {error}") from None


def signature_of(model: LoadedModel) -> Signature:
    return make_signature(model.inputs, model.outputs, batchable=False)


def _newest_version(directory: Path) -> Path:
    found = [each for name in _NAMES for each in directory.glob(f"*/{name}") if each.parent.name.isdigit()]
    if not found:
        raise InvalidArgument(f"{directory}: expected an ONNX file, or a directory with VERSION/model.onnx in it")
    return max(found, key=lambda each: int(each.parent.name))
