"""The gRPC face of the runner: convert, call, convert."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc

from headrace.runner.v1 import runner_pb2 as pb
from headrace.runner.v1 import runner_pb2_grpc
from headrace_common.errors import InvalidArgument
from headrace_common.outbox import Outbox
from headrace_common.validation import validate
from headrace_runner.runner import Runner
from headrace_runner.streams import serve

_DEFAULT_GRACE_S = 30.0


class RunnerServicer(runner_pb2_grpc.RunnerServiceServicer):
    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    async def GetStatus(self, _request: pb.GetStatusRequest, _context: Any) -> pb.GetStatusResponse:
        return pb.GetStatusResponse(status=self._runner.status())

    async def WatchStatus(
        self, _request: pb.WatchStatusRequest, _context: Any
    ) -> AsyncIterator[pb.WatchStatusResponse]:
        async for status in self._runner.watch():
            yield pb.WatchStatusResponse(status=status)

    async def Load(self, request: pb.LoadRequest, _context: Any) -> pb.LoadResponse:
        validate(request)
        return await self._runner.load(request)

    async def Unload(self, request: pb.UnloadRequest, _context: Any) -> pb.UnloadResponse:
        grace_s = request.grace.ToNanoseconds() / 1e9 if request.HasField("grace") else _DEFAULT_GRACE_S
        self._runner.unload(max(0.0, grace_s), request.reason or "unload", request.epoch)
        return pb.UnloadResponse()

    async def GetStats(self, _request: pb.GetStatsRequest, _context: Any) -> pb.GetStatsResponse:
        return self._runner.measures.stats()

    async def Execute(self, _requests: Any, context: Any) -> None:
        first = await context.read()
        if first is grpc.aio.EOF:
            return
        if first.WhichOneof("message") != "attach":
            raise InvalidArgument("Execute: the first message must be attach, which says which instance is meant")
        outbox: Outbox[pb.ExecuteResponse] = Outbox()
        stream = self._runner.attach(first.attach, outbox)
        try:
            await serve(stream, outbox, context)
        finally:
            self._runner.detach(stream)
