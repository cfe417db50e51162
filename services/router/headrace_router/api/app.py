"""The JSON form of headrace.v1 as an ASGI application: decode, call the autoscaler, encode."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

import grpc
import orjson
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message

from headrace_common.config import MIB
from headrace_common.errors import Cancelled, InvalidArgument
from headrace_common.grpc_server import log_failure
from headrace_common.identity import TENANT_KEY, tenant_of
from headrace_router.api.decode import decode_request
from headrace_router.api.encode import encode_message, error_of_call, error_of_wire, error_reply
from headrace_router.api.rules import Found, Rule, Rules, WrongVerb
from headrace_router.api.upstream import BRIDGE_S, Outgoing, Upstream
from headrace_router.oip.caller import TRACEPARENT_KEY, caller_of_headers
from headrace_router.oip.http import (
    Receive,
    Reply,
    Scope,
    Send,
    compressed,
    headers_of,
    read_body,
    send_reply,
    unless_gone,
)

T = TypeVar("T")

# Manifests are a few KiB; artifacts go by gRPC.
MAX_BODY_BYTES = 4 * MIB
# More than this is converted in a thread: inference shares the event loop, and must not wait for it.
_INLINE_BYTES = 32 * 1024
_START = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]}


def is_api_path(path: str) -> bool:
    return path == "/v1" or path.startswith("/v1/")


class ApiApp:
    """ASGI application for `http` scopes whose path begins with /v1. Made inside a running event loop.

    Args:
        services: whose methods with google.api.http annotations are served.
        target: the autoscaler's.
        look_every_s: how often a request in hand looks whether its client is still there.
        bridge_s: how long a request waits for an autoscaler that is away.
    """

    def __init__(
        self, services: Iterable[ServiceDescriptor], target: str, look_every_s: float, bridge_s: float = BRIDGE_S
    ) -> None:
        self._rules = Rules(services)
        self._upstream = Upstream(target, bridge_s)
        self._look_every_s = look_every_s

    async def close(self) -> None:
        """Ends the calls in hand."""
        await self._upstream.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = headers_of(scope)
        try:
            found = self._rules.find(scope["method"], _raw_path(scope))
            request, outgoing = await self._read(scope, found, headers, receive)
            if found.rule.streams:
                await self._stream(found.rule, request, outgoing, receive, send)
                return
            answer = await unless_gone(self._upstream.ask(found.rule, request, outgoing), receive, self._look_every_s)
            reply = Reply(200, await _off_loop(len(answer), lambda: _encode(found.rule, answer)))
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an answer and the log the rest
            reply = _refusal(scope, error)
        await send_reply(send, compressed(reply, headers.get("accept-encoding", "")))

    async def _read(
        self, scope: Scope, found: Found, headers: dict[str, str], receive: Receive
    ) -> tuple[Message, Outgoing]:
        arrived = time.monotonic()
        timeout_s = caller_of_headers(headers).time_left_s
        outgoing = Outgoing(_metadata(scope), None if timeout_s is None else arrived + timeout_s)
        body = await read_body(headers, receive, MAX_BODY_BYTES)
        query: bytes = scope["query_string"]
        return await _off_loop(len(body), lambda: decode_request(found, query, body)), outgoing

    async def _stream(self, rule: Rule, request: Message, outgoing: Outgoing, receive: Receive, send: Send) -> None:
        """A JSON array, element by element. An error after the first is the last element: {"error": ...}."""
        call = await unless_gone(self._upstream.open(rule, request, outgoing), receive, self._look_every_s)
        try:
            # Up to here an error has its own HTTP status.
            answer = await self._next(call, receive)
            await send(dict(_START))
            before = b"["
            while answer is not None:
                await send(_part(before + _encode(rule, answer)))
                before = b",\n"
                try:
                    answer = await self._next(call, receive)
                except Cancelled:
                    return
                except Exception as error:  # noqa: BLE001 - the status line has been sent
                    told = orjson.loads(_refusal({"method": "stream", "path": rule.path}, error).body)
                    await send(_part(before + orjson.dumps({"error": told})))
                    break
            await send(_part(b"[]" if before == b"[" else b"]", more=False))
        finally:
            call.cancel()

    async def _next(self, call: object, receive: Receive) -> bytes | None:
        return await unless_gone(self._upstream.read(call), receive, self._look_every_s)


def _encode(rule: Rule, answer: bytes) -> bytes:
    return encode_message(rule.response.FromString(answer))


def _part(body: bytes, more: bool = True) -> dict[str, object]:
    return {"type": "http.response.body", "body": body, "more_body": more}


async def _off_loop(size: int, work: Callable[[], T]) -> T:
    return await asyncio.to_thread(work) if size > _INLINE_BYTES else work()


def _refusal(scope: Scope, error: Exception) -> Reply:
    if isinstance(error, WrongVerb):
        message = f"{scope['path']} takes {error.allowed}; got {scope['method']}"
        return error_reply(grpc.StatusCode.UNIMPLEMENTED, message, None, 405, (("allow", error.allowed),))
    if isinstance(error, grpc.aio.AioRpcError):
        return error_of_call(error)
    return error_of_wire(log_failure(f"{scope['method']} {scope['path']}", error))


def _raw_path(scope: Scope) -> str:
    """With its escapes, so that an escaped "/" is part of a name. Envoy lets only ASCII come here."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    return raw.partition(b"?")[0].decode("latin-1")


def _metadata(scope: Scope) -> tuple[tuple[str, str], ...]:
    """Who calls, as often as it is said, and as part of which trace.

    Raises:
        Unauthenticated: as `tenant_of` does.
        InvalidArgument: a trace's name that gRPC cannot carry.
    """
    metadata: list[tuple[str, str]] = []
    for name, value in scope["headers"]:
        key, text = name.decode("latin-1"), value.decode("latin-1")
        if key == TENANT_KEY:
            metadata.append((key, tenant_of(text)))
        elif key == TRACEPARENT_KEY:
            if not (text.isascii() and text.isprintable()):
                raise InvalidArgument(f"{TRACEPARENT_KEY} is ASCII text; got {text!r:.60}")
            metadata.append((key, text))
    return tuple(metadata)
