"""Makes variants, each by a library that is made for it; numpy where there is none (docs/adr/0012)."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from headrace_runner.optimizer.core.recipes import Calibration, Method, Recipe

Inputs = Mapping[str, NDArray[Any]]
Batches = Callable[[], Iterator[Inputs]]

_WEIGHTED = ("Conv", "Gemm", "MatMul")
# What ONNX Runtime has fast dynamic kernels for: its dynamic convolution is slower than the one in fp32.
_DYNAMIC = ("MatMul", "Attention", "LSTM", "Gather", "EmbedLayerNormalization")
_BLOCK = 32
_LEAST_WITH_EDGES = 3
_FILES = 2
"""What a library may have on the disk at once for one variant, in sizes of the model, at the most."""


class NotBuilt(Exception):
    """A variant cannot be made; says why, in the library's own words where it has any."""


def clean(model: onnx.ModelProto) -> onnx.ModelProto:
    """Unused and constant parts gone, shapes inferred. Raises NotBuilt."""
    import onnxslim

    with _own_words("onnxslim"):
        slim: onnx.ModelProto = onnxslim.slim(_copy(model))
    return slim


def build(recipe: Recipe, base: onnx.ModelProto, batches: Batches, target: Path) -> None:
    """Writes a variant.

    Args:
        base: what `clean` made, not changed here.
        batches: the calibration samples, from the start at every call.

    Raises:
        NotBuilt
        OSError: a file cannot be written, which says nothing about the variant.
    """
    model = _copy(base)
    try:
        with _own_words(_LIBRARY[recipe.method]):
            _MAKERS[recipe.method](recipe, model, batches, target)
            if recipe.method is not Method.CLEAN and _makeup(onnx.load(str(target))) == _makeup(base):
                raise NotBuilt(f"no part of this model can be held in {recipe.precision} this way")
    except NotBuilt:
        _check_room(_FILES * base.ByteSize())
        raise


def _cleaned(recipe: Recipe, model: onnx.ModelProto, batches: Batches, target: Path) -> None:
    del recipe, batches
    onnx.save(model, str(target))


def _cast(recipe: Recipe, model: onnx.ModelProto, batches: Batches, target: Path) -> None:
    del recipe, batches
    from onnxruntime.transformers.float16 import convert_float_to_float16

    onnx.save(convert_float_to_float16(model, keep_io_types=True), str(target))


