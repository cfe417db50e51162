"""Streams of bytes both ways, for a route where every microsecond counts.

The host does what waits: it reads, writes, and holds the client back. What the messages mean is for an
`Exchange`, which does no I/O, so that a request costs no task and many answers leave as one event.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import grpc

from headrace_common.asgi_grpc.call import Call
from headrace_common.asgi_grpc.requests import Requests


class Exchange(Protocol):
    """One call: serialised messages go in one by one, and others come out, many at once.

    Attributes:
        has_room: `take` may be called; while it is false the client is held back.
        in_hand: messages that were taken and whose answers have not been collected.
    """

    @property
    def has_room(self) -> bool: ...

    @property
    def in_hand(self) -> int: ...

    def take(self, message: bytes) -> None:
        """An error that is raised here ends the call."""
        ...

    def collect(self) -> list[bytes]:
        """Answers that are ready, at most as many as make an event of reasonable size."""
        ...

    def close(self) -> None:
        """The call is over, however it ended; nothing is collected any more."""
        ...


OpenExchange = Callable[[Call, Callable[[], None]], Exchange]
"""Given the call and what to call when there is something to collect. Raises what refuses the call."""


def exchange_handler(call: Call, open_exchange: OpenExchange) -> Any:
    """The `grpc.RpcMethodHandler` by which `serve` runs an exchange: deadlines and endings are those of any call."""

    async def behave(requests: Requests, _context: object) -> None:
        await _run(call, requests, open_exchange(call, requests.stir))

    return grpc.stream_stream_rpc_method_handler(behave)


async def _run(call: Call, requests: Requests, exchange: Exchange) -> None:
    try:
        while True:
            # While answers are written nothing is taken: who does not read is not read from.
            while exchange.has_room and (message := requests.take()) is not None:
                exchange.take(message)
            answers = exchange.collect()
            if answers:
                await call.write_all(answers)
            elif requests.exhausted and not exchange.in_hand:
                return
            else:
                await requests.stirred()
    finally:
        exchange.close()
