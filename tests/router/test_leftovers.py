"""A request that is over leaves nothing that only the garbage collector would free, whichever way it came and ended.

That runs seldom in a router, so that nobody waits for it: what it would have to free piles up until then, bodies too.
"""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from headrace.control.v1 import control_pb2
from headrace.oip import inference_pb2 as pb
from headrace.runner.v1 import runner_pb2
from headrace_common.asgi_grpc.framing import frame
from headrace_common.clock import SystemClock
from headrace_common.telemetry import Telemetry
from headrace_router.app import Router
from headrace_router.ingress.native import Kind, Taken

UNARY = "/inference.GRPCInferenceService/ModelInfer"
STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
REST = "/v2/models/{model}/infer"
POISON = 666.0
REQUESTS = 40
MOST = REQUESTS // 4
"""Objects that may be left after as many requests: what else the process does."""

Send = Callable[[bytes, bytes], Awaitable[str]]
"""Sends a request of a tenant and waits for its answer, whatever it is."""


class ScriptedFilter:
    """Stands for ingress.c: hands over what a test queues, and keeps the last answer."""

    def __init__(self) -> None:
        self.descriptor = os.eventfd(0, os.EFD_NONBLOCK)
        self.queued: list[Taken] = []
        self.answered = asyncio.Event()
        self.answer: Any = None

    def open(self, _message_bytes: int, _held_bytes: int, _timeout_s: float) -> int:
        return self.descriptor

    def push(self, tenant: bytes, body: bytes) -> None:
        self.queued.append((1, Kind.WHOLE, 0.0, tenant, None, None, body, b"", b"", ()))
        os.eventfd_write(self.descriptor, 1)

    def take(self, _most: int) -> list[Taken]:
        os.eventfd_read(self.descriptor)
        taken, self.queued = self.queued, []
        return taken

    def waiting(self) -> int:
        return 0

    def is_gone(self, _stream: int) -> int:
        return 0

    def give_up(self, _now: float) -> int:
        return 0

    def reply(self, replies: list[tuple[int, bytes]]) -> int:
        self.answer = replies
        self.answered.set()
        return 0

    def fail(self, _stream: int, _code: int, message: bytes, _details: bytes) -> None:
        self.answer = message
        self.answered.set()


def by_filter(_router: Router, library: ScriptedFilter) -> Send:
    async def send(tenant: bytes, body: bytes) -> str:
        library.answered.clear()
        library.push(tenant, body)
        await library.answered.wait()
        return str(library.answer)

    return send


def by_asgi(path: str, encode: Callable[[bytes], bytes], content_type: bytes) -> Callable[..., Send]:
    def make(router: Router, _library: ScriptedFilter) -> Send:
        async def send(tenant: bytes, body: bytes) -> str:
            content = encode(body)
            model = pb.ModelInferRequest.FromString(body).model_name
            headers = [
                (b"content-type", content_type),
                (b"x-headrace-tenant", tenant),
                (b"content-length", b"%d" % len(content)),
            ]
            scope = {
                "type": "http", "path": path.format(model=model), "method": "POST",
                "headers": headers, "query_string": b"",
                "server": ("127.0.0.1", 80), "client": ("127.0.0.1", 1),
            }  # fmt: skip
            events = [{"type": "http.request", "body": content, "more_body": False}]
            sent: list[Any] = []

            async def receive() -> Any:
                return events.pop() if events else await asyncio.Event().wait()

            async def tell(event: Any) -> None:
                sent.append(event)

            await router.serve(scope, receive, tell)
            return str(sent)

        return send

    return make


def as_json(body: bytes) -> bytes:
    request = pb.ModelInferRequest.FromString(body)
    data = b"".join(request.raw_input_contents)
    values = np.frombuffer(data[: len(data) // 4 * 4], "<f4").tolist()
    tensor = {"name": "x", "datatype": "FP32", "shape": list(request.inputs[0].shape), "data": values}
    return str({"inputs": [tensor]}).replace("'", '"').encode()


DOORS = {
    "the filter": by_filter,
    "gRPC": by_asgi(UNARY, frame, b"application/grpc"),
    "a gRPC stream": by_asgi(STREAM, frame, b"application/grpc"),
    "REST": by_asgi(REST, as_json, b"application/json"),
}


def message(value: float = 1.0, size: int = 2, model: str = "m") -> bytes:
    request = pb.ModelInferRequest(model_name=model, raw_input_contents=[np.full(size, value, "<f4").tobytes()])
    request.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    return request.SerializeToString()


ENDS = {
    "answered": (b"t", message(), "y"),
    "over the rate": (b"often", message(), "requests_per_second"),
    "over the budget": (b"broke", message(), "all spent"),
    "of a model that is not there": (b"t", message(model="nonesuch"), "nonesuch"),
    "of a shape that is not the model's": (b"t", message(size=1), "shape"),
    "failed by the engine": (b"t", message(POISON), "engine failed"),
    "of a tenant that has no such name": (b"no name", message(), "tenant"),
}


@pytest.fixture
async def library() -> AsyncIterator[ScriptedFilter]:
    made = ScriptedFilter()
    yield made
    os.close(made.descriptor)


@pytest.fixture
async def router(
    make_context: Callable[..., Any], scripts: SimpleNamespace, eventually: Any, library: ScriptedFilter
) -> AsyncIterator[Router]:
    """A whole router whose reports, which make cycles of their own, are seldom."""
    context = make_context(demand_period_s=10.0)
    control, runner = peers(context, scripts)
    await control.start()
    await runner.start()
    telemetry = Telemetry.start("router-0", context.mesh.telemetry)
    made = Router(context, telemetry, SystemClock(), library)  # type: ignore[arg-type]
    async with made.running():
        await eventually(lambda: made.plane.demand().message.runners)
        yield made
    await runner.stop()
    await control.stop()


def peers(context: Any, scripts: SimpleNamespace) -> tuple[Any, Any]:
    async def poisoned(bundle: runner_pb2.Bundle) -> Any:
        if np.frombuffer(bundle.inputs[0].data, "<f4")[0] == POISON:
            return scripts.failed(bundle, runner_pb2.BUNDLE_ERROR_CODE_ENGINE_FAILED)
        return await scripts.echo(bundle)

    runner = scripts.runner(f"unix:{context.runtime_dir}/r", poisoned)
    control = scripts.control(context.autoscaler_target)
    entry = scripts.model_entry()
    entry.tenant, entry.shared_with[:] = "t", ["*"]
    control.full.models.append(entry)
    control.full.placements.append(scripts.placement("r", runner.target))
    often = control_pb2.QuotaLease(tenant="often", weight=1.0)
    often.limits.requests_per_second = 0.001
    broke = control_pb2.QuotaLease(
        tenant="broke", weight=1.0, budget_state=control_pb2.BUDGET_STATE_EXHAUSTED_REFUSE, budget_reason="all spent"
    )
    control.full.leases.extend([often, broke])
    return control, runner


@contextmanager
def collector_off() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("door", DOORS)
async def test_a_request_leaves_nothing_to_the_collector(
    door: str, end: str, router: Router, library: ScriptedFilter
) -> None:
    send = DOORS[door](router, library)
    tenant, body, said = ENDS[end]
    async with asyncio.timeout(20):
        for _ in range(4):
            came = await send(tenant, body)
        assert said in came
        with collector_off():
            for _ in range(REQUESTS):
                await send(tenant, body)
            left = gc.collect()
    assert left < MOST
