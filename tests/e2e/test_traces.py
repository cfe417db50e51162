"""A traceparent goes from the client through the router to the engine, and the spans to a collector."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from headrace.oip import inference_pb2 as oip
from headrace.oip import inference_pb2_grpc

ROW = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps what is exported to it: {trace id: [(service, span)]}."""

    def __init__(self) -> None:
        self.spans: dict[str, list[tuple[str, Any]]] = {}
        self._lock = threading.Lock()

    def Export(self, request: Any, context: Any) -> Any:
        for resource in request.resource_spans:
            service = next(a.value.string_value for a in resource.resource.attributes if a.key == "service.name")
            with self._lock:
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        self.spans.setdefault(span.trace_id.hex(), []).append((service, span))
        return trace_service_pb2.ExportTraceServiceResponse()


@pytest.fixture
def collector() -> Iterator[tuple[Collector, str]]:
    collecting = Collector()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collecting, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield collecting, f"http://127.0.0.1:{port}"
    server.stop(None).wait()


def test_from_the_client_to_the_engine(
    fresh_mesh: Any, models: Path, collector: tuple[Collector, str], eventually: Any
) -> None:
    collecting, endpoint = collector
    mesh = fresh_mesh("--standby", "1", config={"telemetry": {"otlp_endpoint": endpoint}})
    mesh.cli("deploy", str(models / "add.onnx"), "--name", "add", "--min-instances", "1", "--wait")
    traces = {protocol: (secrets.token_hex(16), secrets.token_hex(8)) for protocol in ("grpc", "stream", "rest")}
    unsampled = secrets.token_hex(16)
    headers = {protocol: f"00-{trace}-{parent}-01" for protocol, (trace, parent) in traces.items()}
    request = oip.ModelInferRequest(model_name="add", raw_input_contents=[np.ones(4, np.float32).tobytes()])
    request.inputs.add(name="x", datatype="FP32", shape=[1, 4])
    with grpc.insecure_channel(mesh.target) as channel:
        stub = inference_pb2_grpc.GRPCInferenceServiceStub(channel)
        stub.ModelInfer(request, metadata=[("traceparent", headers["grpc"])], timeout=30)
        stub.ModelInfer(request, metadata=[("traceparent", f"00-{unsampled}-{'1' * 16}-00")], timeout=30)
        list(stub.ModelStreamInfer(iter([request]), metadata=[("traceparent", headers["stream"])], timeout=30))
    assert mesh.post("/v2/models/add/infer", {"inputs": [ROW]}, {"traceparent": headers["rest"]})[0] == 200
    for trace, parent in traces.values():
        spans = eventually(lambda t=trace: len(collecting.spans.get(t, ())) >= 2 and collecting.spans[t], "two spans")
        by_service = dict(spans)
        router, runner = by_service["headrace-router"], by_service["headrace-runner"]
        assert router.parent_span_id.hex() == parent
        assert runner.parent_span_id == router.span_id
    assert unsampled not in collecting.spans
