"""Requests and replies over ASGI: whole bodies, with limits and content encodings."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from headrace_common.compression import deflate, inflate
from headrace_common.errors import Cancelled, DeadlineExceeded, LimitExceeded
from headrace_common.logs import get_logger

Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
T = TypeVar("T")

# Below this, headers outweigh what compression saves.
_COMPRESSED_FROM_BYTES = 1024
_MAX_DIGITS = 18
STALLED_S = 30.0
"""A body of which nothing comes for so long is given up: it holds memory, and Envoy's timeouts would end streams."""
_OFFERED = ("gzip", "deflate")


# Not frozen: one is made for each request.
@dataclass(slots=True)
class Reply:
    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = field(default=())
    content_type: str = "application/json"


def headers_of(scope: Scope) -> dict[str, str]:
    """Names in lower case; of a header that is there twice, the last."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


async def read_body(headers: Mapping[str, str], receive: Receive, limit: int, stalled_s: float = STALLED_S) -> bytes:
    """The whole body, inflated as content-encoding says.

    Raises:
        LimitExceeded: it is larger than `limit` bytes, as sent or inflated.
        InvalidArgument, Unimplemented: as `inflate` does.
        Cancelled: the client went away before it had sent all.
        DeadlineExceeded: it is there and has sent nothing for `stalled_s`.
    """
    now = asyncio.get_running_loop().time
    try:
        async with asyncio.timeout(stalled_s) as patience:

            async def heard() -> Event:
                event = await receive()
                patience.reschedule(now() + stalled_s)
                return event

            return await read_watched(headers, heard, limit)
    except TimeoutError:
        raise DeadlineExceeded(f"nothing of the request's body came for {stalled_s:g} s") from None


async def read_watched(headers: Mapping[str, str], receive: Receive, limit: int) -> bytes:
    """As `read_body`, without an end to its patience: somebody else watches the client."""
    length = headers.get("content-length", "")
    if length.isascii() and length.isdigit() and (len(length) > _MAX_DIGITS or int(length) > limit):
        raise _too_large(limit)
    body = await _whole(receive, limit)
    encoding = headers.get("content-encoding", "").strip().lower()
    return inflate(encoding, body, limit) if encoding else body


async def _whole(receive: Receive, limit: int) -> bytes:
    chunks: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Cancelled("the client went away before its request was complete")
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > limit:
            raise _too_large(limit)
        more = message.get("more_body", False)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def compressed(reply: Reply, accepted: str) -> Reply:
    """The reply in an encoding that the client accepts, where that is worth it.

    Args:
        accepted: the request's accept-encoding.
    """
    encoding = preferred_encoding(accepted) if len(reply.body) >= _COMPRESSED_FROM_BYTES else ""
    if not encoding:
        return reply
    headers = (*reply.headers, ("content-encoding", encoding))
    return replace(reply, body=deflate(encoding, reply.body), headers=headers)


async def send_reply(send: Send, reply: Reply) -> None:
    """Sends a reply; nobody is told if it cannot be, since that is how hosts say that the client has gone."""
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in reply.headers]
    headers += (
        (b"content-type", reply.content_type.encode("latin-1")),
        (b"content-length", b"%d" % len(reply.body)),
    )
    try:
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body, "more_body": False})
    except Exception as error:  # noqa: BLE001 - each host has its own
        get_logger().debug("reply_not_sent", error=repr(error))


def preferred_encoding(accepted: str) -> str:
    """The first that we offer among those that accept-encoding lists and does not forbid by q=0; or ""."""
    for item in accepted.lower().split(","):
        name, _, quality = item.partition(";")
        forbidden = quality.replace(" ", "").startswith("q=0") and not quality.strip("q=0. ")
        if name.strip() in _OFFERED and not forbidden:
            return name.strip()
    return ""


async def unless_gone(work: Awaitable[T], receive: Receive, look_every_s: float) -> T:
    """Awaits `work`; cancels it when the client goes away.

    Some hosts' `receive` waits for the disconnect; others' answers at once and must be asked again.

    Raises:
        Cancelled: the client went away first.
    """
    task = asyncio.ensure_future(work)
    probe: asyncio.Future[MutableMapping[str, Any]] | None = None
    try:
        while True:
            await asyncio.wait({task}, timeout=look_every_s)
            if task.done():
                return task.result()
            probe = asyncio.ensure_future(receive())
            await asyncio.wait({task, probe}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            if probe.result()["type"] == "http.disconnect":
                raise Cancelled("the client went away")
    finally:
        left = [future for future in (task, probe) if future is not None and not future.done()]
        for future in left:
            future.cancel()
        await asyncio.gather(*left, return_exceptions=True)


def _too_large(limit: int) -> LimitExceeded:
    return LimitExceeded(f"the request's body is larger than the {limit} bytes that are accepted")
