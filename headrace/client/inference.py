"""Requests and answers of inference: tensors by name to the protocol's messages, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral

import numpy as np

from headrace.client.messages import build
from headrace.client.tensors import DATATYPES, Array, Tensor, TensorLike, decode, encode
from headrace.errors import Internal, InvalidArgument, StreamItemFailed
from headrace.oip import inference_pb2

_InputTensor = inference_pb2.ModelInferRequest.InferInputTensor
_RequestedOutput = inference_pb2.ModelInferRequest.InferRequestedOutputTensor
_CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


@dataclass(frozen=True, slots=True)
class Step:
    """One input of a stream, as a step of a sequence of a stateful model.

    Attributes:
        inputs: as for an input that is none.
        sequence_id: a whole number from 1, or a text; 7 and "7" are two sequences.
        sequence_start, sequence_end: it is the first of its sequence, or the last.

    Raises:
        InvalidArgument: `sequence_id` is none.
    """

    inputs: Mapping[str, TensorLike]
    sequence_id: int | str
    sequence_start: bool = False
    sequence_end: bool = False

    def __post_init__(self) -> None:
        _check_sequence_id(self.sequence_id)


StreamInput = Mapping[str, TensorLike] | Step


def infer_request(
    name: str,
    inputs: Mapping[str, TensorLike],
    *,
    version: str = "",
    outputs: Sequence[str] | None = None,
    priority: int | None = None,
    request_id: str = "",
    sequence_id: int | str = 0,
    sequence_start: bool = False,
    sequence_end: bool = False,
) -> inference_pb2.ModelInferRequest:
    """A ModelInfer request with raw contents.

    Raises:
        InvalidArgument: an argument is of the wrong kind, or an input is no tensor.
    """
    if not isinstance(inputs, Mapping):
        raise InvalidArgument(f"inputs: expected a mapping of input names to arrays; got {type(inputs).__name__}")
    request = build(inference_pb2.ModelInferRequest, model_name=name, model_version=version, id=request_id)
    for tensor_name, value in inputs.items():
        tensor = encode(tensor_name, value)
        request.inputs.append(
            build(_InputTensor, name=tensor_name, datatype=tensor.datatype, shape=tensor.shape),
        )
        request.raw_input_contents.append(tensor.data)
    for output in outputs or ():
        request.outputs.append(build(_RequestedOutput, name=output))
    if priority is not None:
        if not isinstance(priority, Integral) or not 0 <= priority < 2**64:
            raise InvalidArgument(f"priority: expected a whole number, 0 or more; got {priority!r}")
        request.parameters["priority"].uint64_param = priority
    if sequence_id or sequence_start or sequence_end:
        _name_sequence(request, sequence_id, sequence_start, sequence_end)
    return request


def _name_sequence(request: inference_pb2.ModelInferRequest, sequence_id: int | str, start: bool, end: bool) -> None:
    _check_sequence_id(sequence_id)
    if isinstance(sequence_id, str):
        request.parameters["sequence_id"].string_param = sequence_id
    else:
        request.parameters["sequence_id"].uint64_param = int(sequence_id)
    if start:
        request.parameters["sequence_start"].bool_param = True
    if end:
        request.parameters["sequence_end"].bool_param = True


def _check_sequence_id(sequence_id: int | str) -> None:
    is_text = isinstance(sequence_id, str) and sequence_id != ""
    is_number = isinstance(sequence_id, Integral) and not isinstance(sequence_id, bool) and 0 < int(sequence_id) < 2**64
    if not is_text and not is_number:
        raise InvalidArgument(f"sequence_id: expected a whole number from 1, or a text; got {sequence_id!r}")


def stream_request(name: str, version: str, index: int, item: StreamInput) -> inference_pb2.ModelInferRequest:
    """The request for one input of a stream; its id is the input's position.

    Raises:
        InvalidArgument: as `infer_request`.
    """
    if not isinstance(item, Step):
        return infer_request(name, item, version=version, request_id=str(index))
    return infer_request(
        name,
        item.inputs,
        version=version,
        request_id=str(index),
        sequence_id=item.sequence_id,
        sequence_start=item.sequence_start,
        sequence_end=item.sequence_end,
    )


def output_arrays(response: inference_pb2.ModelInferResponse) -> dict[str, Array]:
    """The answer's tensors by name, whether raw or typed."""
    raw = response.raw_output_contents
    if raw and len(raw) != len(response.outputs):
        raise Internal(f"the mesh answered {len(response.outputs)} outputs with {len(raw)} raw contents")
    if raw:
        return {
            output.name: decode(output.name, Tensor(output.datatype, tuple(output.shape), data))
            for output, data in zip(response.outputs, raw, strict=True)
        }
    return {output.name: _typed(output) for output in response.outputs}


def stream_result(response: inference_pb2.ModelStreamInferResponse) -> tuple[int, dict[str, Array]]:
    """One answer of a stream: position of its input, and its outputs.

    Raises:
        StreamItemFailed: it is an error.
    """
    request_id = response.infer_response.id
    index = int(request_id) if request_id.isdecimal() else -1
    if response.error_message:
        raise StreamItemFailed(f"input {index} of the stream: {response.error_message}", index=index)
    return index, output_arrays(response.infer_response)


def _typed(output: inference_pb2.ModelInferResponse.InferOutputTensor) -> Array:
    field = _CONTENTS.get(output.datatype)
    if field is None:
        raise Internal(f"output {output.name!r}: the mesh answered {output.datatype!r} without raw contents")
    dtype = DATATYPES.get(output.datatype, np.dtype(object))
    flat = np.array(list(getattr(output.contents, field)), dtype=dtype)
    try:
        return flat.reshape(tuple(output.shape))
    except ValueError:
        raise Internal(
            f"output {output.name!r}: the mesh answered {flat.size} elements for shape {list(output.shape)}"
        ) from None
