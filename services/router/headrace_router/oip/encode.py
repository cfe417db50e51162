"""`InferenceResult` to ModelInferResponse. Pure."""

from __future__ import annotations

from headrace.oip import inference_pb2 as pb
from headrace_router.domain import InferenceResult, RevisionEntry


def encode_infer(entry: RevisionEntry, request_id: str, result: InferenceResult) -> pb.ModelInferResponse:
    """The answer, with tensors in raw form whatever form the request had, as Triton answers."""
    message = pb.ModelInferResponse(model_name=entry.model, model_version=entry.version, id=request_id)
    for tensor in result.outputs:
        message.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        message.raw_output_contents.append(bytes(tensor.data))
    return message
