"""Both clients against a scripted mesh. One suite: `caller` makes the asynchronous client look blocking."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from headrace import errors
from headrace.client import methods
from headrace.client.aio import AsyncClient
from headrace.client.blocking import Client
from headrace.client.inference import Step
from headrace.client.retry import RetryPolicy
from headrace.oip import inference_pb2
from headrace.v1 import mesh_pb2, models_pb2, tenants_pb2, usage_pb2

Caller = Callable[..., Any]
DOWN = errors.Unavailable("no instance can be started: out of memory")


class AsBlocking:
    """An `AsyncClient` whose methods run on a loop of its own, until they are done."""

    def __init__(self, loop: asyncio.AbstractEventLoop, client: AsyncClient) -> None:
        self._loop = loop
        self._client = client

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def call(*arguments: Any, **options: Any) -> Any:
            made = method(*arguments, **options)
            return self._loop.run_until_complete(_collect(made) if hasattr(made, "__aiter__") else made)

        return call


async def _collect(items: Any) -> list[Any]:
    return [item async for item in items]


@pytest.fixture(params=["blocking", "asynchronous"])
def caller(request: pytest.FixtureRequest, mesh: Any) -> Iterator[Caller]:
    """Makes clients for the scripted mesh; the time they would sleep goes into `slept`."""
    made: list[Any] = []
    loop = asyncio.new_event_loop()

    def make(slept: list[float] | None = None, **options: Any) -> Any:
        record = [] if slept is None else slept
        if request.param == "blocking":
            made.append(Client(mesh.url, sleep=record.append, **options))
            return made[-1]

        async def sleep(seconds: float) -> None:
            record.append(seconds)

        made.append(AsBlocking(loop, AsyncClient(mesh.url, sleep=sleep, **options)))
        return made[-1]

    yield make
    for client in made:
        client.close()
    loop.close()


def doubled(request: inference_pb2.ModelInferRequest) -> inference_pb2.ModelInferResponse:
    array = np.frombuffer(request.raw_input_contents[0], "<f4") * 2
    response = inference_pb2.ModelInferResponse(id=request.id, raw_output_contents=[array.tobytes()])
    response.outputs.add(name="y", datatype="FP32", shape=request.inputs[0].shape)
    return response


def test_numpy_in_numpy_out(mesh: Any, caller: Caller) -> None:
    mesh.on(methods.INFER, doubled)
    array = np.array([[1, 2]], np.float32)
    outputs = caller(tenant="acme").infer(
        "m", {"x": array}, version="3", outputs=["y"], priority=2, request_id="r1", timeout_s=5
    )
    np.testing.assert_array_equal(outputs["y"], array * 2)
    seen = mesh.seen[methods.INFER.path][0]
    request = seen.request
    assert (request.model_name, request.model_version, request.id) == ("m", "3", "r1")
    assert [output.name for output in request.outputs] == ["y"]
    assert request.parameters["priority"].uint64_param == 2
    assert seen.metadata["x-headrace-tenant"] == "acme"
    assert 0 < seen.remaining_s < 5.5


def test_without_a_tenant_none_is_sent_and_every_call_has_a_deadline(mesh: Any, caller: Caller) -> None:
    mesh.on(methods.GET_STATUS, mesh_pb2.GetStatusResponse(epoch=4))
    assert caller(timeout_s=7).status().epoch == 4
    seen = mesh.seen[methods.GET_STATUS.path][0]
    assert "x-headrace-tenant" not in seen.metadata
    assert 0 < seen.remaining_s < 7.5


def test_messages_of_many_megabytes_pass(mesh: Any, caller: Caller) -> None:
    mesh.on(methods.INFER, doubled)
    outputs = caller().infer("m", {"x": np.ones(3_000_000, np.float32)})
    assert outputs["y"].sum() == 6_000_000


def test_unavailable_is_tried_again_with_growing_delays(mesh: Any, caller: Caller) -> None:
    mesh.on(methods.INFER, [DOWN, DOWN, doubled])
    slept: list[float] = []
    client = caller(slept, jitter=lambda: 0.999999999, retry=RetryPolicy(first_delay_s=0.1))
    assert client.infer("m", {"x": np.ones(1, np.float32)})["y"].tolist() == [2.0]
    assert slept == pytest.approx([0.1, 0.2])


def test_a_step_of_a_sequence_is_not_sent_twice_but_its_beginning_may_be(mesh: Any, caller: Caller) -> None:
    mesh.on(methods.INFER, [DOWN, doubled])
    with pytest.raises(errors.Unavailable):
        caller().infer("m", {"x": [1]}, sequence_id=7)
    assert len(mesh.requests(methods.INFER)) == 1
    mesh.on(methods.INFER, [DOWN, doubled])
    caller().infer("m", {"x": np.ones(1, np.float32)}, sequence_id=7, sequence_start=True)
    assert len(mesh.requests(methods.INFER)) == 3
    first, _, begun = (request.parameters for request in mesh.requests(methods.INFER))
    assert (first["sequence_id"].uint64_param, "sequence_start" in first) == (7, False)
    assert begun["sequence_start"].bool_param


@pytest.mark.parametrize(
    "of", [-1, 0, 1.5, True, ""], ids=["negative", "zero", "no whole number", "a truth value", "no text"]
)
def test_an_id_that_is_none_is_refused_before_it_is_sent(caller: Caller, of: Any) -> None:
    expected = "sequence_id: expected a whole number from 1, or a text"
    with pytest.raises(errors.InvalidArgument, match=expected):
        caller().infer("m", {"x": [1]}, sequence_id=of, sequence_start=True)
    with pytest.raises(errors.InvalidArgument, match=expected):
        Step({"x": [1]}, of)


def test_after_the_last_attempt_the_meshs_reason_is_told(mesh: Any, caller: Caller) -> None:
    mesh.on(methods.INFER, DOWN)
    with pytest.raises(errors.Unavailable, match="out of memory"):
        caller(retry=RetryPolicy(max_attempts=3)).infer("m", {"x": [1]})
    assert len(mesh.requests(methods.INFER)) == 3


def test_the_clients_calls_share_one_retry_budget(mesh: Any, caller: Caller) -> None:
    mesh.on(methods.MODEL_READY, DOWN)
    client = caller(retry=RetryPolicy(max_attempts=4, budget_burst=3, budget_ratio=0))
    for _ in range(4):
        with pytest.raises(errors.Unavailable):
            client.ready("m")
    assert len(mesh.requests(methods.MODEL_READY)) == 4 + 3


def test_retries_end_with_the_deadline(mesh: Any, caller: Caller) -> None:
    mesh.on(methods.INFER, DOWN)
    now = iter(range(100))
    client = caller(clock=lambda: float(next(now)), retry=RetryPolicy(max_attempts=50, budget_burst=50))
    with pytest.raises(errors.Unavailable):
        client.infer("m", {"x": [1]}, timeout_s=8.0)
    assert 1 < len(mesh.requests(methods.INFER)) <= 4


def test_over_quota_is_told_at_once_with_the_time_to_wait(mesh: Any, caller: Caller) -> None:
    refusal = errors.QuotaExceeded("over 2", subject="tenant:a", dimension="concurrency", retry_after_s=0.5)
    mesh.on(methods.INFER, refusal)
    with pytest.raises(errors.QuotaExceeded, match="over 2") as caught:
        caller().infer("m", {"x": [1]})
    assert (caught.value.dimension, caught.value.retry_after_s) == ("concurrency", 0.5)
    assert len(mesh.requests(methods.INFER)) == 1


def test_a_deploy_is_never_sent_twice(mesh: Any, caller: Caller) -> None:
    mesh.on(methods.DEPLOY, grpc.StatusCode.UNAVAILABLE)
    with pytest.raises(errors.Unavailable):
        caller().deploy("s3://bucket/m.onnx", name="m")
    assert len(mesh.requests(methods.DEPLOY)) == 1


def test_a_mesh_that_is_not_there_says_what_to_do() -> None:
    url = "http://127.0.0.1:1"
    expected = f"cannot reach the mesh at {url}; start it with"
    with Client(url, sleep=lambda _: None) as client, pytest.raises(errors.Unreachable, match=expected):
        client.status()


async def test_a_mesh_that_is_not_there_says_what_to_do_asynchronously() -> None:
    async with AsyncClient("http://127.0.0.1:1", retry=RetryPolicy(max_attempts=1)) as client:
        with pytest.raises(errors.Unreachable, match="headrace up"):
            await client.status()


def test_streams_pair_answers_with_inputs(mesh: Any, caller: Caller) -> None:
    def backwards(requests: Any) -> Iterator[inference_pb2.ModelStreamInferResponse]:
        for request in reversed(list(requests)):
            yield inference_pb2.ModelStreamInferResponse(infer_response=doubled(request))

    mesh.on(methods.STREAM_INFER, backwards, "stream_stream")
    inputs = [{"x": np.full(1, index, np.float32)} for index in range(3)]
    answers = list(caller().stream("m", inputs))
    assert [(index, outputs["y"].tolist()) for index, outputs in answers] == [(2, [4.0]), (1, [2.0]), (0, [0.0])]


def test_inputs_of_a_stream_may_be_steps_of_sequences(mesh: Any, caller: Caller) -> None:
    def echo(requests: Any) -> Iterator[inference_pb2.ModelStreamInferResponse]:
        for request in requests:
            sent.append(
                {key: getattr(value, value.WhichOneof("parameter_choice")) for key, value in request.parameters.items()}
            )
            yield inference_pb2.ModelStreamInferResponse(infer_response=doubled(request))

    sent: list[dict[str, Any]] = []
    mesh.on(methods.STREAM_INFER, echo, "stream_stream")
    x = {"x": np.ones(1, np.float32)}
    steps = [Step(x, 7, sequence_start=True), Step(x, "7"), x, Step(x, 7, sequence_end=True)]
    assert [index for index, _ in caller().stream("m", steps)] == [0, 1, 2, 3]
    assert sent == [
        {"sequence_id": 7, "sequence_start": True},
        {"sequence_id": "7"},
        {},
        {"sequence_id": 7, "sequence_end": True},
    ]


def test_a_refused_input_of_a_stream_is_named(mesh: Any, caller: Caller) -> None:
    def refuse(requests: Any) -> Iterator[inference_pb2.ModelStreamInferResponse]:
        for request in requests:
            response = inference_pb2.ModelStreamInferResponse(error_message="wrong shape")
            response.infer_response.id = request.id
            yield response

    mesh.on(methods.STREAM_INFER, refuse, "stream_stream")
    with pytest.raises(errors.StreamItemFailed, match="input 0 of the stream: wrong shape") as caught:
        list(caller().stream("m", [{"x": [1.0]}]))
    assert caught.value.index == 0


def test_an_input_that_cannot_be_sent_ends_its_stream_with_the_reason(mesh: Any, caller: Caller) -> None:
    mesh.on(methods.STREAM_INFER, lambda requests: iter(list(requests)[:0]), "stream_stream")
    with pytest.raises(errors.InvalidArgument, match="complex"):
        list(caller().stream("m", [{"x": np.zeros(1, complex)}]))


def test_a_deploy_uploads_a_path_and_names_its_artifact(mesh: Any, caller: Caller, tmp_path: Path) -> None:
    source = tmp_path / "m.fake.json"
    source.write_bytes(b"{}")
    mesh.on(methods.UPLOAD, models_pb2.UploadArtifactResponse(artifact="sha256:abc"), "stream_unary")
    mesh.on(methods.DEPLOY, lambda request: models_pb2.DeployModelResponse(model={"name": request.model.name}))
    model = caller().deploy(
        source, name="m", wait=True, min_instances=0, slo="100ms", idle_timeout=timedelta(seconds=5),
        resources={"cpu": "500m"}, budget={"per_hour": "1.50"}, shared_with=["*"],
    )  # fmt: skip
    assert model.name == "m"
    [parts] = mesh.requests(methods.UPLOAD)
    assert parts[0].file.path == "model.fake.json"
    assert parts[1].chunk == b"{}"
    [request] = mesh.requests(methods.DEPLOY)
    assert request.wait
    spec = request.model
    assert (spec.artifact, spec.source, spec.HasField("min_instances")) == ("sha256:abc", "", True)
    assert (spec.slo.ToMilliseconds(), spec.idle_timeout.ToSeconds()) == (100, 5)
    assert (spec.resources.cpu, spec.budget.per_hour, list(spec.shared_with)) == ("500m", "1.50", ["*"])
    assert not spec.HasField("max_instances")


def test_an_upload_is_tried_again_from_its_beginning(mesh: Any, caller: Caller, tmp_path: Path) -> None:
    source = tmp_path / "m.fake.json"
    source.write_bytes(b"{}")
    mesh.on(methods.UPLOAD, [DOWN, models_pb2.UploadArtifactResponse(artifact="a")], "stream_unary")
    assert caller().upload(source, "m") == "a"
    assert [len(parts) for parts in mesh.requests(methods.UPLOAD)] == [2, 2]


def test_a_url_is_passed_on(mesh: Any, caller: Caller) -> None:
    mesh.on(methods.DEPLOY, models_pb2.DeployModelResponse())
    caller().deploy("https://host/m.onnx", name="m")
    assert mesh.requests(methods.DEPLOY)[0].model.source == "https://host/m.onnx"


@pytest.mark.parametrize(
    "options",
    [{"resources": {"cpus": "1"}}, {"slo": "fast"}, {"min_instances": "many"}],
    ids=["unknown quantity", "no duration", "no number"],
)
def test_deploy_options_that_make_no_sense_are_refused_before_sending(caller: Caller, options: Any) -> None:
    with pytest.raises(errors.InvalidArgument):
        caller().deploy("s3://b/m.onnx", name="m", **options)


def test_an_optimisation_is_begun_watched_ended_and_its_variants_used(
    mesh: Any, caller: Caller, tmp_path: Path
) -> None:
    samples = tmp_path / "samples.npz"
    np.savez(samples, x=np.zeros((3, 2)))
    job = models_pb2.OptimizeJob(model="a", state=models_pb2.JOB_STATE_QUEUED)
    mesh.on(methods.UPLOAD, models_pb2.UploadArtifactResponse(artifact="s"), "stream_unary")
    mesh.on(methods.OPTIMIZE_MODEL, models_pb2.OptimizeModelResponse(job=job))
    mesh.on(methods.CANCEL_OPTIMIZATION, models_pb2.CancelOptimizationResponse(job=job))
    mesh.on(methods.LIST_VARIANTS, models_pb2.ListVariantsResponse(job=job, variants=[{"name": "int8"}]))
    mesh.on(methods.USE_VARIANT, models_pb2.UseVariantResponse(model={"name": "a", "variant": "int8"}))
    client = caller()
    assert client.optimize("a", samples, floor=0.9, latency=timedelta(milliseconds=5), precisions=["int8"]) == job
    assert mesh.requests(methods.OPTIMIZE_MODEL)[0] == models_pb2.OptimizeModelRequest(
        name="a",
        samples="s",
        optimization={"floor": 0.9, "latency": {"nanos": 5_000_000}, "precisions": ["int8"]},
    )
    assert client.cancel_optimization("a") == job
    assert [each.name for each in client.variants("a").variants] == ["int8"]
    assert client.use_variant("a", "int8").variant == "int8"


@pytest.mark.parametrize(
    ("options", "said"), [({"floor": "high"}, "floor"), ({"latency": "fast"}, "latency"), ({"size": 1}, "size")]
)
def test_optimisations_that_make_no_sense_are_refused_before_sending(
    mesh: Any, caller: Caller, tmp_path: Path, options: Any, said: str
) -> None:
    samples = tmp_path / "samples.npz"
    np.savez(samples, x=np.zeros((3, 2)))
    with pytest.raises(errors.InvalidArgument, match=said):
        caller().optimize("a", samples, **options)
    with pytest.raises(errors.InvalidArgument, match=r"expected an \.npz file of samples"):
        caller().optimize("a", tmp_path / "samples.csv")
    assert not mesh.seen


def test_looking_and_deleting(mesh: Any, caller: Caller) -> None:
    mesh.on(methods.LIST_MODELS, models_pb2.ListModelsResponse(models=[{"name": "a"}, {"name": "b"}]))
    mesh.on(methods.GET_MODEL, [errors.NotFound("no model 'x'"), models_pb2.GetModelResponse(model={"name": "a"})])
    mesh.on(methods.DELETE_MODEL, models_pb2.DeleteModelResponse())
    mesh.on(methods.METADATA, inference_pb2.ModelMetadataResponse(name="a"))
    mesh.on(methods.MODEL_READY, inference_pb2.ModelReadyResponse(ready=True))
    mesh.on(methods.SERVER_READY, inference_pb2.ServerReadyResponse(ready=True))
    client = caller()
    assert [model.name for model in client.models("acme")] == ["a", "b"]
    assert mesh.requests(methods.LIST_MODELS)[0].tenant == "acme"
    with pytest.raises(errors.NotFound, match="no model 'x'"):
        client.model("x")
    assert client.model("a").name == "a"
    client.delete("a")
    assert mesh.requests(methods.DELETE_MODEL)[0].name == "a"
    assert client.metadata("a").name == "a"
    assert client.ready("a")
    assert client.ready()


def test_tenants_usage_and_logs(mesh: Any, caller: Caller) -> None:
    mesh.on(methods.SET_TENANT, lambda request: tenants_pb2.SetTenantResponse(tenant={"name": request.tenant.name}))
    mesh.on(methods.GET_TENANT, tenants_pb2.GetTenantResponse(tenant={"name": "a"}))
    mesh.on(methods.LIST_TENANTS, tenants_pb2.ListTenantsResponse(tenants=[{"name": "a"}]))
    mesh.on(methods.DELETE_TENANT, errors.FailedPrecondition("it owns models"))
    mesh.on(methods.GET_USAGE, usage_pb2.GetUsageResponse(rows=[{"tenant": "a", "cost_micros": 5}]))
    lines = [mesh_pb2.ReadLogsResponse(line="{}"), errors.Unavailable("stopping")]
    mesh.on(methods.READ_LOGS, lines, "unary_stream")
    client = caller()
    assert client.set_tenant(tenants_pb2.TenantSpec(name="a")).name == "a"
    assert client.tenant("a").name == "a"
    assert [tenant.name for tenant in client.tenants()] == ["a"]
    with pytest.raises(errors.FailedPrecondition, match="owns models"):
        client.delete_tenant("a")
    since = datetime(2026, 1, 2, tzinfo=UTC)
    assert client.usage("a", since)[0].cost_micros == 5
    assert mesh.requests(methods.GET_USAGE)[0].since.ToDatetime(UTC) == since
    with pytest.raises(errors.Unavailable, match="stopping"):
        list(client.logs("m", tail=3))
    assert mesh.requests(methods.READ_LOGS)[0].tail == 3


async def test_cancelling_the_caller_cancels_the_call(mesh: Any) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def endless() -> Any:
        yield {"x": [1.0]}
        await asyncio.Event().wait()

    mesh.on(methods.STREAM_INFER, lambda requests: _watch(requests, loop, ended), "stream_stream")
    async with AsyncClient(mesh.url) as client:
        stream = client.stream("m", endless())
        assert (await anext(stream))[0] == 0
        await stream.aclose()
        async with asyncio.timeout(10):
            await ended.wait()


def _watch(requests: Any, loop: asyncio.AbstractEventLoop, ended: asyncio.Event) -> Iterator[Any]:
    try:
        for request in requests:
            yield inference_pb2.ModelStreamInferResponse(infer_response={"id": request.id})
    finally:
        loop.call_soon_threadsafe(ended.set)


def test_a_refusal_of_several_lines_is_told_in_one(mesh: Any, caller: Caller) -> None:
    mesh.on(methods.DEPLOY, errors.FailedPrecondition("the engine said:\n  bad opset 99\n"))
    with pytest.raises(errors.FailedPrecondition, match=r"^the engine said: bad opset 99$"):
        caller().deploy("https://host/m.onnx", name="m")


async def test_cancelling_a_call_withdraws_it_from_the_mesh(mesh: Any) -> None:
    withdrawn, leave = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def lines(_request: Any) -> Iterator[mesh_pb2.ReadLogsResponse]:
        try:
            while not leave.wait(0.01):
                yield mesh_pb2.ReadLogsResponse(line="{}")
        finally:
            loop.call_soon_threadsafe(withdrawn.set)

    async def follow(client: AsyncClient) -> None:
        async for _ in client.logs(follow=True):
            began.set()

    began = asyncio.Event()
    mesh.on(methods.READ_LOGS, lines, "unary_stream")
    try:
        async with AsyncClient(mesh.url) as client, asyncio.timeout(20):
            task = asyncio.create_task(follow(client))
            await began.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await withdrawn.wait()
    finally:
        leave.set()


@pytest.mark.parametrize("tenant", ["ünï", "a b", "operator", "-a", 7])
def test_a_tenant_that_is_none_is_refused_before_anything_is_sent(caller: Caller, tenant: Any) -> None:
    with pytest.raises(errors.InvalidArgument, match="does not name a tenant"):
        caller(tenant=tenant)


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan"), float("inf"), "2s"])
def test_a_deadline_that_is_none_is_refused(mesh: Any, caller: Caller, timeout_s: Any) -> None:
    with pytest.raises(errors.InvalidArgument, match="timeout_s: expected more than 0 seconds"):
        caller(timeout_s=timeout_s)
    client = caller()
    with pytest.raises(errors.InvalidArgument, match="timeout_s"):
        client.infer("m", {"x": [1]}, timeout_s=timeout_s)
    with pytest.raises(errors.InvalidArgument, match="timeout_s"):
        list(client.stream("m", [{"x": [1]}], timeout_s=timeout_s))
    assert not mesh.seen


@pytest.mark.parametrize(
    ("method", "arguments", "options", "expected"),
    [
        ("infer", ("a", {"x": [1]}), {"version": 1}, "model_version: 1 of type int"),
        ("infer", (None, {"x": [1]}), {"priority": "high"}, "priority: expected a whole number"),
        ("infer", ("a", [1]), {}, "inputs: expected a mapping"),
        ("infer", ("a", {1: [1]}), {}, "name: 1 of type int"),
        ("infer", ("a", {"x": [1]}), {"outputs": [3]}, "name: 3 of type int"),
        ("metadata", ("a", 1), {}, "version: 1 of type int"),
        ("ready", (5,), {}, "name: 5 of type int"),
        ("model", (5,), {}, "name: 5 of type int"),
        ("delete", (b"\xff",), {}, "name: "),
        ("set_tenant", ("acme",), {}, "tenant: 'acme' of type str"),
        ("deploy_spec", ("m.onnx",), {}, "model: 'm.onnx' of type str"),
        ("usage", ("a", "yesterday"), {}, "expected a datetime"),
        ("logs", (), {"tail": -1}, "tail: -1 of type int"),
    ],
)
def test_arguments_of_the_wrong_kind_are_headraces_errors(
    caller: Caller, method: str, arguments: Any, options: Any, expected: str
) -> None:
    client = caller()
    with pytest.raises(errors.InvalidArgument, match=expected):
        _all_of(getattr(client, method)(*arguments, **options))


def _all_of(answer: Any) -> Any:
    """The blocking client's `logs` is a generator, which begins when it is asked for a line."""
    return list(answer) if isinstance(answer, Iterator) else answer


