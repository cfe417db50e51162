"""The autoscaler, as the API calls it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import Message

from headrace_common.errors import DeadlineExceeded, Unavailable
from headrace_router.api.rules import Rule
from headrace_router.connections import CHANNEL_OPTIONS

BRIDGE_S = 4.0
"""How long a call waits for an autoscaler that is away: a restart takes less."""

_AWAY = "the autoscaler does not answer at the moment; try again in some seconds"
_STOPPING = "the router is stopping; try again in some seconds"
_LOST = "the connection to the autoscaler broke; whether it did what was asked is not known"


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What goes with a request.

    Attributes:
        metadata: of the caller's.
        deadline: monotonic seconds; None: the caller set none.
    """

    metadata: tuple[tuple[str, str], ...]
    deadline: float | None

    @property
    def time_left_s(self) -> float | None:
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())


class Upstream:
    """One channel. Made inside a running event loop; `close` ends what is in hand.

    Calls raise `grpc.aio.AioRpcError` for what the autoscaler answered, `Unavailable` where it is away, and
    `DeadlineExceeded`. Nothing is sent twice.
    """

    def __init__(self, target: str, bridge_s: float = BRIDGE_S) -> None:
        self._channel = grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS)
        self._bridge_s = bridge_s
        self._closed = False

    async def close(self) -> None:
        self._closed = True
        await self._channel.close()

    async def ask(self, rule: Rule, request: Message, outgoing: Outgoing) -> bytes:
        """The serialised answer of a unary method."""
        await self._connected(outgoing)
        method = self._channel.unary_unary(rule.path, type(request).SerializeToString)
        try:
            answer: bytes = await method(request, timeout=outgoing.time_left_s, metadata=outgoing.metadata)
        except (grpc.aio.AioRpcError, asyncio.CancelledError) as error:
            raise self._explained(error) from None
        return answer

    async def open(self, rule: Rule, request: Message, outgoing: Outgoing) -> Any:
        """A call of a streaming method, for `read`. Who opens it cancels it."""
        await self._connected(outgoing)
        method = self._channel.unary_stream(rule.path, type(request).SerializeToString)
        return method(request, timeout=outgoing.time_left_s, metadata=outgoing.metadata)

    async def read(self, call: Any) -> bytes | None:
        """The next serialised answer; None after the last one."""
        try:
            answer = await call.read()
        except (grpc.aio.AioRpcError, asyncio.CancelledError) as error:
            raise self._explained(error) from None
        return None if answer is grpc.aio.EOF else answer

    async def _connected(self, outgoing: Outgoing) -> None:
        if self._channel.get_state(try_to_connect=True) is grpc.ChannelConnectivity.READY:
            return
        left_s = outgoing.time_left_s
        try:
            async with asyncio.timeout(self._bridge_s if left_s is None else min(self._bridge_s, left_s)):
                await self._channel.channel_ready()
        except TimeoutError:
            if outgoing.time_left_s == 0:
                raise DeadlineExceeded("the deadline passed before the autoscaler could be asked") from None
            raise Unavailable(_AWAY) from None

    def _explained(self, error: grpc.aio.AioRpcError | asyncio.CancelledError) -> BaseException:
        """Transport's words are about sockets, and closing looks like a cancellation: ours are for people."""
        if isinstance(error, asyncio.CancelledError):
            return Unavailable(_STOPPING) if self._closed else error
        lost = self._channel.get_state() is not grpc.ChannelConnectivity.READY
        return Unavailable(_LOST) if error.code() is grpc.StatusCode.UNAVAILABLE and lost else error
