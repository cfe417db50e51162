"""Open Inference over REST: paths under /v2, as an ASGI application."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from headrace_common.clock import Clock
from headrace_common.config import RouterConfig
from headrace_common.errors import InvalidArgument, NotFound
from headrace_common.grpc_server import log_failure
from headrace_common.status import WireStatus
from headrace_router.oip import describe
from headrace_router.oip.caller import Caller, caller_of_headers
from headrace_router.oip.enquiries import Enquiries
from headrace_router.oip.http import (
    Receive,
    Reply,
    Scope,
    Send,
    compressed,
    headers_of,
    read_body,
    read_watched,
    send_reply,
)
from headrace_router.oip.json_decode import JsonDecoder
from headrace_router.oip.json_encode import encode_json
from headrace_router.oip.json_parse import check_keys, member, parse_object
from headrace_router.oip.plain import plain
from headrace_router.oip.routes import Route, find_route
from headrace_router.oip.signature import Signatures
from headrace_router.oip.watch import ClientWatch
from headrace_router.ports import Catalogue, DataPlane

HEADER_LENGTH_KEY = "inference-header-content-length"
_MAX_DIGITS = 18


class RestApp:
    """ASGI application for `http` scopes whose path begins with /v2.

    Args:
        limits: `max_request_bytes` bounds bodies, as sent and inflated; `sweep_period_s` is how often a
            request in hand looks whether its client is still there.
    """

    def __init__(self, catalogue: Catalogue, plane: DataPlane, clock: Clock, limits: RouterConfig) -> None:
        self._catalogue = catalogue
        self._plane = plane
        self._clock = clock
        self._max_bytes = limits.max_request_bytes
        self._watch = ClientWatch(limits.sweep_period_s)
        self._signatures = Signatures()
        self._decoder = JsonDecoder()
        self._enquiries = Enquiries(catalogue, plane)
        self._answers: dict[str, Callable[[Route, Caller], Reply]] = {
            "server": lambda _route, _caller: _json(plain(describe.server_metadata())),
            "live": lambda _route, _caller: _json({"live": True}),
            "server_ready": lambda _route, _caller: _ready(self._enquiries.server_ready()),
            "ready": self._model_ready,
            "metadata": self._metadata,
            "config": self._config,
            "stats": self._statistics,
            "unload": lambda route, caller: self._enquiries.unload(caller.tenant, route.model),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = headers_of(scope)
        try:
            reply = await self._answer(scope, headers, receive)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an answer and the log the rest
            reply = error_reply(log_failure(f"{scope['method']} {scope['path']}", error))
        await send_reply(send, compressed(reply, headers.get("accept-encoding", "")))

    async def _answer(self, scope: Scope, headers: dict[str, str], receive: Receive) -> Reply:
        route = find_route(scope["path"])
        if route is None:
            raise NotFound(f"there is no path {scope['path']!r:.200}")
        if scope["method"] != route.method:
            return _json(
                {"error": f"{scope['path']} takes {route.method}; got {scope['method']}"}, 405, allow=route.method
            )
        caller = caller_of_headers(headers)
        if route.call == "infer":
            return await self._infer(route, caller, headers, receive)
        if route.call == "index":
            return self._index(caller, await read_body(headers, receive, self._max_bytes))
        if route.call == "load":
            return self._load(route, caller, await read_body(headers, receive, self._max_bytes))
        return self._answers[route.call](route, caller)

    async def _infer(self, route: Route, caller: Caller, headers: dict[str, str], receive: Receive) -> Reply:
        arrived = self._clock.monotonic()
        async with self._watch.visit(receive) as visit:
            body = await read_watched(headers, visit.receive, self._max_bytes)
            entry = self._catalogue.resolve(caller.tenant, route.model, route.version)
            signature = self._signatures.of(entry)
            asked = self._decoder.decode(body, _header_length(headers), signature, caller, arrived)
            result = await self._plane.infer(asked.request)
        content, length = encode_json(entry, asked.request_id, result, asked.binary)
        if length is None:
            return Reply(200, content)
        return Reply(200, content, ((HEADER_LENGTH_KEY, str(length)),), "application/octet-stream")

    def _index(self, caller: Caller, body: bytes) -> Reply:
        document = parse_object(body) if body else {}
        check_keys(body, document)
        only_ready = member(document, "ready", bool, "the request", False)
        return _json([plain(model) for model in self._enquiries.index(caller.tenant, only_ready).models])

    def _load(self, route: Route, caller: Caller, body: bytes) -> Reply:
        document = parse_object(body) if body else {}
        check_keys(body, document)
        parameters = member(document, "parameters", dict, "the request", {})
        self._enquiries.load(caller.tenant, route.model, parameters)
        return _json({})

    def _model_ready(self, route: Route, caller: Caller) -> Reply:
        return _ready(self._enquiries.model_ready(caller.tenant, route.model, route.version), route.model)

    def _metadata(self, route: Route, caller: Caller) -> Reply:
        return _json(plain(self._enquiries.metadata(caller.tenant, route.model, route.version)))

    def _config(self, route: Route, caller: Caller) -> Reply:
        return _json(plain(self._enquiries.config(caller.tenant, route.model, route.version)))

    def _statistics(self, route: Route, caller: Caller) -> Reply:
        return _json(plain(self._enquiries.statistics(caller.tenant, route.model, route.version)))


def error_reply(wire: WireStatus) -> Reply:
    return Reply(wire.http_status, orjson.dumps({"error": wire.message}), wire.http_headers)


def _ready(ready: bool, model: str = "") -> Reply:
    """Not ready is an error to HTTP clients, and 503 to those who balance load."""
    named = {"name": model} if model else {}
    return _json({**named, "ready": ready}, 200 if ready else 503)


def _json(value: Any, status: int = 200, **headers: str) -> Reply:
    return Reply(status, orjson.dumps(value), tuple(headers.items()))


def _header_length(headers: dict[str, str]) -> int | None:
    text = headers.get(HEADER_LENGTH_KEY)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS):
        raise InvalidArgument(f"Inference-Header-Content-Length is a number of bytes; got {text!r:.40}")
    return int(text)