def test_a_closed_client_says_so(mesh: Any, caller: Caller, tmp_path: Path) -> None:
    mesh.on(methods.GET_STATUS, mesh_pb2.GetStatusResponse())
    (tmp_path / "m.fake.json").write_text("{}")
    client = caller()
    client.status()
    client.close()
    for call in (
        client.status,
        lambda: client.infer("m", {"x": [1]}),
        lambda: client.upload(tmp_path / "m.fake.json", "m"),
        lambda: list(client.stream("m", [])),
        lambda: list(client.logs()),
    ):
        with pytest.raises(errors.FailedPrecondition, match="the client is closed"):
            call()


@pytest.mark.parametrize(("timeout_s", "expected"), [(None, None), (9, 9)])
def test_a_stream_has_only_the_deadline_that_it_is_given(
    mesh: Any, caller: Caller, timeout_s: float | None, expected: float | None
) -> None:
    mesh.on(methods.STREAM_INFER, lambda requests: iter(list(requests)[:0]), "stream_stream")
    assert list(caller(timeout_s=3).stream("m", [{"x": [1]}], timeout_s=timeout_s)) == []
    remaining_s = mesh.seen[methods.STREAM_INFER.path][0].remaining_s
    assert remaining_s is None or remaining_s > 10**6 if expected is None else 3 < remaining_s < 9.5
