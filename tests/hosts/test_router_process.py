"""A router as the supervisor starts it, told by a scripted autoscaler which models there are."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from headrace.control.v1 import control_pb2, control_pb2_grpc, process_pb2, process_pb2_grpc
from headrace.oip import inference_pb2, inference_pb2_grpc
from headrace.v1 import models_pb2, models_pb2_grpc
from headrace_common.errors import NotFound
from headrace_common.grpc_server import new_server

sys.path.insert(0, str(Path(__file__).parent))

import envoy_child

WITHIN_S = 20
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
ACME = (("x-headrace-tenant", "acme"),)


def model(name: str, **revision: Any) -> control_pb2.ModelEntry:
    tensor = models_pb2.TensorSpec(name="x", datatype="FP32", shape=[-1, 2])
    signature = models_pb2.Signature(inputs=[tensor], outputs=[tensor], batchable=True)
    entry = control_pb2.Revision(
        revision=1, version="1", current=True, signature=signature, max_batch_size=8, platform="fake", **revision
    )
    return control_pb2.ModelEntry(name=name, tenant="acme", revisions=[entry])


class Models(models_pb2_grpc.ModelServiceServicer):
    async def GetModel(self, request: models_pb2.GetModelRequest, context: Any) -> models_pb2.GetModelResponse:
        if request.name == "missing":
            raise NotFound("there is no model 'missing'")
        tenant = dict(context.invocation_metadata())["x-headrace-tenant"]
        return models_pb2.GetModelResponse(model=models_pb2.Model(name=request.name, tenant=tenant))


class Autoscaler(control_pb2_grpc.ControlServiceServicer):
    """Tells each router a fixed state and listens."""

    async def Sync(self, requests: Any, _context: Any) -> AsyncIterator[control_pb2.SyncResponse]:
        models = [model("ocr"), model("blocked", blocked_reason="no memory")]
        yield control_pb2.SyncResponse(epoch=1, update=control_pb2.StateUpdate(version=1, full=True, models=models))
        async for _ in requests:
            continue


@pytest.fixture
def router() -> Iterator[envoy_child.EnvoyChild]:
    with envoy_child.router_child() as child:
        yield child


@pytest.fixture
async def front(router: envoy_child.EnvoyChild) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(router.address) as channel:
        yield channel


@pytest.fixture
async def inside(router: envoy_child.EnvoyChild) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(router.process_target) as channel:
        yield channel


@pytest.fixture
async def autoscaler(router: envoy_child.EnvoyChild, front: grpc.aio.Channel) -> AsyncIterator[None]:
    """Runs, and the router has heard from it."""
    server = new_server()
    control_pb2_grpc.add_ControlServiceServicer_to_server(Autoscaler(), server)
    models_pb2_grpc.add_ModelServiceServicer_to_server(Models(), server)
    server.add_insecure_port(router.context.autoscaler_target)
    await server.start()
    watch = health_pb2_grpc.HealthStub(front).Watch(health_pb2.HealthCheckRequest(), timeout=WITHIN_S)
    while (await watch.read()).status != SERVING:
        continue
    watch.cancel()
    yield
    await server.stop(0)


async def health_of(channel: grpc.aio.Channel, name: str, metadata: Any = ACME) -> int:
    watch = health_pb2_grpc.HealthStub(channel).Watch(
        health_pb2.HealthCheckRequest(service=name), timeout=WITHIN_S, metadata=metadata
    )
    status: int = (await watch.read()).status
    watch.cancel()
    return status


def rest(router: envoy_child.EnvoyChild, path: str) -> tuple[int, Any]:
    request = urllib.request.Request(f"http://{router.address}{path}", headers=dict(ACME))
    try:
        with urllib.request.urlopen(request, timeout=WITHIN_S) as answer:
            body = answer.read()
            return answer.status, json.loads(body) if body else None
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def infer_request() -> inference_pb2.ModelInferRequest:
    request = inference_pb2.ModelInferRequest(model_name="ocr", raw_input_contents=[b"\0" * 8])
    request.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    return request


async def test_before_the_autoscaler_has_spoken_it_lives_and_is_not_ready(
    router: envoy_child.EnvoyChild, front: grpc.aio.Channel
) -> None:
    stub = inference_pb2_grpc.GRPCInferenceServiceStub(front)
    assert (await stub.ServerLive(inference_pb2.ServerLiveRequest(), timeout=WITHIN_S)).live
    assert not (await stub.ServerReady(inference_pb2.ServerReadyRequest(), timeout=WITHIN_S)).ready
    assert await health_of(front, "") == NOT_SERVING
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.ModelInfer(infer_request(), timeout=WITHIN_S, metadata=ACME)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert (await asyncio.to_thread(rest, router, "/v2/health/live"))[0] == 200


@pytest.mark.usefixtures("autoscaler")
async def test_health_is_kept_per_service_and_per_model(front: grpc.aio.Channel) -> None:
    names = ["", "inference.GRPCInferenceService", "ocr", "blocked", "nobody"]
    assert [await health_of(front, name) for name in names] == [SERVING, SERVING, SERVING, NOT_SERVING, UNKNOWN]
    assert await health_of(front, "ocr", metadata=(("x-headrace-tenant", "stranger"),)) == UNKNOWN


@pytest.mark.usefixtures("autoscaler")
async def test_one_port_answers_grpc_and_rest(router: envoy_child.EnvoyChild, front: grpc.aio.Channel) -> None:
    stub = inference_pb2_grpc.GRPCInferenceServiceStub(front)
    request = inference_pb2.ModelMetadataRequest(name="ocr")
    metadata = await stub.ModelMetadata(request, timeout=WITHIN_S, metadata=ACME)
    assert [tensor.name for tensor in metadata.inputs] == ["x"]
    status, body = await asyncio.to_thread(rest, router, "/v2/models/ocr")
    assert (status, body["name"]) == (200, "ocr")
    status, body = await asyncio.to_thread(rest, router, "/v2/models/nobody")
    assert status == 404
    assert "nobody" in body["error"]
    assert (await asyncio.to_thread(rest, router, "/nothing/here"))[0] == 404


@pytest.mark.usefixtures("autoscaler")
async def test_api_as_json(router: envoy_child.EnvoyChild) -> None:
    status, body = await asyncio.to_thread(rest, router, "/v1/models/ocr")
    assert (status, body["model"]["name"], body["model"]["tenant"]) == (200, "ocr", "acme")
    assert body["model"]["min_instances"] == 0, "fields keep their proto names and are there when zero"
    status, body = await asyncio.to_thread(rest, router, "/v1/models/missing")
    assert (status, body["message"]) == (404, "there is no model 'missing'")
    assert (await asyncio.to_thread(rest, router, "/v1/nope"))[0] == 404
    assert (await asyncio.to_thread(rest, router, "/v1/models/%ff"))[0] == 400


async def test_api_as_json_without_autoscaler(router: envoy_child.EnvoyChild) -> None:
    status, body = await asyncio.to_thread(rest, router, "/v1/models/ocr")
    assert (status, body["code"]) == (503, grpc.StatusCode.UNAVAILABLE.value[0])


@pytest.mark.usefixtures("autoscaler")
async def test_reflection_describes_inference_and_the_api(front: grpc.aio.Channel) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(front)
    symbols = ["inference.GRPCInferenceService", "headrace.v1.ModelService", "grpc.health.v1.Health"]
    requests = [reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol) for symbol in symbols]
    async for response in stub.ServerReflectionInfo(iter(requests), timeout=WITHIN_S):
        assert response.file_descriptor_response.file_descriptor_proto, response.original_request


@pytest.mark.usefixtures("autoscaler")
async def test_metrics_count_what_was_refused(front: grpc.aio.Channel, inside: grpc.aio.Channel) -> None:
    stub = inference_pb2_grpc.GRPCInferenceServiceStub(front)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.ModelInfer(infer_request(), timeout=0.3, metadata=ACME)
    assert refused.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    wanted = (
        'headrace_requests_total{model="ocr",outcome="deadline",service_instance_id="router-0",tenant="acme"} 1.0',
        'headrace_request_arrivals_total{model="ocr",service_instance_id="router-0",tenant="acme"} 1.0',
    )
    process = process_pb2_grpc.ProcessServiceStub(inside)
    async with asyncio.timeout(WITHIN_S):
        while True:
            text = (await process.ScrapeMetrics(process_pb2.ScrapeMetricsRequest(), timeout=WITHIN_S)).text.decode()
            if all(line in text for line in wanted):
                break
    assert "headrace_queue_seconds_bucket" in text


@pytest.mark.usefixtures("autoscaler")
async def test_drain_is_told_to_watchers_and_waits_for_what_is_in_hand(
    router: envoy_child.EnvoyChild, front: grpc.aio.Channel, inside: grpc.aio.Channel
) -> None:
    stub = inference_pb2_grpc.GRPCInferenceServiceStub(front)
    watch = health_pb2_grpc.HealthStub(front).Watch(health_pb2.HealthCheckRequest(), timeout=WITHIN_S)
    assert (await watch.read()).status == SERVING
    waiting = asyncio.ensure_future(stub.ModelInfer(infer_request(), timeout=WITHIN_S, metadata=ACME))
    process = process_pb2_grpc.ProcessServiceStub(inside)
    queued = 'headrace_queued_requests{model="ocr",service_instance_id="router-0",tenant="acme"} 1.0'
    async with asyncio.timeout(WITHIN_S):
        while (
            queued
            not in (await process.ScrapeMetrics(process_pb2.ScrapeMetricsRequest(), timeout=WITHIN_S)).text.decode()
        ):
            continue
    drained = await process.Drain(process_pb2.DrainRequest(timeout_ms=200), timeout=WITHIN_S)
    assert drained.abandoned == 1, "no runner ever comes"
    assert (await watch.read()).status == NOT_SERVING
    router.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(router.process.wait, WITHIN_S) == 0
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await waiting
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    events = [json.loads(line)["event"] for line in router.log.read_text().splitlines() if line.startswith("{")]
    assert events[0] == "started"
    assert events[-1] == "stopped"


async def test_socket_that_a_killed_router_left_is_taken_over(router: envoy_child.EnvoyChild) -> None:
    router.process.kill()
    await asyncio.to_thread(router.process.wait)
    assert router.context.socket.exists()
    again = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "headrace_router", "--context", str(router.context.runtime_dir / "router-0.json")
    )
    try:
        async with grpc.aio.insecure_channel(router.process_target) as channel:
            stub = process_pb2_grpc.ProcessServiceStub(channel)
            request = process_pb2.ScrapeMetricsRequest()
            scraped = await stub.ScrapeMetrics(request, timeout=WITHIN_S, wait_for_ready=True)
            assert b"target_info" in scraped.text
    finally:
        again.kill()
        await again.wait()
