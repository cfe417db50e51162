"""What Envoy itself does for a router: the public port, the API of the autoscaler, draining."""

from __future__ import annotations

import asyncio
import json
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from headrace.control.v1 import process_pb2, process_pb2_grpc
from headrace.v1 import models_pb2, models_pb2_grpc
from headrace_common.errors import NotFound
from headrace_common.grpc_server import new_server

HOSTS = Path(__file__).parent
sys.path.insert(0, str(HOSTS))

import envoy_child  # noqa: E402

WITHIN_S = 20


@pytest.fixture(scope="module")
def envoy() -> Iterator[envoy_child.EnvoyChild]:
    with envoy_child.envoy_child("echo_app:app", HOSTS) as child:
        yield child


@pytest.fixture
async def front(envoy: envoy_child.EnvoyChild) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(envoy.address) as channel:
        yield channel


class _Models(models_pb2_grpc.ModelServiceServicer):
    async def GetModel(self, request: models_pb2.GetModelRequest, context: Any) -> models_pb2.GetModelResponse:
        if request.name == "missing":
            raise NotFound("there is no model 'missing'")
        tenant = dict(context.invocation_metadata()).get("x-headrace-tenant", "")
        return models_pb2.GetModelResponse(model=models_pb2.Model(name=request.name, tenant=tenant))


async def start_autoscaler(envoy: envoy_child.EnvoyChild) -> grpc.aio.Server:
    server = new_server()
    models_pb2_grpc.add_ModelServiceServicer_to_server(_Models(), server)
    server.add_insecure_port(envoy.context.autoscaler_target)
    await server.start()
    return server


async def http(envoy: envoy_child.EnvoyChild, path: str) -> tuple[int, bytes]:
    def ask() -> tuple[int, bytes]:
        request = urllib.request.Request(f"http://{envoy.address}{path}", headers={"x-headrace-tenant": "acme"})
        try:
            with urllib.request.urlopen(request, timeout=WITHIN_S) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    return await asyncio.to_thread(ask)


async def test_process_service_is_not_on_the_public_port(front: grpc.aio.Channel) -> None:
    stub = process_pb2_grpc.ProcessServiceStub(front)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.ScrapeMetrics(
            process_pb2.ScrapeMetricsRequest(), timeout=WITHIN_S, metadata=[("x-forwarded-for", "unix:")]
        )
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_api_of_the_autoscaler_by_grpc(envoy: envoy_child.EnvoyChild, front: grpc.aio.Channel) -> None:
    server = await start_autoscaler(envoy)
    try:
        stub = models_pb2_grpc.ModelServiceStub(front)
        request = models_pb2.GetModelRequest(name="ocr")
        got = await stub.GetModel(request, timeout=WITHIN_S, metadata=[("x-headrace-tenant", "acme")])
        assert (got.model.name, got.model.tenant) == ("ocr", "acme")
        with pytest.raises(grpc.aio.AioRpcError) as missing:
            await stub.GetModel(models_pb2.GetModelRequest(name="missing"), timeout=WITHIN_S)
        assert missing.value.details() == "there is no model 'missing'"
    finally:
        await server.stop(0)


async def test_without_autoscaler_its_api_is_unavailable(front: grpc.aio.Channel) -> None:
    stub = models_pb2_grpc.ModelServiceStub(front)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.GetModel(models_pb2.GetModelRequest(name="ocr"), timeout=WITHIN_S)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "try again" in refused.value.details()


@pytest.mark.parametrize(
    "path", ["/%ff", "/v2/models/%FF", "/v2/models/%c3%a9/infer", "/v2/%80?x=%ff", "/%", "/%zz", "/%4"]
)
async def test_path_that_no_application_could_read_is_refused(envoy: envoy_child.EnvoyChild, path: str) -> None:
    status, body = await http(envoy, path)
    assert status == 400
    assert "ASCII" in json.loads(body)["error"]


async def test_path_that_cannot_be_read_is_refused_in_the_form_of_the_api(envoy: envoy_child.EnvoyChild) -> None:
    status, body = await http(envoy, "/v1/models/%ff?tenant=a")
    assert (status, json.loads(body)["code"]) == (400, grpc.StatusCode.INVALID_ARGUMENT.value[0])


async def test_raw_bytes_in_a_path_are_refused(envoy: envoy_child.EnvoyChild) -> None:
    host, _, port = envoy.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /v2/models/\xff HTTP/1.1\r\nhost: mesh\r\nconnection: close\r\n\r\n")
    async with asyncio.timeout(WITHIN_S):
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("path", ["/inference.GRPCInferenceService/%ff", "/hosts.v1.Echo/%zz"])
async def test_method_that_no_application_could_read_is_unknown(front: grpc.aio.Channel, path: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await front.unary_unary(path)(b"", timeout=WITHIN_S)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("query", ["%C3%A9", "%ff", "%", "a=%zz&&=;", "?/%80"])
async def test_query_may_hold_anything(envoy: envoy_child.EnvoyChild, query: str) -> None:
    assert await http(envoy, f"/http/503?{query}") == (503, b"from the application")


async def test_restart_of_the_autoscaler_is_bridged(envoy: envoy_child.EnvoyChild, front: grpc.aio.Channel) -> None:
    stub = models_pb2_grpc.ModelServiceStub(front)
    call = stub.GetModel(models_pb2.GetModelRequest(name="ocr"), timeout=WITHIN_S)
    waiting = asyncio.ensure_future(call)
    retries = "/stats?filter=autoscaler.upstream_rq_retry$"
    before = envoy.admin("GET", retries)
    async with asyncio.timeout(WITHIN_S):
        while envoy.admin("GET", retries) == before:  # noqa: ASYNC110 - another process tells only when asked
            await asyncio.sleep(0.02)
    assert "upstream_rq_retry: " in before
    server = await start_autoscaler(envoy)
    try:
        assert (await waiting).model.name == "ocr"
    finally:
        await server.stop(0)


async def test_errors_of_the_application_are_passed_on_as_they_are(envoy: envoy_child.EnvoyChild) -> None:
    assert await http(envoy, "/http/503") == (503, b"from the application")


async def test_path_that_no_one_serves_goes_to_the_application(envoy: envoy_child.EnvoyChild) -> None:
    assert (await http(envoy, "/v1/nope"))[0] == 415


async def test_drained_listener_finishes_what_is_in_flight() -> None:
    with envoy_child.envoy_child("echo_app:app", HOSTS) as envoy:
        async with grpc.aio.insecure_channel(envoy.address) as channel:
            call = channel.stream_stream("/hosts.v1.Echo/Chat")(timeout=WITHIN_S)
            await call.write(b"before")
            assert await call.read() == b"before"
            await asyncio.to_thread(envoy.admin, "POST", "/drain_listeners?graceful&skip_exit")
            await call.write(b"after")
            assert await call.read() == b"after"
            await call.done_writing()
            assert await call.read() == b"half-closed"
            assert await call.code() is grpc.StatusCode.OK
