"""Each row of the error table, over gRPC and REST, and what follows bad input: the next good request works."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import h2.connection
import h2.events
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2

from headrace.oip import inference_pb2 as oip
from headrace.oip import inference_pb2_grpc

GOOD = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}


@dataclass
class Case:
    """One wrong request: what changes from a good one, and what must come back."""

    code: grpc.StatusCode
    http: int
    says: str
    model: str = "add"
    version: str = ""
    name: str = "x"
    datatype: str = "FP32"
    shape: tuple[int, ...] = (1, 4)
    values: tuple[float, ...] = (1, 2, 3, 4)
    headers: dict[str, str] = field(default_factory=dict)


INVALID = grpc.StatusCode.INVALID_ARGUMENT
CASES = {
    "unknown model": Case(grpc.StatusCode.NOT_FOUND, 404, "nobody", model="nobody"),
    "unknown version": Case(grpc.StatusCode.NOT_FOUND, 404, "99", version="99"),
    "unknown input": Case(INVALID, 400, "nonsense", name="nonsense"),
    "wrong datatype": Case(INVALID, 400, "INT32", datatype="INT32"),
    "wrong shape": Case(INVALID, 400, "x", shape=(1, 5), values=(1, 2, 3, 4, 5)),
    "wrong rank": Case(INVALID, 400, "x", shape=(4,)),
    "too few values": Case(INVALID, 400, "x", values=(1, 2, 3)),
    "negative dimension": Case(INVALID, 400, "x", shape=(-1, 4)),
    "over the maximum batch": Case(INVALID, 400, "64", shape=(65, 4), values=tuple(range(260))),
    "engine failed": Case(grpc.StatusCode.INTERNAL, 500, "engine failed", model="fragile", values=(13, 2, 3, 4)),
    "no tenant's name": Case(
        grpc.StatusCode.UNAUTHENTICATED, 401, "x-headrace-tenant", headers={"x-headrace-tenant": "not a name"}
    ),
    "not yours": Case(
        grpc.StatusCode.PERMISSION_DENIED, 403, "private", model="private", headers={"x-headrace-tenant": "other"}
    ),
}


@pytest.fixture(scope="module")
def stub(mesh: Any, models: Any) -> Iterator[inference_pb2_grpc.GRPCInferenceServiceStub]:
    mesh.cli("deploy", str(models / "add.onnx"), "--name", "private", "--tenant", "owner", "--wait")
    with grpc.insecure_channel(mesh.target) as channel:
        yield inference_pb2_grpc.GRPCInferenceServiceStub(channel)


def request_of(case: Case) -> oip.ModelInferRequest:
    request = oip.ModelInferRequest(model_name=case.model, model_version=case.version)
    request.inputs.add(name=case.name, datatype=case.datatype, shape=case.shape)
    dtype = {"FP32": np.float32, "INT32": np.int32}[case.datatype]
    request.raw_input_contents.append(np.array(case.values, dtype).tobytes())
    return request


def good_request() -> oip.ModelInferRequest:
    return request_of(Case(grpc.StatusCode.OK, 200, ""))


def assert_serves(mesh: Any, stub: Any) -> None:
    assert len(stub.ModelInfer(good_request(), timeout=10).raw_output_contents) == 1
    assert mesh.post("/v2/models/add/infer", {"inputs": [GOOD]})[0] == 200


@pytest.mark.parametrize("name", CASES)
def test_over_grpc(mesh: Any, stub: Any, name: str) -> None:
    case = CASES[name]
    with pytest.raises(grpc.RpcError) as refusal:
        stub.ModelInfer(request_of(case), metadata=list(case.headers.items()), timeout=30)
    assert refusal.value.code() is case.code
    assert case.says in refusal.value.details()
    assert_serves(mesh, stub)


@pytest.mark.parametrize("name", CASES)
def test_over_rest(mesh: Any, stub: Any, name: str) -> None:
    case = CASES[name]
    version = f"/versions/{case.version}" if case.version else ""
    tensor = {"name": case.name, "datatype": case.datatype, "shape": case.shape, "data": case.values}
    status, answer, _ = mesh.post(f"/v2/models/{case.model}{version}/infer", {"inputs": [tensor]}, case.headers)
    assert status == case.http
    assert case.says in answer["error"]
    assert_serves(mesh, stub)


def test_a_deadline_that_passes(mesh: Any, stub: Any) -> None:
    request = request_of(Case(grpc.StatusCode.OK, 200, "", model="slow"))
    stub.ModelInfer(request, timeout=30)
    with pytest.raises(grpc.RpcError) as refusal:
        stub.ModelInfer(request, timeout=0.02)
    assert refusal.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    status, answer, _ = mesh.post("/v2/models/slow/infer", {"inputs": [GOOD]}, {"headrace-timeout-ms": "5"})
    assert (status, "deadline" in answer["error"]) == (504, True)


def flood(stub: Any, model: str, tenant: str, count: int) -> list[grpc.RpcError]:
    """Sends all at once; returns the refusals."""
    request = request_of(Case(grpc.StatusCode.OK, 200, "", model=model))
    calls = [
        stub.ModelInfer.future(request, metadata=[("x-headrace-tenant", tenant)], timeout=30) for _ in range(count)
    ]
    return [call.exception() for call in calls if call.exception() is not None]


def test_over_a_quota(mesh: Any, stub: Any) -> None:
    mesh.cli("tenant", "set", "small", "--concurrency", "2")
    stub.ModelInfer(request_of(Case(grpc.StatusCode.OK, 200, "", model="slow")), timeout=30)
    refusals = flood(stub, "slow", "small", 12)
    assert 1 <= len(refusals) <= 10
    error: Any = refusals[0]
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    details = dict(error.trailing_metadata())["grpc-status-details-bin"]
    status = status_pb2.Status.FromString(details)
    failure, retry = error_details_pb2.QuotaFailure(), error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(failure)
    assert status.details[1].Unpack(retry)
    assert failure.violations[0].subject == "tenant:small"
    assert failure.violations[0].description.startswith("concurrency")
    assert retry.retry_delay.ToNanoseconds() > 0


def test_over_a_rate_by_rest(mesh: Any) -> None:
    mesh.cli("tenant", "set", "slowly", "--rps", "1")
    answers = [mesh.post("/v2/models/add/infer", {"inputs": [GOOD]}, {"x-headrace-tenant": "slowly"}) for _ in range(6)]
    refused = [(answer, headers) for status, answer, headers in answers if status == 429]
    assert refused
    assert "requests_per_second" in refused[0][0]["error"]
    assert int(refused[0][1]["retry-after"]) >= 1


def test_a_full_queue_sheds(fresh_mesh: Any, models: Any) -> None:
    mesh = fresh_mesh(config={"router": {"max_queue_length": 3}})
    mesh.cli(
        "deploy", str(models / "slow.fake.json"), "--name", "slow", "--min-instances", "1", "--max-batch", "1", "--wait"
    )
    with grpc.insecure_channel(mesh.target) as channel:
        stub = inference_pb2_grpc.GRPCInferenceServiceStub(channel)
        refusals = flood(stub, "slow", "default", 40)
    assert refusals
    assert {refusal.code() for refusal in refusals} == {grpc.StatusCode.RESOURCE_EXHAUSTED}  # type: ignore[attr-defined]
    answers: list[tuple[int, Any, dict[str, str]]] = []
    body = {"inputs": [GOOD]}
    threads = [
        threading.Thread(target=lambda: answers.append(mesh.post("/v2/models/slow/infer", body))) for _ in range(30)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    shed = [headers for status, _, headers in answers if status == 503]
    assert shed
    assert "retry-after" in shed[0]


def test_no_instance_can_be_started(mesh: Any, stub: Any, models: Any) -> None:
    mesh.cli("tenant", "set", "poor", "--cpu", "0")
    mesh.cli("deploy", str(models / "add.onnx"), "--name", "starved", "--tenant", "poor", check=False)
    request = request_of(Case(grpc.StatusCode.OK, 200, "", model="starved"))
    with pytest.raises(grpc.RpcError) as refusal:
        stub.ModelInfer(request, metadata=[("x-headrace-tenant", "poor")], timeout=30)
    assert refusal.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND)


BAD_BODIES = {
    "NaN in JSON": b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"data":[NaN,1,2,3]}]}',
    "duplicate keys": b'{"inputs":[],"inputs":[]}',
    "deep nesting": b"[" * 100_000,
    "no JSON": b"hello",
    "no object": b"[]",
    "not UTF-8": b'{"inputs": "\xff"}',
    "empty": b"",
}


@pytest.mark.parametrize("name", BAD_BODIES)
def test_bad_json_gets_a_clear_error(mesh: Any, stub: Any, name: str) -> None:
    status, answer, _ = mesh.post("/v2/models/add/infer", BAD_BODIES[name])
    assert status == 400
    assert answer["error"]
    assert_serves(mesh, stub)


def raw_call(mesh: Any, frame: bytes) -> grpc.RpcError:
    with grpc.insecure_channel(mesh.target) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError) as refusal:
            call(frame, timeout=20)
    return refusal.value


def test_a_truncated_message(mesh: Any, stub: Any) -> None:
    error: Any = raw_call(mesh, good_request().SerializeToString()[:-7])
    assert error.code() is INVALID
    assert_serves(mesh, stub)


def test_a_gigabyte_length_prefix_is_refused_at_once(mesh: Any, stub: Any) -> None:
    """Over a bare HTTP/2 connection that stays open: a client library would check the frame first."""
    host, port = mesh.target.split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        headers = call_without_end(connection, b"\0" + struct.pack(">I", 1 << 30) + b"x" * 64)
    assert headers[b"grpc-status"] == b"8"
    assert b"1073741824" in headers[b"grpc-message"]
    assert_serves(mesh, stub)


def call_without_end(connection: socket.socket, body: bytes) -> dict[bytes, bytes]:
    """Sends part of a message and not the end of the stream; returns all headers that come back."""
    http = h2.connection.H2Connection()
    http.initiate_connection()
    path = "/inference.GRPCInferenceService/ModelInfer"
    pseudo = [(":method", "POST"), (":scheme", "http"), (":authority", "mesh"), (":path", path)]
    http.send_headers(1, [*pseudo, ("content-type", "application/grpc"), ("te", "trailers")])
    http.send_data(1, body)
    headers: dict[bytes, bytes] = {}
    while True:
        connection.sendall(http.data_to_send())
        received = connection.recv(65536)
        assert received, f"the connection ended after {headers}"
        for event in http.receive_data(received):
            if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
                headers.update((bytes(key), bytes(value)) for key, value in event.headers)
            if isinstance(event, h2.events.StreamEnded | h2.events.StreamReset):
                return headers
