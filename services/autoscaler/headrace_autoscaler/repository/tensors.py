"""Holds config.pbtxt's tensors against what the engine found in the model. Pure.

The rules are those of Triton's ONNX Runtime backend: with max_batch_size over 0, dims leave the batch
dimension out; a dimension that the model fixes must be the same in config.pbtxt.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from headrace.oip import model_config_pb2 as pb
from headrace_autoscaler.domain import Signature, TensorSpec
from headrace_autoscaler.repository.datatypes import datatype_of


def tensor_mismatches(config: pb.ModelConfig, signature: Signature) -> tuple[str, ...]:
    """What config.pbtxt says of tensors and the model contradicts: tensor, expected, found. Empty: nothing."""
    batched = config.max_batch_size > 0
    found = [
        *_compare("input", config.input, signature.inputs, batched),
        *_compare("output", config.output, signature.outputs, batched),
    ]
    if config.input:
        batching = config.sequence_batching
        named = {
            *(tensor.name for tensor in config.input),
            *(state.input_name for state in batching.state),
            *(tensor.name for tensor in batching.control_input),
        }
        found += [
            f"input {tensor.name!r}: expected in the configuration, which does not name it"
            for tensor in signature.inputs
            if tensor.name not in named and not tensor.optional
        ]
    return tuple(found)


def _compare(
    kind: str,
    configured: Iterable[pb.ModelInput | pb.ModelOutput],
    actual: Sequence[TensorSpec],
    batched: bool,
) -> Iterator[str]:
    by_name = {tensor.name: tensor for tensor in actual}
    for tensor in configured:
        model = by_name.get(tensor.name)
        if model is None:
            has = ", ".join(by_name) or "none"
            yield f"{kind} {tensor.name!r}: expected in the model, whose {kind}s are {has}"
            continue
        datatype = datatype_of(tensor.data_type)
        if datatype and datatype != model.datatype:
            yield f"{kind} {tensor.name!r}: expected {datatype}, the model has {model.datatype}"
        expected = ((-1,) if batched else ()) + tuple(tensor.dims)
        if tensor.dims and not _fits(expected, model.shape):
            yield f"{kind} {tensor.name!r}: expected shape {list(expected)}, the model has {list(model.shape)}"


def _fits(expected: tuple[int, ...], actual: tuple[int, ...]) -> bool:
    return len(expected) == len(actual) and all(have in (-1, want) for want, have in zip(expected, actual, strict=True))
