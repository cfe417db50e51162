"""REST: JSON and binary tensors, errors for people, limits, compression."""

from __future__ import annotations

import asyncio
import gzip
import json
import math
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import numpy as np
import orjson
import pytest
import tritonclient.http as triton
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace_common.errors import DeadlineExceeded, EngineFailed, QueueFull, QuotaExceeded, Unavailable
from headrace_router.domain import RevisionEntry
from headrace_router.oip.caller import Caller
from headrace_router.oip.datatypes import DATATYPES
from headrace_router.oip.http import preferred_encoding, read_body
from headrace_router.oip.json_decode import JsonDecoder
from headrace_router.oip.rest import RestApp
from headrace_router.oip.signature import Signature

INFER = "/v2/models/add/infer"
LENGTH = "Inference-Header-Content-Length"
NUMERIC = {name: one.dtype for name, one in DATATYPES.items() if one.dtype is not None}
IN_JSON = sorted(set(NUMERIC) - {"FP16"})


@pytest.fixture
async def client(rest: RestApp) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(rest), base_url="http://mesh") as client:
        yield client


def add_document(**more: Any) -> dict[str, Any]:
    return {
        "inputs": [
            {"name": "a", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]},
            {"name": "b", "datatype": "FP32", "shape": [1, 3], "data": [[4, 5.5, 6]]},
        ],
        **more,
    }


