"""The servicer on a real grpc.aio server, called by tritonclient."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc.aio as triton
from tritonclient.utils import InferenceServerException

from headrace.oip import inference_pb2 as pb
from headrace.oip import inference_pb2_grpc as pb_grpc
from headrace.oip import model_config_pb2 as config_pb
from headrace_common.errors import (
    Cancelled,
    DeadlineExceeded,
    EngineFailed,
    InvalidArgument,
    QueueFull,
    QuotaExceeded,
    Unavailable,
)
from headrace_common.grpc_server import new_server
from headrace_common.status import GENERIC
from headrace_router.domain import RevisionEntry
from headrace_router.oip.datatypes import DATATYPES
from headrace_router.oip.servicer import InferenceServicer
from headrace_router.oip.stream import InferStream

MakeRequest = Callable[..., pb.ModelInferRequest]
MakeEntry = Callable[..., RevisionEntry]
DTYPES = {name: one.dtype for name, one in DATATYPES.items() if one.dtype is not None}


@pytest.fixture
async def target(servicer: InferenceServicer) -> AsyncIterator[str]:
    folder = Path(tempfile.mkdtemp(prefix="hr-"))
    server = new_server()
    pb_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
    server.add_insecure_port(f"unix:{folder}/s")
    await server.start()
    yield f"unix:{folder}/s"
    await server.stop(0)
    shutil.rmtree(folder)


@pytest.fixture
async def client(target: str) -> AsyncIterator[triton.InferenceServerClient]:
    async with triton.InferenceServerClient(target) as client:
        yield client


@pytest.fixture
async def stub(target: str) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(target) as channel:
        yield pb_grpc.GRPCInferenceServiceStub(channel)  # type: ignore[no-untyped-call]


def tensor(name: str, array: np.ndarray[Any, Any], datatype: str) -> Any:
    made = triton.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array)
    return made


async def test_server_and_model_describe_themselves(client: Any, catalogue: Any, make_add_entry: MakeEntry) -> None:
    catalogue.entries.insert(0, make_add_entry(version="0", revision=6, current=False))
    assert await client.is_server_live()
    assert await client.is_server_ready()
    assert await client.is_model_ready("add")
    server = await client.get_server_metadata()
    assert (server.name, "binary_tensor_data" in server.extensions) == ("headrace", True)
    model = await client.get_model_metadata("add")
    assert (model.name, list(model.versions), model.platform) == ("add", ["0", "1"], "onnxruntime")
    assert [(one.name, one.datatype, list(one.shape)) for one in model.inputs] == [
        ("a", "FP32", [-1, 3]),
        ("b", "FP32", [-1, 3]),
        ("bias", "FP32", [-1, 1]),
    ]
    assert [one.name for one in model.outputs] == ["sum", "difference"]


async def test_nothing_is_ready_that_is_not(client: Any, catalogue: Any, make_add_entry: MakeEntry) -> None:
    catalogue.ready = False
    catalogue.entries = [make_add_entry("loading", loading=True), make_add_entry("blocked", blocked_reason="no quota")]
    assert not await client.is_server_ready()
    for model in ("loading", "blocked", "unknown"):
        assert not await client.is_model_ready(model)


async def test_config_is_completed(stub: Any, catalogue: Any, make_add_entry: MakeEntry) -> None:
    given = config_pb.ModelConfig(default_model_filename="model.onnx")
    given.input.add(name="a", data_type=config_pb.TYPE_FP32, dims=[3], format=config_pb.ModelInput.FORMAT_NONE)
    catalogue.entries[0] = make_add_entry(model_config=given.SerializeToString())
    config = (await stub.ModelConfig(pb.ModelConfigRequest(name="add"))).config
    assert (config.name, config.backend, config.platform) == ("add", "onnxruntime", "onnxruntime")
    assert (config.max_batch_size, config.default_model_filename) == (8, "model.onnx")
    assert [(one.name, list(one.dims), one.optional) for one in config.input] == [
        ("a", [3], False),
        ("b", [3], False),
        ("bias", [1], True),
    ]
    fixed = (await stub.ModelConfig(pb.ModelConfigRequest(name="fixed"))).config
    assert (fixed.max_batch_size, list(fixed.input[0].dims)) == (0, [2, -1])


async def test_statistics_are_per_version(client: Any, catalogue: Any, plane: Any, make_add_entry: MakeEntry) -> None:
    catalogue.entries.insert(0, make_add_entry(version="0", revision=6, current=False))
    plane.counted.requests, plane.counted.rows, plane.counted.bundles, plane.counted.queue_ns = 5, 9, 2, 77
    plane.counted.batches = {6: (1, 60), 3: (1, 30)}
    both = (await client.get_inference_statistics("add")).model_stats
    assert [one.version for one in both] == ["0", "1"]
    (one,) = (await client.get_inference_statistics("add", "1")).model_stats
    assert (one.inference_count, one.execution_count) == (9, 2)
    assert (one.inference_stats.success.count, one.inference_stats.queue.ns) == (5, 77)
    assert [(batch.batch_size, batch.compute_infer.ns) for batch in one.batch_stats] == [(3, 30), (6, 60)]
    counted = plane.counted
    counted.cache_hits, counted.cache_hit_ns, counted.coalesced, counted.cache_misses = 3, 30, 2, 4
    (one,) = (await client.get_inference_statistics("add", "1")).model_stats
    stats = one.inference_stats
    assert (one.inference_count, stats.success.count, stats.queue.count) == (9, 10, 5)
    assert (stats.cache_hit.count, stats.cache_hit.ns, stats.cache_miss.count) == (3, 30, 4)
    every = (await client.get_inference_statistics()).model_stats
    assert {"add", "fixed"} <= {one.name for one in every}


async def test_index_says_why_a_model_is_unavailable(client: Any, catalogue: Any, make_add_entry: MakeEntry) -> None:
    catalogue.entries = [
        make_add_entry("blocked", blocked_reason="over the memory quota"),
        make_add_entry("fine"),
        make_add_entry("hidden", owner="acme"),
    ]
    index = await client.get_model_repository_index()
    assert [(one.name, one.version, one.state, one.reason) for one in index.models] == [
        ("blocked", "1", "UNAVAILABLE", "over the memory quota"),
        ("fine", "1", "READY", ""),
    ]


@pytest.mark.parametrize("datatype", sorted(DTYPES))
async def test_every_datatype_comes_back_as_it_went(datatype: str, client: Any) -> None:
    array = np.array([[0, 1], [1, 0], [1, 1]]).astype(DTYPES[datatype])
    result = await client.infer(f"echo-{datatype}", [tensor("x", array, datatype)], request_id="me")
    assert result.get_response().id == "me"
    assert np.array_equal(result.as_numpy("y"), array)


async def test_bytes_come_back_as_they_went(client: Any) -> None:
    array = np.array([[b"", b"\xff\x00"]], dtype=np.object_)
    result = await client.infer("echo-BYTES", [tensor("x", array, "BYTES")])
    assert result.as_numpy("y").tolist() == array.tolist()


async def test_wanted_outputs_come_in_the_order_wanted(client: Any) -> None:
    ones = np.ones((2, 3), np.float32)
    inputs = [tensor("a", ones, "FP32"), tensor("b", ones, "FP32")]
    outputs = [triton.InferRequestedOutput("difference"), triton.InferRequestedOutput("sum")]
    answer = (await client.infer("add", inputs, outputs=outputs)).get_response()
    assert [out.name for out in answer.outputs] == ["difference", "sum"]
    assert not answer.parameters


async def test_transport_tells_who_calls_and_until_when(
    stub: Any, plane: Any, clock: Any, make_add_request: MakeRequest
) -> None:
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    metadata = (("x-headrace-tenant", "acme"), ("traceparent", trace))
    await stub.ModelInfer(make_add_request(), timeout=30, metadata=metadata)
    request = plane.requests[-1]
    assert (request.tenant, request.traceparent) == ("acme", trace)
    # The client rounds its timeout up on the wire.
    assert 29 < request.deadline - clock.monotonic() < 31
    assert request.is_gone() in (False, True)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        pytest.param(InvalidArgument("bad x"), grpc.StatusCode.INVALID_ARGUMENT, "bad x", id="the engine refused"),
        pytest.param(
            QuotaExceeded("slow down", subject="tenant:a", dimension="rate", retry_after_s=1),
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "slow down",
            id="over a quota",
        ),
        pytest.param(
            QueueFull("full", retry_after_s=1), grpc.StatusCode.RESOURCE_EXHAUSTED, "full", id="the queue is full"
        ),
        pytest.param(DeadlineExceeded("late"), grpc.StatusCode.DEADLINE_EXCEEDED, "late", id="deadline passed"),
        pytest.param(Unavailable("no room"), grpc.StatusCode.UNAVAILABLE, "no room", id="nothing can start"),
        pytest.param(Cancelled("gone"), grpc.StatusCode.CANCELLED, "gone", id="cancelled"),
        pytest.param(EngineFailed("secret"), grpc.StatusCode.INTERNAL, "engine failed", id="the engine failed"),
        pytest.param(ValueError("secret"), grpc.StatusCode.INTERNAL, GENERIC, id="a defect of ours"),
    ],
)
async def test_errors_of_the_plane_have_their_status(
    error: Exception, code: grpc.StatusCode, said: str, stub: Any, plane: Any, make_add_request: MakeRequest
) -> None:
    plane.error = error
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ModelInfer(make_add_request())
    assert caught.value.code() is code
    assert said in caught.value.details()
    assert "secret" not in caught.value.details()
    plane.error = None
    assert (await stub.ModelInfer(make_add_request())).model_name == "add"


@pytest.mark.parametrize(
    ("change", "metadata", "code"),
    [
        pytest.param({"model_name": "nope"}, (), grpc.StatusCode.NOT_FOUND, id="unknown model"),
        pytest.param({"model_version": "9"}, (), grpc.StatusCode.NOT_FOUND, id="unknown version"),
        pytest.param({"model_name": "private"}, (), grpc.StatusCode.PERMISSION_DENIED, id="not yours"),
        pytest.param({}, (("x-headrace-tenant", "no such name!"),), grpc.StatusCode.UNAUTHENTICATED, id="no tenant"),
    ],
)
async def test_refusals_before_the_plane(
    change: dict[str, str],
    metadata: tuple[tuple[str, str], ...],
    code: grpc.StatusCode,
    stub: Any,
    make_add_request: MakeRequest,
) -> None:
    message = make_add_request()
    for name, value in change.items():
        setattr(message, name, value)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ModelInfer(message, metadata=metadata)
    assert caught.value.code() is code


def numbered(make: MakeRequest, number: int, **more: Any) -> pb.ModelInferRequest:
    message = make(id=f"r{number}", **more)
    message.raw_input_contents[0] = np.full(3, number, "<f4").tobytes()
    return message


async def test_stream_answers_as_requests_complete(stub: Any, plane: Any, make_add_request: MakeRequest) -> None:
    plane.hold = {1.0: asyncio.Event()}
    call = stub.ModelStreamInfer()
    for number in (1, 2, 3):
        await call.write(numbered(make_add_request, number))
    early = {(await call.read()).infer_response.id for _ in range(2)}
    plane.hold[1.0].set()
    late = await call.read()
    await call.done_writing()
    assert (early, late.infer_response.id, await call.read()) == ({"r2", "r3"}, "r1", grpc.aio.EOF)
    assert np.frombuffer(late.infer_response.raw_output_contents[0], "<f4").tolist() == [11, 11, 11]


async def test_stream_goes_on_after_an_error(stub: Any, make_add_request: MakeRequest) -> None:
    call = stub.ModelStreamInfer()
    wrong = numbered(make_add_request, 1)
    wrong.model_name = "nope"
    last = numbered(make_add_request, 2)
    last.parameters["triton_enable_empty_final_response"].bool_param = True
    await call.write(wrong)
    refused = await call.read()
    assert (refused.infer_response.id, "no model 'nope'" in refused.error_message) == ("r1", True)
    await call.write(last)
    answered = await call.read()
    assert (answered.infer_response.id, answered.error_message) == ("r2", "")
    assert answered.infer_response.parameters["triton_final_response"].bool_param
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF


async def test_end_of_a_stream_withdraws_its_requests(stub: Any, plane: Any, make_add_request: MakeRequest) -> None:
    plane.hold = {1.0: asyncio.Event()}
    call = stub.ModelStreamInfer()
    await call.write(numbered(make_add_request, 1))
    await plane.held.wait()
    call.cancel()
    async with asyncio.timeout(10):
        await plane.withdrawn.wait()
    assert [request.inputs[0].name for request in plane.requests] == ["a"]


async def test_stream_reads_no_more_than_it_may_hold(make_add_request: MakeRequest) -> None:
    taken: list[str] = []
    gate = asyncio.Event()
    full = asyncio.Event()

    async def requests() -> AsyncIterator[pb.ModelInferRequest]:
        for number in range(10):
            taken.append(f"r{number}")
            yield numbered(make_add_request, number)

    async def infer(request: pb.ModelInferRequest) -> pb.ModelInferResponse:
        if len(taken) == 4:
            full.set()
        await gate.wait()
        return pb.ModelInferResponse(id=request.id)

    answers = InferStream(infer, max_in_flight=4).answers(requests())
    first = asyncio.ensure_future(anext(answers))
    await full.wait()
    gate.set()
    got = [(await first).infer_response.id]
    # The reader of the answers holds one; until it takes the next, nothing more is read.
    assert len(taken) == 4
    got += [answer.infer_response.id async for answer in answers]
    assert sorted(got) == [f"r{number}" for number in range(10)]


async def test_stream_that_breaks_ends_with_its_error(make_add_request: MakeRequest) -> None:
    async def requests() -> AsyncIterator[pb.ModelInferRequest]:
        yield make_add_request(id="fine")
        raise InvalidArgument("cut off")

    async def infer(_request: pb.ModelInferRequest) -> pb.ModelInferResponse:
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(InvalidArgument, match="cut off"):
        _ = [answer async for answer in InferStream(infer).answers(requests())]


async def test_tritonclient_streams(client: Any) -> None:
    async def requests() -> AsyncIterator[dict[str, Any]]:
        for number in range(20):
            array = np.full((1, 3), number, np.float32)
            yield {
                "model_name": "add",
                "inputs": [tensor("a", array, "FP32"), tensor("b", array, "FP32")],
                "request_id": str(number),
            }

    sums: dict[str, list[float]] = {}
    async for result, error in client.stream_infer(requests()):
        assert error is None
        sums[result.get_response().id] = result.as_numpy("sum").ravel().tolist()
    assert sums == {str(number): [2.0 * number] * 3 for number in range(20)}


async def test_what_is_deployed_is_loaded_and_nothing_unloads(client: Any) -> None:
    await client.load_model("add")
    for call in (client.load_model, client.unload_model):
        for name, code in (("nope", "NOT_FOUND"), ("private", "PERMISSION_DENIED")):
            with pytest.raises(InferenceServerException) as refused:
                await call(name)
            assert code in refused.value.status()
    with pytest.raises(InferenceServerException, match="config") as refused:
        await client.load_model("add", config="{}")
    assert "INVALID_ARGUMENT" in refused.value.status()
    with pytest.raises(InferenceServerException, match="headrace delete") as refused:
        await client.unload_model("add")
    assert "UNIMPLEMENTED" in refused.value.status()
