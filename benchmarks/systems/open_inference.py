"""Requests of the Open Inference Protocol, over gRPC and as JSON, and a client that is nobody's own."""

from __future__ import annotations

import json
import struct
import urllib.request
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from benchmarks.systems.base import Row
from benchmarks.workloads import Workload
from headrace.oip import inference_pb2 as oip

PATH = "/inference.GRPCInferenceService/ModelInfer"
GRPC_HEADERS = {"content-type": "application/grpc", "te": "trailers"}
JSON_HEADERS = {"content-type": "application/json"}
_TIMEOUT_S = 30.0


def framed(workload: Workload) -> bytes:
    """One ModelInferRequest of the first row in raw form, behind gRPC's five bytes."""
    row = workload.row(0)
    request = oip.ModelInferRequest(model_name=workload.name, raw_input_contents=[row.tobytes()])
    request.inputs.add(name=workload.input, datatype=workload.datatype, shape=row.shape)
    message = request.SerializeToString()
    return b"\0" + struct.pack(">I", len(message)) + message


def grpc_client(
    target: str, workload: Workload, headers: Mapping[str, str] | None = None
) -> Callable[[Row], NDArray[np.float32]]:
    """Triton's public client: it parses answers as users' programs do, and raises on a gRPC error."""
    import tritonclient.grpc as triton

    client = triton.InferenceServerClient(target)

    def infer(row: Row) -> NDArray[np.float32]:
        tensor = triton.InferInput(workload.input, list(row.shape), workload.datatype)
        tensor.set_data_from_numpy(row)
        answer = client.infer(workload.name, [tensor], headers=dict(headers or {}), client_timeout=_TIMEOUT_S)
        found: NDArray[np.float32] = answer.as_numpy(workload.output)
        return found

    return infer


def json_body(workload: Workload, row: Row) -> bytes:
    """The REST form, with data as a flat list."""
    tensor = {
        "name": workload.input,
        "datatype": workload.datatype,
        "shape": list(row.shape),
        "data": row.ravel().tolist(),
    }
    return json.dumps({"inputs": [tensor]}).encode()


def json_client(
    url: str, workload: Workload, headers: Mapping[str, str] | None = None
) -> Callable[[Row], NDArray[np.float32]]:
    """POSTs the JSON form; raises urllib.error.HTTPError for a status that is not 2xx."""

    def infer(row: Row) -> NDArray[np.float32]:
        answer = json.loads(post(url, json_body(workload, row), {**JSON_HEADERS, **(headers or {})}))
        outputs = {tensor["name"]: tensor for tensor in answer["outputs"]}
        tensor = outputs[workload.output]
        return np.array(tensor["data"], np.float32).reshape(tensor["shape"])

    return infer


def post(url: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    """The answer's body."""
    request = urllib.request.Request(url, body, dict(headers))
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
        content: bytes = answer.read()
        return content
