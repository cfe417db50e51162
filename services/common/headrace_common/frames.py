"""Messages over a unix socket: each is its length, 4 bytes little-endian, and its bytes.

Between processes of one machine this carries what gRPC would carry, at about a tenth of its cost: no
HTTP/2, no polling threads, one system call per message and side.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from headrace_common.errors import HeadraceError, InvalidArgument
from headrace_common.logs import get_logger

Buffer = bytes | bytearray | memoryview
LENGTH_BYTES = 4
MOST_FRAME_BYTES = (1 << 32) - 1
FRAMES_SUFFIX = ".f"
"""Of the socket beside one that serves gRPC. Short: paths of unix sockets are."""
_UNIX = "unix:"
_ROOM = 1 << 16
"""What is read at once. A longer message gets memory of its own."""


def frames_path(target: str) -> str | None:
    """Where whoever serves gRPC at a target takes frames too; None: it is not on this machine."""
    return target.removeprefix(_UNIX) + FRAMES_SUFFIX if target.startswith(_UNIX) else None


class FrameLink(asyncio.BufferedProtocol):
    """One end of a connection.

    Args:
        receive: takes each message, in order; called in the event loop. If it raises, the link is closed.
        limit: longest message that is taken.

    Attributes:
        ended: done when the connection is gone. Its result says why: "" where it was closed in order.
    """

    def __init__(self, receive: Callable[[Buffer], None], limit: int = MOST_FRAME_BYTES) -> None:
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.peer_finished: Callable[[], None] = self.close
        self._receive = receive
        self._limit = limit
        self._transport: asyncio.Transport | None = None
        self._room = memoryview(bytearray(_ROOM))
        self._filled = 0
        # A message longer than the room, while it comes.
        self._long: memoryview | None = None
        self._reason = ""
        self._finished = self._peer_finished = False

    def send(self, *parts: Buffer) -> None:
        """One message, given in parts. What the socket does not take at once is kept and written later."""
        if self._transport is None or self._finished or self._transport.is_closing():
            return
        size = sum(map(len, parts))
        if size > MOST_FRAME_BYTES:
            raise InvalidArgument(f"a message of {size} bytes is longer than a frame can be ({MOST_FRAME_BYTES})")
        self._transport.writelines((size.to_bytes(LENGTH_BYTES, "little"), *parts))

    def finish(self) -> None:
        """Nothing more will be sent; messages are still received. Once both sides have finished, it ends."""
        if self._transport is None or self._finished or self._transport.is_closing():
            return
        self._finished = True
        if self._peer_finished:
            self._transport.close()
        else:
            self._transport.write_eof()

    def close(self) -> None:
        """Writes what is still kept, and ends."""
        if self._transport is not None:
            self._transport.close()

    def abort(self, reason: str) -> None:
        """Ends at once, also where it has not begun."""
        self._reason = self._reason or reason
        if self._transport is not None:
            self._transport.abort()

    # --- asyncio.BufferedProtocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._reason:
            self._transport.abort()

    def get_buffer(self, sizehint: int) -> memoryview:
        del sizehint
        return (self._room if self._long is None else self._long)[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        try:
            if self._long is None:
                self._take_short()
            elif self._filled == len(self._long):
                message, self._long, self._filled = self._long, None, 0
                self._receive(message)
        except Exception as error:  # noqa: BLE001 - whatever the receiver could not take ends the link, and is told
            if not isinstance(error, HeadraceError):
                get_logger().error("frame_not_taken", error=repr(error), exc_info=error)
            self.abort(error.message if isinstance(error, HeadraceError) else repr(error))

    def eof_received(self) -> bool:
        if self._filled or self._long is not None:
            self.abort("the connection ended inside a message")
            return False
        self._peer_finished = True
        if self._finished:
            return False
        self.peer_finished()
        return True  # Our side stays open until `finish` or `close`.

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(self._reason or (str(exc) if exc is not None else ""))

    # --- inside ---

    def _take_short(self) -> None:
        """Gives out what is whole, and moves what is not to the front or to memory of its own."""
        room, filled, at = self._room, self._filled, 0
        while filled - at >= LENGTH_BYTES:
            start = at + LENGTH_BYTES
            size = int.from_bytes(room[at:start], "little")
            if size > self._limit:
                raise InvalidArgument(f"a message of {size} bytes came; at most {self._limit} are taken")
            if start + size > filled:
                if LENGTH_BYTES + size > len(room):
                    self._begin_long(room[start:filled], size)
                    return
                break
            at = start + size
            self._receive(bytes(room[start:at]))
        left = filled - at
        if at and left:
            room[:left] = bytes(room[at:filled])
        self._filled = left

    def _begin_long(self, begun: memoryview, size: int) -> None:
        self._long = memoryview(bytearray(size))
        self._long[: len(begun)] = begun
        self._filled = len(begun)
