"""The router's real hot routes, from a request to its answer, in this process and between played peers.

One begins where Envoy's filter hands requests over, the other with an ASGI call.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import struct
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from benchmarks.micro.peers import playing
from headrace.oip import inference_pb2 as oip
from headrace_common.clock import SystemClock
from headrace_common.config import MeshConfig, ProcessContext, RouterConfig
from headrace_common.telemetry import Telemetry
from headrace_router.app import Router
from headrace_router.ingress.native import IngressLibrary, Taken

_HEADERS = [
    (b"content-type", b"application/grpc"),
    (b"te", b"trailers"),
    (b"user-agent", b"h2load nghttp2/1.52.0"),
    (b"x-headrace-tenant", b"bench"),
]
_FLOAT_BYTES = 4
_READY_WITHIN_S = 30.0
# The router's own timers are none of a request's business.
_SELDOM_S = 10.0


class Route:
    """A router that is up, with the model "m"."""

    def __init__(self, router: Router, played: PlayedFilter, shape: tuple[int, ...]) -> None:
        self._router = router
        self._filter = played
        self.body = framed(shape)

    async def ask_by_filter(self, count: int) -> None:
        """So many requests at once, as Envoy's filter hands them over. Raises RuntimeError for one that fails."""
        await self._filter.ask(self.body[5:], count)

    async def ask(self, count: int) -> None:
        """So many requests at once, each in a task, as the server does it. Raises RuntimeError for one that fails."""
        await asyncio.gather(*(self._one() for _ in range(count)))

    async def _one(self) -> None:
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": self.body, "more_body": False}

        async def send(event: Any) -> None:
            sent.append(event)

        scope = {
            "type": "http",
            "path": "/inference.GRPCInferenceService/ModelInfer",
            "headers": _HEADERS,
            "server": ("127.0.0.1", 8080),
            "client": ("127.0.0.1", 1),
        }
        await self._router.serve(scope, receive, send)
        if (b"grpc-status", b"0") not in sent[-1]["headers"]:
            raise RuntimeError(f"the router answered {sent[-1]}")


class PlayedFilter(IngressLibrary):
    """The filter's part, without Envoy: the same calls, and messages taken apart by the same code."""

    def __init__(self) -> None:
        super().__init__()
        self._event = os.eventfd(0, os.EFD_NONBLOCK)
        self._queue: list[Taken] = []
        self._left = 0
        self._answered = asyncio.Event()
        self._failure = ""
        self.take = self._take
        self.reply = self._reply
        self.is_gone = self.give_up = lambda _: 0

    async def ask(self, message: bytes, count: int) -> None:
        header, request_id, spans = self.split(message)
        now = time.monotonic()
        taken = (0, 0, now, b"bench", None, None, message, header, request_id, spans)
        self._queue = [(number + 1, *taken[1:]) for number in range(count)]
        self._left = count
        self._answered.clear()
        os.eventfd_write(self._event, 1)
        await self._answered.wait()
        if self._failure:
            raise RuntimeError(self._failure)

    def open(self, max_message_bytes: int, max_held_bytes: int, arrival_timeout_s: float) -> int:
        return self._event

    def fail(self, stream: int, code: int, message: bytes, details: bytes) -> None:
        self._failure = f"the router answered {code}: {message.decode()}"
        self._count(1)

    def _take(self, most: int) -> list[Taken]:
        os.eventfd_read(self._event)
        taken, self._queue = self._queue, []
        return taken

    def _reply(self, answers: list[tuple[int, bytes]]) -> int:
        self._count(len(answers))
        return 0

    def _count(self, answered: int) -> None:
        self._left -= answered
        if not self._left:
            self._answered.set()


def framed(shape: tuple[int, ...]) -> bytes:
    """A ModelInferRequest of one row of zeros, behind gRPC's five bytes."""
    size = _FLOAT_BYTES
    for length in shape:
        size *= length
    request = oip.ModelInferRequest(model_name="m", raw_input_contents=[bytes(size)])
    request.inputs.add(name="x", datatype="FP32", shape=[1, *shape])
    message = request.SerializeToString()
    return b"\0" + struct.pack(">I", len(message)) + message


@asynccontextmanager
async def route(shape: tuple[int, ...]) -> AsyncIterator[Route]:
    """Rows of this shape, FP32. Raises TimeoutError where the router does not come up."""
    folder = Path(tempfile.mkdtemp(prefix="hr-"))
    config = RouterConfig(sweep_period_s=_SELDOM_S, demand_period_s=_SELDOM_S)
    context = ProcessContext(process="router-0", state_dir=folder, runtime_dir=folder, mesh=MeshConfig(router=config))
    telemetry = Telemetry.start(context.process, context.mesh.telemetry, 0.0)
    try:
        async with playing(folder, context.autoscaler_target, shape):
            played = PlayedFilter()
            router = Router(context, telemetry, SystemClock(), played)
            async with router.running():
                async with asyncio.timeout(_READY_WITHIN_S):
                    while not router.plane.catalogue.ready:  # noqa: ASYNC110 - nothing tells
                        await asyncio.sleep(0.01)
                made = Route(router, played, shape)
                await made.ask(1)
                yield made
    finally:
        telemetry.shutdown()
        shutil.rmtree(folder)
