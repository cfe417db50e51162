"""Builds requests and reads answers. Shared by the blocking and the asynchronous client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from numbers import Integral, Real
from typing import Any, TypedDict, TypeVar

import numpy as np
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from headrace.client.tensors import DATATYPES, Array, Tensor, TensorLike, decode, encode
from headrace.errors import Internal, InvalidArgument, StreamItemFailed
from headrace.oip import inference_pb2
from headrace.v1 import models_pb2, resources_pb2
from headrace_common.quantities import parse_seconds

DEFAULT_TIMEOUT_S = 30.0
DEPLOY_TIMEOUT_S = 600.0
UPLOAD_TIMEOUT_S = 3600.0

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


Built = TypeVar("Built", bound=Message)


class ModelOptions(TypedDict, total=False):
    """What a deploy may say besides source and name. What is absent has the mesh's default.

    Durations are text ("100ms", "60s", "5m") or `timedelta`. Quantities are text as in the API:
    {"cpu": "500m", "memory": "1Gi"}; a budget is {"per_hour": "1.50"}.
    """

    tenant: str
    min_instances: int | None
    max_instances: int | None
    idle_timeout: str | timedelta | None
    slo: str | timedelta | None
    max_batch_size: int | None
    resources: Mapping[str, Any]
    limits: Mapping[str, Any]
    budget: Mapping[str, str]
    shared_with: Sequence[str]
    engine: str
    engine_options: Mapping[str, str]
    response_cache: bool | None
    cache_ttl: str | timedelta | None
    cache_shared: bool
    instance_concurrency: int | None
    policy: str
    padding: Mapping[str, float]
    states: Mapping[str, str]
    sequence_idle: str | timedelta | None
    tolerates_spot: bool
    spread: int
    gpu_architectures: Sequence[str]
    traffic: str
    cost_sensitivity: str
    schedules: Sequence[str]
    targets: Mapping[str, float]
    slo_credit: str | None
    max_cpu: str | None


class OptimizeOptions(TypedDict, total=False):
    """What an optimisation may ask for. What is absent has the mesh's default.

    `labels` names the array with right answers; without it answers are compared with the original's. `latency` is text
    ("20ms") or a `timedelta`. With `keep_original` nothing is deployed: what was found is listed.
    """

    labels: str
    floor: float | None
    latency: str | timedelta | None
    precisions: Sequence[str]
    prune: Sequence[float]
    keep_original: bool


def build(kind: type[Built], **fields: Any) -> Built:
    """A message of these fields.

    Raises:
        InvalidArgument: a value is not of its field's kind; names the field.
    """
    try:
        return kind(**fields)
    except (TypeError, ValueError):
        for name, value in fields.items():
            try:
                kind(**{name: value})
            except (TypeError, ValueError):
                raise InvalidArgument(f"{name}: {value!r} of type {type(value).__name__} cannot be sent") from None
        raise


def timeout(seconds: float) -> float:
    """A deadline, in seconds from now, once it is known to be one.

    Raises:
        InvalidArgument: it is none.
    """
    if not isinstance(seconds, Real) or not 0 < seconds < float("inf"):
        raise InvalidArgument(f"timeout_s: expected more than 0 seconds; got {seconds!r}")
    return seconds


def model_spec(name: str, options: ModelOptions) -> models_pb2.ModelSpec:
    """The API's ModelSpec out of what a caller, or a command line, gave.

    Raises:
        InvalidArgument: an unknown quantity, or a value of the wrong kind.
    """
    given: dict[str, Any] = {key: value for key, value in options.items() if value not in (None, "", {}, ())}
    try:
        for key in ("resources", "limits"):
            if key in given:
                given[key] = resources_pb2.Quantities(**given[key])
        if "budget" in given:
            given["budget"] = resources_pb2.Budget(**given["budget"])
        for key in ("idle_timeout", "slo", "cache_ttl", "sequence_idle"):
            if key in given:
                given[key] = duration(given[key], key)
        return models_pb2.ModelSpec(name=name, **given)
    except (TypeError, ValueError) as error:
        raise InvalidArgument(f"model {name!r}: {error}") from None


def optimization(options: OptimizeOptions) -> models_pb2.Optimization:
    """The API's Optimization out of what a caller, or a command line, gave.

    Raises:
        InvalidArgument: a value of the wrong kind.
    """
    given: dict[str, Any] = {key: value for key, value in options.items() if value not in (None, "", ())}
    if "latency" in given:
        given["latency"] = duration(given["latency"], "latency")
    return build(models_pb2.Optimization, **given)


def duration(span: str | timedelta, what: str) -> Duration:
    """Text such as "100ms", or a timedelta. `what` is for the error."""
    seconds = parse_seconds(span, what) if isinstance(span, str) else span.total_seconds()
    message = Duration()
    message.FromNanoseconds(round(seconds * 1e9))
    return message


def timestamp(moment: datetime) -> Timestamp:
    """A moment; one without a zone is UTC."""
    if not isinstance(moment, datetime):
        raise InvalidArgument(f"expected a datetime; got {moment!r}")
    message = Timestamp()
    message.FromDatetime(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    return message


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
    if isinstance(sequence_id, str) and sequence_id:
        request.parameters["sequence_id"].string_param = sequence_id
    elif isinstance(sequence_id, Integral) and not isinstance(sequence_id, bool) and 0 < int(sequence_id) < 2**64:
        request.parameters["sequence_id"].uint64_param = int(sequence_id)
    else:
        raise InvalidArgument(f"sequence_id: expected a whole number from 1, or a text; got {sequence_id!r}")
    if start:
        request.parameters["sequence_start"].bool_param = True
    if end:
        request.parameters["sequence_end"].bool_param = True


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
