"""What is sent on one stream: by gRPC, where it waits to be written, or by frames, where it does not.

Whole messages go in order, and long bundles chunk by chunk in between.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeVar

from headrace_common.frames import Buffer, FrameLink

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)


class Sending(Protocol[T_contra]):
    """What is sent on a stream, whatever it goes by."""

    def put(self, message: T_contra, /) -> None:
        """In order."""
        ...

    def put_long(self, bundle_id: int, messages: Iterator[T_contra], /) -> None:
        """A bundle and its chunks."""
        ...

    def withdraw(self, bundle_id: int, instead: T_contra, /) -> None:
        """Sends `instead` after what has been sent of the bundle, and no more chunks of it."""
        ...

    def close(self) -> None:
        """Nothing follows what has been put."""
        ...

    def end(self) -> None:
        """Ends at once."""
        ...


class _Transfer(Generic[T]):
    """One bundle: its message, then its chunks."""

    __slots__ = ("begun", "key", "left")

    def __init__(self, key: int, left: Iterator[T]) -> None:
        self.key = key
        self.left = left
        self.begun = False


class Outbox(Generic[T]):
    """Filled and emptied on one event loop.

    Messages and transfers take turns, and so do transfers: a bundle of many chunks keeps neither a short one
    nor a cancellation waiting.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._messages: deque[T] = deque()
        self._transfers: deque[_Transfer[T]] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._transfer_turn = False
        self._closed = False
        self._ended = False

    def put(self, message: T) -> None:
        self._messages.append(message)
        self._wake()

    def put_long(self, bundle_id: int, messages: Iterator[T]) -> None:
        """A bundle and its chunks. They are made one at a time, when they are due."""
        self._transfers.append(_Transfer(bundle_id, messages))
        self._wake()

    def withdraw(self, bundle_id: int, instead: T) -> None:
        """Sends `instead` after what has been sent of the bundle, and no more chunks of it."""
        for transfer in self._transfers:
            if transfer.key == bundle_id:
                # The peer must know of a bundle before it can give it up.
                first = () if transfer.begun else (next(transfer.left),)
                transfer.left = iter((*first, instead))
                return
        self.put(instead)

    def close(self) -> None:
        """`next` answers None once all is written."""
        self._closed = True
        self._wake()

    def end(self) -> None:
        """`next` answers None at once."""
        self._ended = True
        self._wake()

    async def next(self) -> T | None:
        """What to write; waits for it."""
        while not self._ended:
            if self._transfers and (self._transfer_turn or not self._messages):
                self._transfer_turn = False
                transfer = self._transfers.popleft()
                message = next(transfer.left, None)
                if message is not None:
                    transfer.begun = True
                    self._transfers.append(transfer)
                    return message
            elif self._messages:
                self._transfer_turn = True
                return self._messages.popleft()
            elif self._closed:
                break
            else:
                self._waiter = self._loop.create_future()
                await self._waiter
        return None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class FrameOutbox(Generic[T]):
    """`Sending` over a `FrameLink`: there is nothing to wait for, and no limit that asks for chunks."""

    def __init__(self, link: FrameLink, serialise: Callable[[T], Buffer]) -> None:
        self._link = link
        self._serialise = serialise

    def put(self, message: T) -> None:
        self._link.send(self._serialise(message))

    def put_long(self, bundle_id: int, messages: Iterator[T]) -> None:
        del bundle_id
        for message in messages:
            self.put(message)

    def withdraw(self, bundle_id: int, instead: T) -> None:
        del bundle_id
        self.put(instead)

    def close(self) -> None:
        self._link.finish()

    def end(self) -> None:
        self._link.close()