def _quantize_static(recipe: Recipe, model: onnx.ModelProto, batches: Batches, target: Path) -> None:
    from onnxruntime import quantization

    methods = {
        Calibration.MIN_MAX: quantization.CalibrationMethod.MinMax,
        Calibration.PERCENTILE: quantization.CalibrationMethod.Percentile,
    }
    # Scores in 256 steps would tie; and these have kernels that take int8 and give floats.
    options: dict[str, Any] = {"OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"]}
    if recipe.symmetric:
        # TensorRT: zero points are 0 and activations signed, and a quantised bias is no bias that it fuses (TensorRT
        # Developer Guide, "Working with Quantized Types", "Explicit Quantization").
        options |= {"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False}
    _name_nodes(model)
    quantization.quantize_static(
        model,
        str(target),
        _Reader(batches()),
        quant_format=quantization.QuantFormat.QDQ,
        op_types_to_quantize=list(_WEIGHTED),
        nodes_to_exclude=_edges(model) if recipe.keeps_edges else [],
        per_channel=True,
        activation_type=quantization.QuantType.QInt8 if recipe.symmetric else quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        calibrate_method=methods[recipe.calibration or Calibration.MIN_MAX],
        extra_options=options,
    )


def _quantize_dynamic(recipe: Recipe, model: onnx.ModelProto, batches: Batches, target: Path) -> None:
    del recipe, batches
    from onnxruntime import quantization

    _name_nodes(model)
    quantization.quantize_dynamic(
        model,
        str(target),
        op_types_to_quantize=list(_DYNAMIC),
        per_channel=True,
        weight_type=quantization.QuantType.QInt8,
    )


def _quantize_blocks(recipe: Recipe, model: onnx.ModelProto, batches: Batches, target: Path) -> None:
    del recipe, batches
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    _name_nodes(model)
    quantizer = MatMulNBitsQuantizer(model, bits=4, block_size=_BLOCK, is_symmetric=True)
    quantizer.process()
    quantizer.model.save_model_to_file(str(target))


def _prune(recipe: Recipe, model: onnx.ModelProto, batches: Batches, target: Path) -> None:
    """Unstructured, by magnitude, layer by layer (Han et al., "Learning both weights and connections", 2015)."""
    del batches
    weights = {name for node in model.graph.node if node.op_type in _WEIGHTED for name in node.input[1:2]}
    pruned = 0
    for tensor in model.graph.initializer:
        if tensor.name not in weights or tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        array = numpy_helper.to_array(tensor).copy()
        count = int(array.size * recipe.pruned)
        if count:
            order = np.argpartition(np.abs(array), count - 1, axis=None)
            array.reshape(-1)[order[:count]] = 0.0
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
            pruned += count
    if not pruned:
        raise NotBuilt("no layer of this model has weights to prune")
    onnx.save(model, str(target))


_MAKERS: dict[Method, Callable[[Recipe, onnx.ModelProto, Batches, Path], None]] = {
    Method.CLEAN: _cleaned,
    Method.CAST: _cast,
    Method.STATIC: _quantize_static,
    Method.DYNAMIC: _quantize_dynamic,
    Method.BLOCKS: _quantize_blocks,
    Method.PRUNE: _prune,
}

_LIBRARY = {
    Method.CLEAN: "onnx",
    Method.CAST: "onnxruntime.transformers.float16",
    Method.STATIC: "onnxruntime.quantization",
    Method.DYNAMIC: "onnxruntime.quantization",
    Method.BLOCKS: "onnxruntime.quantization",
    Method.PRUNE: "onnx",
}


class _Reader:
    """onnxruntime.quantization's CalibrationDataReader, which it takes by its shape."""

    def __init__(self, batches: Iterator[Inputs]) -> None:
        self._batches = batches

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        batch = next(self._batches, None)
        return None if batch is None else dict(batch)


def _edges(model: onnx.ModelProto) -> list[str]:
    constants = {tensor.name for tensor in model.graph.initializer}
    layers = [
        node.name
        for node in model.graph.node
        if node.op_type in _WEIGHTED and any(name in constants for name in node.input[:2])
    ]
    if len(layers) < _LEAST_WITH_EDGES:
        raise NotBuilt(
            f"it has {len(layers)} layers with weights; nothing would be left between the first and the last"
        )
    return [layers[0], layers[-1]]


def _name_nodes(model: onnx.ModelProto) -> None:
    """The quantiser tells nodes apart by their names, which ONNX doesn't ask for."""
    for place, node in enumerate(model.graph.node):
        node.name = node.name or f"node_{place}"


def _makeup(model: onnx.ModelProto) -> tuple[Any, ...]:
    """Which operators there are, and what the weights are held in; for pruned ones also how many are zero."""
    kinds = Counter(node.op_type for node in model.graph.node)
    types = Counter(tensor.data_type for tensor in model.graph.initializer)
    zeros = sum(int((numpy_helper.to_array(tensor) == 0).sum()) for tensor in model.graph.initializer)
    return sorted(kinds.items()), sorted(types.items()), zeros


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def _check_room(size: int) -> None:
    """Raises OSError where so many bytes cannot be written to a temporary file.

    ONNX Runtime's quantisers have onnx.shape_inference.infer_shapes_path write one. It does not look whether it could,
    so that on a full disk the quantiser reads half a model and says that this is none.
    """
    with tempfile.TemporaryFile() as file:
        os.posix_fallocate(file.fileno(), 0, size)


@contextlib.contextmanager
def _own_words(maker: str) -> Iterator[None]:
    """Keeps what a library prints off our output, and makes what it raises a reason."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except NotBuilt:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        # Whatever a transformation meets in somebody's graph.
        lines = str(error).strip().splitlines()
        raise NotBuilt(f"{maker}: {type(error).__name__}: {lines[0][:300] if lines else 'without a reason'}") from error
    finally:
        logging.disable(before)
