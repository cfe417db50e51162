"""headrace.v1 as JSON: what reaches the autoscaler, what comes back, what is refused and how."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from google.protobuf import json_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.v1 import models_pb2
from headrace_router.api import ApiApp

WITHIN_S = 10


@pytest.mark.parametrize(
    ("verb", "path", "body", "expected"),
    [
        pytest.param("GET", "/v1/models/ocr", None, {"name": "ocr"}, id="field in the path"),
        pytest.param("GET", "/v1/models/a%2Fb", None, {"name": "a/b"}, id="escaped slash is part of a name"),
        pytest.param("GET", "/v1/models?tenant=a%20b", None, {"tenant": "a b"}, id="query"),
        pytest.param("GET", "/v1/models?tenant=%C3%A9", None, {"tenant": "é"}, id="UTF-8 in the query"),
        pytest.param("GET", "/v1/logs?tail=3&follow=false", None, {"tail": 3}, id="number and boolean"),
        pytest.param(
            "GET", "/v1/usage?since=2026-01-01T00:00:00Z", None, {"since": "2026-01-01T00:00:00Z"}, id="timestamp"
        ),
        pytest.param("DELETE", "/v1/tenants/a", None, {"name": "a"}, id="delete"),
        pytest.param(
            "PUT",
            "/v1/tenants/a",
            {"weight": 2, "nominal": {"cpu": "2"}, "budget_action": "BUDGET_ACTION_QUEUE"},
            {"tenant": {"name": "a", "weight": 2, "nominal": {"cpu": "2"}, "budget_action": "BUDGET_ACTION_QUEUE"}},
            id="body is a field",
        ),
        pytest.param("PUT", "/v1/tenants/a", {"name": "a"}, {"tenant": {"name": "a"}}, id="body agrees with the path"),
        pytest.param(
            "PUT",
            "/v1/tenants/a",
            {"borrowingLimit": {"gpuMemory": "1Gi"}},
            {"tenant": {"name": "a", "borrowing_limit": {"gpu_memory": "1Gi"}}},
            id="lowerCamelCase",
        ),
        pytest.param(
            "POST",
            "/v1/models",
            {"model": {"name": "m", "idle_timeout": "5s", "shared_with": ["*"], "engine_options": {"a": "1"}}},
            {"model": {"name": "m", "idle_timeout": "5s", "shared_with": ["*"], "engine_options": {"a": "1"}}},
            id="body is the request",
        ),
    ],
)
async def test_requests_reach_the_autoscaler(
    client: httpx.AsyncClient, autoscaler: Any, verb: str, path: str, body: Any, expected: dict[str, Any]
) -> None:
    reply = await client.request(verb, path, content=None if body is None else json.dumps(body))
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"] == "application/json"
    assert json_format.MessageToDict(autoscaler.asked, preserving_proto_field_name=True) == expected


async def test_answers_have_proto_names_zeros_and_names_of_enums(client: httpx.AsyncClient, autoscaler: Any) -> None:
    row = (await client.get("/v1/usage")).json()["rows"][0]
    assert row["capacity_class"] == "CAPACITY_CLASS_SPOT"
    assert row["requests"] == str(2**60)
    assert row["cold_starts"] == "0"
    assert "hour" not in row


async def test_large_answers(client: httpx.AsyncClient, autoscaler: Any) -> None:
    reply = await client.get("/v1/models?tenant=large", headers={"accept-encoding": "gzip"})
    assert reply.headers["content-encoding"] == "gzip"
    assert len(reply.json()["models"]) == 2000


TENANT = "/v1/tenants/a"


@pytest.mark.parametrize(
    ("verb", "path", "body", "says"),
    [
        pytest.param("PUT", TENANT, '{"wieght":1}', "wieght", id="key that is none"),
        pytest.param("PUT", TENANT, '{"nominal":{"cpus":"1"}}', "tenant.nominal has no field 'cpus'", id="nested key"),
        pytest.param("PUT", TENANT, '{"tenant":{"weight":1}}', "'tenant'", id="the request where a field is wanted"),
        pytest.param("PUT", TENANT, '{"name":"b"}', "'a' in the path and 'b' in the body", id="contradiction"),
        pytest.param("PUT", TENANT, '{"weight":1,"weight":2}', "'weight' more than once", id="key twice"),
        pytest.param("PUT", TENANT, '{"budgetAction":1,"budget_action":1}', "two spellings", id="two spellings"),
        pytest.param("PUT", TENANT, '{"weight":NaN}', "NaN", id="NaN"),
        pytest.param("PUT", TENANT, '{"weight":', "line 1", id="not JSON"),
        pytest.param("PUT", TENANT, b'{"cohort":"\xff"}', "JSON", id="not UTF-8"),
        pytest.param("PUT", TENANT, '{"cohort":"\\ud800"}', "JSON", id="half a surrogate"),
        pytest.param("PUT", TENANT, "[" * 100_000, "JSON", id="too deep"),
        pytest.param("PUT", TENANT, "[]", "an array", id="an array"),
        pytest.param("PUT", TENANT, '{"nominal":5}', "tenant.nominal is a JSON object", id="number for an object"),
        pytest.param("PUT", TENANT, '{"weight":"x"}', "weight", id="text for a number"),
        pytest.param("PUT", TENANT, '{"budget_action":"NOPE"}', "budget_action", id="name of no enum"),
        pytest.param("PUT", TENANT, "", "no body", id="no body"),
        pytest.param("PUT", f"{TENANT}?cohort=x", "{}", "'cohort'", id="body's field in the query, by its own name"),
        pytest.param("PUT", f"{TENANT}?tenant.cohort=x", "{}", "belongs into the body", id="body's field in the query"),
        pytest.param("PUT", f"{TENANT}?tenant.name=a", "{}", "the path says", id="path's field in the query"),
        pytest.param("POST", "/v1/models", '{"model":{"idle_timeout":"5"}}', "idle_timeout", id="bad duration"),
        pytest.param("POST", "/v1/models", '{"model":{"engine_options":[]}}', "engine_options", id="array for a map"),
        pytest.param("POST", "/v1/models", '{"model":{"engine_options":{"a":1}}}', "engine_options", id="map's value"),
        pytest.param("POST", "/v1/models", '{"model":{"shared_with":"*"}}', "shared_with", id="text for an array"),
        pytest.param("POST", "/v1/models?wait=true", "{}", "belongs into the body", id="query where all is the body"),
        pytest.param("GET", "/v1/models?nope=1", "", "'nope' here; there are: tenant", id="parameter that is none"),
        pytest.param("GET", "/v1/models?tenant=a&tenant=b", "", "more than once", id="parameter twice"),
        pytest.param("GET", "/v1/logs?follow=yes", "", "follow", id="no boolean"),
        pytest.param("GET", "/v1/logs?tail=-1", "", "tail", id="number out of range"),
        pytest.param("GET", "/v1/usage?since=now", "", "since", id="no time"),
        pytest.param("GET", "/v1/usage?since.seconds=1", "", "since.seconds", id="inside of what is written as text"),
        pytest.param("GET", "/v1/models?tenant=%FF", "", "UTF-8", id="query that is not UTF-8"),
        pytest.param("GET", "/v1/models?" + "x=1&" * 300, "", "parameters", id="too many parameters"),
        pytest.param("GET", "/v1/models", "{}", "no body", id="body where there is none"),
    ],
)
async def test_what_is_wrong_is_named(
    client: httpx.AsyncClient, autoscaler: Any, verb: str, path: str, body: str | bytes, says: str
) -> None:
    reply = await client.request(verb, path, content=body)
    document = reply.json()
    assert (reply.status_code, document["code"], document["details"]) == (400, 3, [])
    assert says in document["message"]
    assert "\n" not in document["message"]
    assert autoscaler.asked is None


@pytest.mark.parametrize(
    ("verb", "path", "status", "allow"),
    [
        ("GET", "/v1", 404, None),
        ("GET", "/v1/nope", 404, None),
        ("GET", "/v1/models/", 404, None),
        ("GET", "/v1/models/a/b", 404, None),
        ("PATCH", "/v1/tenants/a", 405, "DELETE, GET, PUT"),
        ("DELETE", "/v1/models", 405, "GET, POST"),
        ("POST", "/v1/status", 405, "GET"),
    ],
)
async def test_paths_and_verbs_that_are_none(
    client: httpx.AsyncClient, verb: str, path: str, status: int, allow: str | None
) -> None:
    reply = await client.request(verb, path)
    assert (reply.status_code, reply.headers.get("allow")) == (status, allow)
    assert set(reply.json()) == {"code", "message", "details"}


async def test_errors_of_the_autoscaler(client: httpx.AsyncClient, autoscaler: Any) -> None:
    missing = await client.get("/v1/models/missing")
    assert missing.status_code == 404
    assert missing.json() == {"code": 5, "message": "there is no model 'missing'", "details": []}
    over = await client.get("/v1/models/over")
    assert (over.status_code, over.headers["retry-after"], over.json()["code"]) == (429, "2", 8)
    kinds = {detail["@type"].rpartition(".")[2] for detail in over.json()["details"]}
    assert kinds == {"QuotaFailure", "RetryInfo"}
    unserved = await client.get("/v1/status")
    assert (unserved.status_code, unserved.json()["code"]) == (501, 12)


async def test_body_that_is_too_large(client: httpx.AsyncClient) -> None:
    reply = await client.put(TENANT, content=b" " * (4 * 1024 * 1024 + 1))
    assert (reply.status_code, reply.json()["code"]) == (413, 8)


async def test_caller_trace_and_deadline_go_along(client: httpx.AsyncClient, autoscaler: Any) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    headers = {"x-headrace-tenant": "acme", "traceparent": trace, "headrace-timeout-ms": "5000", "cookie": "no"}
    assert (await client.get("/v1/models", headers=headers)).status_code == 200
    assert dict(autoscaler.metadata) == {"x-headrace-tenant": "acme", "traceparent": trace}
    assert 4 < autoscaler.time_left_s < 6
    assert (await client.get("/v1/models")).status_code == 200
    assert (autoscaler.metadata, autoscaler.time_left_s) == ([], None)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"x-headrace-tenant": "no tenant"}, 401),
        ({"headrace-timeout-ms": "soon"}, 400),
        ({"traceparent": b"\xe9"}, 400),
    ],
)
async def test_headers_that_are_wrong(client: httpx.AsyncClient, headers: Any, status: int) -> None:
    assert (await client.get("/v1/models", headers=headers)).status_code == status


async def test_deadline_that_passes(client: httpx.AsyncClient, autoscaler: Any) -> None:
    body = {"model": {"name": "m"}, "wait": True}
    reply = await client.post("/v1/models", json=body, headers={"headrace-timeout-ms": "50"})
    assert (reply.status_code, reply.json()["code"]) == (504, 4)
    async with asyncio.timeout(WITHIN_S):
        await autoscaler.cancelled.wait()


async def test_autoscaler_that_is_away(client: httpx.AsyncClient) -> None:
    away = await client.get("/v1/models")
    assert (away.status_code, away.json()["code"]) == (503, 14)
    assert "try again" in away.json()["message"]
    late = await client.get("/v1/models", headers={"headrace-timeout-ms": "20"})
    assert (late.status_code, late.json()["code"]) == (504, 4)


async def test_restart_of_the_autoscaler_is_bridged(target: str, start_autoscaler: Any, servicer_type: Any) -> None:
    app = ApiApp(models_pb2.DESCRIPTOR.services_by_name.values(), target, look_every_s=0.01, bridge_s=WITHIN_S)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://mesh") as client:
        waiting = asyncio.ensure_future(client.get("/v1/models/ocr"))
        server = await start_autoscaler(servicer_type(), target)
        assert (await waiting).status_code == 200
        await server.stop(0)
        waiting = asyncio.ensure_future(client.get("/v1/models/ocr"))
        server = await start_autoscaler(servicer_type(), target)
        assert (await waiting).status_code == 200
        await server.stop(0)
    await app.close()


DEPLOY = {"model": {"name": "m"}, "wait": True}


async def test_autoscaler_that_dies_in_the_middle(
    client: httpx.AsyncClient, start_autoscaler: Any, target: str, servicer_type: Any
) -> None:
    servicer = servicer_type()
    server = await start_autoscaler(servicer, target)
    waiting = asyncio.ensure_future(client.post("/v1/models", json=DEPLOY))
    await servicer.begun.wait()
    await server.stop(0)
    reply = await waiting
    assert (reply.status_code, reply.json()["code"]) == (503, 14)


async def test_router_that_stops_says_so(api: ApiApp, client: httpx.AsyncClient, autoscaler: Any) -> None:
    waiting = asyncio.ensure_future(client.post("/v1/models", json=DEPLOY))
    await autoscaler.begun.wait()
    await api.close()
    reply = await waiting
    assert (reply.status_code, reply.json()["code"]) == (503, 14)


@pytest.mark.parametrize("lines", [0, 1, 3])
async def test_stream_is_an_array(client: httpx.AsyncClient, autoscaler: Any, lines: int) -> None:
    reply = await client.get(f"/v1/logs?tail={lines}")
    assert (reply.status_code, reply.headers["content-type"]) == (200, "application/json")
    assert reply.json() == [{"line": str(number)} for number in range(lines)]
    assert reply.text.count("\n") == max(0, lines - 1), "an element a line"


async def test_stream_that_fails(client: httpx.AsyncClient, autoscaler: Any) -> None:
    at_once = await client.get("/v1/logs?model=missing")
    assert (at_once.status_code, at_once.json()["code"]) == (404, 5)
    later = (await client.get("/v1/logs?model=missing&tail=1")).json()
    assert later[0] == {"line": "0"}
    assert later[1]["error"]["code"] == 5


@pytest.mark.parametrize(
    ("verb", "path", "query", "body"),
    [
        pytest.param("GET", "/v1/logs", b"tail=2&follow=true", b"", id="stream"),
        pytest.param("POST", "/v1/models", b"", b'{"model":{"name":"m"},"wait":true}', id="unary"),
    ],
)
async def test_client_that_leaves_ends_the_call(
    api: ApiApp, autoscaler: Any, verb: str, path: str, query: bytes, body: bytes
) -> None:
    events = [{"type": "http.request", "body": body, "more_body": False}]
    sent: list[Any] = []

    async def receive() -> Any:
        if events:
            return events.pop()
        await autoscaler.begun.wait()
        return {"type": "http.disconnect"}

    async def send(event: Any) -> None:
        sent.append(event)

    scope = {"type": "http", "method": verb, "path": path, "raw_path": path.encode(), "headers": []}
    async with asyncio.timeout(WITHIN_S):
        await api({**scope, "query_string": query}, receive, send)
        await autoscaler.cancelled.wait()
    if query:
        assert [event.get("body") for event in sent[1:]] == [b'[{"line":"0"}', b',\n{"line":"1"}']


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "nominal", "cpu", "weight", "budget", "model", "idle_timeout", "engine_options"])
            | st.text(max_size=3),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(document=JSON, query=st.text(max_size=12))
async def test_whatever_comes_is_answered_or_refused(
    client: httpx.AsyncClient, autoscaler: Any, document: Any, query: str
) -> None:
    content = json.dumps(document).encode()
    assert (await client.put(TENANT, content=content)).status_code in (200, 400)
    document = {"model": document} if not isinstance(document, dict) else document
    autoscaler.asked = None
    reply = await client.post("/v1/models", content=json.dumps({**document, "wait": False}))
    assert reply.status_code in (200, 400), reply.text
    assert (autoscaler.asked is not None) == (reply.status_code == 200)
    assert (await client.get("/v1/models", params=query)).status_code in (200, 400)
