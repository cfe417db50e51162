"""The messages that a client streams, as a servicer reads them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc

from headrace_common.asgi_grpc.call import Call
from headrace_common.asgi_grpc.framing import Framed

_MAX_WAITING = 8
"""Messages read ahead of the servicer. More would take memory from a client that sends faster than we work."""

_FIRST_PAUSE_S = 0.1


class Requests:
    """An async iterator over request messages.

    For a streamed request, `pump` reads ahead of the servicer, because only reading tells that the client
    has gone. For a unary request it holds that one message.
    """

    def __init__(self, call: Call, deserialise: Callable[[bytes], Any]) -> None:
        self._call = call
        self.decode = deserialise
        self._waiting: deque[Framed] = deque()
        self._failure: Exception | None = None
        self._ended = False
        self._changed = asyncio.Event()
        self._pause_s = _FIRST_PAUSE_S

    async def pump(self) -> None:
        """Reads until the client half-closes, breaks a rule, or is gone."""
        try:
            while not self._call.half_closed:
                self._waiting.extend(await self._call.read_messages())
                self._changed.set()
                await self._pause()
        except Exception as error:  # noqa: BLE001 - the servicer gets it when it reads
            self._failure = error
        self._ended = True
        self._changed.set()

    async def _pause(self) -> None:
        """Until there is room. Now and then one more chunk is read all the same, to learn whether the client has
        gone: each time after twice as long as the time before, so that they stay few.
        """
        if len(self._waiting) < _MAX_WAITING:
            return
        try:
            async with asyncio.timeout(self._pause_s):
                while len(self._waiting) >= _MAX_WAITING:
                    self._changed.clear()
                    await self._changed.wait()
            self._pause_s = _FIRST_PAUSE_S
        except TimeoutError:
            self._pause_s *= 2

    async def next_bytes(self) -> bytes | None:
        """The next message; None after the last one."""
        while not self._waiting:
            if self._failure is not None:
                raise self._failure
            if self._ended:
                return None
            self._changed.clear()
            await self._changed.wait()
        framed = self._waiting.popleft()
        self._changed.set()
        return self._call.inflated(framed)

    @property
    def exhausted(self) -> bool:
        """All that the client sent has been taken, and it sends no more."""
        return self._ended and not self._waiting

    def take(self) -> bytes | None:
        """The next message, not decoded, if it has arrived. Raises what ended the reading once all are taken."""
        waiting = self._waiting
        if not waiting:
            if self._failure is not None:
                raise self._failure
            return None
        framed = waiting.popleft()
        if len(waiting) == _MAX_WAITING - 1:
            self._changed.set()
        return self._call.inflated(framed) if framed[0] else framed[1]

    def stir(self) -> None:
        """Wakes who awaits `stirred`."""
        self._changed.set()

    async def stirred(self) -> None:
        """Until something arrives, or ends, or somebody calls `stir`. Look before: what was is not told again."""
        self._changed.clear()
        await self._changed.wait()

    async def read(self) -> Any:
        """The next request, or `grpc.aio.EOF`."""
        message = await self.next_bytes()
        return grpc.aio.EOF if message is None else self.decode(message)

    async def __aiter__(self) -> AsyncIterator[Any]:
        while (message := await self.next_bytes()) is not None:
            yield self.decode(message)
