"""How a runner is reached: by frames over a socket beside it, or by gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc

from headrace.runner.v1 import runner_pb2
from headrace_common import chunks
from headrace_common.frames import Buffer, FrameLink, frames_path
from headrace_common.logs import get_logger
from headrace_common.outbox import FrameOutbox, Outbox, Sending

_log = get_logger()
MOST_FRAME_BYTES = chunks.MOST_BUNDLE_BYTES + chunks.MESSAGE_BYTES
EXECUTE = "/headrace.runner.v1.RunnerService/Execute"
LOCAL_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 10),
    ("grpc.min_reconnect_backoff_ms", 10),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.use_local_subchannel_pool", 1),
)
"""Of a channel to one process of the mesh."""
CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", chunks.MOST_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", chunks.MOST_MESSAGE_BYTES),
    *LOCAL_OPTIONS,
)
"""To a runner: what is larger comes in chunks."""


class Stream:
    """One Execute stream. What is written to it goes by the outbox that `attach` is given."""

    def __init__(
        self,
        instance: str,
        attach: Callable[[Sending[bytes]], None],
        receive: Callable[[runner_pb2.ExecuteResponse], None],
        is_ending: Callable[[], bool],
    ) -> None:
        """
        Args:
            instance: the runner's, for the log.
            attach: is called once there is a connection.
            receive: is called with each message.
            is_ending: nothing is expected of the runner any more: that it closes is in order.
        """
        self._instance = instance
        self._attach = attach
        self._receive = receive
        self._is_ending = is_ending

    async def run(self, target: str, execute: Callable[[], Any]) -> str:
        """Until it ends: by frames where the runner is on this machine and takes them.

        Args:
            execute: calls by gRPC.

        Returns:
            Why it broke; "" where it ended in order.

        Raises:
            grpc.aio.AioRpcError: it broke.
        """
        path = frames_path(target)
        link = FrameLink(self._receive_frame, MOST_FRAME_BYTES)
        try:
            if path is None:
                raise FileNotFoundError
            await asyncio.get_running_loop().create_unix_connection(lambda: link, path)
        except OSError:
            return await self._by_grpc(execute())
        return await self._by_frames(link)

    async def _by_frames(self, link: FrameLink) -> str:
        link.peer_finished = lambda: link.abort("" if self._is_ending() else "the runner closed it")
        self._attach(FrameOutbox(link, _as_it_is))
        try:
            return await asyncio.shield(link.ended)
        finally:
            link.abort("")

    async def _by_grpc(self, call: Any) -> str:
        outbox: Outbox[bytes] = Outbox()
        self._attach(outbox)
        writer = asyncio.create_task(_write(outbox, call))
        try:
            while (message := await call.read()) is not grpc.aio.EOF:
                self._receive(message)
                del message  # Or it would be held while the next one is waited for.
            status = await call.code()
            return "" if status is grpc.StatusCode.OK else f"{status.name}: {await call.details()}"
        finally:
            writer.cancel()
            call.cancel()
            await asyncio.wait([writer])
            _note(writer, self._instance)

    def _receive_frame(self, message: Buffer) -> None:
        self._receive(runner_pb2.ExecuteResponse.FromString(bytes(message)))


async def _write(outbox: Outbox[bytes], call: Any) -> None:
    while (payload := await outbox.next()) is not None:
        await call.write(payload)
        del payload
    await call.done_writing()


def _note(writer: asyncio.Task[None], instance: str) -> None:
    """A writer fails with its stream, whose reader says why; anything else is our mistake."""
    error = None if writer.cancelled() else writer.exception()
    if error is not None and not isinstance(error, grpc.aio.AioRpcError | asyncio.InvalidStateError):
        _log.error("runner writer failed", instance=instance, error=repr(error))


def _as_it_is(message: bytes) -> bytes:
    return message
