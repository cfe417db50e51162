"""The router's peers, played: an autoscaler that places one instance, and a runner that answers at once with zeros."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc

from headrace.control.v1 import control_pb2, control_pb2_grpc
from headrace.runner.v1 import runner_pb2, runner_pb2_grpc
from headrace.v1 import models_pb2

WIDTH_OUT = 10
SLOTS = 2
MAX_BATCH = 64
_FLOAT_BYTES = 4


class ZeroRunner(runner_pb2_grpc.RunnerServiceServicer):
    """Answers y, FP32 [rows, 10]."""

    async def Execute(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        yield runner_pb2.ExecuteResponse(grant=runner_pb2.SlotGrant(slots=SLOTS))
        async for message in requests:
            if message.WhichOneof("message") == "bundle":
                yield runner_pb2.ExecuteResponse(result=_answer(message.bundle))


def _answer(bundle: runner_pb2.Bundle) -> runner_pb2.BundleResult:
    rows = sum(bundle.rows)
    data = bytes(_FLOAT_BYTES * WIDTH_OUT * rows)
    output = runner_pb2.Tensor(name="y", datatype="FP32", shape=[rows, WIDTH_OUT], data=data)
    return runner_pb2.BundleResult(bundle_id=bundle.bundle_id, outputs=[output], compute_us=1000)


class OneModel(control_pb2_grpc.ControlServiceServicer):
    """Tells a router of the model "m", x to y, and where its only instance is."""

    def __init__(self, runner_target: str, shape: tuple[int, ...]) -> None:
        signature = models_pb2.Signature(batchable=True)
        signature.inputs.add(name="x", datatype="FP32", shape=[-1, *shape])
        signature.outputs.add(name="y", datatype="FP32", shape=[-1, WIDTH_OUT])
        revision = control_pb2.Revision(
            revision=1, version="1", current=True, max_batch_size=MAX_BATCH, platform="fake", signature=signature
        )
        model = control_pb2.ModelEntry(name="m", tenant="default", revisions=[revision])
        placement = control_pb2.Placement(
            instance_id="i", target=runner_target, model="m", revision=1, state=control_pb2.PLACEMENT_STATE_READY
        )
        self._state = control_pb2.StateUpdate(full=True, version=1, models=[model], placements=[placement])

    async def Sync(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        yield control_pb2.SyncResponse(epoch=1, update=self._state)
        async for _ in requests:
            pass


@asynccontextmanager
async def playing(folder: Path, autoscaler_target: str, shape: tuple[int, ...]) -> AsyncIterator[None]:
    """Both peers listen on unix sockets until the end."""
    runner_target = f"unix:{folder}/runner.sock"
    servers = []
    for target, register in (
        (runner_target, lambda server: runner_pb2_grpc.add_RunnerServiceServicer_to_server(ZeroRunner(), server)),
        (
            autoscaler_target,
            lambda server: control_pb2_grpc.add_ControlServiceServicer_to_server(
                OneModel(runner_target, shape), server
            ),
        ),
    ):
        server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
        register(server)
        server.add_insecure_port(target)
        await server.start()
        servers.append(server)
    try:
        yield
    finally:
        await asyncio.gather(*(server.stop(None) for server in servers))