async def refused(client: httpx.AsyncClient, content: Any, status: int = 400, **more: Any) -> str:
    """The message of a refusal; the next request works."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    reply = await client.post(more.pop("path", INFER), content=body, **more)
    assert (reply.status_code, list(reply.json())) == (status, ["error"])
    assert (await client.post(INFER, json=add_document())).status_code == 200
    message: str = reply.json()["error"]
    assert len(message) < 500
    return message


@pytest.mark.parametrize(
    ("path", "said"),
    [
        pytest.param("/v2/health/live", {"live": True}, id="live"),
        pytest.param("/v2/health/ready", {"ready": True}, id="ready"),
        pytest.param("/v2/models/add/ready", {"name": "add", "ready": True}, id="model ready"),
        pytest.param("/v2/models/add/versions/1/ready", {"name": "add", "ready": True}, id="version ready"),
        pytest.param(
            "/v2/models/fixed/",
            {
                "name": "fixed",
                "versions": ["1"],
                "platform": "onnxruntime",
                "inputs": [{"name": "x", "datatype": "INT64", "shape": [2, -1]}],
                "outputs": [{"name": "y", "datatype": "INT64", "shape": [2, -1]}],
            },
            id="metadata",
        ),
    ],
)
async def test_what_can_be_asked(path: str, said: dict[str, Any], client: httpx.AsyncClient) -> None:
    reply = await client.get(path)
    assert (reply.status_code, reply.json()) == (200, said)
    assert reply.headers["content-type"] == "application/json"


async def test_config_and_statistics_are_numbers_not_strings(client: httpx.AsyncClient, plane: Any) -> None:
    plane.counted.requests, plane.counted.rows, plane.counted.request_ns = 2, 1 << 40, 7
    config = (await client.get("/v2/models/add/versions/1/config")).json()
    assert (config["name"], config["max_batch_size"], config["backend"]) == ("add", 8, "onnxruntime")
    assert (config["input"][0]["dims"], config["input"][0]["data_type"]) == ([3], "TYPE_FP32")
    for path in ("/v2/models/add/stats", "/v2/models/add/versions/1/stats"):
        (stats,) = (await client.get(path)).json()["model_stats"]
        assert (stats["inference_count"], stats["inference_stats"]["success"]) == (1 << 40, {"count": 2, "ns": 7})
    assert len((await client.get("/v2/models/stats")).json()["model_stats"]) > 2
    server = (await client.get("/v2")).json()
    assert (server["name"], "binary_tensor_data" in server["extensions"]) == ("headrace", True)


async def test_index_lists_what_the_caller_may_call(
    client: httpx.AsyncClient, catalogue: Any, make_add_entry: Callable[..., RevisionEntry]
) -> None:
    catalogue.entries = [make_add_entry("blocked", blocked_reason="no room"), make_add_entry("fine")]
    blocked = {"name": "blocked", "version": "1", "state": "UNAVAILABLE", "reason": "no room"}
    fine = {"name": "fine", "version": "1", "state": "READY", "reason": ""}
    assert (await client.post("/v2/repository/index")).json() == [blocked, fine]
    assert (await client.post("/v2/repository/index", json={"ready": True})).json() == [fine]
    assert (await client.post("/v2/repository/index", json={"ready": 1})).status_code == 400


async def test_what_is_not_ready_is_503(
    client: httpx.AsyncClient, catalogue: Any, make_add_entry: Callable[..., RevisionEntry]
) -> None:
    catalogue.ready = False
    catalogue.entries = [make_add_entry("loading", loading=True), make_add_entry("blocked", blocked_reason="no room")]
    for path in ("/v2/health/ready", "/v2/models/loading/ready", "/v2/models/blocked/ready"):
        reply = await client.get(path)
        assert (reply.status_code, reply.json()["ready"]) == (503, False)
    assert (await client.get("/v2/models/unknown/ready")).status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/nothing", 404),
        ("GET", "/v3", 404),
        ("GET", "/v2/models", 404),
        ("GET", "/v2/models/add/versions", 404),
        ("POST", "/v2/models/add/versions/1/infer/more", 404),
        ("GET", "/v2/models/nope", 404),
        ("GET", "/v2/models/add/versions/9", 404),
        ("POST", "/v2/repository/models/nope/load", 404),
        ("POST", "/v2/repository/models/private/load", 403),
        ("POST", "/v2/repository/models/nope/unload", 404),
        ("POST", "/v2/repository/models/add/unload", 501),
    ],
)
async def test_paths_that_do_not_exist(method: str, path: str, status: int, client: httpx.AsyncClient) -> None:
    reply = await client.request(method, path)
    assert (reply.status_code, list(reply.json())) == (status, ["error"])


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", INFER, "POST"),
        ("POST", "/v2", "GET"),
        ("PUT", "/v2/models/add", "GET"),
        ("GET", "/v2/repository/index", "POST"),
    ],
)
async def test_wrong_methods_say_the_right_one(method: str, path: str, allowed: str, client: httpx.AsyncClient) -> None:
    reply = await client.request(method, path)
    assert (reply.status_code, reply.headers["allow"], allowed in reply.json()["error"]) == (405, allowed, True)


@pytest.mark.parametrize("body", [b"", b"{}", b'{"parameters": {}}'])
async def test_what_is_deployed_is_loaded(client: httpx.AsyncClient, body: bytes) -> None:
    reply = await client.post("/v2/repository/models/add/load", content=body)
    assert (reply.status_code, reply.json()) == (200, {})


@pytest.mark.parametrize(
    ("body", "says"),
    [({"parameters": {"config": "{}"}}, "config"), ({"parameters": []}, "parameters"), ([], "array")],
)
async def test_loading_takes_no_parameters(client: httpx.AsyncClient, body: Any, says: str) -> None:
    reply = await client.post("/v2/repository/models/add/load", json=body)
    assert reply.status_code == 400
    assert says in reply.json()["error"]


async def test_a_body_that_stops_coming_is_given_up() -> None:
    events = [{"type": "http.request", "body": b"{", "more_body": True}]

    async def receive() -> Any:
        return events.pop() if events else await asyncio.Event().wait()

    with pytest.raises(DeadlineExceeded, match=r"0\.01 s"):
        await read_body({}, receive, 100, stalled_s=0.01)


async def test_json_in_json_out(client: httpx.AsyncClient) -> None:
    reply = await client.post(INFER, json=add_document(id="é", outputs=[{"name": "sum"}]))
    assert reply.json() == {
        "model_name": "add",
        "model_version": "1",
        "id": "é",
        "outputs": [{"name": "sum", "datatype": "FP32", "shape": [1, 3], "data": [5.0, 7.5, 9.0]}],
    }
    nulls = add_document(id=None, outputs=None, parameters=None)
    assert len((await client.post("/v2/models/add/versions/1/infer", json=nulls)).json()["outputs"]) == 2


def triton_input(name: str, array: np.ndarray[Any, Any], datatype: str, binary: bool) -> Any:
    made = triton.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array, binary_data=binary)
    return made


async def triton_echo(client: httpx.AsyncClient, datatype: str, array: np.ndarray[Any, Any], binary: bool) -> Any:
    """What tritonclient reads from our answer to what it wrote."""
    inputs = [triton_input("x", array, datatype, binary)]
    outputs = [triton.InferRequestedOutput("y", binary_data=binary)]
    body, length = triton.InferenceServerClient.generate_request_body(inputs, outputs=outputs)
    headers = {LENGTH: str(length)} if length else {}
    reply = await client.post(f"/v2/models/echo-{datatype}/infer", content=body, headers=headers)
    assert reply.status_code == 200, reply.text
    said = reply.headers.get(LENGTH)
    return triton.InferenceServerClient.parse_response_body(
        reply.content, header_length=int(said) if said else None
    ).as_numpy("y")


@pytest.mark.parametrize("datatype", sorted(NUMERIC))
async def test_every_datatype_comes_back_in_binary_form(datatype: str, client: httpx.AsyncClient) -> None:
    array = np.array([[0, 1], [1, 0], [1, 1]]).astype(NUMERIC[datatype])
    assert np.array_equal(await triton_echo(client, datatype, array, binary=True), array)


@pytest.mark.parametrize("datatype", IN_JSON)
async def test_every_datatype_comes_back_in_json(datatype: str, client: httpx.AsyncClient) -> None:
    dtype = NUMERIC[datatype]
    limits: Any = np.iinfo(str(dtype)) if dtype.kind in "iu" else None
    array = np.array([[limits.min, limits.max]], dtype) if limits else np.array([[0, 1]], dtype)
    assert np.array_equal(await triton_echo(client, datatype, array, binary=False), array)


@pytest.mark.parametrize("binary", [False, True])
async def test_bytes_come_back(binary: bool, client: httpx.AsyncClient) -> None:
    array = np.array([["", "é\n"]], dtype=np.object_)
    got = (await triton_echo(client, "BYTES", array, binary)).ravel().tolist()
    assert [one if isinstance(one, str) else one.decode() for one in got] == ["", "é\n"]


async def test_bf16_travels_in_binary_form_only(client: httpx.AsyncClient) -> None:
    header = {
        "inputs": [{"name": "x", "datatype": "BF16", "shape": [1, 2], "parameters": {"binary_data_size": 4}}],
        "parameters": {"binary_data_output": True},
    }
    text = json.dumps(header).encode()
    reply = await client.post("/v2/models/echo-BF16/infer", content=text + b"abcd", headers={LENGTH: str(len(text))})
    assert reply.content[int(reply.headers[LENGTH]) :] == b"abcd"
    assert reply.headers["content-type"] == "application/octet-stream"
    del header["parameters"]
    text = json.dumps(header).encode()
    said = await refused(client, text + b"abcd", headers={LENGTH: str(len(text))}, path="/v2/models/echo-BF16/infer")
    assert "output 'y': BF16 cannot be sent in JSON" in said


async def test_outputs_mix_json_and_binary(client: httpx.AsyncClient) -> None:
    asked = [{"name": "difference"}, {"name": "sum", "parameters": {"binary_data": False}}]
    reply = await client.post(INFER, json=add_document(outputs=asked, parameters={"binary_data_output": True}))
    length = int(reply.headers[LENGTH])
    difference, total = json.loads(reply.content[:length])["outputs"]
    assert (difference["parameters"], "data" in difference, total["data"]) == (
        {"binary_data_size": 12},
        False,
        [5.0, 7.5, 9.0],
    )
    assert np.frombuffer(reply.content[length:], "<f4").tolist() == [-3.0, -3.5, -3.0]


def with_input(**change: Any) -> dict[str, Any]:
    document = add_document()
    document["inputs"][0] = {**document["inputs"][0], **change}
    document["inputs"][0] = {key: value for key, value in document["inputs"][0].items() if value != "absent"}
    return document


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param(b"", "not JSON", id="an empty body"),
        pytest.param(b'{"inputs": [', "line 1 column 13", id="JSON that is cut off"),
        pytest.param(b'{"inputs": [NaN]}', "JSON has no NaN or Infinity", id="NaN"),
        pytest.param(b'{"inputs": [-Infinity]}', "JSON has no NaN or Infinity", id="infinity"),
        pytest.param(b'{"inputs": ' + b"[" * 5000 + b"]" * 5000 + b"}", "depth limit", id="deep nesting"),
        pytest.param(b'{"id": "\xff"}', "UTF-8", id="a string that is not UTF-8"),
        pytest.param([], "is a JSON object; got an array", id="an array"),
        pytest.param({}, "'inputs' is missing", id="no inputs"),
        pytest.param({"inputs": {}}, "'inputs' is an array; got an object", id="inputs as an object"),
        pytest.param({"inputs": [1]}, "inputs[0] is an object; got an integer", id="an input as a number"),
        pytest.param({"inputs": []}, "input 'a' of model 'add' is missing", id="an input is missing"),
        pytest.param(add_document(id=7), "'id' is a string; got an integer", id="an id as a number"),
        pytest.param(add_document(parameters=[]), "'parameters' is an object", id="parameters as an array"),
        pytest.param(add_document(outputs=[{}]), "outputs[0]: 'name' is missing", id="an output without a name"),
        pytest.param(add_document(outputs=[{"name": "z"}]), "output 'z'", id="an unknown output"),
        pytest.param(
            add_document(outputs=[{"name": "sum", "parameters": {"classification": 3}}]),
            "'classification'",
            id="classes",
        ),
        pytest.param(
            add_document(parameters={"binary_data_output": "yes"}), "'binary_data_output' is true or false", id="a flag"
        ),
        pytest.param(add_document(parameters={"sequence_id": 4}), "not stateful", id="a sequence"),
        pytest.param(add_document(parameters={"timeout": 1.5}), "'timeout' is a whole number", id="a broken timeout"),
        pytest.param(add_document(parameters={"timeout": [[]]}), "got an array", id="a timeout as an array"),
        pytest.param(with_input(name="z"), "input 'z' of model 'add': there is no such input", id="unknown input"),
        pytest.param(with_input(name="b"), "input 'b' of model 'add' is given more than once", id="twice"),
        pytest.param(with_input(name="n" * 9000), "no such input", id="a name without end"),
        pytest.param(with_input(datatype="FP64"), "expected datatype FP32; got 'FP64'", id="wrong datatype"),
        pytest.param(with_input(datatype="absent"), "'datatype' is missing", id="no datatype"),
        pytest.param(with_input(shape=[1, 4]), "expected shape [-1, 3]", id="wrong shape"),
        pytest.param(with_input(shape=[9, 3]), "1 to 8 rows; got 9", id="a batch over the maximum"),
        pytest.param(with_input(shape=[1.0, 3]), "'shape' is an array of integers", id="a shape of floats"),
        pytest.param(with_input(shape=[True, 3]), "'shape' is an array of integers", id="a shape of truths"),
        pytest.param(with_input(shape=[-1, 3]), "cannot be negative", id="negative dimension"),
        pytest.param(with_input(data="absent"), "input 'a' of model 'add': 'data' is missing", id="no data"),
        pytest.param(with_input(data=3), "'data' is an array; got an integer", id="data as a number"),
        pytest.param(with_input(data=[1, 2]), "3 elements; got 2 in 'data'", id="too few elements"),
        pytest.param(with_input(data=[[1, 2], [3]]), "depth 0 has 1 elements; got one of 2", id="ragged at the top"),
        pytest.param(with_input(data=[[1, 2]]), "depth 1 has 3 elements; got one of 2", id="ragged inside"),
        pytest.param(with_input(data=[[1, [2], 3]]), "element 1 is an array", id="nested too deep"),
        pytest.param(with_input(data=[1, [2], 3]), "depth 0", id="flat and nested"),
        pytest.param(with_input(data=[1, "2", 3]), "holds numbers; element 1 is '2'", id="text among numbers"),
        pytest.param(with_input(data=[1, None, 3]), "element 1 is None", id="null among numbers"),
        pytest.param(with_input(data=[1, {"a": 1}, 3]), "element 1 is an object", id="an object among numbers"),
        pytest.param(with_input(data=[1, 2, 1e300]), "element 2, 1e+300, is out of the range of FP32", id="range"),
        pytest.param(with_input(parameters={"shared_memory_region": "r"}), "shared memory", id="shared memory"),
        pytest.param(with_input(parameters={"binary_data_size": 12}), "both 'data' and", id="data twice"),
        pytest.param(
            with_input(parameters={"binary_data_size": 12}, data="absent"), "0 bytes are left", id="no binary part"
        ),
        pytest.param(
            with_input(parameters={"binary_data_size": "12"}, data="absent"), "is a number of bytes", id="size as text"
        ),
        pytest.param(b'{"id": "a", "i\\u0064": "b", "inputs": []}', "is missing", id="two errors: one is told"),
    ],
)
async def test_what_is_wrong_is_said(content: Any, said: str, client: httpx.AsyncClient) -> None:
    assert said in await refused(client, content)


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda text: text.replace("{", '{"id": "1", "id": "2", ', 1), id="in the request"),
        pytest.param(lambda text: text.replace("{", '{"id": "1", "\\u0069d" : "2", ', 1), id="spelt otherwise"),
        pytest.param(lambda text: text.replace('"data"', '"data": [{"q": 1}], "data"', 1), id="data of an input"),
        pytest.param(lambda text: text.replace('"name"', '"name": "z", "name"', 1), id="name of an input"),
        pytest.param(lambda text: text.replace("{", '{"parameters": {"x": 1, "x": 2}, ', 1), id="in parameters"),
        pytest.param(
            lambda text: text.replace("{", '{"more": [{"x": {"y": 1, "y": 1}}], ', 1),
            id="in a member that means nothing",
        ),
    ],
)
async def test_keys_that_are_there_twice(spoil: Callable[[str], str], client: httpx.AsyncClient) -> None:
    said = await refused(client, spoil(json.dumps(add_document())).encode())
    assert "a key more than once: '" in said


async def test_strings_that_look_like_keys_are_none(client: httpx.AsyncClient) -> None:
    tricky = ['"a": 1, "a": 2', '\\": "']
    document = {"inputs": [{"name": "x", "datatype": "BYTES", "shape": [1, 2], "data": tricky}], "more": {"inputs": {}}}
    reply = await client.post("/v2/models/echo-BYTES/infer", json=document)
    assert reply.json()["outputs"][0]["data"] == tricky


@pytest.mark.parametrize(
    ("datatype", "data", "said"),
    [
        ("INT8", [1, 128], "INT8 holds -128 to 127; element 1 is 128"),
        ("UINT64", [-1, 0], "UINT64 holds 0 to 18446744073709551615; element 0 is -1"),
        ("UINT64", [0, 1 << 64], "holds integers; element 1 is 1.8446744073709552e+19"),
        ("INT32", [1, 1.0], "holds integers; element 1 is 1.0"),
        ("INT32", [True, 1], "holds integers; element 0 is True"),
        ("BOOL", [True, 1], "holds true or false; element 1 is 1"),
        ("BYTES", ["a", 1], "holds strings; element 1 is 1"),
        ("FP16", [1, 2], "FP16 cannot be sent in JSON; send it in binary form"),
        ("BF16", [1, 2], "BF16 cannot be sent in JSON; send it in binary form"),
    ],
)
async def test_values_must_fit_their_datatype(
    datatype: str, data: list[Any], said: str, client: httpx.AsyncClient
) -> None:
    document = {"inputs": [{"name": "x", "datatype": datatype, "shape": [1, 2], "data": data}]}
    assert said in await refused(client, document, path=f"/v2/models/echo-{datatype}/infer")


@pytest.mark.parametrize(
    ("tail", "length", "said"),
    [
        pytest.param(b"x" * 24, "0", "1 to", id="a header of no bytes"),
        pytest.param(b"x" * 24, "999999", "got 999999", id="a header longer than the body"),
        pytest.param(b"x" * 24, "ten", "a number of bytes; got 'ten'", id="a length in words"),
        pytest.param(b"x" * 24, "-5", "a number of bytes", id="a negative length"),
        pytest.param(b"x" * 20, "right", "input 'b' of model 'add': 'binary_data_size' is 12, but 8", id="cut off"),
        pytest.param(b"x" * 30, "right", "30 bytes follow the JSON", id="too many bytes"),
        pytest.param(b"x" * 24, "absent", "not JSON", id="no length"),
    ],
)
async def test_binary_parts_must_add_up(tail: bytes, length: str, said: str, client: httpx.AsyncClient) -> None:
    inputs = [
        {"name": name, "datatype": "FP32", "shape": [1, 3], "parameters": {"binary_data_size": 12}} for name in "ab"
    ]
    text = json.dumps({"inputs": inputs}).encode()
    headers = {} if length == "absent" else {LENGTH: str(len(text)) if length == "right" else length}
    assert said in await refused(client, text + tail, headers=headers)


async def test_binary_size_must_be_that_of_the_shape(client: httpx.AsyncClient) -> None:
    inputs = [
        {"name": name, "datatype": "FP32", "shape": [1, 3], "parameters": {"binary_data_size": 8}} for name in "ab"
    ]
    text = json.dumps({"inputs": inputs}).encode()
    said = await refused(client, text + bytes(16), headers={LENGTH: str(len(text))})
    assert "input 'a' of model 'add': FP32 of shape [1, 3] takes 12 bytes; got 8" in said


@pytest.mark.parametrize(
    ("answer", "model", "said"),
    [
        (np.array([1, math.nan, 2], "<f4").tobytes(), "add", "'sum' holds NaN or infinity"),
        (np.array([1, math.inf, 2], "<f4").tobytes(), "add", "'sum' holds NaN or infinity"),
        (b"\1\0\0\0\xff\0\0\0\0", "echo-BYTES", "'y' holds bytes that are not UTF-8"),
    ],
)
async def test_answers_that_json_cannot_carry_say_what_to_do(
    answer: bytes, model: str, said: str, client: httpx.AsyncClient, plane: Any
) -> None:
    plane.answer = answer
    document = add_document()
    if model != "add":
        document = {"inputs": [{"name": "x", "datatype": "BYTES", "shape": [1, 2], "data": ["", ""]}]}
    reply = await client.post(f"/v2/models/{model}/infer", json=document)
    assert (reply.status_code, said in reply.json()["error"], "'binary_data': true" in reply.json()["error"]) == (
        501,
        True,
        True,
    )
    reply = await client.post(
        f"/v2/models/{model}/infer", json={**document, "parameters": {"binary_data_output": True}}
    )
    assert reply.content.endswith(answer)


@pytest.mark.parametrize(
    ("error", "status", "retry"),
    [
        (QuotaExceeded("slow", subject="tenant:a", dimension="rate", retry_after_s=1.5), 429, "2"),
        (QueueFull("full", retry_after_s=0.1), 503, "1"),
        (Unavailable("no room"), 503, None),
        (EngineFailed("secret"), 500, None),
        (ValueError("secret"), 500, None),
    ],
)
async def test_errors_of_the_plane_have_their_status(
    error: Exception, status: int, retry: str | None, client: httpx.AsyncClient, plane: Any
) -> None:
    plane.error = error
    reply = await client.post(INFER, json=add_document())
    assert (reply.status_code, reply.headers.get("retry-after")) == (status, retry)
    assert "secret" not in reply.json()["error"]


async def test_headers_tell_who_calls_and_until_when(client: httpx.AsyncClient, plane: Any, clock: Any) -> None:
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    headers = {"x-headrace-tenant": "acme", "traceparent": trace, "headrace-timeout-ms": "250"}
    await client.post(INFER, json=add_document(parameters={"timeout": 900_000}), headers=headers)
    request = plane.requests[-1]
    assert (request.tenant, request.traceparent) == ("acme", trace)
    assert request.deadline == pytest.approx(clock.monotonic() + 0.247)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"x-headrace-tenant": "no such name!"}, 401),
        ({"x-headrace-tenant": ""}, 401),
        ({"headrace-timeout-ms": "0"}, 400),
        ({"headrace-timeout-ms": "-1"}, 400),
        ({"headrace-timeout-ms": "1.5"}, 400),
        ({"headrace-timeout-ms": "9" * 30}, 400),
        ({"content-encoding": "br"}, 501),
        ({"content-encoding": "gzip"}, 400),
    ],
)
async def test_headers_that_are_wrong(headers: dict[str, str], status: int, client: httpx.AsyncClient) -> None:
    await refused(client, add_document(), status, headers=headers)


async def test_not_yours_is_403(client: httpx.AsyncClient) -> None:
    assert "not shared" in await refused(client, add_document(), 403, path="/v2/models/private/infer")


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
async def test_bodies_are_compressed_both_ways(
    encoding: str, pack: Callable[[bytes], bytes], client: httpx.AsyncClient
) -> None:
    data = [0] * 16
    document = {"inputs": [{"name": "x", "datatype": "INT64", "shape": [2, 8], "data": data}], "id": "i" * 2000}
    headers = {"content-encoding": encoding, "accept-encoding": encoding}
    reply = await client.post("/v2/models/fixed/infer", content=pack(json.dumps(document).encode()), headers=headers)
    assert reply.headers["content-encoding"] == encoding
    assert reply.json()["outputs"][0]["data"] == data
    plain = await client.post("/v2/models/fixed/infer", json=document, headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers


async def test_bodies_over_the_limit_are_refused(client: httpx.AsyncClient) -> None:
    large = b" " * (2 << 20)
    assert "1048576 bytes" in await refused(client, large, 413)
    assert "1048576 bytes" in await refused(client, gzip.compress(large), 413, headers={"content-encoding": "gzip"})


@pytest.mark.parametrize(
    ("accepted", "chosen"),
    [
        ("", ""),
        ("gzip", "gzip"),
        ("br, Deflate;q=0.5, gzip", "deflate"),
        ("gzip;q=0, deflate", "deflate"),
        ("gzip; q=0.0", ""),
        ("identity", ""),
        ("gzip;q=1.0", "gzip"),
    ],
)
def test_encoding_is_one_that_the_client_accepts(accepted: str, chosen: str) -> None:
    assert preferred_encoding(accepted) == chosen


Message = dict[str, Any]


def http_scope(path: str = INFER) -> Message:
    return {"type": "http", "method": "POST", "path": path, "headers": []}


async def call(app: RestApp, messages: list[Message], last: Callable[[], Any]) -> list[Message]:
    """Calls the application; after `messages`, `receive` does as `last` does."""
    sent: list[Message] = []
    left = list(messages)

    async def receive() -> Message:
        return left.pop(0) if left else await last()

    async def send(message: Any) -> None:
        sent.append(message)

    await app(http_scope(), receive, send)
    return sent


def chunks(body: bytes, size: int) -> list[Message]:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return [
        {"type": "http.request", "body": part, "more_body": index < len(parts) - 1} for index, part in enumerate(parts)
    ]


async def never() -> Message:
    await asyncio.Event().wait()
    raise AssertionError


async def gone() -> Message:
    return {"type": "http.disconnect"}


async def test_bodies_come_in_pieces(rest: RestApp) -> None:
    start, end = await call(rest, chunks(orjson.dumps(add_document()), 7), never)
    assert (start["status"], orjson.loads(end["body"])["outputs"][0]["data"]) == (200, [5.0, 7.5, 9.0])


async def test_pieces_without_end_are_cut_at_the_limit(rest: RestApp) -> None:
    async def more() -> Message:
        return {"type": "http.request", "body": b" " * 65536, "more_body": True}

    assert (await call(rest, [], more))[0]["status"] == 413


async def test_client_that_leaves_before_its_body_is_no_failure(rest: RestApp, plane: Any) -> None:
    start, _ = await call(rest, chunks(orjson.dumps(add_document()), 7)[:3], gone)
    assert (start["status"], plane.requests) == (499, [])


@pytest.mark.parametrize("polls", [0, 3], ids=["a host that waits", "a host that answers at once"])
async def test_client_that_leaves_withdraws_its_request(polls: int, rest: RestApp, plane: Any) -> None:
    plane.hold = {1.0: asyncio.Event()}
    idle: list[Message] = [{"type": "http.request", "body": b"", "more_body": False}] * polls

    async def leaves() -> Message:
        await plane.held.wait()
        return {"type": "http.disconnect"}

    async with asyncio.timeout(10):
        start, _ = await call(rest, [*chunks(orjson.dumps(add_document()), 4096), *idle], leaves)
    assert (start["status"], plane.withdrawn.is_set()) == (499, True)


async def test_client_that_cannot_be_told_is_no_failure(rest: RestApp, plane: Any) -> None:
    async def receive() -> Message:
        return {"type": "http.request", "body": orjson.dumps(add_document()), "more_body": False}

    async def send(_message: Any) -> None:
        raise OSError("the stream is closed")

    await rest(http_scope(), receive, send)
    assert len(plane.requests) == 1


async def test_answer_does_not_wait_for_the_disconnect(rest: RestApp, plane: Any) -> None:
    plane.hold = {1.0: asyncio.Event()}
    looked = asyncio.Event()

    async def blocks() -> Message:
        looked.set()
        return await never()

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        answered = group.create_task(call(rest, chunks(orjson.dumps(add_document()), 4096), blocks))
        await looked.wait()
        plane.hold[1.0].set()
    assert answered.result()[0]["status"] == 200


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=6,
)
members = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["a", "b", "bias", "sum"]) | json_values,
        "datatype": st.just("FP32") | json_values,
        "shape": st.sampled_from([[1, 3], [2, 3], [1, 1]]) | json_values,
        "data": st.sampled_from([[1, 2, 3], [[1, 2, 3]], [[1]]]) | json_values,
        "parameters": st.just({"binary_data_size": 12}) | json_values,
    },
)
documents = st.fixed_dictionaries(
    {},
    optional={
        "inputs": st.lists(members, max_size=3) | json_values,
        "outputs": st.lists(members, max_size=2) | json_values,
        "parameters": st.dictionaries(st.sampled_from(["timeout", "priority", "x"]), json_values) | json_values,
        "id": json_values,
    },
)


@given(
    body=st.binary(max_size=100) | (documents | json_values).map(lambda value: json.dumps(value).encode()),
    split=st.booleans(),
)
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
async def test_no_body_is_a_failure_of_ours(body: bytes, split: bool, rest: RestApp) -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(LENGTH.lower().encode(), str(len(body) // 2).encode())] if split else []
    await rest({**http_scope(), "headers": headers}, receive, send)
    assert sent[0]["status"] in (200, 400)


async def said(app: RestApp, body: bytes) -> tuple[int, Any]:
    request = {"type": "http.request", "body": body, "more_body": False}
    start, end = await call(app, [request], never)
    return start["status"], orjson.loads(end["body"])


right_members = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["a", "b"]),
        "datatype": st.sampled_from(["FP32", "FP32", "FP32", "INT8"]),
        "shape": st.sampled_from([[1, 3], [1, 3], [2, 3]]),
        "data": st.sampled_from([[1, 2, 3], [[1, 2.5, 3]], [1, 2], [1, True, 2], [1e39, 0, 0], None, "x"]),
    }
)
right_documents = st.fixed_dictionaries(
    {"inputs": st.lists(right_members, min_size=2, max_size=2, unique_by=lambda one: one["name"])},
    optional={"id": st.sampled_from(["", "a:b", ":", None, 7]), "outputs": st.just([{"name": "sum"}])},
)
spoilt = st.sampled_from(['"name":', '"id":', '"x" : 1, "x" : 2, "name":', '"parameters": {"k": 1, "k": 1}, "name":'])


@given(
    asked=st.lists(st.tuples(right_documents | documents, st.none() | spoilt, st.booleans()), min_size=2, max_size=5)
)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_what_is_remembered_changes_no_answer(
    asked: list[tuple[Any, str | None, bool]], rest: RestApp, make_rest: Callable[[], RestApp]
) -> None:
    for document, spoil, again in asked:
        text = json.dumps(document)
        body = (text if spoil is None else text.replace('"name":', spoil, 1)).encode()
        for _ in range(2 if again else 1):
            assert await said(rest, body) == await said(make_rest(), body)


async def test_a_new_revision_checks_anew_what_is_remembered(
    client: httpx.AsyncClient, catalogue: Any, make_add_entry: Callable[..., RevisionEntry]
) -> None:
    rows = [[1, 2, 3]] * 4
    inputs = [{"name": name, "datatype": "FP32", "shape": [4, 3], "data": rows} for name in ("a", "b")]
    for _ in range(2):
        assert (await client.post(INFER, json={"inputs": inputs})).status_code == 200
    catalogue.entries[0] = make_add_entry(max_batch_size=2)
    reply = await client.post(INFER, json={"inputs": inputs})
    assert "1 to 2 rows; got 4" in reply.json()["error"]


async def test_memory_of_documents_is_bounded(catalogue: Any) -> None:
    decoder = JsonDecoder(capacity=2)
    signature = Signature(catalogue.entries[0])
    for number in (1, 2, 3, 1, 2, 3):
        body = json.dumps(add_document(id=f"r{number}", parameters={"timeout": number * 1_000_000}))
        asked = decoder.decode(body.encode(), None, signature, Caller("default"), 0.0)
        assert (asked.request_id, asked.request.deadline) == (f"r{number}", number)


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
async def test_json_numbers_come_back_exactly(data: st.DataObject, rest: RestApp) -> None:
    datatype = data.draw(st.sampled_from(IN_JSON))
    dtype = NUMERIC[datatype]
    raw = data.draw(st.binary(min_size=2 * dtype.itemsize, max_size=2 * dtype.itemsize))
    array = np.frombuffer(bytes(byte & 1 for byte in raw) if datatype == "BOOL" else raw, dtype).reshape(1, 2)
    if dtype.kind == "f":
        array = np.nan_to_num(array, posinf=1, neginf=-1)
    transport = httpx.ASGITransport(rest)
    async with httpx.AsyncClient(transport=transport, base_url="http://mesh") as client:
        assert (await triton_echo(client, datatype, array, binary=False)).tobytes() == array.tobytes()
