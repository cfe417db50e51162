"""Execute for routers on the same machine: the same messages, by frames instead of gRPC."""

from __future__ import annotations

import asyncio
from pathlib import Path

from headrace.runner.v1 import runner_pb2 as pb
from headrace_common import chunks
from headrace_common.errors import HeadraceError, InvalidArgument
from headrace_common.frames import Buffer, FrameLink
from headrace_common.logs import get_logger
from headrace_common.outbox import FrameOutbox
from headrace_runner.runner import Runner
from headrace_runner.streams import ExecuteStream


class BundleSocket:
    """Listens between `start` and `stop`."""

    def __init__(self, runner: Runner, path: Path) -> None:
        self._runner = runner
        self._path = path
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_unix_server(lambda: _Session(self._runner).link, str(self._path))
        except OSError as error:  # Such as a path that is a byte too long; routers come by gRPC then.
            get_logger().warning("no_frames", reason=str(error), effect="routers on this machine use gRPC")

    def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        self._path.unlink(missing_ok=True)


class _Session:
    """One router's connection."""

    def __init__(self, runner: Runner) -> None:
        self.link = FrameLink(self._receive, chunks.MOST_BUNDLE_BYTES + chunks.MESSAGE_BYTES)
        self.link.ended.add_done_callback(self._over)
        self._runner = runner
        self._stream: ExecuteStream | None = None

    def _receive(self, message: Buffer) -> None:
        request = pb.ExecuteRequest.FromString(bytes(message))
        if self._stream is not None:
            self._stream.receive(request)
        elif request.WhichOneof("message") == "attach":
            self._attach(request.attach)
        else:
            raise InvalidArgument("Execute: the first message must be attach, which says which instance is meant")

    def _attach(self, attach: pb.Attach) -> None:
        outbox = FrameOutbox(self.link, pb.ExecuteResponse.SerializeToString)
        self._stream = self._runner.attach(attach, outbox)
        self.link.peer_finished = self._stream.half_close

    def _over(self, ended: asyncio.Future[str]) -> None:
        stream = self._stream
        if stream is None:
            reason = ended.result()
        else:
            stream.close()
            self._runner.detach(stream)
            failure = stream.failure
            reason = failure.message if isinstance(failure, HeadraceError) else ended.result()
        if reason:
            get_logger().warning("router_connection_ended", reason=reason)
